"""Transposed convolutions, as decoders have them."""

from .common import BesidePeers, Layers, of_kind


class Transposed(Layers):
    layers = of_kind("transposed")


class TransposedBesidePeers(BesidePeers):
    layers = Transposed.layers
