"""Pointers and register tiles against NumPy, for 4, 8 and 16 lanes of both dtypes."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from fastconv.cpu.simd import PointerType, TileShape, TileShapeType, pointer

DTYPES = ["float32", "float64"]


@njit
def summed(shape, a, b, out, steps, apart, offset):
    """The tile of `steps` rank-1 updates, whose operands lie `apart` numbers apart, stored with a row step."""
    tile, left, right = shape.zeros(), pointer(a), pointer(b)
    for _ in range(steps):
        tile = tile.rank1(left, right)
        left, right = left + apart[0], right + apart[1]
    tile.store(pointer(out) + offset, apart[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(("rows", "vectors", "step"), [(1, 1, 1), (3, 2, 1), (4, 1, 5)])
def test_tiles(rows, vectors, step, lanes, dtype):
    shape = TileShape(rows, vectors, lanes, step, dtype)
    random, steps = np.random.default_rng(0), 7
    # Unaligned on purpose: both operands begin one number after a boundary.
    a = random.integers(-9, 9, (steps, rows * step + 2)).astype(dtype)
    b = random.integers(-9, 9, (steps, shape.width + 3)).astype(dtype)
    out = np.full((rows, shape.width + 3), -99, dtype)
    summed(shape, a, b, out, steps, (a.shape[1], b.shape[1], out.shape[1]), 1)
    expected = a[:, : rows * step : step].T @ b[:, : shape.width]
    np.testing.assert_array_equal(out[:, 1 : 1 + shape.width], expected)
    assert (out[:, [0, -2, -1]] == -99).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_of_no_steps_is_zero(dtype):
    shape = TileShape(2, 2, 4, 1, dtype)
    out = np.full((2, 8), np.nan, dtype)
    summed(shape, out, out, out, 0, (0, 0, 8), 0)
    assert not out.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank1_rounds_once(dtype):
    """A fused multiply-add: (1 + e) * (1 - e) - 1 is -e * e, and 0 if the product is rounded."""
    e = np.finfo(dtype).eps
    a, b = np.array([1, 1 + e], dtype), np.repeat(np.array([-1, 1 - e], dtype), 4)
    out = np.empty(4, dtype)
    summed(TileShape(1, 1, 4, 1, dtype), a, b, out, 2, (1, 4, 4), 0)
    assert (out == -e * e).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity(dtype):
    a, b = np.array([1, 0, np.inf], dtype), np.array([np.nan, np.inf, 1, 0], dtype)
    out = np.empty((3, 4), dtype)
    with np.errstate(invalid="ignore"):
        summed(TileShape(3, 1, 4, 1, dtype), a, b, out, 1, (0, 0, 4), 0)
        np.testing.assert_array_equal(out, np.outer(a, b))


@njit
def described(shape):
    return shape.rows, shape.vectors, shape.lanes, shape.step, shape.width


def test_shapes_are_types():
    shapes = [TileShape(3, 2, 8), TileShape(2, 3, 8), TileShape(3, 2, 8, 4), TileShape(3, 2, 8, 1, "float64")]
    types = [TileShapeType(shape) for shape in shapes]
    assert len(set(types)) == len(shapes)
    assert TileShapeType(TileShape(3, 2, 8)) == types[0] == TileShape(3, 2, 8)._numba_type_
    for shape in shapes:
        assert described(shape) == (shape.rows, shape.vectors, shape.lanes, shape.step, shape.width)
        assert shape.width == shape.vectors * shape.lanes


@njit
def moved(array, n):
    p = pointer(array)
    q = p + n
    p[0] = q[1]
    q += 2
    q[-1] = q[0] * 2
    q[n - 3] += 1
    return p[n] + array[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pointers(dtype):
    array, other = np.arange(12, dtype=dtype), np.arange(12, dtype=dtype)
    other[0] = other[4]
    other[4] = other[5] * 2
    other[5] += 1
    assert moved(array, 3) == other[3] + other[0]
    np.testing.assert_array_equal(array, other)


@njit
def address_of_integers(array):
    return pointer(array)[0]


@pytest.mark.parametrize("array", [np.arange(3), np.ones((3, 4), "f4").T, np.ones(8, "f4")[::2], np.ones(3, "c8")])
def test_pointer_refuses(array):
    with pytest.raises(TypingError, match="expected a C-contiguous array of float32 or float64"):
        address_of_integers(array)


def test_pointer_is_for_compiled_code():
    with pytest.raises(NotImplementedError, match="compiled code only"):
        pointer(np.ones(3))


def test_inputs_are_only_read():
    from numba import float32

    from fastconv.cpu import job
    from fastconv.cpu.compiled import address

    assert PointerType(float32) != PointerType(float32, only_read=True)

    @njit
    def write(item, seat, job):
        job.x[0] = 1

    with pytest.raises(TypingError, match="an input is only read"):
        address(write, *job.arguments("float32"))
