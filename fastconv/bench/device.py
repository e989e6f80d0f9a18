"""The layers on a CUDA device: the same problems as the CPU's benchmarks, beside cuDNN through PyTorch.

Times are the device's own, between two events, of calls that are launched one after the other. No time was ever taken with
this yet: it has run on Numba's simulator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastconv import cuda
from fastconv.bench.layers import AnyProblem, parts, segment, step
from fastconv.bench.peers import _imported, _torch_step, _torch_why_not

CALLS = 20  # between two events: a launch costs some microseconds, which a queue of them hides


def device_case(problem: AnyProblem) -> Callable[[], Any]:
    """A problem as a call, with arrays of random numbers that lie on the device.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    cuda.kernels()
    from fastconv.cuda.device import cuda as target

    filled = segment([problem])
    [convolutions] = filled.layers
    moved = [
        replace(c, weight=target.to_device(c.weight), bias=None if c.bias is None else target.to_device(c.bias),
                residual=None if c.residual is None else target.to_device(c.residual)) for c in convolutions
    ]  # fmt: skip
    function, x = step(moved), target.to_device(filled.x)
    return lambda: function(x)


def device_time(call: Callable[[], Any], repetitions: int = 10) -> float:
    """The shortest time of one call in seconds, of so many samples of `CALLS` calls. The first call is not counted."""
    from fastconv.cuda.device import cuda as target

    call()
    best = float("inf")
    for _ in range(repetitions):
        start, stop = target.event(), target.event()
        start.record()
        for _ in range(CALLS):
            call()
        stop.record()
        stop.synchronize()
        best = min(best, start.elapsed_time(stop) / 1e3 / CALLS)
    return best


def cudnn_why_not(problem: AnyProblem) -> str | None:
    """None, or why cuDNN is not asked."""
    try:
        torch = _imported("torch")
    except ImportError:
        return "pip install torch"
    if not torch.cuda.is_available():
        return "PyTorch finds no device"
    return next(filter(None, map(_torch_why_not, parts(problem))), None)


def cudnn_case(problem: AnyProblem) -> Callable[[], Any]:
    """The problem as PyTorch computes it on the device, in full float32 as here: TF32 rounds a hundred times coarser."""
    torch = _imported("torch")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    filled = segment([problem])
    steps = [_torch_step(torch, c, lambda array: torch.from_numpy(array).to("cuda")) for c in filled.convolutions]
    x = torch.from_numpy(filled.x).to("cuda")

    def call() -> Any:
        y = x
        for one in steps:
            y = one(y)
        return y

    return call
