"""What happens to a sum before it is stored: bias, residual, activation.

    out = activation(sum + bias + residual)

`Activation` is the Python side: which function, with which two numbers. The functions themselves stand below as plain scalar
code, `value(name)` and `slope(name)`, which the kernels of every target compile into their loops; `CODES` numbers them.
A NaN stays a NaN through each of them.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAKY_SLOPE = 0.01  # torch's default


@dataclass(frozen=True)
class Activation:
    """An activation and its numbers: `low` and `high` of a clip, `low` the slope of a leaky ReLU.

    relu and relu6 are clips, so that the kernels know fewer cases than users have names.
    """

    name: str = "identity"
    low: float = 0.0
    high: float = 0.0

    @staticmethod
    def of(argument: Any, called: str = "activation") -> Activation:
        """From an argument of the API, called so there: None, a name, or a tuple of a name and numbers."""
        if isinstance(argument, Activation):
            return argument
        if argument is None:
            return Activation()
        name, *numbers_given = argument if isinstance(argument, tuple) and argument else (argument,)
        if not isinstance(name, str):
            raise TypeError(f"{called}: got {argument!r}, expected None, a name, or a tuple of a name and numbers")
        if name not in NAMES:
            raise ValueError(f"{called}: got {name!r}, expected None or one of {', '.join(NAMES)}")
        values = tuple(_number(number, argument, called) for number in numbers_given)
        if len(numbers_given) not in NAMES[name]:
            raise ValueError(f"{called}: got {argument!r}, expected {' or '.join(map(str, NAMES[name]))} numbers after {name!r}")
        if name == "clip" and values[0] > values[1]:
            raise ValueError(f"{called}: got a clip from {values[0]} to {values[1]}, expected low <= high")
        return _named(name, *values)

    @staticmethod
    def parse(text: str) -> Activation:
        """From the text form, a name and numbers separated by colons."""
        name, *numbers_given = text.split(":")
        try:
            return Activation.of((name, *map(float, numbers_given)))
        except ValueError as error:
            raise ValueError(f"text: got {text!r}, which is no option: {error}") from None

    @property
    def code(self) -> int:
        """The number by which kernels know the function."""
        return CODES[self.name]

    def derivative(self, v: Any) -> Any:
        """The slope of the function at each number of an array, in its dtype; that of a corner is the one to its left."""
        if self.name == "identity":
            return np.ones_like(v)
        if self.name == "clip":
            return ((v > self.low) & (v <= self.high)).astype(v.dtype)
        if self.name == "leaky_relu":
            return np.where(v > 0, 1, self.low).astype(v.dtype)
        if self.name == "tanh":
            return 1 - np.tanh(v) ** 2
        if self.name == "hardswish":
            return np.where(v <= -3, 0, np.where(v <= 3, (2 * v + 3) / 6, 1)).astype(v.dtype)
        if self.name == "gelu":
            share = np.frompyfunc(math.erf, 1, 1)(v * self.low).astype(v.dtype)
            with np.errstate(over="ignore"):
                density = np.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)
            return (0.5 * (1 + share) + v * density).astype(v.dtype)
        with np.errstate(over="ignore"):
            s = 1 / (1 + np.exp(-v))
        return s * (1 - s) if self.name == "sigmoid" else s * (1 + v * (1 - s))

    def __str__(self) -> str:
        if self.name == "identity":
            return ""
        if self.name == "clip":
            return {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}.get((self.low, self.high), f"clip:{self.low!r}:{self.high!r}")
        if self.name == "leaky_relu":
            return "leaky_relu" if self.low == LEAKY_SLOPE else f"leaky_relu:{self.low!r}"
        return self.name


def _number(number: Any, argument: Any, called: str) -> float:
    if isinstance(number, (bool, np.bool_)) or not isinstance(number, numbers.Real):
        raise TypeError(f"{called}: got {number!r} in {argument!r}, expected a number")
    try:
        value = float(number)
    except OverflowError:  # of a whole number beyond 1e308
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"{called}: got {argument!r}, expected numbers that a float holds, not NaN")
    return value


def _named(name: str, *given: float) -> Activation:
    if name == "relu":
        return Activation("clip", 0.0, math.inf)
    if name == "relu6":
        return Activation("clip", 0.0, 6.0)
    if name == "leaky_relu":
        return Activation("leaky_relu", *(given or (LEAKY_SLOPE,)))
    if name == "gelu":
        return Activation("gelu", math.sqrt(0.5))
    return Activation(name, *given)


# How many numbers may follow each name in the API.
NAMES: dict[str, tuple[int, ...]] = {
    "relu": (0,), "relu6": (0,), "leaky_relu": (0, 1), "sigmoid": (0,), "tanh": (0,), "silu": (0,), "hardswish": (0,),
    "gelu": (0,), "clip": (2,),
}  # fmt: skip


# The functions, for kernels to compile: v, low and high are of one dtype --------------------------------------------------
# Comparisons are written so that NaN falls through to v itself. Constants are float32 because a float64 one would make
# Numba compute float32 activations in float64; all of them are exact, the one that is not (gelu's) travels as `low`.

ONE, HALF, THREE, SIX = np.float32(1), np.float32(0.5), np.float32(3), np.float32(6)


def identity(v: Any, low: Any, high: Any) -> Any:
    """The number itself."""
    return v


def clip(v: Any, low: Any, high: Any) -> Any:
    """The number, but at least `low` and at most `high`."""
    return low if v < low else (high if v > high else v)


def leaky_relu(v: Any, low: Any, high: Any) -> Any:
    """The number, times `low` where it is negative."""
    return v * low if v < 0 else v


def sigmoid(v: Any, low: Any, high: Any) -> Any:
    """1 / (1 + exp(-v)): an overflowing exp is inf, and its inverse the right 0."""
    return ONE / (ONE + math.exp(-v))


def tanh(v: Any, low: Any, high: Any) -> Any:
    """The hyperbolic tangent."""
    return math.tanh(v)


def silu(v: Any, low: Any, high: Any) -> Any:
    """V * sigmoid(v)."""
    return v / (ONE + math.exp(-v))


def hardswish(v: Any, low: Any, high: Any) -> Any:
    """V * min(max(v + 3, 0), 6) / 6."""
    return v * (SIX if v > THREE else (v + THREE if v > -THREE else v - v)) / SIX


def gelu(v: Any, low: Any, high: Any) -> Any:
    """V times the normal distribution's share below it; `low` is the square root of a half."""
    return HALF * v * (ONE + math.erf(v * low))


FUNCTIONS: tuple[Callable[[Any, Any, Any], Any], ...] = (identity, clip, leaky_relu, sigmoid, tanh, silu, hardswish, gelu)
CODES = {function.__name__: code for code, function in enumerate(FUNCTIONS)}
