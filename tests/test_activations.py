"""The activations as kernels compute them: float32 ones within a few units in the last place, float64 ones those of libm."""

import math

import numpy as np
import pytest
from numba import njit

from fastconv.cpu import activations
from fastconv.epilogue import Activation

UNITS = 4  # in the last place of the result; of v for gelu, whose factor may cancel
EXACT = {
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "tanh": np.tanh,
    "gelu": lambda v: v * 0.5 * np.vectorize(math.erfc, [float])(-v * math.sqrt(0.5)),
}
LIBM = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "silu": lambda v: v / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "gelu": lambda v: v * (0.5 * (1 + math.erf(v * Activation.of("gelu").low))),
}
ENDS = {  # at -inf and inf; None: infinity times the nothing there, which is NaN
    "sigmoid": (0, 1), "tanh": (-1, 1), "silu": (None, math.inf), "gelu": (None, math.inf),
}  # fmt: skip


def compiled(name):
    function = getattr(activations, name)

    @njit(error_model="numpy", fastmath={"contract"})
    def through(numbers, low, out):
        for i in range(numbers.size):
            out[i] = function(numbers[i], low, low)

    return through


FUNCTIONS = {name: compiled(name) for name in EXACT}


def computed(name, numbers):
    out = np.full_like(numbers, np.nan)
    FUNCTIONS[name](numbers, numbers.dtype.type(Activation.of(name).low), out)
    return out


def dense():
    """Evenly over all that is not flat, ever closer to 0, and beside every number where a formula ends."""
    even = np.linspace(-110, 110, 400_001).astype(np.float32)
    near = np.geomspace(1e-45, 2, 50_000).astype(np.float32)
    ends = np.array([0.625, 1, 44, 52, 88, 88.3763, 88.7228, 89, 103.9, 104, 1e4, 3e38], np.float32)
    beside = [ends]
    for direction in (-np.inf, np.inf):
        step = ends
        for _ in range(8):
            step = np.nextafter(step, np.float32(direction))
            beside.append(step)
    positive = np.concatenate([near, *beside])
    return np.concatenate([even, positive[np.isfinite(positive)], -positive[np.isfinite(positive)]])


@pytest.mark.parametrize("name", EXACT)
def test_float32(name):
    """Where exp_to_add overflows, at 88.4, sigmoid is 0 instead of 1 / exp(88.4), and silu instead of 88.4 times that."""
    v = dense()
    with np.errstate(over="ignore", under="ignore"):
        exact = EXACT[name](v.astype(np.float64))
    got, tiny = computed(name, v), np.finfo(np.float32).tiny
    unit = np.spacing(np.maximum(np.abs((v if name == "gelu" else exact).astype(np.float32)), tiny)).astype(np.float64)
    off = np.abs(got - exact)
    bad = ~(off <= UNITS * unit) & ~(off < 4e-37)
    worst = np.argmax(np.where(bad, off / unit, -1))
    assert not bad.any(), f"{name}({v[worst]!r}): {got[worst]!r}, not {exact[worst]!r}; {bad.sum()} of {v.size}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_specials(name, dtype):
    below, above, nan, zero, minus_zero = computed(name, np.array([-np.inf, np.inf, np.nan, 0.0, -0.0], dtype))
    for value, expected in zip((below, above), ENDS[name]):
        assert math.isnan(value) if expected is None else value == expected, f"{name}: {value}, not {expected}"
    assert math.isnan(nan), name
    assert (zero, minus_zero) == ((0.5, 0.5) if name == "sigmoid" else (0, 0)), name
    assert np.signbit(minus_zero) == (name != "sigmoid"), f"{name}: the sign of zero"


@pytest.mark.parametrize("name", EXACT)
def test_float32_has_no_steps(name):
    """Neighbours in order give results in order, but for the units that they may be off."""
    v = np.sort(dense())
    v = v[v >= (0 if name in ("silu", "gelu") else -87)]  # these two have a minimum below 0
    got = computed(name, v)
    falls = np.diff(got) < -2 * UNITS * np.spacing(np.abs(got[1:]))
    assert not falls.any(), f"{name} falls after {v[:-1][falls][:3]}"


@pytest.mark.parametrize("name", EXACT)
def test_float64_is_that_of_libm(name):
    v = np.concatenate([np.linspace(-40, 40, 4001), np.geomspace(1e-300, 30, 500), -np.geomspace(1e-300, 30, 500)])
    np.testing.assert_array_max_ulp(computed(name, v), np.array([LIBM[name](x) for x in v.tolist()]), maxulp=1)
