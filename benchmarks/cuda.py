"""The layers of the other files on a CUDA device; "not available", which asv shows as skipped, where there is none."""

from abc import ABC, abstractmethod

import fastconv as fc

from .common import find, of_kind

# After common, which says whose fastconv.bench.
from fastconv.bench.device import cudnn_case, cudnn_why_not, device_case, device_step, device_time  # isort: skip
from fastconv.bench.training import STEPS  # isort: skip


class OnDevice(ABC):
    """Times layers by name, on the device's clock; below, one class for each file of the suite."""

    param_names = ("layer",)

    @property
    @abstractmethod
    def params(self):
        """Names of layers."""

    def setup(self, name):
        if not fc.cuda.is_available():
            raise NotImplementedError(f"not available: {fc.cuda.why_not()}")
        self.problem = find(name)[1]
        self.case = device_case(self.problem)

    def track_seconds(self, name):
        return device_time(self.case)

    track_seconds.unit = "s"

    def track_time_over_cudnn(self, name):
        if cudnn_why_not(self.problem):
            return float("nan")
        return round(device_time(self.case) / device_time(cudnn_case(self.problem)), 4)

    track_time_over_cudnn.unit = "x cuDNN's time"


class StandardOnDevice(OnDevice):
    params = of_kind("standard")


class PointwiseOnDevice(OnDevice):
    params = of_kind("pointwise")


class DepthwiseOnDevice(OnDevice):
    params = of_kind("depthwise")


class SeparableOnDevice(OnDevice):
    params = of_kind("separable")


class AtrousOnDevice(OnDevice):
    params = of_kind("atrous")


class TransposedOnDevice(OnDevice):
    params = of_kind("transposed")


class GradientsOnDevice(OnDevice):
    params = of_kind("gradient")


class TrainingOnDevice:
    params, param_names = list(STEPS), ("network",)

    def setup(self, name):
        if not fc.cuda.is_available():
            raise NotImplementedError(f"not available: {fc.cuda.why_not()}")
        self.step = device_step(STEPS[name])

    def track_milliseconds(self, name):
        return 1e3 * device_time(self.step)

    track_milliseconds.unit = "ms, forwards and backwards"
