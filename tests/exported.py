"""What the tests of the C library share: a problem as C has it, and a file of problems for tests/export/check.c."""

import ctypes

import cases
import numpy as np

import fastconv
from fastconv.problem import DTYPES, PADDING_MODES

I32, I64, THREE = ctypes.c_int32, ctypes.c_int64, ctypes.c_int64 * 3
ACTIVATIONS = ("identity", "relu", "relu6", "clip", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu")


class CProblem(ctypes.Structure):
    """As fastconv.h has it."""

    _fields_ = (
        *((name, I32) for name in ("dtype", "operation", "dimensions", "channels_last")),
        *((name, I64) for name in ("batch", "channels", "filters", "groups")),
        *((name, THREE) for name in ("space", "kernel", "stride", "dilation", "before", "after", "output_padding")),
        *((name, I32) for name in ("padding_mode", "bias", "activation")), ("low", ctypes.c_double), ("high", ctypes.c_double), 
        *((name, I32) for name in ("precision", "direct")),
        ("x_image", I64), ("x_channel", I64), ("x_steps", THREE), ("parts", I32),
    )  # fmt: skip


def as_c(problem, **more):
    """A `Problem` in C's words."""
    activation, a = str(problem.activation).split(":")[0] or "identity", problem.activation
    return CProblem(
        dtype=DTYPES.index(problem.dtype), operation=problem.operation == "transposed", dimensions=problem.dimensions,
        channels_last=problem.data_format == "channels_last", batch=problem.batch, channels=problem.channels,
        filters=problem.filters, groups=problem.groups, space=THREE(*problem.space), kernel=THREE(*problem.kernel),
        stride=THREE(*problem.stride), dilation=THREE(*problem.dilation), before=THREE(*(b for b, _ in problem.pads)),
        after=THREE(*(a for _, a in problem.pads)), output_padding=THREE(*problem.output_padding),
        padding_mode=PADDING_MODES.index(problem.padding_mode), bias=("none", "channel", "pixel").index(problem.bias),
        activation=ACTIVATIONS.index(activation), low=a.low, high=a.high,
        **more,
    )  # fmt: skip


def written(file, lines, rng, error=0.0, **more):
    """Write problems, their arrays and the reference's results into a file; `error` as a share of conv(|x|, |weight|)."""
    for line in lines:
        problem = cases.parse(line)
        given = cases.arrays(problem, rng)
        want = np.ascontiguousarray(cases.call(fastconv.reference, problem, given))
        parts = cases.parts(problem)
        file.write(np.int64(len(parts)).tobytes())
        for part in parts:
            file.write(bytes(as_c(part, **more)))
        scale = 1e-5 if problem.dtype == "float32" else 1e-13
        bound = scale * max(1, np.abs(want).max(initial=0)) if cases.rounded(problem) else 0
        bound += cases.STEEPEST * error * cases.largest(problem, given).max(initial=0) if error else 0
        file.write(np.float64(bound).tobytes())
        names = [name for prefix in ("depthwise_", "pointwise_") for name in (f"{prefix}weight", f"{prefix}bias")]
        arrays = ["x", *(names if len(parts) == 2 else ("weight", "bias")), "residual"]
        for array in (*(given.get(name) for name in arrays), want):
            numbers = b"" if array is None else array.tobytes()
            file.write(np.int64(len(numbers)).tobytes() + numbers)
