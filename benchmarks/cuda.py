"""The layers of the other files on a CUDA device; "not available", which asv shows as skipped, where there is none."""

from abc import ABC, abstractmethod

import fastconv as fc
from fastconv.bench import find
from fastconv.bench.device import cudnn_case, cudnn_why_not, device_case, device_step, device_time
from fastconv.bench.training import STEPS

from .common import of_kind


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
        _, self.problem = find(name)
        self.case = device_case(self.problem)

    def track_gflops(self, name):
        return self.problem.operations / device_time(self.case) / 1e9

    track_gflops.unit = "GFLOP/s"

    def track_ratio_to_cudnn(self, name):
        reason = cudnn_why_not(self.problem)
        if reason:
            return float("nan")
        return device_time(cudnn_case(self.problem)) / device_time(self.case)

    track_ratio_to_cudnn.unit = "cuDNN's time over fastconv's"


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
    params = [name for name in of_kind("transposed") if not name.startswith("grad")]


class GradientsOnDevice(OnDevice):
    params = [name for name in of_kind("transposed", "weights") if name.startswith("grad")]


class TrainingOnDevice:
    params, param_names = list(STEPS), ("network",)

    def setup(self, name):
        if not fc.cuda.is_available():
            raise NotImplementedError(f"not available: {fc.cuda.why_not()}")
        self.step = device_step(STEPS[name])

    def track_milliseconds(self, name):
        return 1e3 * device_time(self.step)

    track_milliseconds.unit = "ms, forwards and backwards"
