"""The tiled kernels of weight gradients: exact on sizes around a tile's, wherever arrays lie, for any number of threads."""

import itertools

import cases
import numpy as np
import pytest
import tiled
from cases import parse, whole_numbers
from test_grad import keywords

import fastconv as fc
from fastconv import reference
from fastconv.cpu import gradients, launch, machine, plans, tiles
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

pytestmark = pytest.mark.usefixtures("tiled_however_small")

LANES = machine.lanes("float32")
ROWS, VECTORS = tiles.NUMBERS_IN_ROWS[machine.registers()][0]  # of the few that all tests share: conftest.py
WIDTH = VECTORS * LANES


def made(text, seed=0, draw=whole_numbers):
    problem = parse(text)
    rng = np.random.default_rng(seed)
    return problem, draw(rng, problem.x_shape, problem.dtype), draw(rng, problem.out_shape, problem.dtype)


def chosen(problem, x, threads=1, kernel=""):
    named = tuple(i for i in IMPLEMENTATIONS if kernel in ("", i.name))
    return choose(problem.weights(), named, threads, launch.neighbours(x, problem))


def result(problem, x, grad, threads=1, kernel=""):
    out = np.full(problem.weight_shape, np.nan, problem.dtype)
    launch.BoundWeightGradient(chosen(problem, x, threads, kernel), x, grad).gradient(x, grad, out)
    cases.computed["problems"] += 1
    return out


def check(text, kernel, threads=(1, 3), view=lambda a: a):
    problem, x, grad = made(text)
    want = getattr(reference, f"conv{problem.dimensions}d_weight")(x, problem.weight_shape, grad, **keywords(problem))
    x, grad = view(x), view(grad)
    for count in threads:
        np.testing.assert_array_equal(result(problem, x, grad, count, kernel), want, strict=True, err_msg=text)


# Standard, grouped, dilated and pointwise layers --------------------------------------------------------------------------


def drawn(count, dtype, seed):
    """Numbers of a filter around the tile's rows, filters around its width, every other trait drawn beside them."""
    rng, lines = np.random.default_rng(seed), []
    while len(lines) < count:
        pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
        d, g = pick(1, 2, 2, 2, 3), pick(1, 1, 2, 3)
        c, f = pick(1, 2, 3, ROWS - 1, ROWS, ROWS + 1, 31), pick(1, 2, LANES - 1, LANES + 1, WIDTH - 1, WIDTH, WIDTH + 1)
        space = {1: pick("1", "17", "400"), 2: f"{pick(1, 2, 5, 9)}x{pick(1, 2, 7, 16, 33)}", 3: f"2x3x{pick(3, 9)}"}[d]
        sizes = {
            letter: pick(*values)
            for letter, values in {
                "k": ("1", "3", "2x3", "5x1"),
                "s": ("1", "2", "1x2", "3"),
                "p": ("0", "1", "2:1x0:3"),
                "d": ("1", "2", "1x3"),
            }.items()
        }
        sizes = {letter: text if d == 2 else text.split("x")[-1] for letter, text in sizes.items()}
        head = f"conv{d}d,n{pick(1, 2, 3)}c{c * g}i{space}f{f * g}" + "k{k}s{s}p{p}d{d}".format_map(sizes) + f"g{g}"
        line = ",".join(word for word in (head, pick("", "channels_last"), dtype) if word)
        try:
            if parse(line).kind != "depthwise":
                lines.append(line)
        except ValueError:  # a kernel larger than its image
            continue
    return lines


@pytest.mark.parametrize(("dtype", "count"), [("float32", 150), ("float64", 40)])
def test_whole_numbers(dtype, count):
    [in_pixels] = (i for i in IMPLEMENTATIONS if i.name == "tiled_weight_gradient_pixels")
    for line, turn in zip(drawn(count, dtype, seed=0), itertools.cycle((True, False)), strict=False):
        suits = turn and in_pixels.refuse(parse(line).weights()) is None
        check(line, in_pixels.name if suits else "tiled_weight_gradient")


