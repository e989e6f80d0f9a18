"""The layers that are timed, and how, beside which other libraries: `fastconv bench` and the asv suite share it."""

from fastconv.bench.article import article
from fastconv.bench.chains import CHAINS, Chain
from fastconv.bench.compare import Comparison, best_in_turn, compare
from fastconv.bench.layers import LAYERS, MORE_LAYERS, OTHER_LAYERS, SURVEY_LAYERS, TABLES, Case, asking, case, find, layer, segment
from fastconv.bench.peers import PEERS, Peer
from fastconv.bench.report import QUICK, Console, bench, selected, tune
from fastconv.bench.timing import Measurement, best_time, measure

__all__ = [
    "CHAINS",
    "LAYERS",
    "MORE_LAYERS",
    "OTHER_LAYERS",
    "PEERS",
    "QUICK",
    "SURVEY_LAYERS",
    "TABLES",
    "Case",
    "Chain",
    "Comparison",
    "Console",
    "Measurement",
    "Peer",
    "article",
    "asking",
    "bench",
    "best_in_turn",
    "best_time",
    "case",
    "compare",
    "find",
    "layer",
    "measure",
    "segment",
    "selected",
    "tune",
]
