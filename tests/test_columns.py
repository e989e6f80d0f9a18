"""Toom and Cook's scheme down the columns, picked by name: against the reference, within its bound."""

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu import columns, packing, toom
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

NAMES = [name for name in tiled.PICKS if name.startswith("winograd_columns")]
SCHEMES = {name: tiled.BY_NAME[name].scheme for name in NAMES}
# Each kernel is compiled for each dtype: for float64 one of 3 taps and one of 4.
TYPED = [*((name, "float32") for name in NAMES), (NAMES[0], "float64"), (NAMES[3], "float64")]
TILES = [(name, dtype, size) for name, dtype in TYPED for size in tiled.sizes(name, dtype)]
# What drawing may miss: the stems of the networks, heights one beside a multiple of 4 and of 7, rows below a vector and beside
# its multiples, phases without all taps, padding on one side or more than a window, cropped images, groups of few channels.
DESIGNED = [
    "conv2d,n1c3i33x35f8k7s2p3,bias,relu",
    "conv2d,n2c3i32x30f9k7s2p2:3x3:2,bias",
    "conv2d,n1c3i17x20f16k3p1,bias,relu6",
    "conv2d,n1c3i9x5f5k3s1x2p1,bias",
    "conv2d,n1c3i23x23f8k5s2p2,bias",
    "conv2d,n1c3i23x23f8k5x3s2x3p0:2x1:0,bias",
    "conv2d,n1c3i31x9f4k9x4s3p4",
    "conv2d,n1c3i31x9f4k7x4s3x1p0:5x0,bias,hardswish",
    "conv2d,n1c2i18x17f4k4p1:2,bias",
    "conv2d,n1c2i27x40f4k8x3s2p7x9,bias",
    "conv2d,n1c8i15x16f8k3p1g4,bias",
    "conv2d,n3c6i11x13f9k4p2g3,residual,bias,relu",
    "conv2d,n1c3i15x16f6k3p1d1x4,bias",
    "conv2d,n1c3i15x16f6k4x3s1x2p2d1x3",
    "conv2d,n1c2i40x3f3k3p1",
    "conv2d,n1c2i40x1f3k4x1",
    "conv2d,n1c2i3x4f3k3",
    "conv2d,n1c2i4f3k4",
    "conv2d,n1c3i15x20f4k3p-1",
    "conv2d,n1c3i29x31f4k7s2p-1:2x-3:-4",
]


def able(name, line):
    return tiled.asked(name, cases.parse(line)).kind != "pointwise" and not tiled.BY_NAME[name].refuse(cases.parse(line))


def check(name, line, tile=None, threads=1, view=None):
    """Cropped images are cut for the reference, which pads only."""
    problem = cases.parse(line)
    if min(min(pad) for pad in problem.pads) >= 0:
        tiled.check(name, line, tile, threads, view)
        return
    given = cases.arrays(problem, np.random.default_rng(0))
    got = tiled.result(tiled.chosen(name, problem, tile, threads), given)
    inside = tuple(slice(max(0, -before), size - max(0, -after)) for size, (before, after) in zip(problem.space, problem.pads))
    pads = tuple((max(before, 0), max(after, 0)) for before, after in problem.pads)
    want = fc.reference.conv2d(given["x"][(..., *inside)], given["weight"], None, problem.stride, pads)
    off = tiled.BY_NAME[name].error(problem) * cases.largest(problem, given)
    assert got.shape == want.shape and (np.abs(got - want) <= off).all(), f"{name}: {line}"


@pytest.mark.parametrize(("name", "dtype", "size"), TILES)
def test_whole_numbers(name, dtype, size):
    tile = tiled.tile_of(name, dtype, *size)
    for line in tiled.problems(name, tile, 100 if dtype == "float32" else 40):
        tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize("line", DESIGNED)
def test_designed_problems(line):
    names = [name for name in NAMES if able(name, line)]
    assert names, line
    for name in names:
        tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
        for threads in (1, 4):
            check(name, line, tile, threads)


@pytest.mark.parametrize("ending", tiled.ENDINGS + ["bias,sigmoid", "residual,tanh", "bias,silu", "pixelbias,gelu"])
def test_epilogues(ending):
    line = f"conv2d,n2c3i13x21f5k3p1,{ending}".rstrip(",")
    name = NAMES[0]
    check(name, line, tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0]))


@pytest.mark.parametrize("name", NAMES)
def test_views(name):
    tiled.check_views(name, 20)


@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_change_a_bit(name):
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    line = {3: "conv2d,n2c3i61x40f20k5s2p2,bias", 4: "conv2d,n2c3i61x40f20k7s2p3,bias"}[SCHEMES[name].taps]
    tiled.check_threads(name, line, tile)


@pytest.mark.parametrize("line", ["conv2d,n1c3i64x64f32k7s2p3,bias,relu", "conv2d,n1c3i64x64f16k3p1,bias"])
def test_asked_for(line):
    """By the argument of the API, the plan takes one of these for a stem."""
    problem = cases.parse(line + ",winograd")
    choice = choose(problem, IMPLEMENTATIONS, 1, "columns")
    assert choice.implementation.name in NAMES, line
    given = cases.arrays(problem, np.random.default_rng(0))
    tiled.agree(choice.implementation.name, line, given, cases.call(fc, problem, given))


