"""The layers on a CUDA device: the same problems as the CPU's benchmarks, beside cuDNN through PyTorch.

Two times of each: of a call, between two events of the device, of calls that follow one another; and, where PyTorch is, of the
device alone, which replays such calls as a graph. For one small image a call is Python's work, not the device's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import cuda, functional, grad
from fastconv.bench.chains import CHAINS, Chain, Timed, convolutions, filled
from fastconv.bench.layers import AnyProblem, segment, step
from fastconv.bench.peers import _imported, _torch_step, _torch_why_not
from fastconv.bench.report import Console, progress
from fastconv.bench.training import Step

CALLS = 20  # between two events
SAMPLES = 10
WARM = 3  # calls before a graph is captured: the first one compiles and packs, the second is taken down


def torch_on_device() -> Any:
    """PyTorch, if it finds a device, or None."""
    try:
        torch = _imported("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def there(array: Any) -> Any:
    """A NumPy array on the device: a tensor, whose memory PyTorch keeps at hand, or an array of Numba's."""
    if array is None:
        return None
    cuda.kernels()  # says why not
    from fastconv.cuda.device import cuda as target

    torch = torch_on_device()
    return target.to_device(array) if torch is None else torch.from_numpy(array).to("cuda")


def device_case(problem: Timed) -> Callable[[], Any]:
    """A problem or a chain as a call, with arrays of random numbers that lie on the device.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    runs = []
    for part in filled(problem):
        moved = [
            [replace(c, weight=there(c.weight), bias=there(c.bias), residual=there(c.residual)) for c in layer]
            for layer in part.layers
        ]  # fmt: skip
        runs.append((there(part.x), [step(layer) for layer in moved]))
    return lambda: [_through(x, steps) for x, steps in runs][-1]


def _through(x: Any, steps: Sequence[Callable[[Any], Any]]) -> Any:
    for one in steps:
        x = one(x)
    return x


def device_step(step: Step) -> Callable[[], Any]:
    """Forwards and backwards through the network of a training step, on the device; gives the gradient of its pictures.

    All that the step does but the loss and Adam, which are arithmetic of the arrays' own library.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    kernels = cuda.kernels()
    layers = fc.ConvAutoencoder(step.x_shape[1], step.channels, separable=step.separable, rng=0)._layers
    for layer in layers:
        layer.weight, layer.bias = there(layer.weight), there(layer.bias)
    x = there(np.random.default_rng(0).random(step.x_shape, np.float32))

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


# Times -----------------------------------------------------------------------------------------------------------------


def device_time(call: Callable[[], Any], samples: int = SAMPLES, calls: int = CALLS) -> float:
    """The shortest time of one call in seconds, of so many samples. The first two calls are not counted."""
    from fastconv.cuda.device import cuda as target

    call(), call()
    best = float("inf")
    for _ in range(samples):
        start, stop = target.event(), target.event()
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        best = min(best, start.elapsed_time(stop) / 1e3 / calls)
    return best


def replayed_time(call: Callable[[], Any]) -> float:
    """The same of the device alone, which replays a graph of calls of PyTorch's tensors; NaN without PyTorch."""
    torch = torch_on_device()
    if torch is None:
        return float("nan")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(CALLS):
            call()
    return device_time(graph.replay, calls=1) / CALLS


def device_bytes(call: Callable[[], Any]) -> int:
    """The most memory that a call holds at once on the device, beside what was there before; -1 without PyTorch, which counts."""
    torch = torch_on_device()
    if torch is None:
        return -1
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return int(torch.cuda.max_memory_allocated() - before)


# Beside cuDNN -----------------------------------------------------------------------------------------------------------


def cudnn_why_not(problem: Timed) -> str | None:
    """None, or why cuDNN is not asked."""
    try:
        _imported("torch")
    except ImportError:
        return "pip install torch"
    if torch_on_device() is None:
        return "PyTorch finds no device"
    return next(filter(None, map(_torch_why_not, convolutions(problem))), None)


def cudnn_case(problem: Timed) -> Callable[[], Any]:
    """The problem as PyTorch computes it on the device: by the algorithm that cuDNN finds fastest, in full float32 as here.

    (TF32, which PyTorch allows convolutions unless told otherwise, rounds a thousand times coarser.)
    """
    torch = _imported("torch")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    runs = [
        (there(part.x), [_torch_step(torch, c, there) for c in part.convolutions]) for part in filled(problem)
    ]  # fmt: skip
    return lambda: [_through(x, steps) for x, steps in runs][-1]


@dataclass(frozen=True)
class OnDevice:
    """What was measured of a layer or chain, in seconds: of a call and of the device alone, ours and cuDNN's; NaN if not."""

    name: str
    kernel: str
    operations: int
    call: float
    alone: float
    cudnn_call: float
    cudnn_alone: float


def on_device(name: str, problem: Timed) -> OnDevice:
    """Measure one."""
    call = device_case(problem)
    times = device_time(call), replayed_time(call)
    cudnn = float("nan"), float("nan")
    if cudnn_why_not(problem) is None:
        other = cudnn_case(problem)
        cudnn = device_time(other), replayed_time(other)
    kernel = "" if isinstance(problem, Chain) else kernel_of(problem)
    return OnDevice(name, kernel, problem.operations, *times, *cudnn)


def kernel_of(problem: AnyProblem) -> str:
    """Which kernel the device's plan picks."""
    from fastconv.plan import choose

    here, implementations, _ = cuda.kernels().offers(there(segment([problem]).x))
    return choose(problem, implementations, here.multiprocessors).implementation.name


def bench_device(found: Sequence[tuple[str, AnyProblem]], chains: Sequence[str] = (), file: Any = None) -> list[OnDevice]:
    """Time layers and chains on the device, and print a table.

    Raises
    ------
    RuntimeError
        If there is no device, with the reason.
    """
    cuda.kernels()
    from fastconv.cuda.device import cuda as target

    device = target.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    problems: list[tuple[str, Timed]] = [*found, *((chain, CHAINS[chain]) for chain in chains)]
    measured = [on_device(*one) for one in progress(problems, "layers")]
    console = Console(file)
    rows = [
        [m.name, m.kernel, *(f"{1e6 * t:.1f}" for t in (m.call, m.alone, m.cudnn_call, m.cudnn_alone)),
         f"{m.operations / m.alone / 1e9:.0f}", f"{m.cudnn_alone / m.alone:.2f}"] for m in measured
    ]  # fmt: skip
    heads = ["layer", "kernel", "call us", "alone us", "cuDNN call", "cuDNN alone", "GFLOP/s", "x cuDNN"]
    console.table(f"{name}; float32 without TF32; the device alone, replaying a graph; ratios of that", heads, rows)
    return measured
