"""Atrous (dilated) convolutions."""

from .common import BesidePeers, Layers, of_kind


class Atrous(Layers):
    layers = of_kind("atrous")


class AtrousBesidePeers(BesidePeers):
    layers = Atrous.layers
