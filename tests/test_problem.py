"""The record of a problem: its text, its sizes against brute counting, its relatives and its bounds."""

import dataclasses
import math

import numpy as np
import pytest
from brute import output_size
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.epilogue import Activation
from fastconv.problem import (
    ALGORITHMS,
    DATA_FORMATS,
    DTYPES,
    PADDING_MODES,
    PRECISIONS,
    Problem,
    SeparableProblem,
    Shaped,
    of_conv,
    of_depthwise,
    of_separable,
    of_transposed,
)

TEXTS = {
    "conv2d,n1c64i56x56f64k3p1,bias,relu": "conv2d,n1c64i56x56f64k3x3p1,bias,relu",
    "conv2d,n1c64i56f64k3": "conv2d,n1c64i56x56f64k3x3",
    "conv1d,n0c3i9f4k2s2": None,
    "conv3d,n2c4i5x6x7f8k1x2x3s1x2x1p0x1:0x2d1x1x2g2": None,
    "conv2d,n1c4i8x8f8k3x3s2p0:1g4,bias,residual,relu6,replicate,channels_last,float64,direct,highest": None,
    "conv2d,n1c4i8x8f8k3x3,leaky_relu:0.2": None,
    "conv2d,n1c4i8x8f8k3x3,leaky_relu:0.01": "conv2d,n1c4i8x8f8k3x3,leaky_relu",
    "conv2d,n1c4i8x8f8k3x3,clip:0:6": "conv2d,n1c4i8x8f8k3x3,relu6",
    "conv2d,n1c4i8x8f8k3x3,clip:-1:1.5": "conv2d,n1c4i8x8f8k3x3,clip:-1.0:1.5",
    "conv2d,n1c4i8x8f8k3x3,clip:-inf:0.5": None,
    "conv2d,n1c4i8x8f8k3x3,clip:0:1e-20": "conv2d,n1c4i8x8f8k3x3,clip:0.0:1e-20",
    "conv2d,n1c4i8x8f8k3x3,pixelbias,gelu": None,
    "conv2d,float32,n1": ValueError,
    "transposed1d,n1c4i8f6k3s3p1g2o2": None,
    "transposed2d,n1c4i8x9f6k3x3s2x1p1:0x0d1x2o1x0": None,
    "weights2d,n8c4i8x8f8k3x3p1": None,
    "conv2d,n1c4i8x8f8k3x3p-1": None,
    "conv2d,n1c4i8x8f8k3x3p1:-1": None,
    "conv2d,n1c4i8x8f4k3x3p1g4,bias,relu+conv2d,n1c4i8x8f16k1x1,bias,silu": None,
}


@pytest.mark.parametrize(("text", "canonical"), [(t, c) for t, c in TEXTS.items() if c is not ValueError])
def test_text_round_trip(text, canonical):
    problem = Problem.parse(text)
    assert str(problem) == (canonical or text)
    assert Problem.parse(str(problem)) == problem
    assert Problem.parse(f"  {text}\n") == problem


BAD_TEXTS = {
    "": "expected something like",
    "conv2d": "expected something like",
    "conv4d,n1c1i4f1k3": "expected something like",
    "Conv2d,n1c1i4f1k3": "expected something like",
    "conv2d,float32,n1": "expected something like",
    "conv2d,c1n1i4f1k3": "expected something like",
    "conv2d,n1c1i4f1k3x": "expected something like",
    "conv2d,n-1c1i4f1k3": "expected something like",
    "conv2d,n1c1i4.5f1k3": "expected something like",
    "conv2d, n1c1i4f1k3": "expected something like",
    "conv2d,n1c1i4f1k3d1s1": "expected something like",
    "conv2d,n1c1i4f1k3,": "is no option",
    "conv2d,n1c1i4f1k3,relu7": "relu7",
    "conv2d,n1c1i4f1k3,relu:1": "relu",
    "conv2d,n1c1i4f1k3,clip:1": "clip",
    "conv2d,n1c1i4f1k3,clip:2:1": "low <= high",
    "conv2d,n1c1i4f1k3,clip:a:b": "clip:a:b",
    "conv2d,n1c1i4f1k3,clip:nan:1": "NaN",
    "conv2d,n1c1i4x4x4f1k3": "one or 2",
    "conv3d,n1c1i4x4f1k3": "one or 3",
    "conv2d,n1c1i4f1k3p1x1x1": "padding",
    "conv2d,n1c1i4f1k5": "padded input",
    "conv2d,n1c0i4f1k3": "channels",
    "conv2d,n1c1i4f0k3": "at least 1",
    "conv2d,n1c1i0f1k3": "at least 1",
    "conv2d,n1c1i4f1k0": "at least 1",
    "conv2d,n1c1i4f1k3s0": "stride",
    "conv2d,n1c1i4f1k3d0": "dilation",
    "conv2d,n1c1i4f1k3g0": "groups",
    "conv2d,n1c3i4f3k3g2": "groups",
    "conv2d,n1c4i4f3k3g2": "groups",
    "transposed2d,n1c4i4f3k3g2": "3 filters in 2 groups",
    "transposed2d,n1c4i4f4k3o1": "output_padding",
    "transposed2d,n1c4i4f4k3p9": "padding",
    "conv2d,n1c1i4f1k3p4,reflect": "reflect",
    "conv2d,n4611686018427387904c1i4f1k3": "2.*62",
    "conv2d,n1c1i4f1k1+conv2d,n1c1i4f1k1+conv2d,n1c1i4f1k1": "at most two",
    "conv2d,n1c4i8f8k3+conv2d,n1c8i6f4k1": "not a depthwise",
    "conv2d,n1c4i8f4k3g4+conv2d,n1c4i6f4k3": "not a depthwise",
    "conv2d,n1c4i8f4k3g4+conv2d,n1c4i8f4k1": "depthwise result",
    "conv2d,n1c4i8f4k3g4+conv2d,n1c4i6f4k1s2": "stride",
}


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.items())
def test_text_errors(text, message):
    with pytest.raises(ValueError, match=message):
        Problem.parse(text)


