"""Every CUDA kernel against the reference, on the tables of cases that the CPU's kernels share: exact on whole numbers."""

import math
import warnings

import cases
import numpy as np
import pytest
from cases import arrays, call, parse, rounded

import fastconv as fc
from fastconv import cuda
from fastconv.cpu.toom import F4
from fastconv.cpu.winograd import error_bound
from fastconv.problem import SeparableProblem

pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=f"no CUDA: {cuda.why_not()}")
if cuda.is_available():
    from fastconv.cuda import launch, table, winograd
    from fastconv.cuda.device import cuda as device
    from fastconv.plan import choose

# Multiply-adds of a case that the simulator is asked for; a tiled kernel's count what lies beyond the edges too.
MOST = 30_000 if cuda.simulated() else 10**9


def on_device(given):
    return {name: device.to_device(array) for name, array in given.items()}


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
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    blocks = -(-problem.batch * math.prod(problem.out_space) // 8) * last.groups * -(-last.filters // last.groups // 64)
    return blocks * 512 * -(-last.channels // last.groups // 4) * 4 * math.prod(last.kernel)


TEXTS = list(dict.fromkeys(text for text in cases.CASES))
DIRECT = [text for text in TEXTS if simulated_work(text, "direct") <= MOST]
TILED = [text for text in TEXTS if simulated_work(text, "tiled") <= 4 * MOST]


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
    assert (np.abs(got - want) <= cases.STEEPEST * error_bound(F4, problem.channels, problem.dtype) * size).all()
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


@pytest.mark.parametrize("text", ["conv2d,n1c3i4x5f4k3p1,bias,residual", "weights2d,n1c2i4x5f3k3p1"])
def test_cases_of_the_benchmarks(text):
    from fastconv.bench import segment
    from fastconv.bench.device import device_case, device_time
    from fastconv.bench.layers import step

    problem = parse(text)
    filled, case = segment([problem]), device_case(problem)
    np.testing.assert_allclose(case().copy_to_host(), step(filled.layers[0])(filled.x), rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a simulated clock may say that it is none
        assert isinstance(device_time(lambda: None, repetitions=1), float)
