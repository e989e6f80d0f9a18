"""The layers on a CUDA device: the same problems as the CPU's benchmarks, beside cuDNN through PyTorch.

Times are the device's own, between two events, of calls that are launched one after the other. No time was ever taken with
this yet: it has run on Numba's simulator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import cuda, functional, grad
from fastconv.bench.layers import AnyProblem, parts, segment, step
from fastconv.bench.peers import _imported, _torch_step, _torch_why_not
from fastconv.bench.training import Step

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


def device_step(step: Step) -> Callable[[], Any]:
    """Forwards and backwards through the network of a training step, on the device; gives the gradient of its pictures.

    All that the step does but the loss and Adam, which are arithmetic of the arrays' own library.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    kernels = cuda.kernels()
    from fastconv.cuda.device import cuda as target

    layers = fc.ConvAutoencoder(step.x_shape[1], step.channels, separable=step.separable, rng=0)._layers
    for layer in layers:
        layer.weight = target.to_device(layer.weight)
        layer.bias = None if layer.bias is None else target.to_device(layer.bias)
    x = target.to_device(np.random.default_rng(0).random(step.x_shape, np.float32))

    def call() -> Any:
        passed = [x]
        for layer in layers:
            passed.append(layer.forward(passed[-1]))
        gradient = passed[-1]
        for layer, before, after in zip(layers[::-1], passed[-2::-1], passed[:0:-1], strict=True):
            if layer.activation:
                gradient = kernels.through_activation(functional.ask(layer.forward, before).problem, after, gradient)
            layer._grad_weight(before, gradient)
            if layer.bias is not None:
                grad.conv2d_bias(gradient)
            gradient = layer._grad_input(before, gradient)
        return gradient

    return call


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
