"""Standard convolutions, grouped ones among them."""

from .common import Layers, of_kind


class Standard(Layers):
    params = of_kind("standard")
