"""What the files of the suite share."""

from abc import ABC, abstractmethod

import fastconv as fc
from fastconv.bench import LAYERS, MORE_LAYERS, best_time, case, find


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
        return self.problem.operations / best_time(self.case, seconds=0.5) / 1e9

    track_gflops.unit = "GFLOP/s"
