"""The slopes of the activations, as kernels compute them: `Activation.derivative` of fastconv/epilogue.py, one number at a time.

That of a corner is the one to its left; a NaN stays a NaN where the slope depends on the number.
"""

import math
from functools import lru_cache

from fastconv.cuda.device import function
from fastconv.epilogue import HALF, ONE, SIX, THREE

ZERO = ONE - ONE
TWO_PI_ROOT = math.sqrt(2 * math.pi)


def identity(v, low, high):
    return ONE


def clip(v, low, high):
    return ONE if v > low and v <= high else ZERO


def leaky_relu(v, low, high):
    return ONE if v > 0 else low


def sigmoid(v, low, high):
    s = ONE / (ONE + math.exp(-v))
    return s * (ONE - s)


def tanh(v, low, high):
    t = math.tanh(v)
    return ONE - t * t


def silu(v, low, high):
    s = ONE / (ONE + math.exp(-v))
    return s * (ONE + v * (ONE - s))


def hardswish(v, low, high):
    return ZERO if v <= -THREE else ((v + v + THREE) / SIX if v <= THREE else ONE)


def gelu(v, low, high):
    return HALF * (ONE + math.erf(v * low)) + v * math.exp(-HALF * v * v) / TWO_PI_ROOT


SLOPES = {
    slope.__name__: slope for slope in (identity, clip, leaky_relu, sigmoid, tanh, silu, hardswish, gelu)
}  # fmt: skip


@lru_cache(maxsize=16)
def slope_of(name):
    """A slope as a function of (v, low, high) for kernels."""
    return function(SLOPES[name])
