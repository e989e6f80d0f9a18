"""Standard convolutions, grouped ones among them."""

from .common import BesidePeers, Layers, of_kind


class Standard(Layers):
    layers = of_kind("standard")


class StandardBesidePeers(BesidePeers):
    layers = Standard.layers
