"""Atrous (dilated) convolutions."""

from .common import Layers, of_kind


class Atrous(Layers):
    params = of_kind("atrous")
