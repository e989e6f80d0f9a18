"""Strassen's algorithm: its identity, the kernels on whole numbers, and errors where partners differ in size."""

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv import plan
from fastconv.cpu import strassen
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose, refusals

PAIRS, TURNED, PATCHES = "strassen_pointwise", "strassen_pointwise_turned", "strassen_patches"
LINES = [  # odd and even numbers of pixels, parts of panels, several bands and images, everything that is done late
    "conv2d,n1c2i5x5f32k1,bias",
    "conv2d,n2c34i7x7f70k1,bias,relu",
    "conv2d,n1c16i15x17f64k1,residual,pixelbias,relu",
    "conv1d,n3c6i48f130k1,bias,hardswish",
    "conv3d,n1c4i3x4x5f36k1,pixelbias,residual",
]


@pytest.mark.parametrize("result", strassen.RESULTS)
def test_identity(result):
    """Its products make up a block of C: A's row of blocks times B's column, and nothing else."""
    *_, (_, total) = strassen.products_of(result)
    i, j, want = int(result[1]) - 1, int(result[2]) - 1, np.zeros((4, 4))
    for k in range(2):
        want[2 * i + k, 2 * k + j] = 1
    np.testing.assert_array_equal(total, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers(dtype):
    tile = tiled.tile_of(PAIRS, dtype, 6, 2)
    for line in LINES:
        for threads in (1, 8):
            tiled.check(PAIRS, f"{line},{dtype}", tile, threads)
        tiled.check(TURNED, f"{line},{dtype},channels_last", tile, 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_patches_of_whole_numbers(dtype):
    tile = tiled.tile_of(PATCHES, dtype, 6, 2)
    for line in tiled.problems(PATCHES, tile, 40 if dtype == "float32" else 10):
        tiled.check(PATCHES, line, tile, threads=3)


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("text", ["c192i28f384k2s2", "c3i224f768k16s16", "c512i28f1024k1s2"])
def test_windows_that_do_not_overlap(text):
    """ConvNeXt's steps down, a transformer's patches, shortcuts of residual networks."""
    assert choose(cases.parse(f"conv2d,n1{text}"), IMPLEMENTATIONS, 1).implementation.name == PATCHES
    assert choose(cases.parse(f"conv2d,n1{text},highest"), IMPLEMENTATIONS, 1).implementation.algorithm == "tiled"


@pytest.mark.parametrize("view", tiled.VIEWS)
def test_views(view):
    tiled.check(PATCHES, "conv2d,n2c6i9x47f70k2x3s2x3,bias,relu", view=tiled.VIEWS[view])
    for name in (PAIRS, TURNED):
        for line in (LINES[1], f"{LINES[1]},channels_last"):
            tiled.check(name, line, tiled.tile_of(name, "float32", 6, 2), view=tiled.VIEWS[view])


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("size", [14, 7, 15])
def test_the_chosen_tiles(size):
    tiled.check(PAIRS, f"conv2d,n1c34i{size}f70k1,bias,relu")
    tiled.check(TURNED, f"conv2d,n1c34i{size}f70k1,bias,hardswish,channels_last")


def test_threads_do_not_change_a_bit():
    problem = cases.parse("conv2d,n2c36i13x15f132k1,bias")
    given = cases.arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
    tile, bits = tiled.tile_of(PAIRS, "float32", 6, 2), set()
    for threads in (1, 2, 8):
        with fc.num_threads(min(threads, fc.get_num_threads())):
            bits.add(tiled.result(tiled.chosen(PAIRS, problem, tile, threads), given).tobytes())
    assert len(bits) == 1


def test_weights_in_any_order():
    """A weight's filters or its channels may be neighbours in memory."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((1, 70, 38, 1)).astype("f4"), rng.standard_normal(70).astype("f4")
    turned = np.ascontiguousarray(weight.swapaxes(1, 2)).swapaxes(1, 2)
    packed = [strassen.combined_filters(w, bias, 32) for w in (weight, turned)]
    np.testing.assert_array_equal(*packed)


# Errors ----------------------------------------------------------------------------------------------------------------


def scales(rng, *shape):
    return np.exp(rng.standard_normal(shape))


def relu(rng, *shape):
    return np.maximum(rng.standard_normal(shape), 0)


def alike(rng, f, c, p):
    return rng.standard_normal((f, c)), relu(rng, c, p)


def by_filter(rng, f, c, p):
    return rng.standard_normal((f, c)) * scales(rng, f, 1) ** 4, relu(rng, c, p)


def by_pixel(rng, f, c, p):
    return rng.standard_normal((f, c)), relu(rng, c, p) * scales(rng, 1, p) ** 4


def against_each_other(rng, f, c, p):
    """Channels of small weights hold large numbers, as after batch normalisation."""
    size = scales(rng, c) ** 2
    return rng.standard_normal((f, c)) / size, relu(rng, c, p) * size[:, None]


def by_all(rng, f, c, p):
    weight, x = alike(rng, f, c, p)
    return weight * scales(rng, f, 1) * scales(rng, 1, c), x * scales(rng, c, 1) * scales(rng, 1, p)


def pruned(rng, f, c, p):
    """Half of the filters, and pixels, are zero: theirs come out as small as can be."""
    return rng.standard_normal((f, c)) * (rng.permutation(f) % 2)[:, None], relu(rng, c, p) * (rng.permutation(p) % 2)


@pytest.mark.parametrize("draw", [alike, by_filter, by_pixel, against_each_other, by_all, pruned])
def test_partners_of_any_size_keep_the_promise(draw):
    """Of each number of the result alone, where the bound speaks of an image's and a filter's largest."""
    c, f, p = 128, 96, 98
    weight, x = (array.astype("f4") for array in draw(np.random.default_rng(0), f, c, p))
    got = fc.conv1d(x, weight[..., None], algorithm="winograd")
    exact, scale = weight.astype(float) @ x.astype(float), np.abs(weight).astype(float) @ np.abs(x).astype(float)
    assert (np.abs(got - exact) <= plan.ERRORS["high"] * scale + 1e-12 * scale.max()).all()
    if draw is alike:
        problem = cases.parse(f"conv1d,n1c{c}i{p}f{f}k1")
        assert (np.abs(got - exact) <= strassen.error_bound(problem) * scale.max(1, keepdims=True)).all()


def test_adverse_numbers_stay_within_the_worst():
    """All of one sign: of a channel pair and its partners the largest magnitudes."""
    rng = np.random.default_rng(0)
    weight, x = rng.uniform(0.5, 1, (64, 256)).astype("f4"), rng.uniform(0.5, 1, (256, 50)).astype("f4")
    got = fc.conv1d(x, weight[..., None], algorithm="winograd")
    off = np.abs(got - weight.astype(float) @ x.astype(float)).max()
    assert off <= strassen.worst_error(256, "float32") * 128 * 4  # partners are brought to one size, within a factor of two


def test_bounds():
    """They keep the promise for every number of channels, fall as there are more, and lie below the worst case."""
    bounds = [strassen.error_bound(cases.parse(f"conv2d,n1c{c}i14f64k1")) for c in (2, 16, 300, 4096)]
    assert plan.ERRORS["high"] > bounds[0] and bounds == sorted(bounds, reverse=True)
    assert all(bound < strassen.worst_error(c, "float32") for c, bound in zip((2, 16, 300, 4096), bounds, strict=True))


def test_the_plan_takes_it_for_many_channels_and_never_at_highest_precision():
    many, few = cases.parse("conv2d,n1c512i14f512k1,bias"), cases.parse("conv2d,n1c64i56f64k1,bias")
    highest = cases.parse("conv2d,n1c512i14f512k1,bias,highest")
    names = [choose(problem, IMPLEMENTATIONS, 1, "columns").implementation.name for problem in (many, few, highest)]
    assert names[0] == PAIRS and PAIRS not in names[1:], names
    assert "halves channels and filters" in dict(refusals(cases.parse("conv2d,n1c511i14f512k1"), IMPLEMENTATIONS))[PAIRS]