REFUSED = [
    "conv2d,n1c3i16f8k3s3p1",  # one row of taps a phase
    "conv2d,n1c3i16f8k4s2p1",
    "conv2d,n1c3i16f8k3p2d2",
    "conv1d,n1c3i16f8k3p1",
    "conv3d,n1c3i16f8k3p1",
]


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line):
    assert all(tiled.BY_NAME[name].refuse(cases.parse(line)) for name in NAMES), line


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_transformed_columns(name, dtype):
    """[group][panel][bias, then point, channel, phase, tap across][filter]: G of every stride-th row of taps."""
    rng, scheme, rows, groups, filters, channels, across = np.random.default_rng(0), SCHEMES[name], 4, 2, 5, 3, 2
    taps, stride = ((3, 1), (5, 2), (7, 2), (10, 3))[NAMES.index(name)]
    weight = rng.standard_normal((groups * filters, channels, taps, across)).astype(dtype)
    bias = rng.standard_normal(groups * filters).astype(dtype)
    g, unit = np.array(scheme.g, float), np.finfo(dtype).eps / 2
    for starts in (bias, None):
        u = columns.transformed_columns(packing.by_group(weight, groups), starts, rows, stride, scheme)
        depth = len(g) * channels * stride * across
        assert u.dtype == dtype and u.shape == (groups, 2, 1 + depth, rows)
        of_filters = u.transpose(0, 1, 3, 2).reshape(groups, 2 * rows, -1)
        assert not of_filters[:, filters:].any()
        np.testing.assert_array_equal(of_filters[:, :filters, 0].ravel(), 0 if starts is None else bias)
        numbers = of_filters[:, :filters, 1:].reshape(groups * filters, len(g), channels, stride, across)
        for phase in range(stride):
            of_phase = weight[:, :, phase::stride].astype(float)
            coefficients = g[:, : of_phase.shape[2]]
            exact = np.einsum("pt,fctb->fpcb", coefficients, of_phase)
            loose = np.einsum("pt,fctb->fpcb", abs(coefficients), abs(of_phase))
            assert (abs(numbers[:, :, :, phase] - exact) <= 4 * unit * loose).all(), f"phase {phase} of {taps} rows"


# Errors ----------------------------------------------------------------------------------------------------------------

LINES = {3: "conv2d,n1c{}i22x23f6k3p1", 4: "conv2d,n1c{}i29x23f6k7s2p3"}
DRAWS = {  # image, weights: without a common trend
    "normal": (lambda rng, shape: rng.standard_normal(shape), lambda rng, shape: rng.standard_normal(shape)),
    "uniform": (lambda rng, shape: rng.uniform(-1, 1, shape), lambda rng, shape: rng.uniform(-1, 1, shape)),
    "a picture": (lambda rng, shape: rng.random(shape), lambda rng, shape: rng.standard_normal(shape)),
}


def share_of(name, problem, x, weight):
    """How far a result is off, as a share of conv(|x|, |weight|), against sums in more digits."""
    given = {"x": x.astype(problem.dtype), "weight": weight.astype(problem.dtype)}
    tile = tiled.tile_of(name, problem.dtype, *tiled.PICKS[name][1][0])
    got = tiled.result(tiled.chosen(name, problem, tile), given)
    wide = np.float64 if problem.dtype == "float32" else np.longdouble
    exact = windows_by_taps(problem, given["x"].astype(wide), given["weight"].astype(wide))
    return float((np.abs(got - exact) / cases.largest(problem, given)).max())


def windows_by_taps(problem, x, weight):
    """The sums of one group, in the dtype of the arrays."""
    (stride_i, stride_j), (height, width), total = problem.stride, problem.out_space, 0
    padded = np.pad(x, ((0, 0), (0, 0), *problem.pads))
    for a in range(problem.kernel[0]):
        for b in range(problem.kernel[1]):
            seen = padded[:, :, a : a + height * stride_i : stride_i, b : b + width * stride_j : stride_j]
            seen = seen[:, :, :height, :width].reshape(problem.batch, problem.channels, -1)
            total = total + weight[:, :, a, b] @ seen
    return total.reshape(problem.out_shape)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_random_numbers_stay_within_the_bound(name, draw, dtype):
    for channels in (2, 3, 8, 64, 300) if dtype == "float32" else (3, 17):
        problem = cases.parse(LINES[SCHEMES[name].taps].format(channels) + f",{dtype}")
        rng = np.random.default_rng(channels)
        x, weight = (make(rng, shape) for make, shape in zip(DRAWS[draw], (problem.x_shape, problem.weight_shape)))
        share, bound = share_of(name, problem, x, weight), columns.error_bound(problem, SCHEMES[name])
        assert share <= bound, f"{name}: {problem}, {draw}: {share:.1e}, the bound is {bound:.1e}"


@pytest.mark.parametrize("name", NAMES)
def test_adverse_numbers_stay_within_the_worst(name):
    """One tile, whose signs are those of one point's coefficients, so that its products have one sign in all channels."""
    scheme = SCHEMES[name]
    g, b = np.array(scheme.g, float), np.array(scheme.b, float)
    for channels in (2, 16, 300):
        height = scheme.outputs + scheme.taps - 1
        problem = cases.parse(f"conv2d,n1c{channels}i{height}x16f4k{scheme.taps}x1")
        rng = np.random.default_rng(0)
        for p in range(len(g)):
            x = np.sign(b[p])[:, None] * rng.uniform(0.9, 1, problem.x_shape)
            weight = np.sign(g[p])[:, None] * rng.uniform(0.9, 1, problem.weight_shape)
            share, worst = share_of(name, problem, x, weight), toom.worst_error([scheme], channels, "float32")
            assert share <= worst, f"{name}: {problem}, point {p}: {share:.1e}, the worst is {worst:.1e}"
