"""Strips: together they compute every pixel of a row, the last that does so with all of its taps."""

import cases
import pytest

from fastconv.cpu import strips
from fastconv.cpu.simd import TileShape

ROWS = (14, 9, 8, 6, 2)
LINES = [
    *(f"conv2d,n1c3i9x{width}f4k3p1" for width in (13, 14, 17, 27, 28, 29, 56)),
    *(f"conv2d,n1c3i40x33f4k3p{rate}d{rate}" for rate in (2, 6, 12, 16, 18, 24, 32)),
    *(f"conv2d,n1c3i40x33f4k3p{rate}d{rate},symmetric" for rate in (2, 18)),  # whose border is drawn in
    "conv2d,n1c3i9x17f4k1x7p0x3", "conv2d,n1c3i9x35f4k5s2p2", "conv2d,n1c3i9x41f4k5s3p0:7x8:1d1x3", "conv1d,n1c3i99f4k9p4",
]  # fmt: skip


def taps_of(problem, column):
    """Those that lie inside the image, by the definition."""
    size, before = problem.space[-1], problem.pads[-1][0]
    if problem.padding_mode != "zeros":
        return set(range(problem.kernel[-1]))
    places = [(b, column * problem.stride[-1] + b * problem.dilation[-1] - before) for b in range(problem.kernel[-1])]
    return {b for b, u in places if 0 <= u < size}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("line", LINES)
def test_every_pixel_sees_its_taps(line, rows):
    problem, tile = cases.parse(line), TileShape(rows, 2, 16)
    width, last = problem.out_space[-1], {}
    for strip in strips.cut(problem, tile):
        length = tile.rows if strip.tall else tile.short.rows
        assert 0 <= strip.first and strip.first + length <= width
        last.update(dict.fromkeys(range(strip.first, strip.first + length), strip))
    assert sorted(last) == list(range(width))
    for column, strip in last.items():
        assert taps_of(problem, column) <= set(range(strip.begin, strip.end)), column


def test_almost_every_row_is_made_up_exactly():
    tile = TileShape(10, 2, 16)
    for line, lengths in (("conv2d,n1c3i5x49f4k1", [10] * 4 + [9]), ("conv2d,n1c3i5x28f4k3p1", [10, 9, 9])):
        found = strips.cut(cases.parse(line), tile)
        assert [tile.rows if strip.tall else tile.short.rows for strip in found] == lengths
        assert [strip.first for strip in found] == [sum(lengths[:k]) for k in range(len(lengths))]


def test_far_taps_are_skipped():
    """At dilation 18 a row of 33 sees two taps for 15 pixels, one for 3, two for 15; the middle comes first, and is overwritten."""
    found = strips.cut(cases.parse("conv2d,n1c3i40x33f4k3p18d18"), TileShape(8, 2, 16))
    assert [(strip.first, strip.begin, strip.end) for strip in found] == [(15, 1, 2), (0, 1, 3), (8, 1, 3), (18, 0, 2), (26, 0, 2)]