ACTIVATIONS = st.one_of(
    st.sampled_from([None, "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu"]),
    st.floats(0, 1e9).map(lambda slope: ("leaky_relu", slope)),
    st.tuples(st.just("clip"), st.floats(-1e9, 0), st.floats(0, 1e9)),
)


@st.composite
def problems(draw):
    """Any legal convolution or transposed convolution."""
    dimensions = draw(st.integers(1, 3))
    several = st.lists(st.integers(1, 4), min_size=dimensions, max_size=dimensions).map(tuple)
    stride, dilation, kernel, groups = draw(several), draw(several), draw(several), draw(st.integers(1, 3))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(dimensions))
    batch, channels, filters = (
        draw(st.integers(0, 3)),
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    options = {
        "dimensions": dimensions, "data_format": draw(st.sampled_from(DATA_FORMATS)), "activation": draw(ACTIVATIONS),
        "algorithm": draw(st.sampled_from(ALGORITHMS)), "precision": draw(st.sampled_from(PRECISIONS)),
    }  # fmt: skip
    dtype = draw(st.sampled_from(DTYPES))
    transposed = draw(st.booleans())
    least = [1 + sum(p) if transposed else max(1, r - sum(p), *p) for r, p in zip(reach, pads)]
    space = tuple(size + draw(st.integers(1, 9)) for size in least)
    shape = (batch, *space, channels) if options["data_format"] == "channels_last" else (batch, channels, *space)
    if transposed:
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
        weight = Shaped((channels, filters // groups, *kernel), dtype)
        problem = of_transposed(Shaped(shape, dtype), weight, None, stride, pads, extra, groups, dilation, **options)
    else:
        options["padding_mode"] = draw(st.sampled_from(PADDING_MODES))
        weight = Shaped((filters, channels // groups, *kernel), dtype)
        problem = of_conv(Shaped(shape, dtype), weight, None, stride, pads, dilation, groups, **options)
    bias, residual = draw(st.sampled_from(["none", "channel", "pixel"])), draw(st.booleans())
    return dataclasses.replace(problem, bias=bias, residual=residual)


@settings(max_examples=200, deadline=None)
@given(problems())
def test_every_legal_problem_round_trips(problem):
    assert Problem.parse(str(problem)) == problem
    assert hash(Problem.parse(str(problem))) == hash(problem)


def test_round_trip_of_large_numbers():
    problem = Problem.parse("conv2d,n1c1i4f1k3,clip:0:1e20")
    assert Problem.parse(str(problem)) == problem


@settings(max_examples=200, deadline=None)
@given(problems())
def test_sizes_are_those_counted(problem):
    geometry = zip(problem.space, problem.kernel, problem.stride, problem.dilation, problem.pads)
    if problem.operation == "conv":
        assert problem.out_space == tuple(output_size(*g) for g in geometry)
    else:
        for out, extra, (size, kernel, stride, dilation, pad) in zip(problem.out_space, problem.output_padding, geometry):
            touched = [i * stride + k * dilation for i in range(size) for k in range(kernel)]
            assert out == max(touched) + 1 - sum(pad) + extra
    first, last = problem.x_shape[1:-1], problem.x_shape[2:]
    assert problem.space == (first if problem.data_format == "channels_last" else last)
    windows = problem.space if problem.operation == "transposed" else problem.out_space
    each = math.prod(problem.kernel) * problem.channels * problem.filters // problem.groups
    assert problem.operations == 2 * problem.batch * math.prod(windows) * each
    weight, bias = np.prod(problem.weight_shape), np.prod(problem.bias_shape) if problem.bias_shape else 0
    assert problem.parameters == weight + bias
    results = 2 if problem.residual else 1
    numbers = np.prod(problem.x_shape) + results * np.prod(problem.out_shape) + problem.parameters
    assert problem.bytes == numbers * np.dtype(problem.dtype).itemsize


@settings(max_examples=200, deadline=None)
@given(problems())
def test_adjoint_of_the_adjoint_is_the_problem(problem):
    there = problem.adjoint()
    assert (there.x_shape, there.out_shape, there.weight_shape) == (
        problem.out_shape,
        problem.x_shape,
        problem.weight_shape,
    )
    assert {there.operation, problem.operation} == {"conv", "transposed"}
    back = there.adjoint()
    assert (back.operation, back.kernel, back.stride, back.dilation) == (
        problem.operation, problem.kernel, problem.stride, problem.dilation,
    )  # fmt: skip
    assert (back.x_shape, back.out_shape) == (problem.x_shape, problem.out_shape)
    assert [b for b, _ in back.pads] == [b for b, _ in problem.pads]
    if problem.operation == "conv":
        assert back.pads == problem.pads
        assert there.operations == problem.operations
    assert Problem.parse(str(there)) == there
    assert (there.bias, there.residual, there.activation, there.padding_mode) == ("none", False, Activation(), "zeros")


def test_weights_problem():
    problem = Problem.parse("conv2d,n2c4i8f6k3p1g2,bias,residual,relu")
    task = problem.weights()
    assert str(task) == "weights2d,n2c4i8x8f6k3x3p1g2"
    assert (task.kind, task.out_space, task.weight_shape) == ("weights", problem.out_space, problem.weight_shape)


def conv(size, kernel, stride=1, padding=0, dilation=1, **options):
    x, weight = Shaped((1, 1, size), "float32"), Shaped((1, 1, kernel), "float32")
    return of_conv(x, weight, None, stride, padding, dilation, 1, dimensions=1, **options)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 4))
def test_same_padding(size, kernel, stride, dilation):
    total = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    upper = conv(size, kernel, stride, "same", dilation)
    lower = conv(size, kernel, stride, "same_lower", dilation)
    assert upper.pads == ((total // 2, total - total // 2),)
    assert lower.pads == ((total - total // 2, total // 2),)
    assert upper.out_space == lower.out_space == (math.ceil(size / stride),)


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        (2, ((2, 2), (2, 2))), ("valid", ((0, 0), (0, 0))), ((1, 2), ((1, 1), (2, 2))), ([[1, 2], 0], ((1, 2), (0, 0))),
        ([3], ((3, 3), (3, 3))), (((1, 2),), ((1, 2), (1, 2))), (np.int64(1), ((1, 1), (1, 1))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
    ],
)  # fmt: skip
def test_forms_of_padding(padding, pads):
    x, weight = Shaped((1, 9, 9), "float32"), Shaped((1, 1, 3, 3), "float32")
    assert of_conv(x, weight, None, 1, padding, 1, 1, dimensions=2).pads == pads


@pytest.mark.parametrize("value", [2, (2,), [2], (2, 2), np.int8(2), [np.int64(2), 2]])
def test_forms_of_stride(value):
    x, weight = Shaped((1, 9, 9), "float32"), Shaped((1, 1, 3, 3), "float32")
    problem = of_conv(x, weight, None, value, 0, value, 1, dimensions=2)
    assert problem.stride == problem.dilation == (2, 2)
    assert all(type(number) is int for number in problem.stride)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2), (1, 3), (2, 4)])
def test_output_sizes_of_a_transposed_convolution(stride, dilation):
    def transposed(size):
        x, weight = Shaped((1, 2, 5), "float32"), Shaped((2, 3, 3), "float32")
        return of_transposed(x, weight, None, stride, 1, 0, 1, dilation, dimensions=1, output_size=size)

    least = 4 * stride + dilation * 2 + 1 - 2
    for extra in range(max(stride, dilation)):
        assert transposed(least + extra).out_space == transposed([least + extra]).out_space == (least + extra,)
        assert transposed(least + extra).output_padding == (extra,)
    for size in (least - 1, least + max(stride, dilation)):
        with pytest.raises(ValueError, match=rf"output_size: got \({size},\).* from \({least},\) to"):
            transposed(size)


KINDS = {
    "conv2d,n1c4i8f8k3": "standard",
    "conv2d,n1c4i8f8k3g2": "standard",
    "conv2d,n1c4i8f8k1": "pointwise",
    "conv2d,n1c4i8f8k1s2": "pointwise",
    "conv2d,n1c4i8f8k1d3": "pointwise",
    "conv2d,n1c4i8f8k1p1": "standard",
    "conv2d,n1c4i8f8k1g2": "standard",
    "conv2d,n1c4i8f8k3g4": "depthwise",
    "conv2d,n1c4i8f4k3d2g4": "depthwise",
    "conv2d,n1c1i8f4k3": "depthwise",
    "conv2d,n1c4i8f8k3d2": "atrous",
    "conv2d,n1c4i8f8k1x3d2x1": "standard",
    "conv2d,n1c4i8f8k1x3d1x2": "atrous",
    "transposed2d,n1c4i8f8k3": "transposed",
    "weights2d,n1c4i8f8k3": "weights",
    "conv2d,n1c4i8f4k3g4+conv2d,n1c4i6f4k1": "separable",
}


@pytest.mark.parametrize(("text", "kind"), KINDS.items())
def test_kinds(text, kind):
    assert Problem.parse(text).kind == kind


def test_separable_amounts():
    problem = Problem.parse("conv2d,n2c4i8f8k3p1g4,bias,relu+conv2d,n2c8i8f16k1,bias,residual")
    assert isinstance(problem, SeparableProblem)
    assert (problem.x_shape, problem.out_shape, problem.residual) == ((2, 4, 8, 8), (2, 16, 8, 8), True)
    assert problem.operations == 2 * 2 * 64 * (9 * 8 + 8 * 16)
    assert problem.parameters == 72 + 8 + 128 + 16
    assert problem.saved_bytes == 2 * 4 * 2 * 8 * 64
    assert problem.bytes == 4 * (2 * 4 * 64 + 2 * 2 * 16 * 64 + problem.parameters)
    with pytest.raises(AttributeError):
        problem.no_such_thing  # noqa: B018
    hash(problem)


def test_separable_from_arguments():
    arrays = [Shaped(shape, "float64") for shape in [(4, 9, 9), (8, 1, 3, 3), (5, 8), (8,), (5, 5, 5)]]
    problem = of_separable(
        *arrays, 2, 1, 1, depthwise_activation="relu", activation="tanh", residual=None, data_format="channels_first",
        padding_mode="reflect", algorithm="auto", precision="high",
    )  # fmt: skip
    text = "conv2d,n1c4i9x9f8k3x3s2p1g4,bias,relu,reflect,float64+conv2d,n1c8i5x5f5k1x1,pixelbias,tanh,float64"
    assert str(problem) == text
    assert Problem.parse(text) == problem


def test_depthwise_reads_the_multiplier():
    x, weight = Shaped((4, 9, 9), "float32"), Shaped((12, 1, 3, 3), "float32")
    problem = of_depthwise(x, weight, None, 1, 0, 1, dimensions=2, data_format="channels_first")
    assert (problem.groups, problem.filters, problem.kind) == (4, 12, "depthwise")


def test_bounds():
    """The last legal size on each side of 2**62 bytes."""
    assert conv(2**60, 1).out_space == (2**60,)
    for arguments in [
        (2**60 + 1, 1),
        (2**59, 1, 1, 2**59),
        (1, 1, 2**62 + 1),
        (1, 1, 1, 2**62),
        (1, 1, 1, 0, 2**62 + 1),
    ]:
        with pytest.raises(ValueError, match=r"2\*\*62"):
            conv(*arguments)
    with pytest.raises(ValueError, match="padded input"):
        conv(5, 3, 1, 0, 2**61)
    assert conv(2**20, 1, 2**62).out_space == (1,)
    with pytest.raises(ValueError, match=r"2\*\*62"):
        Problem.parse(f"conv1d,n0c1i{2**60 + 1}f1k1")  # an empty batch too
    with pytest.raises(ValueError, match=r"weight.*2\*\*62"):
        Problem.parse(f"conv1d,n1c1i{2**40}f{2**21}k1")
    with pytest.raises(ValueError, match=r"2\*\*62"):
        Problem.parse(f"transposed1d,n1c1i{2**40}f1k1s{2**21}")
    with pytest.raises(ValueError, match=r"2\*\*62"):
        Problem.parse(f"transposed1d,n1c1i2f1k2d{2**61}")


def test_frozen_and_hashable():
    problem = Problem.parse("conv2d,n1c4i8f8k3,relu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.batch = 2
    assert {problem: 1}[Problem.parse("conv2d,n1c4i8f8k3,clip:0:inf")] == 1
    assert problem != dataclasses.replace(problem, batch=2)
    assert problem.out_space == (6, 6)
    assert dataclasses.replace(problem, batch=2).out_shape == (2, 8, 6, 6)
