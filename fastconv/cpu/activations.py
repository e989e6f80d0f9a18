"""The activations of epilogue.py as the CPU's kernels compute them: float32 ones without a call, so that LLVM vectorises.

    exp(v) = 2^n exp(r),    n = round(v / ln 2), r = v - n ln 2 in two steps (Cody and Waite, 1980), exp(r) a polynomial
    tanh(v)                 an odd polynomial near 0, beyond it 1 - 2 / (exp(2v) + 1)
    gelu(v) = v Phi(v)      Phi(v) = 1/2 + v P(v^2) / Q(v^2) up to 5.3, where less than a unit is left of it: one quotient, and
                            no exponential, which would double the time

Polynomials are interpolated at the Chebyshev points of the interval, those of gelu fitted to the least greatest error, 4e-9.
Errors stay below 4 units in the last place (of v, for gelu), but where exp overflows less than 4e-37 becomes 0. A silu of libm's
exp took 14 ns a number, four fifths of a 1x1 layer's time; this takes 0.7. float64 calls libm.
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
LEAST_EXPONENT, MOST_EXPONENT = f4(-88), f4(89)  # beyond them exp is 0 and infinity: so 2^-127 and 2^128 are stored
PER_LN2, LN2_HIGH, LN2_LOW = f4(1.44269502), f4(0.693359375), f4(-2.12194440e-4)
ROUND = f4(1.5 * 2**23)  # added and subtracted, it rounds to a whole number
E2, E3, E4, E5, E6 = map(f4, (0.5, 0.166664153, 0.0416662172, 0.00837512873, 0.00139485812))
NEAR = f4(0.625)
T1, T2, T3, T4, T5 = map(f4, (-0.333332628, 0.133311495, -0.0537226796, 0.0205956791, -0.00566477515))
ENOUGH = f4(5.3)
P0, P1, P2, P3, P4, P5 = map(f4, (0.39894226, 0.0329359, 4.628001e-3, 1.603357e-4, 6.37907e-6, 2.4050198e-8))
Q1, Q2, Q3, Q4, Q5 = map(f4, (0.24922428, 0.02813889, 1.8365784e-3, 7.135271e-5, 1.237166e-6))


def exp_to_add(v: Any) -> Any:
    """The exponential function, for a sum with 1: 0 below 2^-126, and infinite from 2^127.5 on; for use in compiled code."""
    raise NotImplementedError("exp_to_add() works in compiled code only")


@inlined
def exp_of_float32_to_add(v):
    bounded = LEAST_EXPONENT if v < LEAST_EXPONENT else (MOST_EXPONENT if v > MOST_EXPONENT else v)
    rounded = bounded * PER_LN2 + ROUND
    n = rounded - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    p = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return p * power_of_two(rounded)


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
def share_below_of_float32(v):
    z = -ENOUGH if v < -ENOUGH else (ENOUGH if v > ENOUGH else v)
    s = z * z
    p = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * P5))))
    q = ONE + s * (Q1 + s * (Q2 + s * (Q3 + s * (Q4 + s * Q5))))
    return ZERO if v < -ENOUGH else HALF + z * p / q


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
        return lambda v, root: share_below_of_float32(v)
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
