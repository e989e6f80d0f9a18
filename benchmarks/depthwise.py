"""Depthwise convolutions."""

from .common import Layers, of_kind


class Depthwise(Layers):
    params = of_kind("depthwise")
