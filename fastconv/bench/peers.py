"""Other libraries that compute the same layers: how each is asked to, and, where it cannot, why not.

A peer is called as its users call it: weights are converted and compiled ahead, each call allocates its own result, and no
call checks or copies more than that library's own Python interface does. None is needed to import this module.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastconv.bench.chains import Timed, convolutions
from fastconv.bench.layers import Array, Convolution, Segment
from fastconv.epilogue import Activation
from fastconv.problem import Problem

Call = Callable[[], Sequence[Any]]  # computes all segments, and gives the result of each

ONNX_OPSET, ONNX_IR = 20, 9  # the first opset with Gelu, and the oldest format that has it: older runtimes read it too


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes
    ----------
    name : str
        What it is called here.
    packages : tuple of str
        What is imported, and by the same names installed.
    why_not : callable
        From a Problem to None, or the reason why the library cannot compute it.
    build : callable
        From segments and a number of threads to a call without arguments that gives a list of results.
    mode : callable
        Gives the context in which the library is built and called.
    """

    name: str
    packages: tuple[str, ...]
    why_not: Callable[[Problem], str | None]
    build: Callable[[Sequence[Segment], int], Call]
    mode: Callable[[], AbstractContextManager[Any]] = nullcontext

    def missing(self) -> str | None:
        """None, or how to install what is missing."""
        if all(importlib.util.find_spec(package) for package in self.packages):
            return None
        return f"pip install {' '.join(self.packages)}"

    def refuses(self, problem: Timed) -> str | None:
        """None, or the reason why the library cannot compute the problem or one of its parts."""
        return next(filter(None, map(self.why_not, convolutions(problem))), None)


