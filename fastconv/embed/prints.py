"""Fingerprints of weights: whether a call's are those that a plan has packed, from one pass over them.

Comparing 64 filters of 64 channels with a copy takes 2.5 us, and pushes the transformed ones out of L2; a fingerprint reads half as
much. It is LANES hashes of 64 bits side by side, each of every LANES-th word:

    h = (h xor word) * FACTOR;  h = h xor (h >> 32)

Each step is a bijection of h and of the word, so that a change of one word of a lane is always seen, and one of several unless
they cancel, which they do as seldom as two numbers of 64 bits are equal.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastconv.cpu.atomics import INT, WORD, foreign, intrinsic
from fastconv.cpu.compiled import compiled

LANES = 8  # words of a vector
VECTORS = 4  # side by side: a step waits 6 cycles for the one before it, and takes one and a half
BLOCK = 8 * LANES * VECTORS  # bytes
SIZE = 2 * BLOCK  # of a fingerprint: the hashes, then room for what is left over of a block
FACTOR = -7046029254386353131  # the golden ratio's bits, as Fibonacci hashing has them
FOLD = 32

memcpy = foreign("memcpy", INT, INT, INT, INT)
memset = foreign("memset", INT, INT, types.int32, INT)


@intrinsic  # type: ignore[untyped-decorator]
def absorb_blocks(typing_context: Any, hashes: Any, source: Any, count: Any) -> Any:
    """Go on with so many whole blocks."""
    kind = ir.VectorType(WORD, LANES)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def vector(start: Any, k: int) -> Any:
            return builder.inttoptr(builder.add(start, WORD(8 * LANES * k)), kind.as_pointer())

        hashes, source, count = values
        held = [cgutils.alloca_once_value(builder, builder.load(vector(hashes, k), align=8)) for k in range(VECTORS)]
        with cgutils.for_range(builder, count) as loop:
            block = builder.add(source, builder.mul(loop.index, WORD(BLOCK)))
            for k, place in enumerate(held):
                mixed = builder.xor(builder.load(place), builder.load(vector(block, k), align=1))
                mixed = builder.mul(mixed, ir.Constant(kind, [FACTOR] * LANES))
                builder.store(builder.xor(mixed, builder.lshr(mixed, ir.Constant(kind, [FOLD] * LANES))), place)
        for k, place in enumerate(held):
            builder.store(builder.load(place), vector(hashes, k), align=8)
        return context.get_dummy_value()

    return types.void(INT, INT, INT), build


@compiled
def absorb(into: int, source: int, size: int) -> None:
    """Go on with so many bytes, zeros behind them: for fingerprints of arrays of the same sizes in the same order."""
    whole = size // BLOCK * BLOCK
    absorb_blocks(into, source, size // BLOCK)
    if whole < size:
        memset(into + BLOCK, 0, BLOCK)
        memcpy(into + BLOCK, source + whole, size - whole)
        absorb_blocks(into, into + BLOCK, 1)
