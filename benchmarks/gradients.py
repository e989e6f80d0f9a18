"""Gradients with respect to inputs and weights."""

from .common import Layers, of_kind


class Gradients(Layers):
    params = [name for name in of_kind("transposed", "weights") if name.startswith("grad")]