DESIGNED = [
    f"conv2d,n1c{5 * ROWS + 1}i5x6f{3 * WIDTH + 1}k3p1",  # panels and rows left over
    "conv2d,n9c3i40x41f5k3s2p1",  # parts of the images
    "conv2d,n1c300i7f290k3p1",  # blocks of channels, of which the last overlaps, and chunks of filters
    "conv2d,n2c40i14x20f24k1",  # pointwise, rows of 280 pixels
    "conv2d,n2c24i14x20f40k1",  # pointwise with image and gradient exchanged
    "conv2d,n2c24i14x20f40k1,channels_last",
    "conv2d,n2c24i14x20f40k1g2",
    "conv2d,n1c7i13x17f19k1",  # 221 pixels, in one row
    "conv2d,n1c4i30x31f6k1s2",
    "conv2d,n1c4i12f6k3p5d5",  # taps that see nothing but padding
    "conv2d,n1c4i9f6k2s3p0:0x0:3",
    "conv1d,n2c3i1500f8k9s4p4",
    "conv3d,n2c3i4x5x6f8k3s2p1",
    "conv2d,n1c6i9f8k3x5p1g2,channels_last",
]  # fmt: skip


@pytest.mark.parametrize("text", DESIGNED)
def test_designed_problems(text):
    check(text, "tiled_weight_gradient", threads=(1, 2, 8))


@pytest.mark.parametrize("text", [
    f"conv2d,n2c3i9x{2 * LANES + 3}f13k3p1",  # filters and pixels left over
    f"conv2d,n9c1i40x{2 * LANES}f5k3x5s2p1",  # parts of the images, numbers left over
    "conv2d,n1c3i60x61f70k7s2p3",  # chunks of filters
    "conv3d,n1c2i4x5x19f4k3p1g1",
    "conv2d,n3c30i37x41f5k1",  # image and gradient exchanged, filters left over
])  # fmt: skip
def test_pixels_in_lanes(text):
    check(text, "tiled_weight_gradient_pixels", threads=(1, 2, 8))


@pytest.mark.parametrize("view", tiled.VIEWS)
def test_views(view):
    for line in drawn(12, "float32", seed=1) + ["conv2d,n2c24i14x20f40k1"]:
        check(line, "tiled_weight_gradient", threads=(1,), view=tiled.VIEWS[view])
    if view != "channels last":  # which it does not read
        check("conv2d,n2c3i9x19f5k3s2p1", "tiled_weight_gradient_pixels", threads=(1,), view=tiled.VIEWS[view])


@pytest.mark.parametrize("text", [
    "conv2d,n3c20i28x30f40k3p1", "conv2d,n5c1i40f16k3s2p1", "conv2d,n2c40i14f24k1", "conv2d,n2c24i14f40k1",
    "conv2d,n20c3i14f3k3p1g3", "conv2d,n3c40i20f40k3s2p1g40", "conv2d,n9c5i21f5k3p1g5,channels_last",
])  # fmt: skip
def test_threads_do_not_change_a_bit(text):
    problem, x, grad = made(text, draw=lambda rng, shape, dtype: rng.standard_normal(shape).astype(dtype))
    bits = set()
    for threads in (1, 2, 3, 8):
        with fc.num_threads(min(threads, fc.get_num_threads())):
            bits.add(result(problem, x, grad, threads).tobytes())
    assert len(bits) == 1


def test_random_numbers_stay_within_the_bound():
    """|error| <= gamma_n times the gradient of absolute values."""
    problem, x, grad = made("conv2d,n4c9i33x31f17k3p1", draw=lambda rng, shape, dtype: rng.standard_normal(shape).astype(dtype))
    want = reference.conv2d_weight(x.astype("f8"), problem.weight_shape, grad.astype("f8"), padding=1)
    scale = reference.conv2d_weight(np.abs(x).astype("f8"), problem.weight_shape, np.abs(grad).astype("f8"), padding=1)
    n = (4 * 33 * 31 + 2) * np.finfo("f4").eps / 2
    assert (np.abs(result(problem, x, grad) - want) <= n / (1 - n) * scale).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_are_added_whatever_their_size(dtype):
    for count, size in itertools.product((2, 3), (1, 15, 16, 17, 33)):
        parts, out = whole_numbers(np.random.default_rng(0), (count, size), dtype), np.full(size + 1, 7, dtype)
        gradients.add_parts(parts.ctypes.data, count, size, parts.itemsize, out.ctypes.data)
        assert np.array_equal(out, [*parts.sum(axis=0), 7])  # and nothing beyond them


