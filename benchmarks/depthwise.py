"""Depthwise convolutions."""

from .common import BesidePeers, Layers, of_kind


class Depthwise(Layers):
    layers = of_kind("depthwise")


class DepthwiseBesidePeers(BesidePeers):
    layers = Depthwise.layers
