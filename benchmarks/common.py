"""What the files of the suite share: where its layers come from, and the two sorts of benchmark that every kind has.

At each commit of a history the package is that commit's, but the tables of layers, the peers and the way of timing are this
checkout's: `fastconv.bench` is imported from here. So a name means the same layer, timed in the same way, at all of them; what
a commit cannot compute, it skips.

asv takes a larger number for a worse one. Ratios are therefore fastconv's time over something else's, measured in turn in one
process: whatever slows the machine is in both.
"""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType

import fastconv as fc

if "fastconv.bench" not in sys.modules:
    sys.modules["fastconv.bench"] = here = ModuleType("fastconv.bench")
    here.__path__ = [str(Path(__file__).resolve().parents[1] / "fastconv" / "bench")]

from fastconv.bench.chains import CHAINS
from fastconv.bench.compare import compare
from fastconv.bench.layers import LAYERS, MORE_LAYERS, asking, find, segment, step
from fastconv.bench.peers import PEERS
from fastconv.bench.timing import best_time
from fastconv.cpu.machine import fma_peak

# asv finds a result by the position of its parameters, so they may not depend on the commit or the machine.
ALGORITHMS = ("auto", "direct", "tiled", "winograd")
PEERS_BY_NAME = {peer.name: peer for peer in PEERS}
THREADS = (1, "all")

SECONDS = 0.3  # for a call whose best time a ratio takes, and for each of those beside it
ALL_THREADS = fc.get_num_threads()


def of_kind(*kinds):
    """The names of the layers of some kinds; the gradients among them are a kind of their own, "gradient"."""
    named = {**LAYERS, **MORE_LAYERS}.items()
    return [name for name, problem in named if ("gradient" if name.startswith("grad") else problem.kind) in kinds]


def set_threads(threads):
    """Let calls use so many."""
    if threads == "all" and ALL_THREADS == 1:
        raise NotImplementedError("there is one processor, and one thread was timed")
    fc.set_num_threads(ALL_THREADS if threads == "all" else threads)


def called(name, algorithm="auto"):
    """A layer and an image; a call of the one with the other allocates its result, as a user's does. It ran once already."""
    problem = asking(find(name)[1], algorithm)
    filled = segment([problem])
    [convolutions] = filled.layers
    layer = step(convolutions)
    layer(filled.x)  # planned, packed and compiled
    return problem, layer, filled.x


class Layers(ABC):
    """Times layers by every algorithm; a file of the suite says which layers. (asv skips an abstract class.)"""

    param_names = ("layer", "algorithm", "threads")
    rounds, repeat, warmup_time = 1, (3, 20, 0.3), 0.05

    @property
    @abstractmethod
    def layers(self):
        """Their names."""

    @property
    def params(self):
        return [self.layers, ALGORITHMS, THREADS]

    def setup(self, name, algorithm, threads):
        set_threads(threads)
        try:
            self.problem, self.layer, self.x = called(name, algorithm)
        except ValueError as error:  # what a layer says to an algorithm that cannot compute it
            raise NotImplementedError(str(error)) from error

    def time_layer(self, name, algorithm, threads):
        self.layer(self.x)

    def track_time_over_peak(self, name, algorithm, threads):
        peak = fma_peak(self.problem.dtype) * 1e9 * fc.get_num_threads()
        return round(best_time(lambda: self.layer(self.x), SECONDS) * peak / self.problem.operations, 4)

    track_time_over_peak.unit = "x the peak's time"


class BesidePeers(ABC):
    """fastconv's time over another library's, where that is installed; a file of the suite says of which layers or chains."""

    param_names = ("layer", "peer", "threads")

    @property
    @abstractmethod
    def layers(self):
        """Their names."""

    @property
    def params(self):
        return [self.layers, list(PEERS_BY_NAME), THREADS]

    def setup(self, name, peer, threads):
        set_threads(threads)
        self.problem = CHAINS[name] if name in CHAINS else find(name)[1]
        self.peer = PEERS_BY_NAME[peer]
        if reason := self.peer.missing() or self.peer.refuses(self.problem):
            raise NotImplementedError(reason)

    def track_time_over_peer(self, name, peer, threads):
        return round(1 / compare(self.problem, SECONDS, peers=[self.peer], peak=1.0).ratio, 4)

    track_time_over_peer.unit = "x the peer's time"
