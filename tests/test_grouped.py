"""Winograd with groups in the lanes, picked by name: against the reference, within its bound."""

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu import grouped, machine, packing
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

NAME = "winograd_groups"
TILES = [(dtype, size) for dtype in ("float32", "float64") for size in tiled.sizes(NAME, dtype)]


@pytest.mark.parametrize(("dtype", "size"), TILES)
def test_whole_numbers(dtype, size):
    tile = tiled.tile_of(NAME, dtype, *size)
    for line in tiled.problems(NAME, tile, 40):
        tiled.check(NAME, line, tile, threads=3)


def test_views():
    tile = tiled.tile_of(NAME, "float32", *tiled.PICKS[NAME][1][0])
    for line in tiled.problems(NAME, tile, 10, seed=5):
        for view in tiled.VIEWS.values():
            tiled.check(NAME, line, tile, view=view)


@pytest.mark.parametrize("ending", tiled.ENDINGS)
def test_epilogues(ending):
    tiled.check(NAME, f"conv2d,n2c40i13x18f60k3p1g20,{ending}".rstrip(","))


def drawn(line):
    problem = cases.parse(line)
    return problem, cases.arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))


def test_threads_do_not_change_a_bit():
    """Nor does how the problem is divided for them."""
    (problem, given), bits = drawn("conv2d,n2c100i61x40f140k3p1g20,bias"), set()
    for threads in (1, 2, 3, 8):
        with fc.num_threads(min(threads, fc.get_num_threads())):
            bits.add(tiled.result(tiled.chosen(NAME, problem, None, threads), given).tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("channels", [2, 4, 8, 16, 32])
def test_random_numbers_stay_within_the_bound(channels):
    problem, given = drawn(f"conv2d,n1c{32 * channels}i29x30f{32 * channels}k3p1g32")
    exact = fc.reference.conv2d(given["x"].astype(float), given["weight"].astype(float), padding=1, groups=32)
    share = (np.abs(tiled.result(tiled.chosen(NAME, problem), given) - exact) / cases.largest(problem, given)).max()
    assert share <= tiled.BY_NAME[NAME].error(problem) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transformed_groups(dtype):
    """[block of groups][nothing, then point, channel, filter][lane]: G w G', zeros where there is no group or filter."""
    lanes, (filters, channels, unit) = machine.lanes(dtype), (5, 3, 8)
    groups, rng = lanes + 1, np.random.default_rng(0)
    weight = rng.standard_normal((groups * filters, channels, 3, 3)).astype(dtype)
    g = np.array(grouped.SCHEME.down.g, float)
    exact = np.einsum("pt,qs,gfcts->pqcfg", g, g, packing.by_group(weight, groups).astype(float))
    u = grouped.transformed_groups(packing.by_group(weight, groups), unit, lanes)
    assert u.shape[0] == 2 and u.shape[2] == lanes
    numbers = np.moveaxis(u[:, 1:].reshape(2, len(g), len(g), -1, lanes), 0, -2)[:, :, : channels * unit]
    numbers = numbers.reshape(len(g), len(g), channels, unit, 2 * lanes)
    np.testing.assert_allclose(numbers[..., :filters, :groups], exact, rtol=0, atol=16 * np.finfo(dtype).eps * abs(exact).max())
    assert not numbers[..., filters:, :].any() and not numbers[..., groups:].any()


@pytest.mark.parametrize("line", ["conv2d,n1c256i28f256k3p1g32,bias,relu", "conv2d,n1c1024i7f1024k3p1g32,bias,relu"])
def test_the_plan_takes_it(line):
    """For the layers of ResNeXt with 8 and 32 channels a group; never with the highest precision."""
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1, "columns").implementation.name == NAME
    assert choose(cases.parse(line + ",highest"), IMPLEMENTATIONS, 1, "columns").implementation.algorithm == "tiled"


REFUSED = [
    "conv2d,n1c64i16f64k3s2p1g16",
    "conv2d,n1c64i16f64k5p2g16",
    "conv2d,n1c64i16f64k3p2d2g16",
    "conv2d,n1c64i16f64k3p1g16,channels_last",
    "conv3d,n1c64i16f64k3p1g16",
    "conv2d,n1c12i16f12k3p1g3",  # lanes would be empty
]


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line):
    assert tiled.BY_NAME[NAME].refuse(cases.parse(line)), line
