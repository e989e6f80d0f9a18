"""The transformed filters, the kernels, and the bounds of the error; schemes and their transforms are test_toom.py's."""

import cases
import numpy as np
import pytest
import tiled

from fastconv import plan
from fastconv.cpu import machine, packing
from fastconv.cpu.plans.winograd import divide
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.winograd import APART, FRESH, SCHEMES, error_bound, transformed_filters, worst_error
from fastconv.plan import choose, refusals

DTYPES = ["float32", "float64"]
# Each kernel is compiled for each dtype: for float64 one of those that step, and put their sums, in the same way.
IN_DOUBLE = ("winograd_4x4", "winograd_4x4_stride_2", "winograd_transposed_3x3")
TYPED = [*((name, "float32") for name in SCHEMES), *((name, "float64") for name in IN_DOUBLE)]
CHANNELS = [1, 2, 3, 8, 17, 64, 300, 2048]


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_transformed_filters(name, dtype):
    """[group][panel][bias, then matrix, channel][filter], zeros where there is no channel or filter."""
    rng, lanes = np.random.default_rng(0), machine.lanes(dtype)
    groups, filters, channels, width = 2, 2 * lanes + 1, lanes + 1, 2 * lanes
    weight = rng.standard_normal((groups * filters, channels, *SCHEMES[name].window)).astype(dtype)
    bias = rng.standard_normal(groups * filters).astype(dtype)
    g, h = (np.array(s.g[: s.matrices], float) for s in (SCHEMES[name].down, SCHEMES[name].across))
    exact = np.einsum("pt,qs,fcts->fcpq", g, h, weight.astype(np.float64))
    loose = np.einsum("pt,qs,fcts->fcpq", abs(g), abs(h), abs(weight.astype(np.float64)))
    for starts in (bias, None):
        u = transformed_filters(packing.by_group(weight, groups), starts, width, lanes, SCHEMES[name])
        assert (
            u.dtype == dtype
            and u.shape == (groups, 2, 1 + len(g) * len(h) * (2 * lanes + APART), width)
            and u.ctypes.data % 64 == 0
        )
        rows = u.transpose(0, 1, 3, 2).reshape(groups, 2 * width, -1)
        np.testing.assert_array_equal(rows[:, :filters, 0].ravel(), 0 if starts is None else bias)
        numbers = rows[:, :, 1:].reshape(groups, 2 * width, len(g), len(h), -1)[..., : 2 * lanes]
        assert not numbers[:, filters:].any()
        numbers = numbers[:, :filters].reshape(groups * filters, len(g), len(h), 2 * lanes)
        assert not numbers[..., channels:].any()
        off = np.abs(numbers[..., :channels].transpose(0, 3, 1, 2) - exact)
        assert (off <= 4 * np.finfo(dtype).eps * loose).all()  # eight roundings


# The kernels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_whole_numbers(name, dtype):
    """F(2x2) has halves alone for coefficients, and is exact; F(4x4) keeps its bound."""
    for size in tiled.sizes(name, dtype):
        tile = tiled.tile_of(name, dtype, *size)
        for line in tiled.problems(name, tile, 50):
            tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize("after", range(4))
def test_rows_of_a_transposed_layer_never_seem_to_follow_one_another(after):
    """The kernel puts rows in one run where their pitch is the result's width: then those that are cropped came before it."""
    [up] = [i for i in IMPLEMENTATIONS if i.name == "winograd_transposed_3x3"]
    for width in range(8, 100):
        problem = cases.parse(f"transposed2d,n1c31i9x{width}f96k3s2p1:1x0:{after}")
        fields = up.divide(problem, 1).fields
        assert fields["sums_pitch"] > problem.out_space[-1]


