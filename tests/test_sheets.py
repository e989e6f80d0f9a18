"""Sheets: where the table says that a tap lies, there is its number, and nothing is written beside them."""

import ctypes

import numpy as np
import pytest
import tiled
from cases import arrays, parse

from fastconv.cpu import job
from fastconv.cpu.sheets import LINE, Sheets

FILL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
LINES = [
    "conv2d,n1c3i7x9f4k3p1",
    "conv2d,n1c17i5x33f4k3p1",
    "conv2d,n1c16i9x17f4k3s2p1",
    "conv2d,n1c5i9x35f4k5x3s2x3p2:1x0:3",
    "conv2d,n1c2i12x13f4k3s3x1p4d2x3",
    "conv2d,n1c3i9x15f3k1s2",
    "conv2d,n1c3i4x5f3k3p6x7d2",
    "conv2d,n1c3i19x13f4k3p5d5",
    "conv2d,n1c3i23x13f4k3s2p4d6",
    "conv2d,n1c3i9x75f4k5s4p2:3",
    "conv2d,n1c2i13x40f4k7x6s3x5p1",
    "conv1d,n1c9i40f4k4s2p3:1",
    "conv3d,n1c3i5x6x18f4k3x2x3s2x1x2p1d1x2x1",
]


def padded(problem, x):
    """The image, as (channel, plane, row, column), with its zeros."""
    image = np.moveaxis(x[0], -1, 0) if problem.data_format == "channels_last" else x[0]
    image = np.pad(image, [(0, 0), *problem.pads])
    return image.reshape(image.shape[0], *(1,) * (4 - image.ndim), *image.shape[1:])


def three(sizes):
    return (1,) * (3 - len(sizes)) + tuple(sizes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", ["", ",channels_last"])
@pytest.mark.parametrize("line", LINES)
def test_taps_lie_where_the_table_says(line, last, dtype):
    problem = parse(f"{line}{last},{dtype}")
    given = arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
    choice = tiled.chosen("tiled_standard", problem, tiled.tile_of("tiled_standard", dtype, 1, 1), threads=3)
    ready, division, image = tiled.bound(choice, given), choice.division, padded(problem, given["x"])
    layout = Sheets.of(problem, division.band)
    used = problem.channels * layout.sheet
    scratch = np.empty(used + LINE, dtype)
    planes, rows, columns = three(problem.out_space)
    taps = list(np.ndindex(three(problem.kernel)))
    stride, apart = three(problem.stride), three(problem.dilation)
    fill = FILL(int(ready._words[job.PLACES["fill_code"]]))
    for plane in range(planes):
        for first in range(0, rows, division.band):
            scratch[...] = np.nan
            fill(ready._words.ctypes.data, scratch.ctypes.data, given["x"].ctypes.data, plane, first)
            assert np.isnan(scratch[used:]).all(), f"{problem}: wrote beside the sheets"
            sheets = scratch[:used].reshape(problem.channels, -1)
            for tap, place in zip(taps, layout.table):
                z, y, u = (tap[axis] * apart[axis] for axis in range(3))
                for i in range(first, min(first + division.band, rows)):
                    at = place + (i - first) * layout.pitch
                    want = image[:, plane * stride[0] + z, i * stride[1] + y, u : u + (columns - 1) * stride[2] + 1 : stride[2]]
                    np.testing.assert_array_equal(sheets[:, at : at + columns], want, f"{problem}: tap {tap}, row {i}")


def test_channels_do_not_share_their_sets_of_the_cache():
    """They lie an odd number of cache lines apart."""
    for line in LINES:
        for band in (1, 2, 5):
            assert Sheets.of(parse(line), band).sheet // LINE % 2 == 1


def test_rows_between_taps_are_left_out():
    """Of bands that are not as high as the taps are apart; else the taps share their rows."""
    far = parse("conv2d,n1c3i40f4k3p12d12")
    assert [Sheets.of(far, band).phases[1] for band in (1, 11, 12, 13)] == [3, 3, 1, 1]
    assert [Sheets.of(far, band).phase_size // Sheets.of(far, band).pitch for band in (1, 11, 12, 13)] == [1, 11, 36, 37]


def test_phases_that_no_tap_touches_are_left_out():
    assert Sheets.of(parse("conv2d,n1c3i9x15f3k1s2"), 3).phases == (1, 1, 1)
    assert Sheets.of(parse("conv2d,n1c3i9x15f3k3s2p1"), 3).phases == (1, 2, 2)
    assert Sheets.of(parse("conv2d,n1c3i9x15f3k3s2p2d2"), 3).phases == (1, 1, 1)
    assert Sheets.of(parse("conv2d,n1c3i9x15f3k2x3s5x3"), 3).phases == (1, 2, 3)
