"""Depthwise separable convolutions, in one pass."""

from .common import Layers, of_kind


class Separable(Layers):
    params = of_kind("separable")
