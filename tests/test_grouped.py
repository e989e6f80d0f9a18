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
BOTH = {NAME: "", f"{NAME}_last": ",channels_last"}  # and what a problem says of them
TILES = [(name, dtype, size) for name in BOTH for dtype in ("float32", "float64") for size in tiled.sizes(name, dtype)]


@pytest.mark.parametrize(("name", "dtype", "size"), TILES)
def test_whole_numbers(name, dtype, size):
    tile = tiled.tile_of(name, dtype, *size)
    for line in tiled.problems(name, tile, 30):
        tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize("name", BOTH)
def test_views(name):
    tiled.check_views(name, 5)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("ending", tiled.ENDINGS)
def test_epilogues(name, ending):
    tiled.check(name, f"conv2d,n2c40i13x18f60k3p1g20{BOTH[name]},{ending}".rstrip(","))


def test_threads_do_not_change_a_bit():
    tiled.check_threads(NAME, "conv2d,n2c100i61x40f140k3p1g20,bias")


@pytest.mark.parametrize("channels", [2, 4, 8, 16, 32])
def test_random_numbers_stay_within_the_bound(channels):
    problem, given = tiled.of_normal_numbers(f"conv2d,n1c{32 * channels}i29x30f{32 * channels}k3p1g32")
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


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("layer", ["c256i28f256k3p1g32", "c1024i7f1024k3p1g32"])
def test_the_plan_takes_it(every_tile, name, layer):
    """For the layers of ResNeXt with 8 and 32 channels a group; never with the highest precision."""
    line, reads = f"conv2d,n1{layer},bias,relu{BOTH[name]}", tiled.BY_NAME[name].reads[0]
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1, reads).implementation.name == name
    assert choose(cases.parse(line + ",highest"), IMPLEMENTATIONS, 1, reads).implementation.algorithm == "tiled"


def test_the_plan_leaves_wide_groups_to_filters_in_lanes(every_tile):
    """16 channels fill a vector, and the weights of a point half of L1."""
    assert choose(cases.parse("conv2d,n1c256i28f256k3p1g16"), IMPLEMENTATIONS, 1, "columns").implementation.name == "winograd_4x4"


REFUSED = [
    "conv2d,n1c64i16f64k3s2p1g16",
    "conv2d,n1c64i16f64k5p2g16",
    "conv2d,n1c64i16f64k3p2d2g16",
    "conv3d,n1c64i16f64k3p1g16",
    "conv2d,n1c12i16f12k3p1g3",  # lanes would be empty
]


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line):
    assert tiled.BY_NAME[NAME].refuse(cases.parse(line)), line
