"""The layers that are timed, and how: `fastconv bench` and the asv suite share it."""

from fastconv.bench.layers import LAYERS, MORE_LAYERS, Case, case, find, layer
from fastconv.bench.report import Console, bench
from fastconv.bench.timing import Measurement, best_time, measure

__all__ = [
    "LAYERS",
    "MORE_LAYERS",
    "Case",
    "Console",
    "Measurement",
    "bench",
    "best_time",
    "case",
    "find",
    "layer",
    "measure",
]
