"""The problems that the tests of all functions share, and how to compute one of them.

A problem is a line of text (grammar: fastconv/problem.py). Its arrays hold whole numbers from -4 to 4, so that every
sum is exact in float32 in any order, and a result is right to the last bit or wrong.
"""

import warnings
from dataclasses import replace

import numpy as np

import fastconv
from fastconv.cpu import packing
from fastconv.cpu.launch import neighbours
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.epilogue import LEAKY_SLOPE, Activation
from fastconv.plan import choose
from fastconv.problem import Problem, SeparableProblem

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
except ImportError:
    torch = None

# One image in rows of every length around the vector registers' (8 and 16 float32, 4 and 8 float64).
WIDTHS = [f"conv2d,n1c3i5x{width}f4k3p1,bias" for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33)]
# Channels and filters around 8: kernels add channels eight at a time.
CHANNELS = [
    f"{operation},n2c{channels}i6x9f{filters}k3p1,bias{last}"
    for operation in ("conv2d", "transposed2d")
    for channels, filters in ((1, 1), (1, 9), (7, 8), (8, 7), (9, 17), (17, 33))
    for last in ("", ",channels_last")
]
STANDARD = [
    "conv2d,n1c1i1x1f1k1",
    "conv2d,n1c1i1x1f1k3p1",
    "conv2d,n2c8i1x1f8k3p1,bias,relu",
    "conv2d,n1c3i5x7f4k5x7",  # a kernel as large as the image
    "conv2d,n1c3i5x7f4k7x9p1",  # and as the padded one
    "conv2d,n2c3i17x17f5k3s2",
    "conv2d,n2c3i18x19f5k3s3x2p1",
    "conv2d,n1c4i20x23f6k5s5x3p2",
    "conv2d,n1c4i9x33f6k3s7p1",  # stride above the kernel
    "conv2d,n1c9i8x9f7k3x1p1x0",
    "conv2d,n1c9i8x9f7k1x5p0x2",
    "conv2d,n1c3i8x9f7k2x4p1:0x2:1,bias",
    "conv2d,n1c3i8x9f7k3s2p0:2x3:0,bias",
    "conv2d,n1c2i4x4f3k3p4",  # windows that lie in the padding alone
    "conv2d,n1c2i4x4f3k2s3p5x6",
    "conv2d,n3c5i6x6f5k1p2",  # one tap, but not pointwise
    "conv2d,n2c12i9x10f6k3p1g2,bias",
    "conv2d,n2c12i9x10f6k3s2p1g3,bias,channels_last",
    "conv2d,n1c18i7x8f36k3p1g2",
    "conv2d,n1c18i7x8f36k3p1g2,channels_last",
    "conv2d,n1c3i16x31f9k3p1,channels_last,bias,relu",
    "conv2d,n1c17i5x33f8k3s2p1,channels_last",
    "conv2d,n0c3i8x8f4k3p1,bias",
    "conv2d,n0c3i8x8f4k3p1,channels_last",
    "conv2d,n2c9i9x17f9k3p1,float64,bias",
    "conv2d,n2c9i9x17f9k3s2p1,float64,channels_last,bias",
    "conv2d,n1c3i40x67f4k11s4p5",
    "conv1d,n2c3i33f4k3p1",
    "conv1d,n2c9i100f17k8s3p0:5,bias",
    "conv1d,n1c8i7f8k7,channels_last",
    "conv1d,n2c8i31f8k3p2d2g4,float64",
    "conv3d,n1c3i4x5x9f4k3p1,bias",
    "conv3d,n2c9i5x4x8f8k2x3x1s1x2x3p1x0x0",
    "conv3d,n1c4i5x6x7f6k3p1:0x0:1x2g2,channels_last,bias",
    "conv3d,n1c2i3x3x17f3k3p1,float64",
]
ATROUS = [
    "conv2d,n1c3i17x33f4k3p2d2,bias",
    "conv2d,n2c9i16x15f5k3s2p4d4x3",
    "conv2d,n1c4i15x16f6k2x3s3x2p1:4x3:0d5x2g2",
    "conv2d,n1c3i7x7f2k3d3",  # as large as the image
    "conv2d,n1c8i9x9f9k3p8d8,channels_last,bias",
    "conv2d,n1c12i9x9f9k3s2p2d2g3,channels_last",
    "conv1d,n2c3i40f4k5s3p14d7",
    "conv3d,n1c2i7x8x9f3k3p2x1x3d2x1x3",
    "conv2d,n1c3i9x17f4k3p2d2,float64",
    "conv2d,n1c3i9x17f4k3x1s2p2d2x9",  # dilation of a single tap
]
DEPTHWISE = [
    *(f"conv2d,n1c8i5x{width}f8k3p1g8,bias" for width in (1, 7, 8, 9, 15, 16, 17, 32, 33)),
    *(f"conv2d,n2c{c}i6x7f{c}k3p1g{c},bias,channels_last" for c in (1, 7, 8, 9, 17, 33)),
    "conv2d,n2c3i9x10f9k3p1g3,bias",
    "conv2d,n2c3i9x10f9k3p1g3,bias,channels_last",
    "conv2d,n1c9i11x12f18k5s2p2g9,channels_last",
    "conv2d,n1c9i11x33f18k5s2p2g9",
    "conv2d,n1c5i13x15f5k3s2p3d3g5,relu",
    "conv2d,n1c5i13x15f5k3s2p3d3g5,relu,channels_last",
    "conv2d,n1c5i7x7f5k7g5",
    "conv2d,n1c5i6x8f10k4x2s3x1p1:2x0:1g5,float64",
    "conv2d,n0c5i6x8f5k3g5",
    "conv1d,n2c4i33f8k3p1g4,bias",
    "conv1d,n2c4i33f8k3s2p1g4,channels_last",
    "conv3d,n1c3i4x5x9f6k3p1g3",
    "conv3d,n1c9i4x5x5f9k3s2p1d2g9,channels_last",
]
POINTWISE = [
    *(f"conv2d,n1c{c}i3x5f{f}k1,bias" for c, f in ((1, 1), (7, 9), (8, 8), (9, 7), (17, 33))),
    *(f"conv2d,n1c{c}i3x5f{f}k1,bias,channels_last" for c, f in ((1, 1), (7, 9), (8, 8), (9, 7), (17, 33))),
    "conv2d,n2c9i9x17f5k1s2",
    "conv2d,n2c9i9x17f5k1s2x3,channels_last",
    "conv2d,n1c16i1x1f10k1,bias",
    "conv2d,n1c9i7x31f9k1,float64,residual,bias,relu",
    "conv2d,n0c9i7x31f9k1,channels_last",
    "conv1d,n2c9i31f5k1s2,bias",
    "conv3d,n2c3i4x5x6f5k1s2,channels_last",
]
TRANSPOSED = [
    "transposed2d,n1c1i1x1f1k1",
    "transposed2d,n1c3i1x1f2k3",
    "transposed2d,n2c3i5x7f4k3s2p1o1,bias",
    "transposed2d,n2c3i5x7f4k3s2p1o1,bias,channels_last",
    "transposed2d,n1c9i5x17f8k4s2p1,relu",
    "transposed2d,n1c3i6x5f4k2s2",
    "transposed2d,n1c3i6x5f4k2s3o2x1",  # columns that no tap reaches
    "transposed2d,n1c4i6x5f6k3s2x3p1d2x4g2o1x3",  # dilation above the stride
    "transposed2d,n1c4i6x5f6k3s2x3p1d2x4g2o1x3,channels_last",
    "transposed2d,n1c3i5x5f4k3s2p1:0x0:2d3o2x1",
    "transposed2d,n1c6i4x9f6k3s2p1g6",
    "transposed2d,n1c6i4x9f12k3s2p1g6o1,channels_last,bias",
    "transposed2d,n2c9i4x4f9k5s4p2o3,float64,residual,bias",
    "transposed2d,n0c3i5x7f4k3s2",
    "transposed2d,n1c3i7x7f4k3p2:0x0:2",
    "transposed2d,n1c3i9x33f4k1s2",
    "transposed2d,n1c2i4x5f3k3s2o1x0,pixelbias",
    "transposed1d,n2c3i31f5k4s3p1o2,bias",
    "transposed1d,n2c4i9f6k3s2d3g2,channels_last",
    "transposed3d,n1c3i3x4x5f4k3s2p1o1",
    "transposed3d,n1c4i3x4x5f2k2x3x1s1x2x3p0x1x0g2o0x1x2,channels_last,bias",
]
SEPARABLE = [
    "conv2d,n1c3i9x17f3k3p1g3+conv2d,n1c3i9x17f8k1",
    "conv2d,n1c3i9x17f3k3p1g3,channels_last+conv2d,n1c3i9x17f8k1,channels_last",
    "conv2d,n2c8i9x10f16k3s2p1g8,bias,relu+conv2d,n2c16i5x5f9k1,bias,relu6",
    "conv2d,n2c8i9x10f16k3s2p1g8,bias,relu,channels_last+conv2d,n2c16i5x5f9k1,bias,relu6,channels_last",
    "conv2d,n1c9i8x33f9k5x3p4:2x1d2x1g9+conv2d,n1c9i6x33f17k1,residual,bias",
    "conv2d,n1c9i8x33f9k5x3p4:2x1d2x1g9,channels_last+conv2d,n1c9i6x33f17k1,residual,pixelbias,channels_last",
    "conv2d,n1c3i8x8f3k3p1g3,pixelbias,reflect+conv2d,n1c3i8x8f4k1,pixelbias",
    "conv2d,n1c3i8x8f3k3p1g3,bias,float64+conv2d,n1c3i8x8f4k1,float64,hardswish",
    "conv2d,n0c3i8x8f3k3p1g3+conv2d,n0c3i8x8f4k1",
    "conv2d,n1c1i1x1f1k1g1+conv2d,n1c1i1x1f1k1",
    "conv2d,n1c17i70x65f17k3p1g17+conv2d,n1c17i70x65f9k1",  # more than one band of scratch
]
MODES = [
    text
    for mode in ("reflect", "replicate", "circular", "symmetric")
    for text in (
        f"conv2d,n1c3i6x9f4k3p2:1x1:3,{mode},bias",
        f"conv2d,n2c9i6x7f4k3s2p3d2,{mode},channels_last",
        f"conv2d,n1c4i5x17f8k3p2g4,{mode}",
        f"conv2d,n1c9i5x8f9k5s2p2g9,{mode},channels_last",
        f"conv1d,n1c3i9f4k5p4:8,{mode}",
        f"conv3d,n1c2i4x3x5f3k3p2x1x2,{mode},float64",
    )
] + [
    "conv2d,n1c2i3x4f3k5p3x4,circular",  # the most padding there may be
    "conv2d,n1c2i3x4f3k5p3x4,symmetric",
    "conv2d,n1c2i3x4f3k5p2x3,reflect",
    "conv2d,n1c2i1x1f3k5p9,replicate",
    "conv2d,n0c2i3x4f3k3p1,circular",
]
EPILOGUES = [
    text
    for activation in (
        "relu", "relu6", "leaky_relu", "leaky_relu:0.25", "sigmoid", "tanh", "silu", "hardswish", "gelu",
        "clip:-3.0:5.0",
    )
    for text in (
        f"conv2d,n1c2i6x17f5k3p1,bias,{activation}",
        f"conv2d,n1c2i6x9f5k3p1,residual,pixelbias,{activation},channels_last",
        f"conv2d,n1c3i5x8f4k1,bias,residual,{activation},float64",
        f"conv2d,n1c9i5x9f9k3p1g9,{activation}",
        f"transposed2d,n1c2i3x5f3k3s2,residual,{activation}",
    )
] + [
    "conv2d,n2c3i6x7f4k3,pixelbias,residual",
    "conv1d,n2c3i9f4k3,pixelbias,channels_last",
    "conv3d,n2c3i3x4x5f4k2,pixelbias,residual,relu",
    "conv2d,n2c8i6x7f8k3p1g8,pixelbias,residual,relu",
    "conv2d,n2c8i6x7f8k3p1g8,pixelbias,residual,relu,channels_last",
    "conv2d,n2c8i6x17f5k1,pixelbias,channels_last",
    "conv2d,n1c3i9x17f4k3p2d2,pixelbias,residual",
]  # fmt: skip

