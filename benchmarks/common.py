"""What the files of the suite share."""

from abc import ABC, abstractmethod

import fastconv as fc
from fastconv.bench import LAYERS, MORE_LAYERS, PEERS, best_time, case, compare, find
from fastconv.cpu.machine import fma_peak

SECONDS = 0.5  # a measurement, and each of its peers


def of_kind(*kinds):
    """The names of the layers of some kinds."""
    return [name for name, problem in {**LAYERS, **MORE_LAYERS}.items() if problem.kind in kinds]


class Layers(ABC):
    """Times layers by name, on one thread; a file of the suite says which. (asv skips an abstract class.)"""

    param_names = ("layer",)

    @property
    @abstractmethod
    def params(self):
        """Names of layers."""

    def setup(self, name):
        fc.set_num_threads(1)
        _, self.problem = find(name)
        self.case = case(self.problem)
        self.case()  # compiled before it is timed

    def time_layer(self, name):
        self.case()

    def track_gflops(self, name):
        return self.problem.operations / best_time(self.case, SECONDS) / 1e9

    track_gflops.unit = "GFLOP/s"

    def track_peak_share(self, name):
        # The peak is measured with it, so that a clock which both ran at cancels.
        return self.track_gflops(name) / fma_peak(self.problem.dtype)

    track_peak_share.unit = "of the multiply-add peak"


def ratio_to(peer):
    """A benchmark: the peer's time over fastconv's, both measured in turn; skipped where the peer cannot take part."""

    def track(self, name):
        return compare(self.problem, SECONDS, peers=[peer]).ratio

    def setup(name):  # asv skips by what a setup raises, not by what the benchmark itself does
        _, problem = find(name)
        if peer.missing() or peer.refuses(problem):
            raise NotImplementedError

    track.setup, track.unit = setup, "peer's time over fastconv's"
    return track


for peer in PEERS:
    setattr(Layers, f"track_ratio_to_{peer.name.replace(' ', '_')}", ratio_to(peer))
