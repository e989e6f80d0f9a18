"""Layers from models of others: the convolutions of an ONNX file or of a torch module, with what follows them fused in.

A batch normalisation that takes a convolution's result scales its filters and moves its bias; an activation after it becomes
the layer's. Both only where nobody else takes what lies between.
"""

from __future__ import annotations

import math
from os import PathLike, fspath
from typing import Any

import numpy as np

from fastconv import layers
from fastconv.problem import DTYPES

Array = np.ndarray[Any, Any]
CONVS: dict[str, tuple[Any, ...]] = {
    "Conv": (layers.Conv1d, layers.Conv2d, layers.Conv3d),
    "ConvTranspose": (layers.ConvTranspose1d, layers.ConvTranspose2d, layers.ConvTranspose3d),
}
AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def from_onnx(path: str | PathLike[str]) -> dict[str, Any]:
    """The convolutions of an ONNX model as layers.

    Parameters
    ----------
    path : path-like
        The model's file.

    Returns
    -------
    dict of str to layer
        By the name of the node, or of its output if it has none of its own, in the order of the graph. BatchNormalization and
        one of Relu, Clip, HardSwish, LeakyRelu, Sigmoid and Tanh, of constants, are part of the layer whose result they alone
        take.

    Raises
    ------
    ImportError
        Without the package onnx.
    ValueError
        If it is no ONNX model; if a convolution's weights are not constants of it, or its attributes have no meaning here, when the
        message names the node.

    Notes
    -----
    https://onnx.ai/onnx/operators defines Conv, ConvTranspose and their attributes. `auto_pad` becomes padding by name or by
    numbers; a ConvTranspose with `output_shape` must have an input whose shape the model tells.

    Examples
    --------
    >>> import numpy as np, onnx, tempfile, fastconv as fc
    >>> weight = onnx.numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "weight")
    >>> ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    >>> nodes = [onnx.helper.make_node("Conv", ["x", "weight"], ["z"], name="first", pads=[1, 1, 1, 1]),
    ...          onnx.helper.make_node("Relu", ["z"], ["y"])]
    >>> graph = onnx.helper.make_graph(nodes, "example", ends[:1], ends[1:], [weight])
    >>> with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    ...     onnx.save(onnx.helper.make_model(graph), file.name)
    ...     layers = fc.from_onnx(file.name)
    >>> layers, layers["first"].activation
    ({'first': Conv2d(weight (8, 3, 3, 3), float32)}, 'relu')
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # onnx stands on it
    except ImportError:
        raise ImportError("from_onnx needs onnx: python -m pip install 'fastconv[onnx]'") from None
    try:
        model = onnx.load(fspath(path))
        if any(attribute.name == "output_shape" for node in model.graph.node for attribute in node.attribute):
            model = onnx.shape_inference.infer_shapes(model)
    except (DecodeError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"path: {fspath(path)!r} is not an ONNX model ({error})") from None
    if not model.HasField("graph"):  # so is an empty file
        raise ValueError(f"path: {fspath(path)!r} is not an ONNX model (it holds no graph)")
    return _Graph(onnx, model.graph).layers()


class _Graph:
    """An ONNX graph, and who makes and takes its values."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._helper, self._nodes = onnx.helper, list(graph.node)
        to_array = onnx.numpy_helper.to_array
        self._constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        for node in self._nodes:
            if node.op_type == "Constant":
                for name, value in self._attributes(node).items():
                    single = np.float32 if name.startswith("value_float") else None
                    self._constants[node.output[0]] = to_array(value) if name == "value" else np.asarray(value, single)
            elif node.op_type == "Identity" and node.input[0] in self._constants:  # so exporters share a weight
                self._constants[node.output[0]] = self._constants[node.input[0]]
        self._takers: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in (*node.input, *_taken_within(node)):
                self._takers.setdefault(name, []).append(node)
        self._results = {value.name for value in graph.output}
        self._shapes = {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.value_info)
        }

    def layers(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for node in self._nodes:
            if _kind(node) in CONVS:
                name = node.output[0] if node.name in ("", *made) else node.name  # names may repeat, outputs do not
                try:
                    made[name] = self._layer(node)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        return made

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {a.name: self._helper.get_attribute_value(a) for a in node.attribute}

    def _constant(self, node: Any, place: int, what: str) -> Any:
        """An input of a node, None if it is left out."""
        if place >= len(node.input) or not node.input[place]:
            return None
        if node.input[place] not in self._constants:
            raise ValueError(f"its {what} is computed by the model, expected a constant")
        return self._constants[node.input[place]]

    def _computed(self, node: Any) -> bool:
        """Whether the model computes what a node takes beside its first input."""
        return any(name and name not in self._constants for name in node.input[1:])

    def _normalises(self, node: Any) -> bool:
        """Whether a node is a batch normalisation by numbers that are known."""
        training = self._attributes(node).get("training_mode")
        return _kind(node) == "BatchNormalization" and not training and not self._computed(node)

    def _next(self, node: Any) -> Any:
        """The only node that takes a node's result, or None."""
        name = node.output[0]
        takers = self._takers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self._results else None

    def _layer(self, node: Any) -> Any:
        weight, bias = self._constant(node, 1, "weight"), self._constant(node, 2, "bias")
        dimensions = weight.ndim - 2
        if dimensions not in (1, 2, 3):
            raise ValueError(f"got a kernel of {dimensions} dimensions, expected 1, 2 or 3")
        said, transposed = self._attributes(node), node.op_type == "ConvTranspose"
        arguments = {
            "stride": _numbers(said, "strides", dimensions, 1), "dilation": _numbers(said, "dilations", dimensions, 1),
            "groups": said.get("group", 1),
        }  # fmt: skip
        if arguments["groups"] < 1 or weight.shape[0] % arguments["groups"]:
            raise ValueError(f"its group is {arguments['groups']}, expected a number that divides {weight.shape[0]}")
        if transposed:
            arguments["output_padding"] = _numbers(said, "output_padding", dimensions, 0)
        arguments["padding"] = self._padding(node, said, weight.shape[2:], arguments, transposed)
        after = self._next(node)
        if after is not None and self._normalises(after):
            scale, shift, mean, variance = (self._constants[name] for name in after.input[1:])
            epsilon = self._attributes(after).get("epsilon", 1e-5)
            weight, bias = folded(weight, bias, arguments["groups"], transposed, scale, shift, mean, variance, epsilon)
            after = self._next(after)
        activation = None if after is None else self._activation(after)
        return CONVS[node.op_type][dimensions - 1](weight, bias, activation=activation, **arguments)

    def _padding(self, node: Any, said: dict[str, Any], kernel: Any, arguments: dict[str, Any], transposed: bool) -> Any:
        auto = said.get("auto_pad", b"NOTSET").decode()
        if auto not in AUTO_PADS:
            raise ValueError(f"its auto_pad is {auto}, expected one of {', '.join(AUTO_PADS)}")
        dimensions = len(kernel)
        if auto == "VALID" and "output_shape" not in said:
            return 0
        if not transposed and auto != "NOTSET":
            return {"SAME_UPPER": "same", "SAME_LOWER": "same_lower"}[auto]
        pads = _numbers(said, "pads", 2 * dimensions, 0)
        if auto == "NOTSET" and "output_shape" not in said:
            return tuple(zip(pads[:dimensions], pads[dimensions:], strict=True))
        # The total is what makes the result `output_shape`, or stride times the input, large.
        reach = [d * (k - 1) + 1 for d, k in zip(arguments["dilation"], kernel, strict=True)]
        totals = [r + o - s for r, o, s in zip(reach, arguments["output_padding"], arguments["stride"], strict=True)]
        if "output_shape" in said:
            shape = said["output_shape"][-dimensions:]  # some exporters give images and channels too
            if len(shape) != dimensions:
                raise ValueError(f"its output_shape is {shape}, expected {dimensions} numbers")
            sizes = self._shapes.get(node.input[0], [])[2:]
            if len(sizes) != dimensions or 0 in sizes:
                raise ValueError("its output_shape can be kept only for an input of a shape that the model tells")
            totals = [t + s * size - out for t, s, size, out in zip(totals, arguments["stride"], sizes, shape, strict=True)]
        beyond = [max(-t, 0) for t in totals]  # rows that the windows do not reach: only who asked for the shape gets them
        output_padding = [o + b for o, b in zip(arguments["output_padding"], beyond, strict=True)]
        most = map(max, arguments["stride"], arguments["dilation"])
        if any(beyond) and ("output_shape" not in said or any(o >= m for o, m in zip(output_padding, most, strict=True))):
            raise ValueError(f"its result of the shape asked for would be padded by {beyond}")
        arguments["output_padding"] = tuple(output_padding)
        small_first = [(max(t, 0) // 2, max(t, 0) - max(t, 0) // 2) for t in totals]
        return tuple(pad if auto == "SAME_UPPER" else pad[::-1] for pad in small_first)

    def _activation(self, node: Any) -> Any:
        said, kind = self._attributes(node), _kind(node)
        if self._computed(node):
            return None
        if kind == "Clip":
            limits = [said.get("min"), said.get("max")]  # attributes up to version 6, inputs since
            for i in (0, 1):
                if limits[i] is None and (given := self._constant(node, 1 + i, "limit")) is not None:
                    limits[i] = float(given.item())
            low, high = limits
            low, high = -math.inf if low is None else low, math.inf if high is None else high
            return "clip", min(low, high), high  # the upper limit wins
        if kind == "LeakyRelu":
            return "leaky_relu", said.get("alpha", 0.01)
        return {"Relu": "relu", "HardSwish": "hardswish", "Sigmoid": "sigmoid", "Tanh": "tanh"}.get(kind)


def _kind(node: Any) -> str:
    """What ONNX itself calls a node's operator; none of somebody else's."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else ""


def _numbers(said: dict[str, Any], attribute: str, count: int, least: int) -> tuple[int, ...]:
    """An attribute of so many numbers; all are the least ones if it is left out."""
    numbers = tuple(said.get(attribute, [least] * count))
    if len(numbers) != count or min(numbers) < least:
        raise ValueError(f"its {attribute} are {numbers}, expected {count} numbers of at least {least}")
    return numbers


def _taken_within(node: Any) -> list[str]:
    """What the graphs inside a node, the branches of an If or the body of a Loop, may take of the graph around it."""
    graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    inner = [within for graph in graphs for within in graph.node]
    return [name for within in inner for name in (*within.input, *_taken_within(within))]


def folded(
    weight: Array, bias: Array | None, groups: int, transposed: bool, scale: Array, shift: Array, mean: Array, variance: Array,
    epsilon: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Weight and bias of a convolution and the normalisation of its result; in float64, rounded once."""
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    start = np.zeros(len(factor)) if bias is None else bias
    ones = (1,) * (weight.ndim - 2)
    if transposed:  # (channels, filters / groups, *kernel), a group's channels one after the other
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        scaled = (by_group * factor.reshape(groups, 1, -1, *ones)).reshape(weight.shape)
    else:
        scaled = weight * factor.reshape(-1, 1, *ones)
    return scaled.astype(weight.dtype), ((start - mean) * factor + shift).astype(weight.dtype)


def from_torch(module: Any) -> dict[str, Any]:
    """The convolutions of a torch module as layers.

    Parameters
    ----------
    module : torch.nn.Module
        A convolution, or what holds some.

    Returns
    -------
    dict of str to layer
        By the name that `named_modules` gives, in its order. Inside an `nn.Sequential`, a batch normalisation (as it is in
        `eval()`) and one of ReLU, ReLU6, LeakyReLU, Hardtanh, Hardswish, Sigmoid, Tanh, SiLU and GELU are part of the layer
        that they follow; elsewhere, or of a convolution that stands in several places, only the forward function knows what
        follows what.

    Raises
    ------
    ImportError
        Without the package torch.
    TypeError
        If it is not a module, or one that was scripted, which does not tell its parts.
    ValueError
        If a convolution's weights are neither float32 nor float64, or there are none yet; the message names it.

    Examples
    --------
    >>> import torch, fastconv as fc
    >>> layers = fc.from_torch(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()))
    >>> layers, layers["0"].activation
    ({'0': Conv2d(weight (8, 3, 3, 3), bias (8,), float32)}, 'relu')
    """
    try:
        from torch import nn
    except ImportError:
        raise ImportError("from_torch needs torch: python -m pip install torch") from None
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, expected a torch.nn.Module")
    if type(module).__module__.startswith("torch.jit"):
        raise TypeError(f"module: got {type(module).__name__}, expected the torch.nn.Module that it was made of")
    followers: dict[int, list[list[Any]]] = {}  # of a module, once for each place where it stands
    for holder in module.modules():
        children = list(holder._modules.values())
        in_turn = isinstance(holder, nn.Sequential) and type(holder).forward is nn.Sequential.forward
        for i, child in enumerate(children):
            followers.setdefault(id(child), []).append(children[i + 1 :] if in_turn else [])
    layers = {}
    for name, part in module.named_modules():
        for kind, layer in _of_kinds(nn).items():
            if isinstance(part, kind) and type(part).forward is kind.forward:  # parametrised weights are classes of their own
                places = followers.get(id(part), [])
                layers[name] = _of_torch(nn, name, part, layer, places[0] if len(places) == 1 else [])
    return layers


def _of_kinds(nn: Any) -> dict[Any, Any]:
    """Our layer for each convolution of torch."""
    return {getattr(nn, f"{name}{dimensions}d"): CONVS[name][dimensions - 1] for name in CONVS for dimensions in (1, 2, 3)}


def _of_torch(nn: Any, name: str, conv: Any, layer: Any, followers: list[Any]) -> Any:
    called = f"{name}.weight".lstrip(".")
    if (dtype := str(conv.weight.dtype).removeprefix("torch.")) not in DTYPES:
        raise ValueError(f"{called}: got dtype {dtype}, expected float32 or float64, as module.float() gives")
    if conv.weight.is_meta or isinstance(conv.weight, nn.parameter.UninitializedParameter):
        raise ValueError(f"{called}: has no numbers yet, expected a module that was loaded, or has been called")
    weight, bias = (None if p is None else p.detach().cpu().numpy() for p in (conv.weight, conv.bias))
    assert weight is not None
    arguments = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    if conv.transposed:
        arguments["output_padding"] = conv.output_padding
    else:
        arguments["padding_mode"] = conv.padding_mode
    if followers and isinstance(followers[0], (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
        norm = followers[0]
        if norm.running_mean is not None:
            given = (norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)
            scale, shift, mean, variance = (_float64(parameter, otherwise, norm.num_features) for parameter, otherwise in given)
            weight, bias = folded(weight, bias, conv.groups, conv.transposed, scale, shift, mean, variance, norm.eps)
            followers = followers[1:]
    return layer(weight, bias, activation=_activation_of_torch(nn, followers[0]) if followers else None, **arguments)


def _float64(parameter: Any, otherwise: float, count: int) -> Array:
    """A parameter's numbers, or so many others where there is none."""
    return np.full(count, float(otherwise)) if parameter is None else parameter.detach().cpu().double().numpy()


def _activation_of_torch(nn: Any, module: Any) -> Any:
    kind = type(module)
    if kind is nn.Hardtanh:
        return "clip", module.min_val, module.max_val
    if kind is nn.LeakyReLU:
        return "leaky_relu", module.negative_slope
    if kind is nn.GELU:
        return "gelu" if module.approximate == "none" else None
    plain = {
        nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hardswish", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.SiLU: "silu",
    }  # fmt: skip
    return plain.get(kind)
