"""Weight gradients by fewer products: within the bounds on any plane, wherever arrays lie, for any number of threads."""

from dataclasses import replace

import cases
import numpy as np
import pytest
import tiled
from cases import parse

import fastconv as fc
from fastconv import plan
from fastconv.cpu import launch, machine, plans, tiles
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.winograd_gradients import SCHEMES, error_bound
from fastconv.plan import Choice, choose, refusals

LANES = machine.lanes("float32")
[TILE] = tiles.weight_products("float32")
NAMES = tuple(SCHEMES)


def lines(name):
    """Planes that tiles cover and reach beyond, in units of whole planes and of parts of them; sizes around the tile's."""
    stride, taps = SCHEMES[name].down.stride, SCHEMES[name].down.outputs
    sizes = [
        (1, LANES, "8", TILE.width, "p1"),  # 64 pixels of whole tiles
        (3, LANES + 1, "7", TILE.width + 1, "p1"),  # all last tiles reach beyond
        (2, TILE.rows - 1, "9x11", LANES - 1, "p0"),
        (1, 3, "12x7", 5, "p1:2x0:3"),
        (40, TILE.rows + 1, "5x6", TILE.width - 1, "p1"),  # units of several planes
        (3, 5, f"41x{2 * LANES + 3}", 7, "p2"),  # units of parts of planes, and parts of all
        (2, 2 * LANES + 2, "10x4", 2 * TILE.width + 3, "p1g2"),
    ]
    made = []
    for batch, c, space, f, rest in sizes:
        groups = 2 if "g2" in rest else 1
        space = "x".join(str(stride * int(size)) for size in space.split("x"))
        made.append(f"conv2d,n{batch}c{groups * c}i{space}f{groups * f}k{taps}s{stride}{rest}")
    return made


def chosen(name, problem, threads=1):
    """Of few tiles too, of which the plan leaves 5x5 windows to another kernel."""
    [implementation], task = [i for i in IMPLEMENTATIONS if i.name == name], replace(problem.weights(), algorithm="winograd")
    assert implementation.refuse(task) is None
    return Choice(task, implementation, implementation.divide(task, threads))


def result(name, problem, x, grad, threads=1):
    out = np.full(problem.weight_shape, np.nan, problem.dtype)
    launch.BoundWeightGradient(chosen(name, problem, threads), x, grad).gradient(x, grad, out)
    cases.computed["problems"] += 1
    return out


def share_of(problem, x, grad, got):
    """The largest error as a share of the sum of absolute products, the largest of a filter's and channel's taps."""
    wide = np.float64 if problem.dtype == "float32" else np.longdouble
    want, scale = (sums(problem, *(change(a).astype(wide) for a in (x, grad))) for change in (np.asarray, np.abs))
    return (np.abs(got - want) / scale.max((2, 3), keepdims=True)).max()


def sums(problem, x, grad):
    """The gradient tap by tap; reference.py rounds to float32."""
    if problem.data_format == "channels_last":
        x, grad = np.moveaxis(x, -1, 1), np.moveaxis(grad, -1, 1)
    g, (height, width), (step, across) = problem.groups, problem.out_space, problem.stride
    x = np.pad(x, ((0, 0), (0, 0), *problem.pads))
    taps = []
    for a in range(problem.kernel[0]):
        for b in range(problem.kernel[1]):
            seen = x[:, :, a : a + (height - 1) * step + 1 : step, b : b + (width - 1) * across + 1 : across]
            images, of_filters = (of.reshape(len(x), g, -1, height * width).transpose(1, 2, 0, 3) for of in (seen, grad))
            flat = of_filters.reshape(g, -1, len(x) * height * width), images.reshape(g, -1, len(x) * height * width)
            taps.append((flat[0] @ flat[1].transpose(0, 2, 1)).reshape(problem.weight_shape[:2]))
    return np.stack(taps, -1).reshape(problem.weight_shape)


DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "after relu": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
}


