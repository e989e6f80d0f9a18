"""Pointwise (1x1) convolutions."""

from .common import Layers, of_kind


class Pointwise(Layers):
    params = of_kind("pointwise")
