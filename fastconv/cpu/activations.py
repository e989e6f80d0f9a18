"""The activations of epilogue.py as the CPU's kernels compute them: float32 ones without a call, so that LLVM vectorises.

    exp(v) = 2^n exp(r),    n = round(v / ln 2), r = v - n ln 2 in two steps (Cody and Waite, 1980), exp(r) a polynomial
    tanh(v)                 an odd polynomial near 0, beyond it 1 - 2 / (exp(2v) + 1)
    gelu(v) = v Phi(v)      Phi(-|v|) = exp(-v^2 / 2) t P(t) / 2 with t = 1 / (1 + |x| / 2), x = v / sqrt 2: the form of
                            Abramowitz and Stegun 7.1.26, so that the tail is as accurate as the middle

Polynomials are interpolated at the Chebyshev points of the interval. Errors stay below 4 units in the last place (of v, for
gelu), but where exp overflows less than 4e-37 becomes 0. A silu of libm's exp took 14 ns a number, four fifths of a 1x1
layer's time; this takes 0.7. float64 calls libm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from fastconv import epilogue
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.simd import power_of_two

f4 = np.float32
ZERO, HALF, ONE, TWO = map(f4, (0, 0.5, 1, 2))
LOWEST, HIGHEST = f4(-104), f4(89)  # beyond them exp is 0 and infinity, and 2^n would not fit two factors
LEAST_EXPONENT, MOST_EXPONENT = f4(-88), f4(89)  # the same for one factor: 2^-127 is stored as 0, and 2^128 as infinity
PER_LN2, LN2_HIGH, LN2_LOW = f4(1.44269502), f4(0.693359375), f4(-2.12194440e-4)
ROUND = f4(1.5 * 2**23)  # added and subtracted, it rounds to a whole number
E2, E3, E4, E5, E6 = map(f4, (0.5, 0.166664153, 0.0416662172, 0.00837512873, 0.00139485812))
NEAR = f4(0.625)
T1, T2, T3, T4, T5 = map(f4, (-0.333332628, 0.133311495, -0.0537226796, 0.0205956791, -0.00566477515))
P0, P1, P2, P3, P4 = map(f4, (0.282069355, 0.282767892, 0.23931402, 0.222866908, -0.0921202302))
P5, P6, P7, P8, P9 = map(f4, (0.412898868, -0.663962781, 0.427443117, -0.123914808, 0.012637645))


def exp(v: Any) -> Any:
    """The exponential function; for use in compiled code."""
    raise NotImplementedError("exp() works in compiled code only")


def exp_to_add(v: Any) -> Any:
    """As exp, for a sum with 1: 0 below 2^-126, and infinite from 2^127.5 on; for use in compiled code."""
    raise NotImplementedError("exp_to_add() works in compiled code only")


@inlined
def factors(v, lowest, highest):
    """What exp(v) is the product of: a number near 1, and a power of two, given by its exponent."""
    bounded = lowest if v < lowest else (highest if v > highest else v)
    n = (bounded * PER_LN2 + ROUND) - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    p = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return p, np.int32(n if n == n else ZERO)  # NaN is no integer; p is NaN then


@inlined
def exp_of_float32(v):
    p, whole = factors(v, LOWEST, HIGHEST)
    half = whole >> np.int32(1)
    return p * power_of_two(half) * power_of_two(whole - half)


@inlined
def exp_of_float32_to_add(v):
    p, whole = factors(v, LEAST_EXPONENT, MOST_EXPONENT)
    return p * power_of_two(whole)


@overload(exp)
def _exp(v):
    if v == types.float32:
        return lambda v: exp_of_float32(v)
    return lambda v: math.exp(v)


@overload(exp_to_add)
def _exp_to_add(v):
    if v == types.float32:
        return lambda v: exp_of_float32_to_add(v)
    return lambda v: math.exp(v)


@inlined
def sigmoid(v, low, high):
    """1 / (1 + exp(-v)): an overflowing exp is inf, and its inverse the right 0."""
    return ONE / (ONE + exp_to_add(-v))


@inlined
def silu(v, low, high):
    """V * sigmoid(v)."""
    return v / (ONE + exp_to_add(-v))


@inlined
def tanh_of_float32(v):
    s = v * v
    near = v * (ONE + s * (T1 + s * (T2 + s * (T3 + s * (T4 + s * T5)))))  # a product, that -0 stays -0
    far = ONE - TWO / (exp_to_add(v + v) + ONE)
    return near if abs(v) < NEAR else far


@inlined
def share_below_of_float32(v, root):
    x = abs(v) * root
    t = ONE / (ONE + HALF * x)
    p = P0 + t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * (P6 + t * (P7 + t * (P8 + t * P9))))))))
    tail = HALF * exp(-x * x) * t * p
    return tail if v < ZERO else ONE - tail


def hyperbolic_tangent(v: Any) -> Any:
    """For use in compiled code."""
    raise NotImplementedError("hyperbolic_tangent() works in compiled code only")


def share_below(v: Any, root: Any) -> Any:
    """Share of a normal distribution below v, root the square root of a half; for use in compiled code."""
    raise NotImplementedError("share_below() works in compiled code only")


@overload(hyperbolic_tangent)
def _hyperbolic_tangent(v):
    if v == types.float32:
        return lambda v: tanh_of_float32(v)
    return lambda v: math.tanh(v)


@overload(share_below)
def _share_below(v, root):
    if v == types.float32:
        return lambda v, root: share_below_of_float32(v, root)
    return lambda v, root: HALF * (ONE + math.erf(v * root))


@inlined
def tanh(v, low, high):
    """The hyperbolic tangent."""
    return hyperbolic_tangent(v)


@inlined
def gelu(v, low, high):
    """V times the normal distribution's share below it."""
    return v * share_below(v, low)


clip, leaky_relu, hardswish = compiled(epilogue.clip), compiled(epilogue.leaky_relu), compiled(epilogue.hardswish)
