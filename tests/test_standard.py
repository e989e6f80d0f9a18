"""The tiled kernels of standard, grouped and atrous layers, picked by name, with tiles of their own: exact on whole numbers."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import tiled
from cases import arrays, call, parse, same_bits

import fastconv as fc
from fastconv.cpu import machine

NAMES = ["tiled_standard", "tiled_standard_pixels"]
TILES = [(name, dtype, size) for name in NAMES for dtype in ("float32", "float64") for size in tiled.sizes(name, dtype)]
# What drawing may miss: rows longer than a run of sums, runs that end in the middle of a band, a band's last row alone, blocks of
# channels that are not whole, padding larger than the kernel, taps that no window of a strip sees, windows in the padding alone.
DESIGNED = [
    "conv2d,n1c3i3x130f5k3p1,bias",
    "conv2d,n1c3i9x50f35k3p1,bias,relu",
    "conv2d,n2c17i7x57f33k3p1,residual,bias",
    "conv2d,n1c31i5x13f16k3x3p1,pixelbias",
    "conv2d,n1c33i5x13f17k5x1p2x0",
    "conv2d,n1c3i4x13f20k3p9x11,bias",
    "conv2d,n1c4i9x13f20k3p12d12,bias",
    "conv2d,n1c2i4x9f9k2s5p6x7,relu",
    "conv2d,n1c3i23x23f20k11s4p2",
    "conv2d,n1c16i13x13f16k1p1",
    "conv2d,n1c3i23x33f20k3p18d18,bias",  # cut where taps enter and leave
    "conv2d,n2c17i14x31f20k5p4x8d2x4,relu",
    "conv2d,n1c3i9x17f20k1x7p0x3,bias",
    "conv2d,n2c48i9x9f96k3p1g3,bias",
    "conv1d,n2c17i97f33k9s3p4,bias",
    "conv3d,n1c17i4x5x13f9k3p1,bias,residual",
    "conv3d,n1c3i5x7x14f33k2x3x5s2x1x3p1x2x0d1x2x1g3,bias,hardswish",
]


@pytest.mark.parametrize(("name", "dtype", "size"), TILES)
def test_whole_numbers(name, dtype, size):
    tile = tiled.tile_of(name, dtype, *size)
    for line in tiled.problems(name, tile, 200):
        tiled.check(name, line, tile)


@pytest.mark.parametrize("name", NAMES)
def test_small_caches_and_many_threads(name):
    """Bands of a few rows, chunks of a few filters: their seams are exact, too."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    with patch.object(machine, "caches", lambda: {"L1d": 4096, "L2": 16384, "L3": 65536}):
        for line in tiled.problems(name, tile, 100, seed=4):
            tiled.check(name, line, tile, threads=8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", DESIGNED)
def test_designed_problems(line, name):
    """With a tile of one size, that compiles once; in both formats where the kernel has both."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    for last in ("", ",channels_last")[: 1 if name.endswith("pixels") else 2]:
        if parse(line).out_space[-1] >= tile.rows or name.endswith("pixels"):
            for threads in (1, 4):
                tiled.check(name, line + last, tile, threads)


@pytest.mark.parametrize("name", NAMES)
def test_views(name):
    tiled.check_views(name, 60)


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_tiles(name):
    """What the cost model takes, for a few of each."""
    for line in ("conv2d,n1c5i9x14f16k3p1,bias", "conv2d,n1c5i9x7f40k3p1,bias", "conv2d,n1c3i12x25f64k3s2p1"):
        tiled.check(name, line)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity(name, special):
    tiled.check_special(name, special)


@pytest.mark.parametrize("line", ["conv2d,n1c3i15x20f4k3p-1", "conv2d,n2c3i15x40f4k3s2p-1:2x-3:-4"])
@pytest.mark.parametrize("name", NAMES)
def test_cropped_images(line, name):
    """A gradient's padding may be negative: so much of the image is not seen."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    problem = parse(line)
    given = arrays(problem, np.random.default_rng(0))
    got = tiled.result(tiled.chosen(name, problem, tile), given)
    inside = tuple(slice(max(0, -before), size - max(0, -after)) for size, (before, after) in zip(problem.space, problem.pads))
    pads = [(max(before, 0), max(after, 0)) for before, after in problem.pads]
    same_bits(got, fc.reference.conv2d(given["x"][(..., *inside)], given["weight"], None, problem.stride, pads))


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_between_is_not_read(name):
    """NaN in channels, rows and columns that no window sees stays where it is."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    problem = parse("conv2d,n1c3i19x31f5k1x2s3d1x2")
    seen = np.zeros((19, 31), bool)
    for i in range(problem.out_space[0]):
        for j in range(problem.out_space[1]):
            seen[i * 3, [j * 3, j * 3 + 2]] = True
    x = np.where(seen, np.float32(2), np.float32(np.nan)) * np.ones((1, 3, 1, 1), np.float32)
    given = {"x": x, "weight": np.ones(problem.weight_shape, np.float32)}
    assert (tiled.result(tiled.chosen(name, problem, tile), given) == 12).all()


@pytest.mark.parametrize(
    "ending", ["f32k3p1g8,bias,relu", "f24k3p1g8,leaky_relu:0.5", "f24k3p1g8,pixelbias,residual", "f32k3p1g8,float64"]
)
def test_groups_that_share_cache_lines_are_computed_together(ending):
    problem, bits = parse(f"conv2d,n2c32i9x17{ending},channels_last"), set()
    tile = replace(tiled.tile_of("tiled_standard", problem.dtype, 2, 1), lanes=4)
    given = arrays(problem, np.random.default_rng(0))
    for threads in (1, 4):
        choice = tiled.chosen("tiled_standard", problem, tile, threads)
        assert choice.division.fields["beside"] == 3
        got = tiled.result(choice, given)
        same_bits(got, call(fc.reference, problem, given))
        bits.add(got.tobytes())
    assert len(bits) == 1
