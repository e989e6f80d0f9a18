"""Activations: what the argument may be, what it says of itself, slopes, and the scalar functions as compiled."""

import math
import pickle

import numpy as np
import pytest
from numba import njit

from fastconv import epilogue
from fastconv.cpu import rows
from fastconv.epilogue import CODES, FUNCTIONS, NAMES, Activation

ARGUMENTS = {
    None: "", "relu": "relu", "relu6": "relu6", "leaky_relu": "leaky_relu", "sigmoid": "sigmoid", "tanh": "tanh",
    "silu": "silu", "hardswish": "hardswish", "gelu": "gelu", ("leaky_relu", 0.01): "leaky_relu",
    ("leaky_relu", 0.2): "leaky_relu:0.2", ("leaky_relu",): "leaky_relu", ("relu",): "relu", ("clip", 0, 6): "relu6",
    ("clip", 0.0, math.inf): "relu", ("clip", -1, 1): "clip:-1.0:1.0", ("clip", np.float32(-0.5), np.int64(2)): "clip:-0.5:2.0",
    ("clip", -math.inf, 0): "clip:-inf:0.0", ("clip", 1, 1): "clip:1.0:1.0",
}  # fmt: skip


@pytest.mark.parametrize(("argument", "text"), ARGUMENTS.items())
def test_of_and_text(argument, text):
    activation = Activation.of(argument)
    assert str(activation) == text
    assert Activation.of(activation) is activation
    assert pickle.loads(pickle.dumps(activation)) == activation
    assert hash(activation) == hash(Activation.of(argument))
    assert type(activation.low) is type(activation.high) is float
    if text:
        assert Activation.parse(text) == activation


@pytest.mark.parametrize("text", ["", "identity", "relu:1", "clip", "clip:1", "clip:1:2:3", "leaky_relu:x", "clip:2:1", "relu:"])
def test_parse_errors(text):
    with pytest.raises(ValueError, match=r"text: got .*no option"):
        Activation.parse(text)


def test_codes():
    assert [FUNCTIONS[CODES[name]].__name__ for name in CODES] == list(CODES)
    assert Activation().code == 0
    for name in NAMES:
        assert 0 < Activation.of((name, *range(max(NAMES[name])))).code < len(FUNCTIONS)


def sigmoid(v):
    return 1 / (1 + math.exp(-v)) if v > -700 else 0.0


FORMULAS = {
    "relu": lambda v: max(v, 0.0),
    "relu6": lambda v: min(max(v, 0.0), 6.0),
    "leaky_relu": lambda v: v if v >= 0 else 0.01 * v,
    ("leaky_relu", 0.3): lambda v: v if v >= 0 else 0.3 * v,
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "silu": lambda v: v * sigmoid(v),
    "hardswish": lambda v: v * min(max(v + 3, 0), 6) / 6,
    "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
    ("clip", -0.5, 1.5): lambda v: min(max(v, -0.5), 1.5),
}
POINTS = [*np.linspace(-8, 8, 65).tolist(), -100.0, 100.0, -1e-8, 1e-8, 0.0, -1000.0, 1000.0]


def computed(argument, numbers, dtype):
    """What the kernels compute, number by number."""
    activation = Activation.of(argument)
    inlined = getattr(rows, activation.name)
    function = njit(lambda v, low, high: inlined(v, low, high))  # some have no wrapper for Python: a call ends the process
    low, high = dtype(activation.low), dtype(activation.high)
    return [function(dtype(v), low, high) for v in numbers]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("argument", FORMULAS)
def test_values(argument, dtype):
    expected = [FORMULAS[argument](v) for v in POINTS]
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(computed(argument, POINTS, dtype), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("argument", FORMULAS)
def test_nan_stays_nan(argument, dtype):
    assert np.isnan(computed(argument, [math.nan, -math.nan], dtype)).all()


INFINITE = {  # at -inf (None: infinity times the nothing there, which is NaN) and inf
    "relu": (0, math.inf), "relu6": (0, 6), "leaky_relu": (-math.inf, math.inf), "sigmoid": (0, 1), "tanh": (-1, 1),
    "silu": (None, math.inf), "hardswish": (None, math.inf), "gelu": (None, math.inf), ("clip", -0.5, 1.5): (-0.5, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("argument", INFINITE)
def test_infinity(argument, dtype):
    for value, expected in zip(computed(argument, [-math.inf, math.inf], dtype), INFINITE[argument], strict=True):
        assert math.isnan(value) if expected is None else value == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("argument", [None, *FORMULAS])
def test_derivative(argument, dtype):
    """Against central differences, away from the corners."""
    activation = Activation.of(argument)
    value = FORMULAS.get(argument, lambda v: v)
    v = np.linspace(-7, 7, 141) + 0.0123
    expected = [(value(p + 1e-6) - value(p - 1e-6)) / 2e-6 for p in v.astype(dtype).astype(float)]
    slope = activation.derivative(v.astype(dtype))
    assert slope.dtype == dtype
    assert slope.shape == v.shape
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
    assert activation.derivative(v.astype(dtype).reshape(3, 47)).shape == (3, 47)


@pytest.mark.parametrize(
    ("argument", "corner", "slope"),
    [
        ("relu", 0, 0),
        ("relu6", 6, 1),
        ("leaky_relu", 0, 0.01),
        ("hardswish", -3, 0),
        ("hardswish", 3, 1.5),
        (("clip", -1, 1), -1, 0),
    ],
)
def test_derivative_of_a_corner_is_that_to_its_left(argument, corner, slope):
    assert Activation.of(argument).derivative(np.array([corner], np.float32)) == np.float32(slope)


@pytest.mark.parametrize("argument", ["sigmoid", "silu", "tanh", "gelu", "hardswish"])
def test_derivative_far_out(argument):
    with np.errstate(all="raise", under="ignore"):
        slope = Activation.of(argument).derivative(np.array([-1e30, -1000, 1000, 1e30], np.float32))
    np.testing.assert_allclose(slope, np.repeat([0, 0 if argument in ("sigmoid", "tanh") else 1], 2), atol=1e-6)


def test_float32_constants_keep_float32():
    assert {type(c) for c in (epilogue.ONE, epilogue.HALF, epilogue.THREE, epilogue.SIX)} == {np.float32}