CASES = WIDTHS + CHANNELS + STANDARD + ATROUS + DEPTHWISE + POINTWISE + TRANSPOSED + SEPARABLE + MODES + EPILOGUES
ROUNDED = ("sigmoid", "tanh", "silu", "gelu", "leaky_relu")  # activations that are not exact on whole numbers

computed = {"problems": 0}  # for the summary at the end: problems computed by the package, not by the reference


def parse(text):
    return Problem.parse(text)


def parts(problem):
    """The problem, or the two of a separable one."""
    return (problem.depthwise, problem.pointwise) if isinstance(problem, SeparableProblem) else (problem,)


def bare(problem):
    """The same without activations."""
    if isinstance(problem, SeparableProblem):
        return SeparableProblem(bare(problem.depthwise), bare(problem.pointwise))
    return replace(problem, activation=Activation())


def rounded(problem):
    """Whether the activation rounds even whole numbers: then only a bound holds."""
    last = parts(problem)[-1].activation
    return last.name in ROUNDED and last.low != 0.25


def depth(problem):
    """Numbers that are added up to one of the result, bias and residual included."""
    return sum(p.channels // p.groups * int(np.prod(p.kernel)) + 2 for p in parts(problem))  # a transposed one has as many or fewer


def whole_numbers(rng, shape, dtype):
    return rng.integers(-4, 5, shape).astype(dtype)


def arrays(problem, rng, draw=whole_numbers):
    """The arrays that a problem's function takes, by the names of its arguments."""
    made = {"x": draw(rng, problem.x_shape, problem.dtype)}
    separable = isinstance(problem, SeparableProblem)
    for part, prefix in zip(parts(problem), ("depthwise_", "pointwise_") if separable else ("",)):
        made[prefix + "weight"] = draw(rng, part.weight_shape, part.dtype)
        if part.bias_shape:
            made[prefix + "bias"] = draw(rng, part.bias_shape, part.dtype)
    if problem.residual:
        made["residual"] = draw(rng, problem.out_shape, problem.dtype)
    return made


def activation(problem):
    """The activation as a caller writes it."""
    a = problem.activation
    if a.name == "identity":
        return None
    if a.name == "clip":
        return {(0.0, np.inf): "relu", (0.0, 6.0): "relu6"}.get((a.low, a.high), ("clip", a.low, a.high))
    if a.name == "leaky_relu":
        return "leaky_relu" if a.low == LEAKY_SLOPE else ("leaky_relu", a.low)
    return a.name


def named(problem):
    """(name of the function that computes a problem, its keywords that are no arrays)."""
    first, last = parts(problem)[0], parts(problem)[-1]
    wishes = {
        "activation": activation(last), "data_format": last.data_format, "algorithm": last.algorithm,
        "precision": last.precision,
    }  # fmt: skip
    if first.operation == "transposed":
        return f"conv_transpose{first.dimensions}d", wishes | {
            "stride": first.stride, "padding": first.pads, "output_padding": first.output_padding,
            "groups": first.groups, "dilation": first.dilation,
        }  # fmt: skip
    wishes |= {"stride": first.stride, "padding_mode": first.padding_mode}
    if first.kind == "pointwise" and first.dimensions == 2 and len(parts(problem)) == 1:
        return "pointwise_conv2d", wishes
    wishes |= {"padding": first.pads, "dilation": first.dilation}
    if isinstance(problem, SeparableProblem):
        return "separable_conv2d", wishes | {"depthwise_activation": activation(first)}
    if first.kind == "depthwise":
        return f"depthwise_conv{first.dimensions}d", wishes
    if first.kind == "atrous" and first.dimensions == 2:
        return "atrous_conv2d", wishes | {"rate": wishes.pop("dilation"), "groups": first.groups}
    return f"conv{first.dimensions}d", wishes | {"groups": first.groups}


def call(module, problem, arrays, **keywords):
    """What a module, fastconv or its reference, makes of a problem's arrays."""
    name, wishes = named(problem)
    if not module.__name__.endswith("reference"):
        computed["problems"] += 1
    return getattr(module, name)(**arrays, **wishes | keywords)


def same_numbers(got, want):
    """As `same_bits`, but zeros may differ in sign: the reference's, of a single product, is that of the product."""
    np.testing.assert_array_equal(got, want, strict=True)


def same_bits(got, want):
    """Same shape, dtype and bits."""
    np.testing.assert_array_equal(got, want, strict=True)
    assert got.tobytes() == want.tobytes(), "zeros of different signs"


# Exact, but for one kernel --------------------------------------------------------------------------------------------

STEEPEST = 1.5  # slope of an activation: hardswish's


def chosen(problem, x):
    """What computes a problem whose image lies in memory as x does."""
    return choose(problem, IMPLEMENTATIONS, fastconv.get_num_threads(), neighbours(x, problem))


def is_exact(implementation):
    """On whole numbers: coefficients of F(2x2, 3x3) and of phases are binary fractions, Strassen's ones, others neither."""
    name, exact = implementation.name, ("winograd_2x2", "winograd_2x2_stride_2", "strassen_separable")
    return implementation.algorithm != "winograd" or name in exact or "phases" in name or "strassen_pointwise" in name


def largest(problem, given):
    """The largest of conv(|x|, |weight|) for each image and filter, over all places where a window meets the image."""
    x, weight = np.abs(given["x"]), np.abs(given["weight"])
    if problem.padding_mode != "zeros":
        x = packing.bordered(x, problem.pads, problem.padding_mode, problem.data_format)
    last = problem.data_format == "channels_last"
    same = {"dilation": problem.dilation, "groups": problem.groups, "data_format": problem.data_format}
    if problem.operation == "transposed":
        convolve = getattr(fastconv.reference, f"conv_transpose{problem.dimensions}d")
        sums = convolve(x, weight, stride=problem.stride, **same)
    else:
        convolve = getattr(fastconv.reference, f"conv{problem.dimensions}d")
        sums = convolve(
            x, weight, padding=tuple((step * (k - 1),) * 2 for step, k in zip(problem.dilation, problem.kernel)), **same
        )
    space = range(-problem.dimensions, 0)
    return sums.max(axis=tuple(d - 1 if last else d for d in space), keepdims=True)


def error(problem, given, *others):
    """How far off each number of the result may be, before the activation.

    Nothing, if kernels that are exact compute the problem, of given["x"] and of each of the other images.
    """
    choices = [choice for x in (given["x"], *others) if not is_exact((choice := chosen(problem, x)).implementation)]
    if not choices:
        return np.zeros(1)
    share = max(choice.implementation.error(choice.problem) for choice in choices)
    return share * largest(problem, given).astype(np.float64)


def same_result(problem, given, got, want, *others):
    """`same_bits`, unless there may be an error: then two of them apart at most, times the activation's slope."""
    bound = 2 * STEEPEST * error(problem, given, *others)
    if not bound.any():
        same_bits(got, want)
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    wrong = np.abs(got.astype(np.float64) - want) > bound
    assert not wrong.any(), f"{problem}: {wrong.sum()} numbers beyond their bound"
