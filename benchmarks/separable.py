"""Depthwise separable convolutions, in one pass."""

from .common import BesidePeers, Layers, of_kind


class Separable(Layers):
    layers = of_kind("separable")


class SeparableBesidePeers(BesidePeers):
    layers = Separable.layers
