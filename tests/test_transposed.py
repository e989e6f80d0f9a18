"""The tiled kernel of transposed convolutions, and the mirrored convolutions of those of stride 1: exact on whole numbers."""

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu import launch, machine
from fastconv.cpu.plans.transposed import taps_inside
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

NAME = "tiled_transposed"
TILES = [(dtype, size) for dtype in ("float32", "float64") for size in tiled.sizes(NAME, dtype)]
# What drawing may miss: strides and dilations that share divisors or do not, columns that no tap reaches, more output padding
# than taps, crops of more than a window, rows longer than a run of sums, blocks of channels that are not whole.
DESIGNED = [
    "transposed2d,n2c3i5x7f16k3s2p1o1,bias",
    "transposed2d,n1c17i6x9f33k4s2p1,bias,relu",
    "transposed2d,n1c33i5x6f40k5s3p2o2,residual,bias",
    "transposed2d,n1c3i6x5f20k2s3o2x1",
    "transposed2d,n1c3i6x5f20k1s3,bias",
    "transposed2d,n1c4i6x5f34k3s2x3p1d2x4g2o1x3",
    "transposed2d,n1c3i7x6f17k3s4x2d3x4,bias",
    "transposed2d,n1c3i9x9f17k3s2p4:1x0:5,bias",
    "transposed2d,n1c6i4x9f36k3s2p1g6",
    "transposed2d,n3c3i3x70f18k3s2p1,pixelbias,residual,relu6",
    "transposed2d,n1c3i8x9f16k3s1x2p1,bias",
    "transposed2d,n1c3i8x9f16k3s3x1p1,bias",
    "transposed2d,n1c3i1f16k3s2",
    "transposed1d,n2c17i31f40k8s4p2o1,bias",
    "transposed1d,n2c4i9f36k3s2d3g2",
    "transposed3d,n1c3i3x4x5f20k3s2p1o1,bias",
    "transposed3d,n2c4i3x4x5f34k2x3x1s2x1x3p0x1x0g2o0x0x2,bias,residual",
    "transposed3d,n1c3i3x2x6f16k3s3x2x1p1d2x1x1",
]


@pytest.mark.parametrize(("dtype", "size"), TILES)
def test_whole_numbers(dtype, size):
    tile = tiled.tile_of(NAME, dtype, *size)
    for line in tiled.problems(NAME, tile, 150 if dtype == "float32" else 50):
        tiled.check(NAME, line, tile, threads=3)


# Blocks -----------------------------------------------------------------------------------------------------------------

BLOCKS, OF_PIXELS = "tiled_transposed_blocks", "tiled_transposed_blocks_pixels"
SHUFFLED = [
    "transposed2d,n2c21i7x9f5k16s8p4,bias,relu",
    "transposed2d,n1c3i4x9f3k5x3s3x5p1o1,bias,residual,silu",  # fewer taps than a stride, segments that two panels share
    "transposed2d,n1c3i4x9f20k7s4p6:1x0:5o1,bias,tanh",  # whole blocks are cropped
    "transposed2d,n1c6i4x9f10k4s4g2,bias",
    "transposed2d,n1c3i4x9f2k9x5s4p3x1,bias,relu",  # phases of rows with fewer taps than the first
    "transposed1d,n2c17i40f7k16s20p3o2,pixelbias",
]


@pytest.mark.parametrize(("name", "dtype", "count"), [(BLOCKS, "float32", 60), (BLOCKS, "float64", 20), (OF_PIXELS, "float32", 60)])
def test_blocks_of_whole_numbers(name, dtype, count):
    tile = tiled.tile_of(name, dtype, *tiled.PICKS[name][1][0])
    for line in tiled.problems(name, tile, count):
        tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize(("name", "last"), [(BLOCKS, ""), (BLOCKS, ",channels_last"), (OF_PIXELS, "")])
