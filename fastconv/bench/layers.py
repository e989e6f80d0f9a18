"""The table of real layers, and how a problem becomes a layer that can be called.

`LAYERS` are those whose speed in other libraries is known; `MORE_LAYERS` are the kinds that the first table lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.problem import Problem, SeparableProblem

Array = np.ndarray[Any, Any]
AnyProblem = Problem | SeparableProblem


def _table(text: str) -> dict[str, Any]:
    """Name to problem, from lines of a name and a problem's text."""
    return {name: Problem.parse(problem) for name, problem in map(str.split, text.strip().splitlines())}


LAYERS: dict[str, Problem] = _table("""
    resnet_conv1      conv2d,n1c3i224f64k7s2p3,bias,relu
    resnet_3x3_56     conv2d,n1c64i56f64k3p1,bias,relu
    resnet_3x3_28     conv2d,n1c128i28f128k3p1,bias,relu
    resnet_3x3_14     conv2d,n1c256i14f256k3p1,bias,relu
    resnet_3x3_7      conv2d,n1c512i7f512k3p1,bias,relu
    resnet_3x3_s2     conv2d,n1c128i56f128k3s2p1,bias,relu
    pw_56_64_128      conv2d,n1c64i56f128k1,bias,relu
    pw_14_512         conv2d,n1c512i14f512k1,bias,relu
    pw_28_192_32      conv2d,n1c192i28f32k1,bias,relu
    pw_7_1024         conv2d,n1c1024i7f1024k1,bias,relu
    dw_112_32         conv2d,n1c32i112f32k3p1g32,bias,relu
    dw_112_64_s2      conv2d,n1c64i112f64k3s2p1g64,bias,relu
    dw_14_512         conv2d,n1c512i14f512k3p1g512,bias,relu
    dw5_14_672        conv2d,n1c672i14f672k5p2g672,bias,relu
    atrous_r2_28_256  conv2d,n1c256i28f256k3p2d2,bias,relu
    atrous_r12_33     conv2d,n1c256i33f256k3p12d12,bias,relu
    seed_128_rgb      conv2d,n1c3i128f32k3,bias,relu
    grouped32_28      conv2d,n1c256i28f256k3p1g32,bias,relu
""")

# Blocks of MobileNet, the up-sampling layers of a decoder, and what training adds.
MORE_LAYERS: dict[str, AnyProblem] = _table("""
    sep_112_32_64     conv2d,n1c32i112f32k3p1g32,bias,relu+conv2d,n1c32i112f64k1,bias,relu
    sep_28_256        conv2d,n1c256i28f256k3p1g256,bias,relu+conv2d,n1c256i28f256k1,bias,relu
    sep_14_512        conv2d,n1c512i14f512k3p1g512,bias,relu+conv2d,n1c512i14f512k1,bias,relu
    up_28_64_32       transposed2d,n1c64i28f32k4s2p1,bias,relu
    up_14_128_64      transposed2d,n1c128i14f64k3s2p1o1,bias,relu
    gradw_28_128      weights2d,n1c128i28f128k3p1
    gradw_112_32_dw   weights2d,n1c32i112f32k3p1g32
    gradx_28_128      transposed2d,n1c128i28f128k3p1
""")


def find(text: str) -> tuple[str, AnyProblem]:
    """A name and its problem, from a name in the tables or a problem's text, which is its own name."""
    known = {**LAYERS, **MORE_LAYERS}
    if text in known:
        return text, known[text]
    if "," not in text:
        raise ValueError(f"layer: got {text!r}, expected a problem's text or one of {', '.join(known)}")
    problem = Problem.parse(text)
    return str(problem), problem


def layer(problem: AnyProblem, *arrays: Array | None) -> Any:
    """The layer object that computes a problem, made of weights and biases.

    Parameters
    ----------
    problem : Problem or SeparableProblem
        A convolution or a transposed one.
    *arrays : ndarray or None
        weight, bias; of a separable problem depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias.

    Examples
    --------
    >>> problem = LAYERS["pw_28_192_32"]
    >>> layer(problem, np.ones((32, 192, 1, 1), np.float32), np.ones(32, np.float32))
    PointwiseConv2d(weight (32, 192, 1, 1), bias (32,), float32)
    """
    if isinstance(problem, SeparableProblem):
        activation = problem.depthwise.activation
        keywords = _keywords(problem.depthwise, "stride padding dilation padding_mode") | _keywords(problem.pointwise, "")
        return fc.SeparableConv2d(*arrays, depthwise_activation=activation, **keywords)
    if problem.operation == "transposed":
        kind = {1: fc.ConvTranspose1d, 2: fc.ConvTranspose2d, 3: fc.ConvTranspose3d}[problem.dimensions]
        return kind(*arrays, **_keywords(problem, "stride padding output_padding groups dilation"))
    if problem.dimensions == 2 and problem.kind == "pointwise":
        return fc.PointwiseConv2d(*arrays, **_keywords(problem, "stride padding_mode"))
    if problem.dimensions == 2 and problem.kind == "depthwise":
        return fc.DepthwiseConv2d(*arrays, **_keywords(problem, "stride padding dilation padding_mode"))
    general = {1: fc.Conv1d, 2: fc.Conv2d, 3: fc.Conv3d}[problem.dimensions]
    return general(*arrays, **_keywords(problem, "stride padding dilation groups padding_mode"))


def _keywords(problem: Problem, names: str) -> dict[str, Any]:
    """These of a layer's arguments, and those that all layers take."""
    everywhere = ["activation", "data_format", "algorithm", "precision"]
    return {name: getattr(problem, "pads" if name == "padding" else name) for name in names.split() + everywhere}


@dataclass(frozen=True)
class Case:
    """A problem with arrays of random numbers: calling it computes the problem once, into the same `out`."""

    problem: AnyProblem
    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self) -> Array:
        return self.function(*self.arguments, **self.keywords)


def case(problem: AnyProblem) -> Case:
    """A problem as a call that can be timed.

    Layers write into an `out` of their own; a gradient with respect to weights, which has none, makes its result anew.
    """
    rng = np.random.default_rng(0)

    def random(shape: tuple[int, ...] | None, scale: float = 1.0) -> Array | None:
        if shape is None:
            return None
        return (scale * rng.standard_normal(shape, np.float32)).astype(problem.dtype)

    def weight(part: Problem) -> Array | None:
        return random(part.weight_shape, float(np.prod(part.weight_shape[1:])) ** -0.5)  # keeps the input's scale

    x = random(problem.x_shape)
    if problem.kind == "weights":
        size, gradient = problem.weight_shape, random(problem.out_shape)
        geometry = (problem.stride, problem.pads, problem.dilation, problem.groups)
        function = getattr(fc.grad, f"conv{problem.dimensions}d_weight")
        return Case(problem, function, (x, size, gradient, *geometry), {"data_format": problem.data_format})
    parts = (problem.depthwise, problem.pointwise) if isinstance(problem, SeparableProblem) else (problem,)
    made = layer(problem, *map(weight, parts), *(random(part.bias_shape) for part in parts))
    keywords = {"residual": random(problem.out_shape)} if problem.residual else {}
    return Case(problem, made, (x, np.empty(problem.out_shape, problem.dtype)), keywords)