def _imported(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library's import says of its own dependencies is not for our users
        return importlib.import_module(name)


def one_after_another(runs: Sequence[tuple[Any, Sequence[Callable[[Any], Any]]]]) -> Call:
    """The call that takes each run's image through all of its steps in turn."""

    def call() -> list[Any]:
        results = []
        for y, steps in runs:
            for step in steps:
                y = step(y)
            results.append(y)
        return results

    return call


def _common(problem: Problem) -> str | None:
    """Why no peer is asked."""
    if problem.bias == "pixel":
        return "a bias for each pixel is not compared"
    if min(map(min, problem.pads)) < 0:
        return "has no negative padding"
    return None


# PyTorch -------------------------------------------------------------------------------------------------------------

TORCH_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def _torch_why_not(problem: Problem) -> str | None:
    if problem.padding_mode not in TORCH_MODES:
        return f"has no padding mode {problem.padding_mode!r}"
    if problem.operation == "transposed" and any(before != after for before, after in problem.pads):
        return "crops the result of a transposed convolution by as much before as after"
    if problem.operation == "weights" and (problem.data_format == "channels_last" or any(b != a for b, a in problem.pads)):
        return "its gradients are compared for channels first, padded by as much before as after"
    return _common(problem)


def _torch_channels_last_why_not(problem: Problem) -> str | None:
    return "has no such memory format for signals" if problem.dimensions == 1 else _torch_why_not(problem)


def _torch(segments: Sequence[Segment], threads: int, channels_last: bool = False) -> Call:
    torch = _imported("torch")
    torch.set_num_threads(threads)

    def placed(array: Array) -> Any:
        tensor = torch.from_numpy(array)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return tensor.to(memory_format=formats[tensor.ndim]) if channels_last and tensor.ndim in formats else tensor

    def run_of(segment: Segment) -> tuple[Any, list[Callable[[Any], Any]]]:
        steps = [_torch_step(torch, c, placed) for c in segment.convolutions]
        if segment.convolutions[0].problem.data_format == "channels_last":  # a view: torch goes by an image's strides
            return torch.from_numpy(segment.x).movedim(-1, 1), [*steps, lambda y: y.movedim(1, -1)]
        return placed(segment.x), steps

    return one_after_another([run_of(segment) for segment in segments])


def _torch_channels_last(segments: Sequence[Segment], threads: int) -> Call:
    return _torch(segments, threads, channels_last=True)


def _torch_mode() -> AbstractContextManager[Any]:
    return _imported("torch").inference_mode()  # around all calls, as its users have it: entering it takes 2 us


def _torch_step(torch: Any, convolution: Convolution, placed: Callable[[Array], Any]) -> Callable[[Any], Any]:
    """From a tensor to the convolved one, its residual and its activation computed in place."""
    problem, functional = convolution.problem, torch.nn.functional
    if problem.operation == "weights":
        return _torch_weight_gradient(torch, problem, placed(convolution.weight))
    weight = placed(convolution.weight)
    bias = None if convolution.bias is None else placed(convolution.bias)
    activate, residual = _torch_activation(torch, problem.activation), _channels_first(convolution)
    if residual is not None:
        more, only_activate = placed(residual), activate
        activate = lambda y: only_activate(y.add_(more))  # noqa: E731
    stride, dilation, groups = problem.stride, problem.dilation, problem.groups
    evenly = [before for before, _ in problem.pads]
    if problem.operation == "transposed":
        convolve = getattr(functional, f"conv_transpose{problem.dimensions}d")
        extra = problem.output_padding
        return lambda x: activate(convolve(x, weight, bias, stride, evenly, extra, groups, dilation))
    convolve = getattr(functional, f"conv{problem.dimensions}d")
    if problem.padding_mode == "zeros" and all(before == after for before, after in problem.pads):
        return lambda x: activate(convolve(x, weight, bias, stride, evenly, dilation, groups))
    border, mode = sum(reversed(problem.pads), ()), TORCH_MODES[problem.padding_mode]
    return lambda x: activate(convolve(functional.pad(x, border, mode), weight, bias, stride, 0, dilation, groups))


def _channels_first(convolution: Convolution) -> Array | None:
    """The residual, if there is one, as all peers order it: channels first; a view."""
    residual = convolution.residual
    if residual is None or convolution.problem.data_format == "channels_first":
        return residual
    return np.moveaxis(residual, -1, 1)


def _torch_weight_gradient(torch: Any, problem: Problem, above: Any) -> Callable[[Any], Any]:
    """What autograd calls, of which only the weights' gradient is asked for."""
    weight, evenly, none = above.new_empty(problem.weight_shape), [before for before, _ in problem.pads], [0] * problem.dimensions
    geometry = (problem.stride, evenly, problem.dilation, False, none, problem.groups, [False, True, False])
    backward = torch.ops.aten.convolution_backward
    return lambda x: backward(above, x, weight, None, *geometry)[1]


def _torch_activation(torch: Any, activation: Activation) -> Callable[[Any], Any]:
    functional = torch.nn.functional
    if str(activation) == "relu":
        return torch.relu_
    return {
        "identity": lambda y: y,
        "clip": partial(torch.clamp_, min=activation.low, max=activation.high),
        "leaky_relu": partial(functional.leaky_relu_, negative_slope=activation.low),
        "sigmoid": torch.sigmoid_,
        "tanh": torch.tanh_,
        "silu": partial(functional.silu, inplace=True),
        "hardswish": partial(functional.hardswish, inplace=True),
        "gelu": functional.gelu,
    }[activation.name]


# The graph that ONNX Runtime and OpenVINO run, in which they fuse what they can -----------------------------------------


def _graph_why_not(problem: Problem) -> str | None:
    if problem.operation == "weights":
        return "computes no gradients"
    if problem.dtype != "float32":
        return "computes float32 only"
    if problem.padding_mode != "zeros":
        return f"has no convolution with padding mode {problem.padding_mode!r}"
    return _common(problem)


class _Graph:
    """An ONNX graph that grows node by node; a value is known by its name."""

    def __init__(self) -> None:
        self.onnx = _imported("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operation: str, *operands: str | Array | np.floating[Any], **attributes: Any) -> str:
        """Add a node; arrays among its operands become constants."""
        names = [self._named(operand) for operand in operands]
        value = f"value{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operation, names, [value], **attributes))
        return value

    def _named(self, operand: str | Array | np.floating[Any]) -> str:
        if isinstance(operand, str):
            return operand
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(operand), name))
        return name

    def serialized(self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> bytes:
        """The graph as a model, from the names and shapes of what goes in and comes out."""
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        ends = [[helper.make_tensor_value_info(name, float32, shape) for name, shape in end.items()] for end in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "fastconv", *ends, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", ONNX_OPSET)], ir_version=ONNX_IR)
        return model.SerializeToString()


def _onnx_model(segments: Sequence[Segment]) -> bytes:
    """One graph for all segments, whose inputs are x0, x1, ... and whose outputs come in the same order."""
    graph = _Graph()
    inputs, outputs = {}, {}
    for i, segment in enumerate(segments):
        first, last = segment.convolutions[0].problem, segment.convolutions[-1].problem
        axes = range(first.dimensions + 2)
        to_front, to_back = (0, axes[-1], *axes[1:-1]), (0, *axes[2:], 1)
        value = f"x{i}"
        inputs[value] = first.x_shape
        if first.data_format == "channels_last":  # ONNX knows no other order than channels first
            value = graph.node("Transpose", value, perm=to_front)
        for convolution in segment.convolutions:
            value = _onnx_convolution(graph, value, convolution)
            residual = _channels_first(convolution)
            if residual is not None:
                value = graph.node("Add", value, residual)
            value = _onnx_activation(graph, value, convolution.problem.activation)
        if last.data_format == "channels_last":
            value = graph.node("Transpose", value, perm=to_back)
        outputs[value] = last.out_shape
    return graph.serialized(inputs, outputs)


def _onnx_convolution(graph: _Graph, value: str, convolution: Convolution) -> str:
    problem = convolution.problem
    attributes = {
        "kernel_shape": problem.kernel, "strides": problem.stride, "dilations": problem.dilation, "group": problem.groups,
        "pads": [before for before, _ in problem.pads] + [after for _, after in problem.pads],
    }  # fmt: skip
    operands = [convolution.weight] if convolution.bias is None else [convolution.weight, convolution.bias]
    if problem.operation == "transposed":
        return graph.node("ConvTranspose", value, *operands, output_padding=problem.output_padding, **attributes)
    return graph.node("Conv", value, *operands, **attributes)


def _onnx_activation(graph: _Graph, value: str, activation: Activation) -> str:
    name = activation.name
    if name == "identity":
        return value
    if str(activation) == "relu":
        return graph.node("Relu", value)
    if name == "clip":
        return graph.node("Clip", value, np.float32(activation.low), np.float32(activation.high))
    if name == "leaky_relu":
        return graph.node("LeakyRelu", value, alpha=activation.low)
    if name == "silu":
        return graph.node("Mul", value, graph.node("Sigmoid", value))
    return graph.node({"sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish", "gelu": "Gelu"}[name], value)


def _onnxruntime(segments: Sequence[Segment], threads: int) -> Call:
    runtime = _imported("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; warnings would stand in the middle of our table
    session = runtime.InferenceSession(_onnx_model(segments), options, providers=["CPUExecutionProvider"])
    feed = {f"x{i}": segment.x for i, segment in enumerate(segments)}
    return lambda: session.run(None, feed)


def _openvino(segments: Sequence[Segment], threads: int) -> Call:
    openvino = _imported("openvino")
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it
    }  # fmt: skip
    compiled = core.compile_model(core.read_model(_onnx_model(segments)), "CPU", settings)
    request = compiled.create_infer_request()
    for i, segment in enumerate(segments):
        request.set_input_tensor(i, openvino.Tensor(segment.x, shared_memory=True))
    return lambda: list(request.infer().values())  # copies: what a call returns is the caller's own, as with all others


PEERS = (
    Peer("torch", ("torch",), _torch_why_not, _torch, _torch_mode),
    Peer("torch channels_last", ("torch",), _torch_channels_last_why_not, _torch_channels_last, _torch_mode),
    Peer("onnxruntime", ("onnxruntime", "onnx"), _graph_why_not, _onnxruntime),
    Peer("openvino", ("openvino", "onnx"), _graph_why_not, _openvino),
)
