"""Every CUDA kernel against the reference, on the tables of cases that the CPU's kernels share: exact on whole numbers.

They see a barrier that is missing: of the eleven `syncthreads` of the kernels each was taken out once, alone, and tests of
this file failed each time.
"""

import warnings
from dataclasses import replace

import cases
import numpy as np
import pytest
from cases import arrays, call, parse, rounded

import fastconv as fc
from fastconv import cuda
from fastconv.cpu.toom import F4, nested
from fastconv.cpu.winograd import error_bound
from fastconv.problem import SeparableProblem

pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=f"no CUDA: {cuda.why_not()}")
if cuda.is_available():
    from fastconv.cuda import launch, table, transposed, winograd
    from fastconv.cuda.device import cuda as device
    from fastconv.plan import choose

# Multiply-adds of a case that the simulator is asked for; a tiled kernel's count what lies beyond the edges too.
MOST = 15_000 if cuda.simulated() else 10**9


def on_device(given):
    return {name: device.to_device(array) for name, array in given.items()}


def home(array):
    """Of Numba's, or, from the benchmarks where PyTorch finds a device, of PyTorch's."""
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array.cpu().numpy()


def check(text, algorithm, seed=0):
    problem = parse(text)
    given = arrays(problem, np.random.default_rng(seed))
    want = call(fc.reference, problem, given)
    got = call(fc, problem, on_device(given), algorithm=algorithm)
    assert type(got) is type(device.to_device(want))
    got = got.copy_to_host()
    assert got.dtype == want.dtype and got.shape == want.shape
    if rounded(problem):
        np.testing.assert_allclose(got, want, rtol=4 * np.finfo(want.dtype).eps, atol=1e-30 if want.dtype == "f8" else 1e-6)
    else:
        np.testing.assert_array_equal(got, want)


def kernel_of(text, algorithm):
    problem = parse(f"{text},{algorithm}" if "+" not in text else "+".join(f"{part},{algorithm}" for part in text.split("+")))
    here = launch.gpu(0)
    try:
        return choose(problem, table.implementations(here), here.multiprocessors).implementation.name
    except ValueError:
        return None


def simulated_work(text, algorithm):
    problem = parse(text)
    if algorithm == "direct" or problem.kind == "depthwise":
        return problem.operations / 2
    tile = table.tiles(80, problem.dtype)[0]
    return table.blocks(problem, tile) * tile.filters * tile.pixels * table.slices(problem, tile) * tile.terms


def but_for_its_end(text):
    """A problem without what is one function for all kernels: how sums are finished, and what draws a border in."""
    problem = cases.bare(parse(text))
    drawn_in = any(part.padding_mode != "zeros" for part in cases.parts(problem))
    return str(problem if isinstance(problem, SeparableProblem) else replace(problem, padding_mode="zeros")), drawn_in


TEXTS = list(dict.fromkeys(text for text in cases.CASES))
DIRECT = [text for text in TEXTS if simulated_work(text, "direct") <= MOST]
TILED = [text for text in TEXTS if simulated_work(text, "tiled") <= (1.5 if parse(text).kind == "depthwise" else 4) * MOST]
if cuda.simulated():  # one of those is enough, for the direct kernels have met them all
    TILED = list({but_for_its_end(text): text for text in reversed(TILED)}.values())[::-1]


@pytest.mark.parametrize("text", DIRECT)
def test_direct(text):
    check(text, "direct")


@pytest.mark.parametrize("text", TILED)
def test_tiled(text):
    if kernel_of(text, "tiled") is None:
        pytest.skip("no tiled kernel")
    check(text, "tiled")


@pytest.mark.usefixtures("real_tiles")
@pytest.mark.parametrize(
    "text",
    [
        "conv2d,n1c18i3x8f130k1x2p0x1,bias,relu",  # two slices of channels, two taps, two blocks of filters
        "conv2d,n1c3i9x35f3k3p1g3,bias",
        "conv2d,n1c5i4x9f5k3p1g5,bias+conv2d,n1c5i4x9f9k1,bias",
    ],
)
def test_tiles_of_the_real_size(text):
    """Every index of a whole warp and a whole block."""
    check(text, "tiled")


def test_large_arrays_are_left_to_64_bit_indices():
    assert kernel_of("conv2d,n1c64i8000x8000f64k3p1", "auto") == "direct_standard"
    assert kernel_of("conv2d,n1c64i800x800f64k5p2", "auto") == "tiled_standard"


def test_what_the_table_refuses():
    assert kernel_of("conv2d,n1c9i9f9k4g9", "auto") == "direct_depthwise"
    assert kernel_of("conv2d,n1c9i9f9k3g9,channels_last", "auto") == "direct_depthwise"
    assert kernel_of("conv2d,n1c9i9f9k3d2g9", "tiled") is None
    assert kernel_of("conv2d,n1c70000i9f70000k3g70000", "auto") == "direct_depthwise"


