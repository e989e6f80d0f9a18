"""What Numba is told of our values: a wrong use is a typing error that names it, not a crash."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from fastconv.cpu.simd import TileShape, pointer

TALL, OTHER = TileShape(3, 1, 4), TileShape(3, 1, 8)

WRONG = {
    "no such attribute": (lambda shape, other, p: shape.height, "height"),
    "no such method": (lambda shape, other, p: shape.zeros().rank2(p, p), "rank2"),
    "too few arguments": (lambda shape, other, p: shape.zeros().rank1(p), "TileType.rank1: got"),
    "too many arguments": (lambda shape, other, p: shape.zeros(p), "TileShapeType.zeros: got"),
    "lanes that differ": (lambda shape, other, p: shape.load(p) + other.load(p), "add"),
    "a vector before a number": (lambda shape, other, p: shape.load(p) * 2.0, "mul"),
    "a fraction as an offset": (lambda shape, other, p: p + 1.5, "add"),
    "a fraction as an index": (lambda shape, other, p: p[1.5], "getitem"),
    "not a square": (lambda shape, other, p: shape.zeros().transpose(), "expected a square tile"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_uses_are_typing_errors(what):
    use, words = WRONG[what]
    use = njit(use)

    @njit
    def kernel(shape, other, array):
        use(shape, other, pointer(array))

    with pytest.raises(TypingError, match=words):
        kernel(TALL, OTHER, np.zeros(64, np.float32))
