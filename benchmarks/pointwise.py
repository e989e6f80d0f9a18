"""Pointwise (1x1) convolutions."""

from .common import BesidePeers, Layers, of_kind


class Pointwise(Layers):
    layers = of_kind("pointwise")


class PointwiseBesidePeers(BesidePeers):
    layers = Pointwise.layers