@pytest.mark.parametrize(("waiting", "kernel"), [(0, "tiled_separable"), (10**9, "tiled_parts")])
@pytest.mark.parametrize("text", [
    "conv2d,n1c4i5x6f4k3p1g4,bias,relu+conv2d,n1c4i5x6f9k1,bias,residual",
    "conv2d,n2c3i7x6f6k3s2p1g3,bias+conv2d,n2c6i4x3f3k1,pixelbias,tanh",
])  # fmt: skip
def test_separable_in_one_kernel_and_in_two(small_tiles, text, waiting, kernel, monkeypatch):
    """Whichever the plan finds cheaper."""
    monkeypatch.setattr(table, "WAITING", waiting)
    monkeypatch.setattr(table, "LAUNCH", 10**6 if waiting == 0 else 0)
    assert kernel_of(text, "auto") == kernel
    check(text, "auto")


WEIGHTS = [
    "weights2d,n2c3i5x6f5k3p1,tiled",
    "weights2d,n2c2i3x4f2k3p1,direct",
    "weights2d,n1c4i6x5f6k2x3s2x1p1:0x0:2d1x2g2,channels_last,tiled",
    "weights2d,n1c4i3x4f2k2x3s2x1p1:0x0:2d1x2g2,channels_last,direct",
    "weights2d,n2c5i3x4f3k1,float64,tiled",
    "weights2d,n1c2i4x4f3k3s2p4,tiled",
    "weights2d,n2c3i6x9f3k3p1g3,tiled",
    "weights2d,n1c2i9x7f4k5s2p2g2,float64,tiled",
    "weights2d,n1c2i9x8f2k7p3g2,channels_last,tiled",
    "weights1d,n2c2i9f3k3s2p1d2,float64,tiled",
    "weights1d,n2c2i9f3k3s2p1d2,float64,direct",
    "weights3d,n1c2i2x3x4f2k2p1,tiled",
]


@pytest.mark.parametrize("text", WEIGHTS)
def test_gradients_of_weights(text):
    problem = parse(text)
    rng = np.random.default_rng(0)
    x = cases.whole_numbers(rng, problem.x_shape, problem.dtype)
    g = cases.whole_numbers(rng, problem.out_shape, problem.dtype)
    np.testing.assert_array_equal(gradient(problem, x, g), reference_gradient(problem, x, g), strict=True)


def gradient(problem, x, g):
    return launch.weight_gradient(lambda: problem, device.to_device(x), device.to_device(g), asked=problem).copy_to_host()


def reference_gradient(problem, x, g):
    return getattr(fc.reference, f"conv{problem.dimensions}d_weight")(
        x, problem.weight_shape, g, problem.stride, problem.pads, problem.dilation, problem.groups, data_format=problem.data_format
    )


@pytest.fixture
def many_multiprocessors(small_tiles, monkeypatch):
    """More than these layers have tiles, and a second launch for nothing: their terms are split."""
    monkeypatch.setattr(launch, "gpu", lambda index: launch.Gpu(80, 7))
    monkeypatch.setattr(table, "LAUNCH", 0)


def splits_of(problem):
    return choose(problem, table.implementations(launch.gpu(0)), 7).division.fields["splits"]


@pytest.mark.usefixtures("many_multiprocessors")
@pytest.mark.parametrize(
    "text",
    [
        "conv2d,n1c9i2x3f5k3p1,pixelbias,residual,relu,tiled",
        "conv2d,n1c70i2x3f5k1,bias,channels_last,float64,tiled",
        "conv2d,n1c12i2x3f4k3p1g2,bias,tiled",
        "transposed2d,n1c33i2x1f3k4s2p1,bias,tiled",
        "conv2d,n1c40i3x2f40k1g40,bias,tiled+conv2d,n1c40i3x2f3k1,bias,relu,tiled",
        "conv1d,n1c2i9f3k40p20,bias,tiled",  # more lines of taps than there are bits for
    ],
)
def test_terms_that_are_split_among_blocks(text):
    assert splits_of(parse(text)) > 1
    check(text, "tiled")


@pytest.mark.usefixtures("many_multiprocessors")
@pytest.mark.parametrize("text", ["weights2d,n2c2i5x5f2k3p1,tiled", "weights2d,n2c2i5x9f2k3p1g2,tiled"])
def test_pixels_that_are_split_among_blocks(text):
    """Also that their sums, of numbers that round, are the same from run to run."""
    problem, rng = parse(text), np.random.default_rng(0)
    assert splits_of(problem) > 1
    x, g = rng.standard_normal(problem.x_shape, "f4"), rng.standard_normal(problem.out_shape, "f4")
    once, again = (gradient(problem, x, g) for _ in range(2))
    np.testing.assert_allclose(once, reference_gradient(problem, x, g), rtol=1e-4, atol=1e-4)
    assert once.tobytes() == again.tobytes()