@pytest.mark.parametrize("line", SHUFFLED)
def test_blocks(line, name, last):
    problem, bits = cases.parse(f"{line}{last},tiled"), set()
    if reason := tiled.BY_NAME[name].refuse(problem):
        pytest.skip(reason)
    given = cases.arrays(problem, np.random.default_rng(0))
    want = cases.call(fc.reference, problem, given)
    for threads in (1, 4):
        got = tiled.result(tiled.chosen(name, problem, threads=threads), given)
        np.testing.assert_allclose(got, want, rtol=1e-5 * cases.rounded(problem), atol=1e-5 * cases.rounded(problem))
        bits.add(got.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [("c21i34f21k16s8p4", BLOCKS), ("c192i14f3k16s16", BLOCKS), ("c128i28f64k4s4", NAME), ("c56i64f1k9s3p3", OF_PIXELS)],
)
def test_large_strides_are_computed_in_blocks(text, name):
    assert choose(cases.parse(f"transposed2d,n1{text}"), IMPLEMENTATIONS, 1).implementation.name == name


# Blocks that see one pixel each ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiled.WOVEN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_woven_phases_of_whole_numbers(name, dtype):
    tile = tiled.tile_of(name, dtype, *tiled.PICKS[name][1][0])
    for line in tiled.problems(name, tile, 60 if dtype == "float32" else 15):
        tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize("view", tiled.VIEWS)
def test_views_of_what_is_read_in_place(view):
    """Where lines of an image do not follow one another, it is copied."""
    for name in tiled.WOVEN:
        tiled.check(name, "transposed2d,n2c34i5x9f18k2s2,bias,relu", view=tiled.VIEWS[view])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("c1024i28f512k2s2", "strassen_transposed"), ("c32i28f16k2s2", "tiled_transposed_woven"), ("c64i28f64k2s2p1", NAME),
        ("c64i28f33k2s2,highest", "tiled_transposed_woven"), ("c64i28f32k3s3", NAME),
    ],
)  # fmt: skip
def test_layers_of_blocks_of_one_pixel(text, name, every_tile):
    assert choose(cases.parse(f"transposed2d,n1{text}"), IMPLEMENTATIONS, 1).implementation.name == name


@pytest.mark.parametrize("line", DESIGNED)
def test_rows_of_taps_that_the_plan_counts(line):
    """All pairs of an output and a tap, one by one, that meet a number of the image."""
    problem = cases.parse(line)
    for axis, size in enumerate(problem.space):
        stride, dilation, before = problem.stride[axis], problem.dilation[axis], problem.pads[axis][0]
        places = [i + before - a * dilation for i in range(problem.out_space[axis]) for a in range(problem.kernel[axis])]
        assert taps_inside(problem, axis) == sum(place % stride == 0 and 0 <= place // stride < size for place in places)


@pytest.mark.parametrize("line", DESIGNED)
def test_designed_problems(line):
    tile = tiled.first_fitting(NAME, line)
    for last in ("", ",channels_last"):
        for threads in (1, 4):
            tiled.check(NAME, line + last, tile, threads)


@pytest.mark.parametrize("ending", tiled.ENDINGS + ["bias,sigmoid", "residual,tanh", "bias,silu", "pixelbias,gelu"])
def test_epilogues(ending):
    for last in ("", "channels_last"):
        line = ",".join(word for word in ("transposed2d,n2c5i4x9f18k3s2p1o1", ending, last, "tiled") if word)
        problem = cases.parse(line)
        given = cases.arrays(problem, np.random.default_rng(0))
        assert choose(problem, IMPLEMENTATIONS, 1).implementation.name == NAME, line
        got, want = cases.call(fc, problem, given), cases.call(fc.reference, problem, given)
        if cases.rounded(problem):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=line)
        else:
            np.testing.assert_array_equal(got, want, strict=True, err_msg=line)


@pytest.mark.parametrize("view", tiled.VIEWS)
def test_views(view):
    tile = tiled.tile_of(NAME, "float32", *tiled.PICKS[NAME][1][0])
    for line in tiled.problems(NAME, tile, 20, seed=5):
        tiled.check(NAME, line, tile, view=tiled.VIEWS[view])


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(special):
    """They reach the outputs that they are spread to, and no others."""
    tile = tiled.tile_of(NAME, "float32", *tiled.PICKS[NAME][1][0])
    for line in tiled.problems(NAME, tile, 40, seed=6):
        tiled.check(NAME, line, tile, special=special)


