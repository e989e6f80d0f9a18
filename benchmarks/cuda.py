"""The other files' benchmarks on a CUDA device; "not available", which asv shows as skipped, where there is none."""

from abc import ABC, abstractmethod

import numpy as np

import fastconv as fc

from .calls import TINY
from .common import CHAINS, find, of_kind, segment
from .start import FIRST_CALL_ON_DEVICE, LARGE, FirstCall

# After common, which says whose fastconv.bench.
from fastconv.bench import device  # isort: skip
from fastconv.bench.training import STEPS  # isort: skip


def need_a_device():
    if not fc.cuda.is_available():
        raise NotImplementedError(f"not available: {fc.cuda.why_not()}")


class OnDevice(ABC):
    """Times layers by name, on the device's clock; below, one class for each file of the suite."""

    param_names = ("layer",)

    @property
    @abstractmethod
    def params(self):
        """Names of layers."""

    def setup(self, name):
        need_a_device()
        self.problem = CHAINS[name] if name in CHAINS else find(name)[1]
        self.case = device.device_case(self.problem)

    def track_seconds(self, name):
        return device.device_time(self.case)

    track_seconds.unit = "s"

    def track_seconds_of_the_device_alone(self, name):
        return device.replayed_time(self.case)

    track_seconds_of_the_device_alone.unit = "s"

    def track_time_over_cudnn(self, name):
        """Of the device alone."""
        if device.cudnn_why_not(self.problem):
            return float("nan")
        return round(device.replayed_time(self.case) / device.replayed_time(device.cudnn_case(self.problem)), 4)

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


class ChainsOnDevice(OnDevice):
    params = list(CHAINS)


class TrainingOnDevice:
    params, param_names = list(STEPS), ("network",)

    def setup(self, name):
        need_a_device()
        self.step = device.device_step(STEPS[name])

    def track_milliseconds(self, name):
        return 1e3 * device.device_time(self.step)

    track_milliseconds.unit = "ms, forwards and backwards"


class CallsOnDevice:
    """What a call costs beside its arithmetic; the device waits for Python."""

    params, param_names = list(TINY), ("function",)

    def setup(self, name):
        need_a_device()
        filled = segment([find(TINY[name])[1]])
        x, weights = device.there(filled.x), [device.there(c.weight) for c in filled.convolutions]
        function, layer = getattr(fc, name), device.device_case(find(TINY[name])[1])
        out = device.there(np.empty(find(TINY[name])[1].out_shape, np.float32))
        self.calls = {
            "function": lambda: function(x, *weights), "layer": layer, "out": lambda: function(x, *weights, out=out),
        }  # fmt: skip

    def track_function(self, name):
        return 1e6 * device.device_time(self.calls["function"])

    def track_function_with_out(self, name):
        return 1e6 * device.device_time(self.calls["out"])

    def track_layer(self, name):
        return 1e6 * device.device_time(self.calls["layer"])

    track_function.unit = track_function_with_out.unit = track_layer.unit = "us"


class CallsOnDeviceBesideCudnn(OnDevice):
    params = list(TINY.values())


class FirstCallOnDevice(FirstCall):
    code = FIRST_CALL_ON_DEVICE

    def setup(self, name, kernels):
        need_a_device()


class MemoryOnDevice:
    """The most that a call holds on the device: its result and scratch."""

    params, param_names = LARGE, ("layer",)

    def setup(self, name):
        need_a_device()
        self.case = device.device_case(find(name)[1])

    def track_bytes(self, name):
        return device.device_bytes(self.case)

    track_bytes.unit = "bytes"