@pytest.mark.parametrize(("name", "dtype", "draw"), [
    *((name, "float32", "normal") for name in NAMES), (NAMES[0], "float32", "after relu"), (NAMES[0], "float64", "normal"),
])  # fmt: skip
def test_random_numbers_stay_within_the_bound(name, dtype, draw):
    rng = np.random.default_rng(0)
    for line in lines(name):
        problem = parse(f"{line},{dtype}")
        x, grad = DRAWS[draw](rng, problem.x_shape).astype(dtype), rng.standard_normal(problem.out_shape).astype(dtype)
        for threads in (1, 3):
            choice = chosen(name, problem, threads)
            share = share_of(problem, x, grad, result(name, problem, x, grad, threads))
            assert share <= choice.implementation.error(choice.problem), f"{problem}, {threads} threads: {share:.1e}"


@pytest.mark.parametrize("name", NAMES)
def test_views(name):
    rng = np.random.default_rng(0)
    for line in lines(name)[1:4]:
        for ending, view in (("", view) for view in tiled.VIEWS.values()) if "n3" in line else [(",channels_last", np.asarray)]:
            problem = parse(line + ending)
            x, grad = (view(rng.standard_normal(shape).astype("f4")) for shape in (problem.x_shape, problem.out_shape))
            assert share_of(problem, x, grad, result(name, problem, x, grad)) < 1e-5, problem


@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_change_a_bit(name):
    rng = np.random.default_rng(0)
    for line in lines(name)[4:]:
        problem, bits = parse(line), set()
        x, grad = (rng.standard_normal(shape).astype("f4") for shape in (problem.x_shape, problem.out_shape))
        for threads in (1, 2, 3, 8):
            with fc.num_threads(min(threads, fc.get_num_threads())):
                bits.add(result(name, problem, x, grad, threads).tobytes())
        assert len(bits) == 1, line


def test_scratch_that_does_not_fit_is_cut(monkeypatch):
    """Into chunks of filters and blocks of channels, which give the same bits."""
    [name, *_], rng = NAMES, np.random.default_rng(0)
    problem, bits = parse(f"conv2d,n30c{3 * LANES}i14f{3 * TILE.width}k3p1"), set()
    x, grad = (rng.standard_normal(shape).astype("f4") for shape in (problem.x_shape, problem.out_shape))
    for share in (1.0, 0.02, 1e-9):
        monkeypatch.setattr(plans.winograd_gradients, "POINTS_SHARE", share)
        bits.add((chosen(name, problem).division.chunks, result(name, problem, x, grad).tobytes()))
    assert len({chunks for chunks, _ in bits}) > 1 and len({got for _, got in bits}) == 1


def test_the_plan_and_the_promise(monkeypatch):
    """Taken where it is faster, for sums that may round; a bound above the promise is refused."""
    text = "conv2d,n1c64i28f64k3p1"
    problem = parse(text).weights()
    for name, scheme in SCHEMES.items():
        other = parse(f"conv2d,n1c64i56f64k{scheme.down.outputs}s{scheme.down.stride}p1").weights()
        assert choose(other, IMPLEMENTATIONS, 1, "columns").implementation.name == name
    for other in (replace(problem, precision="highest"), replace(problem, algorithm="tiled"), parse(f"{text}d2").weights()):
        assert choose(other, IMPLEMENTATIONS, 1, "columns").implementation.algorithm == "tiled", other
    monkeypatch.setitem(plan.ERRORS, "high", 1e-9)
    assert dict(refusals(problem, IMPLEMENTATIONS))["winograd_weight_gradient"].endswith("precision='high' allows 1e-09")


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_falls_as_tiles_grow_more(name):
    bounds = [error_bound(SCHEMES[name], count, 16 * count, "float32") for count in (1, 4, 50, 2000, 100_000)]
    assert bounds == sorted(bounds, reverse=True) and bounds[2] < plan.ERRORS["high"]


def test_through_the_api():
    """Of a layer that asks for Winograd's form, of no images, and of one whose gradient has no such form."""
    rng, problem = np.random.default_rng(0), parse("conv2d,n2c40i20x21f50k3p1,winograd")
    x, grad = (rng.standard_normal(shape).astype("f4") for shape in (problem.x_shape, problem.out_shape))
    assert share_of(problem, x, grad, fc.grad.weight_gradient(problem, x, grad)) < 1e-5
    assert not fc.grad.weight_gradient(replace(problem, batch=0), x[:0], grad[:0]).any()
    other = parse("conv2d,n2c4i9x8f5k5p2d2,winograd").weights()
    assert choose(other, IMPLEMENTATIONS, 1, "columns").implementation.algorithm == "tiled"