@pytest.mark.parametrize("name", SCHEMES)
def test_every_width(name):
    """Of results and their phases, so that tiles are cut at every place, in one band and in many."""
    tile, scheme = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0]), SCHEMES[name]
    for width in range(1, 41):
        wanted, apart = (1 + 7 * width % 41, width), (1, 1) if scheme.transposed else (1 + width % 3, 1 + width // 2 % 3)
        if scheme.transposed:
            space = [n // 2 + 2 for n in wanted]
        else:
            reach = [(taps - 1) * step + 1 for taps, step in zip(scheme.window, apart)]
            space = [(n - 1) * scheme.stride + r for n, r in zip(wanted, reach)]
        line = f"n1c3i{space[0]}x{space[1]}f20{{}}d{apart[0]}x{apart[1]},bias"
        tiled.check(name, written(name, line), tile, threads=1 + width % 2 * 7)


@pytest.mark.parametrize("name", SCHEMES)
def test_views(name):
    tiled.check_views(name, 20)


@pytest.mark.parametrize("name", ["winograd_2x2", "winograd_4x4", "winograd_4x4_fresh", "winograd_transposed_3x3"])
def test_several_images_an_item(name):
    """Of a batch whose last item has fewer; however many there are together, in one band or several, gives the same bits."""
    operation = "transposed2d" if "transposed" in name else "conv2d"
    stride = "s2" if "transposed" in name else ""
    for sizes in ("c20i4x4f40k3{}p1,bias,relu", "c20i7x9f40k3{}p1,residual,relu,channels_last", "c36i11x6f70k3{}p1g2,pixelbias"):
        problem, given = tiled.of_normal_numbers(f"{operation},n11{sizes.format(stride)}")
        choices = [tiled.chosen(name, problem, None, threads) for threads in (1, 3, 16)]
        images = [choice.division.fields["images"] for choice in choices]
        assert images[0] >= images[1] > images[2] == 1 and 11 % images[1]
        assert len({tiled.result(choice, given).tobytes() for choice in choices}) == 1, sizes
        tiled.check(name, str(problem), threads=1)


@pytest.mark.parametrize("text", ["n2c20i31x33f40{}p1,bias", "n1c40i9x9f70{}p2,bias,relu"])
@pytest.mark.parametrize("name", SCHEMES)
def test_threads_do_not_change_a_bit(text, name):
    tiled.check_threads(name, written(name, text), tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FRESH)
def test_fresh_weights_give_the_bits_of_packed_ones(name, dtype):
    """Of convolutions, and of gradients, whose weights run backwards; whole and parts of panels, blocks and groups, bands."""
    for line in ("n2c40i9x7f56k3p1,bias", "n1c17i13f33k3p1", "n1c12i21f10k3p2d2g2,pixelbias", "n1c140i30f64k3p1"):
        forward = cases.parse(f"conv2d,{line},{dtype}")
        for text in map(str, (forward, forward.adjoint())):
            problem, given = tiled.of_normal_numbers(text)
            choices = [tiled.chosen(form, problem, None, threads) for form in (name, f"{name}_fresh") for threads in (1, 3)]
            assert len({tiled.result(choice, given).tobytes() for choice in choices}) == 1, problem


# Errors ----------------------------------------------------------------------------------------------------------------


def exact(problem, given):
    """The sums in more digits than the kernel's: float64, or what this machine calls a long double."""
    wide = np.float64 if problem.dtype == "float32" else np.longdouble
    x, weight, stride, (pad, _) = given["x"].astype(wide), given["weight"].astype(wide), problem.stride[0], problem.pads[0]
    size, step, (h, w) = problem.kernel[0], problem.dilation[0], problem.out_space
    if problem.operation == "transposed":  # a convolution of the numbers, spread, with the filters mirrored
        spread = np.zeros((*x.shape[:2], *(stride * (n - 1) + 1 for n in x.shape[2:])), wide)
        spread[:, :, ::stride, ::stride] = x
        x, weight, stride, pad = spread, weight.swapaxes(0, 1)[:, :, ::-1, ::-1], 1, size - 1 - pad
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad + stride), (pad, pad + stride)))
    down, across = (
        [slice(a * step, a * step + (n - 1) * stride + 1, stride) for a in range(taps)]
        for n, taps in zip(problem.out_space, problem.kernel, strict=True)
    )
    windows = np.stack([x[:, :, rows, columns] for rows in down for columns in across], 2).reshape(problem.batch, -1, h * w)
    return (weight.reshape(problem.filters, -1) @ windows).reshape(problem.out_shape)