@pytest.mark.parametrize("line", ["transposed2d,n2c20i15x33f40k3s2p1o1,bias", "transposed1d,n1c40i99f70k5s3,bias,silu"])
def test_threads_do_not_change_a_bit(line):
    """Nor does how the problem is divided for them."""
    problem, bits = cases.parse(line), set()
    given = cases.arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
    tile = tiled.tile_of(NAME, "float32", *tiled.PICKS[NAME][1][0])
    for threads in (1, 2, 3, 8):
        with fc.num_threads(min(threads, fc.get_num_threads())):
            bits.add(tiled.result(tiled.chosen(NAME, problem, tile, threads), given).tobytes())
    assert len(bits) == 1, line


# Pixels in lanes, and channels in lanes of depthwise layers ------------------------------------------------------------------

LANES = machine.lanes("float32")
PIXELS = [
    f"transposed2d,n2c{c}i4x{width}f{f}k{k}s2p{pad}{ending}"
    for c, f, k, pad in ((3, 3, "3", "1"), (1, 5, "4", "0:1x1:2"), (5, 1, "2", "0"), (2, 2, "5x7", "3:0"))
    for width, ending in ((1, ""), (LANES // 2, ",bias"), (LANES // 2 + 1, ",bias,relu"), (2 * LANES + 3, "o1,pixelbias,residual"))
] + [
    "transposed2d,n1c6i5x19f6k3s2p1g6o1,bias,relu6",
    "transposed2d,n1c6i5x19f12k3s2p1g6,bias",
    "transposed2d,n1c4i5x19f8k3s2p1g2,bias,hardswish",
    "transposed2d,n1c3i4x19f2k3x4s3x2p1o2x1,bias",
    "transposed2d,n1c3i4x19f2k3x4s1x2p1,bias",
    "transposed2d,n1c3i4x9f2k7s2p6,bias",  # more is cropped than a window spans
    "transposed1d,n2c3i70f2k4s2p1,bias",
    "transposed2d,n1c3i4x9f2k3s2p1,bias,float64",
]  # fmt: skip
CHANNELS = [
    f"transposed2d,n2c{c}i4x5f{c}k3x4s{stride}p1g{c}{ending},bias,channels_last{more}"
    for c in (2, LANES - 1, LANES, 2 * LANES + 5)
    for stride, ending, more in (("2", "o1", ",relu"), ("2x3", "", ",residual"), ("1x2", "", ",float64"))
]  # fmt: skip


CHANNELS_BY_TWO = [
    f"transposed2d,n2c{c}i{size}f{c}k{k}s2p{pad}g{c}{ending},channels_last"
    for c, ending in ((2, ",bias"), (LANES - 1, "o1,bias,relu"), (LANES, "o1"), (2 * LANES + 5, ",bias,residual"))
    for k, pad, size in ((2, "0", "3x5"), (3, "1", "4x5"), (3, "0:2x2:0", "5x7"), (5, "2", "2x6"), (5, "0", "1"))
] + [
    f"transposed2d,n1c{LANES + 3}i6x5f{LANES + 3}k7s2p6x3g{LANES + 3},channels_last",  # more is cropped than a row's taps span
    f"transposed1d,n2c{LANES + 1}i9f{LANES + 1}k5s2p2g{LANES + 1}o1,bias,channels_last",
    "transposed2d,n1c9i5x4f9k4s2p1g9,bias,float64,channels_last",
]  # fmt: skip


@pytest.mark.parametrize("text", PIXELS + CHANNELS + CHANNELS_BY_TWO)
def test_pixels_and_channels_in_lanes(text):
    problem = cases.parse(text + ",tiled")
    given, bits = cases.arrays(problem, np.random.default_rng(0)), set()
    if problem.filters // problem.groups * 2 > machine.lanes(problem.dtype):
        pytest.skip("filters enough to fill the lanes of this machine")
    name = "tiled_depthwise_transposed_last" if problem.data_format == "channels_last" else "tiled_transposed_pixels"
    name = "tiled_depthwise_spread_last" if text in CHANNELS_BY_TWO else name
    if problem.data_format == "channels_first" and problem.groups == problem.channels and problem.dimensions == 2:
        square = len({*problem.kernel}) == len({*problem.stride}) == 1
        name = "tiled_depthwise_spread" if square else name
    want = cases.call(fc.reference, problem, given)
    for threads in (1, 4):
        choice = choose(problem, IMPLEMENTATIONS, threads, launch.neighbours(given["x"], problem))
        assert choice.implementation.name == name
        got = tiled.result(choice, given)
        if "hardswish" in text:
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, want, strict=True)
        bits.add(got.tobytes())
    assert len(bits) == 1


def test_few_filters_and_depthwise_layers_have_pixels_in_lanes():
    for text, name in (("c32i32f3k3s2p1", "tiled_transposed_pixels"), ("c32i32f64k5s2p1", "tiled_transposed"),
                       ("c32i32f32k3s2p1g32", "tiled_depthwise_spread"), ("c32i32f3k3s3p1", OF_PIXELS)):  # fmt: skip
        assert choose(cases.parse(f"transposed2d,n1{text}"), IMPLEMENTATIONS, 1).implementation.name == name


# Stride 1: an ordinary convolution with its weight mirrored -----------------------------------------------------------------

MIRRORED = [
    "transposed2d,n2c3i9x11f16k3p1,bias,relu",
    "transposed2d,n1c3i9x11f16k3",
    "transposed2d,n1c4i9x11f18k3x5p0:2x3:1g2,bias",
    "transposed2d,n1c3i9x11f16k3p3x4",  # more is cropped than a window spans: what is left is no padding, but a crop
    "transposed2d,n1c3i9x11f16k2x3p4:0x0:5,residual,bias",
    "transposed2d,n1c3i9x11f16k1p1",
    "transposed2d,n1c3i9x11f16k1,bias",
    "transposed2d,n1c3i9x11f16k3p2d2x3,pixelbias",
    "transposed2d,n1c3i9x11f16k3p1d2o1",
    "transposed2d,n1c5i9x11f5k3p1g5,bias",
    "transposed2d,n1c5i9x11f10k5p2g5,bias",
    "transposed1d,n2c3i31f16k8p2,bias",
    "transposed3d,n1c3i4x5x6f16k3x2x1p1x0x0,bias",
    "transposed3d,n1c3i4x5x6f16k2p2x0x3",
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", ["", ",channels_last"])
@pytest.mark.parametrize("line", MIRRORED)
def test_mirrored(line, last, dtype):
    line = f"{line}{last},{dtype},tiled"
    problem = cases.parse(line)
    choice = choose(problem, IMPLEMENTATIONS, 1)
    assert choice.mirrored and choice.problem.operation == "conv" and choice.problem.out_shape[0] == problem.batch, line
    given = cases.arrays(problem, np.random.default_rng(0))
    got = cases.call(fc, problem, given)
    np.testing.assert_array_equal(got, cases.call(fc.reference, problem, given), strict=True, err_msg=line)


@pytest.mark.parametrize("line", ["transposed2d,n1c16i12x13f16k3p1,bias", "transposed2d,n1c3i22x23f16k3,bias,relu"])
def test_mirrored_by_winograd(line):
    problem = cases.parse(line + ",winograd")
    given = cases.arrays(problem, np.random.default_rng(0))
    choice = choose(problem, IMPLEMENTATIONS, 1)
    assert choice.mirrored and choice.implementation.algorithm == "winograd", line
    cases.same_result(problem, given, cases.call(fc, problem, given), cases.call(fc.reference, problem, given))


@pytest.mark.parametrize("line", MIRRORED)
def test_items_of_mirrored_ones_give_the_same_bits(line):
    problem, bits = cases.parse(line + ",tiled"), set()
    given = cases.arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
    for threads in (1, 2, 3):
        bits.add(tiled.result(choose(problem, IMPLEMENTATIONS, threads, "columns"), given).tobytes())
    assert len(bits) == 1, line