WINOGRAD = [
    "conv2d,n1c3i5x9f4k3p1,bias,relu",
    "conv2d,n2c2i4x7f3k3p1:0x0:2,residual,pixelbias",
    "conv2d,n1c5i9x6f3k3,channels_last,bias",
    "conv2d,n1c2i6f2k3p1,float64",
    "transposed2d,n1c2i6x5f3k3p1,bias",
    "conv2d,n1c2i4x5f3k3p2,circular",
]


@pytest.mark.parametrize("text", WINOGRAD)
def test_winograd(text):
    """Its error stays below its bound, and the reference's own rounding."""
    problem = parse(text)
    given = arrays(problem, np.random.default_rng(0))
    got = call(fc, problem, on_device(given), algorithm="winograd").copy_to_host()
    want = call(fc.reference, problem, given)
    size = cases.largest(problem, given) if problem.operation == "conv" else 64.0
    assert (np.abs(got - want) <= cases.STEEPEST * error_bound(nested(F4), problem.channels, problem.dtype) * size).all()
    assert kernel_of(text, "winograd") == "winograd_4x4"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transforms_are_those_of_the_scheme(dtype):
    """B', A' and G of cpu/toom.py, which are exact."""
    if not cuda.simulated():
        pytest.skip("the functions are compiled")
    number = np.dtype(dtype).type
    for function, matrix in zip(winograd.transforms(dtype), (F4.b, F4.a, F4.g)):
        for k, column in enumerate(np.array(matrix, float).T):
            unit = [number(k == m) for m in range(len(matrix[0]))]
            np.testing.assert_allclose(function(*unit), column, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@pytest.mark.skipif(not cuda.simulated(), reason="the function is compiled")
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_a_line_of_a_phase_is_the_transposed_convolution(kernel, dilation, stride):
    """Of one dimension, written out: each output meets the very taps and rows that reach it, as a window's."""
    [step] = transposed.steps_of((stride,), (dilation,))
    [most] = transposed.most_taps((kernel,), (step,))
    for before in (0, 2, 7):
        for i in range(23):
            taps, last, above = transposed.line(i % stride, kernel, stride, dilation, before, step)
            met = [(last - t * step, i // stride + t * (dilation * step // stride) - above) for t in range(taps)]
            reaching = [a for a in range(kernel) if (i + before - a * dilation) % stride == 0]
            assert sorted(met) == [(a, (i + before - a * dilation) // stride) for a in reaching]
            assert taps <= most


def test_training_steps_of_the_benchmarks():
    """The gradient that comes out is that of the reference, layer by layer."""
    from fastconv.bench.device import device_step
    from fastconv.bench.training import Step

    got = home(device_step(Step((2, 1), (1, 1, 4, 4)))())
    layers = fc.ConvAutoencoder(1, (2, 1), rng=0)._layers
    passed = [np.random.default_rng(0).random((1, 1, 4, 4), "f4")]
    two = {"stride": 2, "padding": 1}
    for layer in layers:
        function, more = (
            (fc.reference.conv2d, {}) if layer in layers[:2] else (fc.reference.conv_transpose2d, {"output_padding": 1})
        )
        passed.append(function(passed[-1], layer.weight, layer.bias, activation=layer.activation, **two, **more))
    g = passed[-1]
    for layer, x, y in zip(layers[::-1], passed[-2::-1], passed[:0:-1]):
        g = g * (y > 0) if layer.activation else g
        if layer in layers[:2]:
            g = fc.reference.conv2d_input(x.shape, layer.weight, g, **two)
        else:
            g = fc.reference.conv_transpose2d_input(x.shape, layer.weight, g, **two, output_padding=1)
    assert g.any()
    np.testing.assert_allclose(got, g, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["conv2d,n1c3i4x5f4k3p1,bias,residual", "weights2d,n1c2i4x5f3k3p1"])
def test_cases_of_the_benchmarks(text):
    from fastconv.bench import segment
    from fastconv.bench.device import device_case, device_time

    problem = parse(text)
    filled, case = segment([problem]), device_case(problem)
    [held] = filled.convolutions
    if problem.kind == "weights":
        want = reference_gradient(problem, filled.x, held.weight)
    else:
        want = call(fc.reference, problem, {"x": filled.x, "weight": held.weight, "bias": held.bias, "residual": held.residual})
    np.testing.assert_allclose(home(case()), want, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a simulated clock may say that it is none
        assert isinstance(device_time(lambda: None, samples=1), float)