def computed(name, problem, given):
    tile = tiled.tile_of(name, problem.dtype, *tiled.PICKS[name][1][0])
    return tiled.result(tiled.chosen(name, problem, tile), given)


def written(name, geometry):
    """A line of the operation, the windows and the stride of a scheme."""
    scheme = SCHEMES[name]
    rows, columns = scheme.window
    return f"{'transposed' if scheme.transposed else 'conv'}2d,{geometry.format(f'k{rows}x{columns}s{scheme.stride}')}"


DRAWS = {  # image, weights: without a common trend
    "normal": (lambda rng, shape: rng.standard_normal(shape), lambda rng, shape: rng.standard_normal(shape)),
    "uniform": (lambda rng, shape: rng.uniform(-1, 1, shape), lambda rng, shape: rng.uniform(-1, 1, shape)),
    "after relu": (lambda rng, shape: np.maximum(rng.standard_normal(shape), 0), lambda rng, shape: rng.standard_normal(shape)),
    "a picture": (lambda rng, shape: rng.random(shape), lambda rng, shape: rng.standard_normal(shape)),
}
LINES = ["n1c{channels}i22x23f20{{}}p1", "n2c{channels}i13x13f20{{}}p2{dilation}"]


@pytest.mark.parametrize(("name", "dtype"), TYPED)
@pytest.mark.parametrize("draw", DRAWS)
def test_random_numbers_stay_within_the_bound(draw, name, dtype):
    for line in LINES:
        for channels in CHANNELS[:-1] if dtype == "float32" else (1, 3, 17):
            problem = cases.parse(
                written(name, line.format(channels=channels, dilation="" if SCHEMES[name].transposed else "d2")) + f",{dtype}"
            )
            rng = np.random.default_rng(channels)
            x, weight = (make(rng, shape) for make, shape in zip(DRAWS[draw], (problem.x_shape, problem.weight_shape)))
            given = {"x": x.astype(dtype), "weight": weight.astype(dtype)}
            got = computed(name, problem, given)
            share = (np.abs(got - exact(problem, given)) / cases.largest(problem, given)).max()
            assert share <= error_bound(SCHEMES[name], channels, dtype), f"{problem}, {draw}: {share:.1e}"


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_adverse_numbers_stay_within_the_worst(name, dtype):
    """One tile, whose signs are those of one point's coefficients, so that its products have one sign in all channels."""
    down, across = SCHEMES[name].down, SCHEMES[name].across
    g, b, h, d = (np.array(matrix, float) for scheme in (down, across) for matrix in (scheme.g, scheme.b))
    for channels in (1, 16, 300) if dtype == "float32" else (1, 16):
        problem = cases.parse(written(name, f"n1c{channels}i{down.numbers}x{across.numbers}f16{{}}") + f",{dtype}")
        rng = np.random.default_rng(0)
        for p in range(down.count):
            for q in {min(p, across.count - 1), 0, across.count // 2, across.count - 1}:
                x = np.sign(np.outer(b[p], d[q])) * rng.uniform(0.9, 1, problem.x_shape)
                weight = np.sign(np.outer(g[p], h[q])) * rng.uniform(0.9, 1, problem.weight_shape)
                given = {"x": x.astype(dtype), "weight": weight.astype(dtype)}
                got = computed(name, problem, given)
                share = (np.abs(got - exact(problem, given)) / cases.largest(problem, given)).max()
                assert share <= worst_error(SCHEMES[name], channels, dtype), f"{problem}, points {p} and {q}: {share:.1e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCHEMES)
def test_the_bounds_keep_the_promise(name, dtype):
    """Less than 1e-5 from 2 channels on, one is a depthwise layer; falling as they grow more; the worst case lies above it."""
    bounds = [error_bound(SCHEMES[name], channels, dtype) for channels in CHANNELS]
    assert plan.ERRORS["high"] == 1e-5 > bounds[CHANNELS.index(2)] and bounds == sorted(bounds, reverse=True)
    assert all(worst_error(SCHEMES[name], channels, dtype) > bound for channels, bound in zip(CHANNELS, bounds))


def test_smaller_schemes_are_more_exact():
    bounds = [error_bound(SCHEMES[name], 16, "float32") for name in ("winograd_2x2", "winograd_4x2", "winograd_4x4")]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_plan_refuses_what_breaks_the_promise(name, monkeypatch):
    problem = cases.parse(written(name, "n1c64i28x28f64{}p1,winograd"))
    monkeypatch.setitem(plan.ERRORS, "high", 1e-9)
    assert dict(refusals(problem, IMPLEMENTATIONS))[name].endswith("off, and precision='high' allows 1e-09")


WINOGRADS = """
conv2d,n1c64i56x56f64k3p1
conv2d,n1c384i8f384k3x1p1x0
conv2d,n1c384i8f384k1x3p0x1
conv3d,n1c144i8x28x28f64k3x1x1p1x0x0
conv2d,n1c256i28x28f256k3p2d2
conv2d,n1c128i56x56f128k3s2p1
conv2d,n1c32i28x28f96k5p2
conv2d,n1c64i64x64f128k5s2p2
conv3d,n1c16i8x28x28f32k3p1
transposed2d,n1c128i28f64k4s2p1
"""


CACHES = {"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


@pytest.fixture
def zen_4(every_tile, monkeypatch):
    """Its caches, vectors and registers, so that the plan decides alike on every machine."""
    monkeypatch.setattr(machine, "caches", lambda: CACHES)
    monkeypatch.setattr(machine, "_vector", lambda: (64, 32))


CHOSEN = {
    "conv2d,n1c512i7f512k3p1": "winograd_4x2",  # 4x4 would have 38 MB of weights for four tiles
    "conv2d,n1c256i14f256k3p1": "winograd_5x5",
    "conv2d,n1c256i28f256k3p2d2": "winograd_5x5",
    "conv2d,n1c64i56f64k3p1": "winograd_4x4",
}


@pytest.mark.parametrize("line", CHOSEN)
def test_the_plan_weighs_products_against_weights(line, zen_4):
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1, "columns").implementation.name == CHOSEN[line]


def test_tiles_by_how_weights_pass_them(zen_4):
    """16 tiles: in strips of eight by two vectors weights from memory keep up, in strips of four by four they do not."""
    scheme, line = SCHEMES["winograd_4x4"], "conv2d,n1c{0}i16f{0}k3p1"
    light, heavy = (divide(scheme)(cases.parse(line.format(channels)), 1).tile for channels in (64, 512))
    assert light.vectors == 4
    assert (heavy.rows, heavy.vectors) == (8, 2)


def test_bands_by_what_streams_past_them(zen_4):
    """Where a band's weights come from beyond L2, an eighth of L3 holds its numbers, and fewer of many threads."""
    scheme, line = SCHEMES["winograd_5x5"], "conv2d,n1c{0}i112f{0}k3p1"
    each = (64, 1), (128, 1), (128, 16)
    divisions = [divide(scheme)(cases.parse(line.format(channels)), threads) for channels, threads in each]
    held = [d.band * d.fields["across"] * scheme.count * channels * 4 for d, (channels, _) in zip(divisions, each, strict=True)]
    assert held[0] <= CACHES["L2"] < held[1] <= CACHES["L3"] / 8
    assert held[2] <= CACHES["L2"]


@pytest.mark.parametrize("line", WINOGRADS.split())
def test_highest_precision_never_takes_it(line):
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1).implementation.algorithm == "winograd"
    assert choose(cases.parse(line + ",highest"), IMPLEMENTATIONS, 1).implementation.algorithm == "tiled"
