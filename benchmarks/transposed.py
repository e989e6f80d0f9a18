"""Transposed convolutions, as decoders have them."""

from .common import Layers, of_kind


class Transposed(Layers):
    params = [name for name in of_kind("transposed") if not name.startswith("grad")]