def test_a_batch_of_0_has_zeros():
    for text in ("conv2d,n0c9i33f17k3p1", "conv2d,n0c9i33f9k3p1g9", "conv2d,n0c9i33f9k3p1g9,channels_last", "conv2d,n0c9i33f17k1"):
        problem, x, grad = made(text)
        got = fc.grad.conv2d_weight(x, problem.weight_shape, grad, **keywords(problem))
        assert not got.any() and got.shape == problem.weight_shape


def test_what_runs():
    kernels = {
        "conv2d,n1c64i56f64k3p1": "winograd_weight_gradient",
        "conv2d,n1c64i56f64k3p1d2": "tiled_weight_gradient",
        "conv2d,n4c3i64f32k3s2p1": "tiled_weight_gradient_pixels",
        "conv2d,n4c3i64f32k3s2p1,channels_last": "tiled_weight_gradient",
        "conv2d,n1c64i56f64k3p1g64": "tiled_depthwise_weight_gradient",
        "conv2d,n1c64i56f64k3p1g64,channels_last": "tiled_depthwise_weight_gradient_last",
        "conv2d,n1c64i56f64k3s3p1g64": "tiled_weight_gradient",
        "conv2d,n1c64i56f64k3p1,direct": "direct_weight_gradient",
    }
    for text, kernel in kernels.items():
        problem = parse(text)
        assert chosen(problem, np.empty(problem.x_shape, "f4")).implementation.name == kernel, text


# Depthwise layers ---------------------------------------------------------------------------------------------------------

FIRST = [
    f"conv2d,n2c3i9x{width * stride}f3k{kernel}s{stride}p{pad}g3"
    for kernel, stride, pad in ((3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, "1:3x4:0"), (7, 1, 3), (7, 2, 3))
    for width in (1, LANES // 2, LANES // 2 + 1, LANES, LANES + 1, 2 * LANES + 3)
] + [
    "conv2d,n1c3i1f3k3p1g3",
    "conv2d,n1c5i3f5k3g5",  # one pixel
    f"conv2d,n3c3i11x{LANES + 5}f6k3p0:2x2:0g3",  # two filters a channel
    f"conv2d,n1c3i13x{LANES + 5}f6k3p4d2x5g3",
    f"conv2d,n1c2i2x{3 * LANES}f2k3p9g2",  # windows in the padding alone
    "conv2d,n1c5i7x20f5k3p1g5,float64",
    "conv2d,n20c2i7x20f2k3s2p1g2",  # parts of the images
]  # fmt: skip
LAST = [
    f"conv2d,n2c{channels}i{size}f{channels}k{kernel}s{stride}p{pad}g{channels},channels_last"
    for kernel, stride, pad in ((3, 1, 1), (3, 2, "0:2x2:0"), (5, 1, 2), (7, 2, 3))
    for channels in (2, LANES - 1, LANES, 2 * LANES + 5)
    for size in ("1x5", "9x7")
] + [
    f"conv2d,n2c{LANES + 1}i9x11f{LANES + 1}k3p3d3x2g{LANES + 1},channels_last",
    "conv2d,n9c5i21f5k3p1g5,channels_last",  # parts of the rows
    "conv2d,n1c9i7x8f9k3s2p1g9,float64,channels_last",
]  # fmt: skip


@pytest.mark.parametrize("text", FIRST + LAST)
def test_depthwise(text):
    check(text, "tiled_depthwise_weight_gradient" + ("_last" if "last" in text else ""))


@pytest.mark.parametrize("view", tiled.VIEWS)
def test_views_of_depthwise_layers(view):
    for text in ("conv2d,n2c3i9x19f3k3p1g3", "conv2d,n2c3i9x19f3k3s2p1g3", "conv2d,n2c18i5x9f18k3p1g18,channels_last"):
        problem, x, grad = made(text)
        want = reference.conv2d_weight(x, problem.weight_shape, grad, **keywords(problem))
        np.testing.assert_array_equal(result(problem, tiled.VIEWS[view](x), tiled.VIEWS[view](grad)), want)


def test_lines_at_once_fit_the_registers():
    for kernel in tiles.WINDOWS:
        for stride in (1, 2):
            lines = plans.gradients.lines_at_once(*kernel, stride)
            assert 1 <= lines <= kernel[0]
            assert lines == 1 or lines * kernel[1] + lines + kernel[1] < machine.registers()
