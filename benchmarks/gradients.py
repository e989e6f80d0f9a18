"""Gradients with respect to inputs and weights."""

from .common import BesidePeers, Layers, of_kind


class Gradients(Layers):
    layers = of_kind("gradient")


class GradientsBesidePeers(BesidePeers):
    layers = Gradients.layers
