"""Depthwise kernels on shapes made from the vector's lanes: every edge, stride, dilation and format, exact to the last bit."""

import os
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu import job, machine, packing, pairs, tiles
from fastconv.cpu.compiled import address
from fastconv.cpu.depthwise import tiled_depthwise_last
from fastconv.cpu.simd import TileShape
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import most_threads
from fastconv.plan import choose

LANES = machine.lanes("float32")
HALF = LANES // 2


pytestmark = pytest.mark.usefixtures("tiled_however_small")


def kernel_of(text, neighbours="any"):
    return choose(cases.parse(text), IMPLEMENTATIONS, 1, neighbours).implementation.name


def check(text, **keywords):
    problem = cases.parse(text)
    given = cases.arrays(problem, np.random.default_rng(0))
    got = cases.call(fc, problem, given, **keywords)
    cases.same_numbers(got, cases.call(fc.reference, problem, given))
    return got


# Columns in lanes, around one vector, half of one, two, and three and a bit: pairs, then what is left over.
WIDTHS = (1, 2, HALF - 1, HALF, HALF + 1, LANES - 1, LANES, LANES + 1, 2 * LANES, 2 * LANES + 3, 3 * LANES + 1, 3 * LANES + HALF)
FIRST = [
    f"conv2d,n2c3i9x{width * stride}f3k{kernel}s{stride}p{pad}g3,bias,relu"
    for kernel, stride, pad in ((3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, "1:3x4:0"), (7, 2, 3))
    for width in WIDTHS
] + [
    "conv2d,n1c3i1f3k3p1g3",
    "conv2d,n1c5i3f5k3g5",  # one output
    f"conv2d,n1c3i11x{LANES + 5}f6k3p0:2x2:0g3,bias",
    f"conv2d,n1c3i13x{LANES + 5}f6k3p4d2x5g3,bias",
    "conv2d,n1c3i13x7f6k3p4d3g3,bias,residual",
    f"conv2d,n1c2i2x{3 * LANES}f2k3p9g2,bias",  # windows in the padding alone
    f"conv2d,n2c3i13x{LANES + 3}f6k5x1p4x0d2x1g3,bias,relu", "conv3d,n1c3i9x3x4f3k7x1x1p3x0x0g3,residual",
]  # fmt: skip
# Two planes a vector, each in a quarter of it, a half, or a whole one: of two channels, two images, an odd image at last.
BATCHES = [
    f"conv2d,n{n}c3i{5 * stride}x{width * stride}f{filters}k{kernel}s{stride}p{kernel // 2}g3,bias,relu"
    for kernel, stride in ((3, 1), (3, 2), (5, 1))
    for width in (2, LANES // 4, HALF - 1, LANES - 1)
    for n, filters in ((1, 3), (3, 3), (6, 6), (17, 3))
] + ["conv2d,n6c3i5x7f6k3p1g3,pixelbias,residual", "conv2d,n17c3i5x4f3k3p1g3,bias,residual,relu6,float64"]  # fmt: skip
DOUBLE = [f"conv2d,n1c3i7x{width}f3k3s{stride}p1g3,bias,float64" for stride in (1, 2) for width in (3, 7, 8, 9, 17)]

# Volumes: planes of taps one after the other.
VOLUMES = [
    f"conv3d,n2c3i5x9x{LANES + 1}f3k3p1g3,bias,relu",
    f"conv3d,n1c3i6x9x{2 * LANES + 8}f6k3s1x2x2p1g3,bias,relu6",
    "conv3d,n1c3i4x9x7f3k5x3x3s2x1x1p6x1x1d2x1x1g3,pixelbias,residual",  # some windows in the padding alone
    "conv3d,n1c2i3x7x9f2k1x5x5p0x4x2g2,bias,float64",
]

# Channels in lanes.
LAST = [
    f"conv2d,n2c{channels}i{size}f{channels}k{kernel}s{stride}p{pad}g{channels},bias,relu,channels_last"
    for kernel, stride, pad in ((3, 1, 1), (3, 2, "0:2x2:0"), (5, 1, 2))
    for channels in (1, LANES - 1, LANES, LANES + 1, 2 * LANES + 5)
    for size in ("1x5", "9x7")
] + [
    f"conv2d,n2c{2 * LANES + 1}i9x11f{2 * LANES + 1}k3p3d3x2g{2 * LANES + 1},bias,residual,channels_last",
    "conv2d,n1c9i7x8f9k3s2p1g9,float64,pixelbias,channels_last",
]  # fmt: skip

# Two rows of the result at once, channels in lanes; halves of whole weights are exact.
PAIRS = [
    f"conv2d,n2c{channels}i{size}f{channels}k3p{pad}g{channels},bias{rest},channels_last,winograd"
    for channels, rest in ((LANES, ",relu"), (2 * LANES + 5, ",residual,relu6"))
    for size, pad in (("7x5", "1"), ("8x9", "0:2x2:0"), ("1x1", "1"), ("6x4", 4))
] + [f"conv2d,n1c{LANES + 1}i5x9f{LANES + 1}k3g{LANES + 1},float64,pixelbias,channels_last,winograd"]  # fmt: skip

# Walked across, two rows at once, around whole vectors and halves of one; even, odd and single rows, more columns than windows see.
ACROSS = [
    f"conv2d,n2c3i{rows}x{2 * width - odd}f{filters}k3s2p{pad}g3,bias{rest}"
    for rows, pad, filters, rest in ((7, "1", 3, ",relu"), (4, "2x1:2", 6, ",residual,relu6"), (1, "1", 3, ",pixelbias"))
    for width in (LANES, LANES + 1, 2 * LANES - 1, 2 * LANES, 2 * LANES + HALF, 2 * LANES + HALF + 1)
    for odd in (0, 1)
] + [f"conv2d,n1c3i{rows}x{4 * LANES + 2}f3k3s2p1x1:0g3,float64,bias" for rows in (6, 7)]  # fmt: skip
AT_POINTS = [
    f"conv2d,n2c{LANES + 3}i{rows}x{width}f{filters}k3p{pad}g{LANES + 3},bias{rest},winograd"
    for rows, pad, filters, rest in ((6, "1", LANES + 3, ",relu"), (3, "2:0x1:2", 2 * LANES + 6, ",residual,relu6"))
    for width in (1, HALF - 1, HALF, LANES - 1, LANES, LANES + 1, LANES + HALF, 2 * LANES - 1, 3 * LANES, 3 * LANES + 1)
] + [f"conv2d,n1c{LANES}i{rows}x{LANES + 3}f{LANES}k3p1x1:0g{LANES},float64,pixelbias,winograd" for rows in (4, 5)]  # fmt: skip

# What slides no window of its own: over copied lines, over sheets, or filters in lanes.
LINES = [
    f"conv2d,n2c{channels}i{size}f{channels}k{window}g{channels},bias,relu,channels_last"
    for channels, size, window in (
        (LANES, "9x30", "4p1:2"), (2 * LANES + 5, "11x28", "7s2p3"), (LANES + 1, "13x43", "2x3s3x4"), (3, "9x11", "1x9p0x4"),
        (6 * LANES, "7x15", "9x1p5x0d2x1"), (LANES, "12x29", "3x4s2x1p5x0d3x2"), (LANES + 1, "1x1", "7p3"),
    )
] + [
    f"conv1d,n2c{LANES + 1}i70f{LANES + 1}k31p15g{LANES + 1},residual,channels_last",
    f"conv1d,n1c{5 * LANES}i150f{5 * LANES}k4p3:0g{5 * LANES},pixelbias,channels_last,float64",
    f"conv2d,n1c{LANES}i9x33f{3 * LANES}k3p1g{LANES},bias,channels_last",
    "conv2d,n1c3i7x8f6k5s2p2g3,channels_last,residual,leaky_relu:0.25",
    # Channels first: an image is turned there and back.
    f"conv2d,n2c{LANES}i9x30f{LANES}k4p1:2g{LANES},bias,relu",
    f"conv2d,n1c{2 * LANES + 5}i13x43f{2 * LANES + 5}k2x3s3x4g{2 * LANES + 5},residual",
    f"conv2d,n1c{LANES - 3}i12x9f{LANES - 3}k9p4g{LANES - 3},pixelbias,relu6",
    f"conv1d,n2c{LANES + 1}i70f{LANES + 1}k31s2p15g{LANES + 1},float64",
]  # fmt: skip
GENERAL = [
    "conv2d,n1c5i13x15f5k3s3p1g5,tiled",
    "conv2d,n1c5i13x33f10k4x2s2p1:2x0:1g5,tiled",
    "conv2d,n1c3i13x15f3k3s2p2d2g3,tiled",
    "conv1d,n2c3i70f3k31p15g3,tiled",
    "conv3d,n1c3i4x5x9f6k3p1d1x2x2g3,bias,tiled",
    "conv2d,n1c3i9x10f9k3p1g3,bias,channels_last,tiled",
    "conv2d,n1c3i13x15f3k3s3p1g3,channels_last,tiled",
]


@pytest.mark.parametrize("text", FIRST + BATCHES + DOUBLE + VOLUMES + LAST + PAIRS + LINES + GENERAL)
def test_exact(text):
    assert kernel_of(text).startswith("winograd_depthwise_last" if text in PAIRS else "tiled")
    assert (kernel_of(text) == "tiled_depthwise_lines") == (text in LINES or "last,tiled" in text)
    check(text)


@pytest.mark.parametrize("text", ACROSS + AT_POINTS)
def test_exact_across(text):
    problem = cases.parse(text)
    name = "winograd_depthwise" if text in AT_POINTS else "tiled_depthwise_across"
    given = cases.arrays(problem, np.random.default_rng(0))
    got = tiled.result(tiled.chosen(name, problem), given)
    cases.same_numbers(got, cases.call(fc.reference, problem, given))


def test_which_kernel():
    assert kernel_of(f"conv2d,n1c4i9x{HALF}f4k3p1g4") == "tiled_depthwise_two"
    assert kernel_of(f"conv2d,n1c4i9x{HALF + 1}f4k5p2g4") == "tiled_depthwise"
    assert (kernel_of(f"conv2d,n1c4i9x{LANES}f4k3p1g4") == "tiled_depthwise_two") == bool(tiles.two_whole_planes("float32"))
    assert kernel_of(f"conv2d,n1c4i9x{LANES + 1}f4k3p1g4") == "tiled_depthwise"
    assert kernel_of("conv2d,n1c4i9f4k3p1g4,channels_last") == "tiled_depthwise_last"
    assert kernel_of("conv2d,n1c4i9f4k3p1g4", "channels") != "tiled_depthwise"
    assert kernel_of("conv2d,n1c4i9f4k3p1g4,direct") == "direct_depthwise"
    assert kernel_of("conv2d,n1c4i9f4k3s3p1g4") == "direct_depthwise"
    assert kernel_of("conv3d,n1c4i5x9x9f4k3p1g4") == "tiled_depthwise_volume"
    by_pairs = machine.adds_beside() and machine.registers() == 32
    for options, in_pairs in (("", by_pairs), (",winograd", True), (",highest", False)):
        name = kernel_of(f"conv2d,n1c64i56f64k3p1g64,channels_last{options}")
        assert name == ("winograd_depthwise_last" if in_pairs else "tiled_depthwise_last")
        at_points, wide = in_pairs or options == ",winograd", tiles.least_across("float32", 1)
        assert kernel_of(f"conv2d,n1c64i{wide}f64k3p1g64{options}") == ("winograd_depthwise" if at_points else "tiled_depthwise")
    wide = tiles.least_across("float32", 2)
    for width, pad, across in ((wide, 1, True), (wide - 1, 1, False), (wide, 0, False)):
        name = "tiled_depthwise_across" if across else "tiled_depthwise"
        assert kernel_of(f"conv2d,n1c4i9x{2 * width}f4k3s2p{pad}g4") == name


@pytest.mark.parametrize("last", ["", ",channels_last"])
def test_error_at_points_is_bounded(last):
    problem = cases.parse(f"conv2d,n1c64i40f64k3p1g64,bias{last},winograd")
    given = {
        name: np.random.default_rng(0).standard_normal(a.shape, np.float32)
        for name, a in cases.arrays(problem, np.random.default_rng(0)).items()
    }
    got, want = cases.call(fc, problem, given), cases.call(fc, problem, {name: a.astype(np.float64) for name, a in given.items()})
    scale = cases.call(fc.reference, problem, {name: np.abs(a) for name, a in given.items()})
    assert np.abs(got - want).max() <= pairs.error_bound(problem) * scale.max()


@pytest.mark.parametrize("bias", ["", ",bias", ",pixelbias"])
@pytest.mark.parametrize("rest", ["", ",relu6", ",residual", ",residual,leaky_relu:0.25"])
@pytest.mark.parametrize("last", ["", ",channels_last"])
@pytest.mark.parametrize("width", [HALF, LANES + 1])
def test_epilogues(width, last, rest, bias):
    check(f"conv2d,n2c{LANES + 1}i5x{width}f{LANES + 1}k3p1g{LANES + 1}{bias}{rest}{last}")


ALONE = "conv2d,n1c1i40x33f1k3p1g1,residual"


SHARED = [
    FIRST[3], FIRST[8], FIRST[-2], BATCHES[2], BATCHES[7], LAST[1], LAST[7], PAIRS[4], LINES[1], LINES[8], LINES[12], ALONE,
    AT_POINTS[6], *ACROSS[9:11],
]  # fmt: skip


@pytest.mark.parametrize("text", SHARED)
def test_same_bits_for_any_number_of_threads(text):
    results = []
    for count in range(1, min(3, most_threads()) + 1):
        with fc.num_threads(count):
            results.append(check(text))
    for result in results[1:]:
        cases.same_bits(result, results[0])


@pytest.mark.parametrize("window", ["k3p1", "k3s2p1", "k4s3p1"])
@pytest.mark.parametrize("last", ["", ",channels_last"])
def test_views(last, window):
    """Reversed, strided and transposed images, of a walk and over copied lines."""
    problem = cases.parse(f"conv2d,n2c{LANES}i9x{3 * LANES + 3}f{LANES}{window}g{LANES},bias{last}")
    given = cases.arrays(problem, np.random.default_rng(0))
    want = cases.call(fc.reference, problem, given)
    x = given["x"]
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    axes = (0, 2, 3, 1)
    for view in (wide[..., ::2], x[..., ::-1].copy()[..., ::-1], np.moveaxis(x.transpose(axes).copy(), 3, 1), x[::-1].copy()[::-1]):
        cases.same_numbers(cases.call(fc, problem, given | {"x": view}), want)


def test_nan_stays_where_it_is():
    """A NaN reaches the windows that see it and no other, whatever lies in masked lanes."""
    for width, stride, last in ((LANES + 1, 1, ""), (LANES + 1, 1, ",channels_last"), (3 * LANES, 2, "")):
        problem = cases.parse(f"conv2d,n1c3i9x{width}f3k3s{stride}p1g3,relu{last}")
        given = cases.arrays(problem, np.random.default_rng(0))
        place = (0, 4, LANES, 1) if last else (0, 1, 4, LANES)
        given["x"][place] = np.nan
        cases.same_numbers(cases.call(fc, problem, given), cases.call(fc.reference, problem, given))


def test_windows_along_rows_of_few_lanes():
    """Four of float64, as a machine without AVX-512 has them: half of a half is no narrower, so what only pairs need stays out."""
    assert address(tiled_depthwise_last, *job.arguments("float64", TileShape(3, 3, 4, 2, "float64"), None))


def test_channel_panels():
    weight, bias = np.arange(5 * 6, dtype=np.float32).reshape(5, 1, 2, 3), np.arange(5, dtype=np.float32) - 9
    packed = packing.channel_panels(packing.by_group(weight, 5), bias, 4)  # lanes of every machine
    assert packed.shape == (2, 7, 4)
    for panel, first in enumerate((0, 1)):
        for lane in range(4):
            assert packed[panel, 0, lane] == bias[first + lane]
            assert packed[panel, 1:, lane].tolist() == weight[first + lane, 0].T.ravel().tolist()
    narrow = packing.channel_panels(packing.by_group(weight, 5), None, 8)
    assert narrow.shape == (1, 7, 8)
    assert not narrow[:, :, 5:].any() and not narrow[:, 0].any()


GUARDED = [
    f"conv2d,n1c3i7x{width * stride}f3k{kernel}s{stride}p{pad}g3"
    for kernel, stride in ((3, 1), (3, 2), (5, 1))
    for pad in (0, kernel // 2)
    for width in (HALF - 1, HALF, LANES - 1, LANES, LANES + 1, 2 * LANES + 3)
    if width * stride + 2 * pad >= kernel
] + [
    f"conv2d,n{n}c2i7x{width * stride}f2k3s{stride}p1g2" for n in (2, 6) for stride in (1, 2) for width in (LANES // 4, HALF, LANES)
] + [
    f"conv2d,n1c{channels}i7x5f{channels}k3s{stride}p{pad}g{channels},channels_last"
    for channels in (LANES - 1, LANES + 1, 2 * LANES + 1)
    for stride in (1, 2)
    for pad in (0, 1)
] + [
    f"conv2d,n1c3i7x{width}f3k3s2p1g3" for width in (2 * (LANES + HALF + 1), 2 * (LANES + HALF) - 1, 4 * LANES - 1)
] + [
    f"conv2d,n1c{LANES + 1}i7x{width}f{LANES + 1}k3p1g{LANES + 1},winograd"
    for width in (HALF, LANES - 1, LANES, LANES + 1, 2 * LANES + HALF)
] + [
    f"conv2d,n1c{LANES + 1}i{rows}x5f{LANES + 1}k3p{pad}g{LANES + 1},channels_last,winograd" for rows in (6, 7) for pad in (0, 1)
] + [text for text in LINES if "float64" not in text]  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_masked_edges_touch_nothing_else():
    script = "import conftest, test_guard as t; from fastconv import plan; plan.TINY = 0\n"  # else direct kernels take them
    script += f"t.TEXTS = {GUARDED!r}; t.gradients = lambda *a: None; t.check_all()"
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-X", "faulthandler", "-c", script]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0 and last == ["done"], f"{last}:\n{done.stderr}"
