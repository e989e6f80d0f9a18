"""The tiled kernels of pointwise layers, picked by name, with tiles of their own: exact on whole numbers."""

import numpy as np
import pytest
import tiled

NAMES = ["tiled_pointwise", "tiled_pointwise_pixels"]
TILES = [(name, dtype, size) for name in NAMES for dtype in ("float32", "float64") for size in tiled.sizes(name, dtype)]
DESIGNED = [  # pixels: a prime, one more than tiles and bands; many channels, few filters and the reverse
    "conv2d,n1c3i1x197f5k1,bias",
    "conv2d,n2c129i7x7f33k1,bias,relu",
    "conv2d,n2c600i7x7f33k1,bias,relu",  # in blocks of channels, but where strips overlap
    "conv2d,n1c2i57x57f3k1",
    "conv2d,n3c17i9x11f1k1,residual,pixelbias,relu",
    "conv2d,n1c33i14x14f65k1,bias,hardswish",
    "conv1d,n2c16i101f16k1,bias",
    "conv3d,n2c5i3x5x7f17k1,pixelbias,residual",
]


@pytest.mark.parametrize(("name", "dtype", "size"), TILES)
def test_whole_numbers(name, dtype, size):
    tile = tiled.tile_of(name, dtype, *size)
    for line in tiled.problems(name, tile, 150):
        for threads in (1, 8):
            tiled.check(name, line, tile, threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", DESIGNED)
def test_designed_problems(line, name):
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][-1])
    for last in ("", ",channels_last")[: 1 if name.endswith("pixels") else 2]:
        for threads in (1, 4, 64):
            tiled.check(name, line + last, tile, threads)


@pytest.mark.parametrize("name", NAMES)
def test_views(name):
    tiled.check_views(name, 30)


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_tiles(name):
    for line in ("conv2d,n1c16i14x14f32k1,bias", "conv2d,n1c5i7x7f40k1,bias", "conv2d,n1c40i5x25f3k1"):
        tiled.check(name, line)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity(name, special):
    tiled.check_special(name, special)
