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


# Every operation, alone: a table of what is done to numbers a, b and scalars, and what NumPy makes of the same ------------
#
# Operands are unaligned, and lie between NaN, which would show in the result; the result lies between -99.

MARGIN = 3


def among(numbers, dtype, margin=np.nan):
    """A row of numbers between margins."""
    row = np.full(len(numbers) + 2 * MARGIN, margin, dtype)
    row[MARGIN:-MARGIN] = numbers
    return row


def numbers(lanes, dtype, seed):
    """Whole numbers, but for the special ones: among them whatever a comparison could get wrong."""
    row = np.random.default_rng(seed).integers(-9, 10, lanes).astype(dtype)
    row[:4] = np.roll([np.nan, np.inf, -np.inf, -0.0], seed)
    return row


VECTORS = {
    "load": (lambda s, a, b, n: s.load(a), lambda a, b, n: a),
    "splat": (lambda s, a, b, n: s.splat(n), lambda a, b, n: np.full_like(a, n)),
    "add": (lambda s, a, b, n: s.load(a) + s.load(b), lambda a, b, n: a + b),
    "subtract": (lambda s, a, b, n: s.load(a) - s.load(b), lambda a, b, n: a - b),
    "multiply": (lambda s, a, b, n: s.load(a) * s.load(b), lambda a, b, n: a * b),
    "number + vector": (lambda s, a, b, n: n + s.load(a), lambda a, b, n: n + a),
    "number - vector": (lambda s, a, b, n: n - s.load(a), lambda a, b, n: n - a),
    "number * vector": (lambda s, a, b, n: n * s.load(a), lambda a, b, n: n * a),
    "integer * vector": (lambda s, a, b, n: 3 * s.load(a), lambda a, b, n: 3 * a),
    "plus": (lambda s, a, b, n: s.splat(n).plus(s.load(a), s.load(b)), lambda a, b, n: n + a * b),
    "clip": (lambda s, a, b, n: s.load(a).clip(-2.0, n), lambda a, b, n: np.clip(a, -2, n)),
    "clip to nothing": (lambda s, a, b, n: s.load(a).clip(-np.inf, np.inf), lambda a, b, n: a),
    "evens": (lambda s, a, b, n: s.load(a).evens(s.load(b)), lambda a, b, n: np.concatenate([a, b])[::2]),
}
# Vectors of 16, 32 and 64 bytes: wider ones no machine has, and each is compiled.
SIZES = [(lanes * 4 // np.dtype(dtype).itemsize, dtype) for lanes in (4, 8, 16) for dtype in DTYPES]
WIDTHS = pytest.mark.parametrize(("lanes", "dtype"), SIZES)
BOTH = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.filterwarnings("ignore")
@WIDTHS
@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name, lanes, dtype):
    operation, expected = njit(VECTORS[name][0]), VECTORS[name][1]

    @njit
    def kernel(shape, a, b, n, out):
        operation(shape, pointer(a) + MARGIN, pointer(b) + MARGIN, n).store(pointer(out) + MARGIN)

    out, number = among([0] * lanes, dtype, -99), np.dtype(dtype).type(5)
    for first, second in ((1, 2), (1, 1), (0, 3)):
        a, b = (numbers(max(4, lanes), dtype, seed)[:lanes] for seed in (first, second))
        kernel(TileShape(1, 1, lanes, 1, dtype), among(a, dtype), among(b, dtype), number, out)
        np.testing.assert_array_equal(out, among(expected(a, b, number).astype(dtype), dtype, -99))


@njit
def masked(shape, a, low, high, n, out):
    """Both pointers may stand outside their runs: only a mask says what is touched."""
    shape.load(pointer(a) + MARGIN, low, high).store(pointer(out) + MARGIN, n)


@WIDTHS
def test_masks(lanes, dtype):
    """Every pair of bounds, and bounds far outside: they are clamped before they narrow to 32 bits."""
    far, shape = 2**33, TileShape(1, 1, lanes, 1, dtype)
    a = np.arange(1, lanes + 1).astype(dtype)
    for low in (-far, -1, *range(lanes + 1), far):
        for high in (-far, -1, *range(lanes + 1), far):
            inside = (np.arange(lanes) >= low) & (np.arange(lanes) < high)
            out = among([-99] * lanes, dtype, -99)
            masked(shape, among(np.where(inside, a, np.nan), dtype), low, high, lanes, out)
            np.testing.assert_array_equal(out, among(np.where(inside, a, 0), dtype, -99))
    for n in (-far, -1, *range(lanes + 1), lanes + 1, far):
        out = among([-99] * lanes, dtype, -99)
        masked(shape, among(a, dtype), 0, lanes, n, out)
        np.testing.assert_array_equal(out, among(np.where(np.arange(lanes) < n, a, -99), dtype, -99))


def room(rows, columns, dtype, margin):
    """A matrix of margins, with more of them around: (all of it, the matrix inside)."""
    whole = np.full((rows + 2, columns + 2 * MARGIN), margin, dtype)
    return whole, whole[1:-1, MARGIN:-MARGIN]


TILES = {
    "zeros": (lambda s, a, step, b, n: s.zeros(), lambda a, b, n: 0 * a),
    "from_rows": (lambda s, a, step, b, n: s.from_rows(b), lambda a, b, n: 0 * a + b[: len(a), None]),
    "from_columns": (lambda s, a, step, b, n: s.from_columns(b), lambda a, b, n: 0 * a + b[: a.shape[1]]),
    "load_tile": (lambda s, a, step, b, n: s.load_tile(a, step), lambda a, b, n: a),
    "clip": (lambda s, a, step, b, n: s.load_tile(a, step).clip(-n, n), lambda a, b, n: np.clip(a, -n, n)),
    "at_least": (lambda s, a, step, b, n: s.load_tile(a, step).at_least(n), lambda a, b, n: np.where(a < n, n, a)),
    "rank1": (lambda s, a, step, b, n: s.load_tile(a, step).rank1(b, b), lambda a, b, n: a + outer(a, b, 1)),
    "rank1_but_first": (
        lambda s, a, step, b, n: s.load_tile(a, step).rank1_but_first(b, b),
        lambda a, b, n: a + outer(a, b, 1) * (np.arange(len(a)) > 0)[:, None],
    ),
    "rank1_but_last": (
        lambda s, a, step, b, n: s.load_tile(a, step).rank1_but_last(b, b),
        lambda a, b, n: a + outer(a, b, 1) * (np.arange(len(a)) < len(a) - 1)[:, None],
    ),
    "rank1_apart": (lambda s, a, step, b, n: s.load_tile(a, step).rank1_apart(b, 2, b), lambda a, b, n: a + outer(a, b, 2)),
    "rank1_apart backwards": (
        lambda s, a, step, b, n: s.load_tile(a, step).rank1_apart(b + (s.rows - 1), -1, b),
        lambda a, b, n: a + np.outer(b[: len(a)][::-1], b[: a.shape[1]]),
    ),
}  # fmt: skip


def outer(a, b, step):
    return np.outer(b[: len(a) * step : step], b[: a.shape[1]])


@WIDTHS
@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
@pytest.mark.parametrize("name", TILES)
def test_tile_operations(name, size, lanes, dtype):
    operation, expected = njit(TILES[name][0]), TILES[name][1]

    @njit
    def kernel(shape, a, step, b, n, out):
        operation(shape, pointer(a) + (step + MARGIN), step, pointer(b), n).store(pointer(out) + (step + MARGIN), step)

    shape, rng = TileShape(*size, lanes, 1, dtype), np.random.default_rng(0)
    given, a = room(shape.rows, shape.width, dtype, np.nan)
    out, _ = room(shape.rows, shape.width, dtype, -99)
    wanted, want = room(shape.rows, shape.width, dtype, -99)
    a[...] = rng.integers(-9, 10, a.shape)
    b = rng.integers(-9, 10, max(shape.width, 2 * shape.rows)).astype(dtype)
    kernel(shape, given, given.shape[1], b, np.dtype(dtype).type(4), out)
    want[...] = expected(a, b, 4)
    np.testing.assert_array_equal(out, wanted)


@njit
def parts(shape, a, step, rows, columns, out, out_rows, out_columns):
    tile = shape.load_tile(pointer(a) + (step + MARGIN), step, rows, columns)
    tile.store(pointer(out) + (step + MARGIN), step, out_rows, out_columns)


@WIDTHS
def test_parts_of_tiles(lanes, dtype):
    """Loaded, what lies outside is zero and not read; stored, it is not written."""
    shape = TileShape(3, 2, lanes, 1, dtype)
    for rows, columns in ((3, 2 * lanes), (2, lanes + 1), (1, lanes), (0, 5), (3, 0), (9, 99), (-1, -1), (2**33, lanes - 1)):
        inside = (np.arange(3)[:, None] < rows) & (np.arange(2 * lanes) < columns)
        given, a = room(3, 2 * lanes, dtype, np.nan)
        a[...] = np.where(inside, np.arange(1, a.size + 1).reshape(a.shape), np.nan)
        for stored in (False, True):
            out, _ = room(3, 2 * lanes, dtype, -99)
            wanted, want = room(3, 2 * lanes, dtype, -99)
            parts(shape, given, given.shape[1], rows, columns, out, *((rows, columns) if stored else (3, 2 * lanes)))
            want[...] = np.where(inside, a, -99 if stored else 0)
            np.testing.assert_array_equal(out, wanted)


@njit
def turned(square, a, out):
    square.load_tile(pointer(a), square.lanes).transpose().store(pointer(out), square.lanes)


@WIDTHS
def test_transpose(lanes, dtype):
    a = np.arange(lanes**2).astype(dtype).reshape(lanes, lanes)
    out = np.full_like(a, np.nan)
    square = TileShape(5, 3, lanes, 7, dtype).square
    assert (square.rows, square.vectors, square.lanes, square.dtype) == (lanes, 1, lanes, dtype)
    turned(square, a, out)
    np.testing.assert_array_equal(out, a.T)


@njit
def few_turned(square, a, step, count, out):
    square.load_few_turned(pointer(a), step, count).store(pointer(out), square.lanes)


@BOTH
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_first_columns_of_a_turned_square(lanes, dtype):
    square, a = TileShape(1, 1, lanes, 1, dtype).square, np.arange(1, 5 * lanes + 1).astype(dtype)
    assert square.block == 16 // a.itemsize
    for count in range(square.block + 1):
        out = np.full((square.block, lanes), np.nan, dtype)
        few_turned(square, a, 5, count, out)
        np.testing.assert_array_equal(out[:count], a.reshape(lanes, 5).T[:count])
        assert not out[count:].any()


@njit
def asked_for(array, n):
    pointer(array).prefetch(n)
    return array[0]


@BOTH
def test_prefetch_of_any_address(dtype):
    for n in (0, -1, 10**6, -(2**40), 2**45):
        assert asked_for(np.ones(4, dtype), n) == 1


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


@njit
def brought_to_size(shape, a, rows, columns, out):
    """Its methods in turn: a tile plus itself, by rows; by rows and columns, from a start; vectors over one another."""
    step, left, there = shape.width, pointer(a), pointer(out)
    tile = shape.load_tile(left, step)
    tile.plus_tile(left, step).times_rows(pointer(rows)).store(there, step)
    tile.scaled(pointer(rows), pointer(columns), left).store(there + shape.rows * step, step)
    there += 2 * shape.rows * step
    ratio = shape.load(left) / shape.load(pointer(columns))
    ratio.store(there)
    (1.0 / ratio).magnitude().store(there + shape.lanes)
    ratio.magnitude().power().store(there + 2 * shape.lanes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_and_factors(dtype):
    shape, random = TileShape(3, 1, 4, 1, dtype), np.random.default_rng(0)
    a, rows, columns = (random.integers(1, 9, size).astype(dtype) for size in ((3, 4), 3, 4))
    a[0] *= [-1, 1, -1, 1]
    out = np.full((9, 4), np.nan, dtype)
    brought_to_size(shape, a, rows, columns, out)
    np.testing.assert_array_equal(out[:3], 2 * a * rows[:, None])
    np.testing.assert_array_equal(out[3:6], a[0] + a * np.outer(rows, columns))
    ratio = a[0] / columns
    np.testing.assert_array_equal(out[6:8], [ratio, np.abs(1 / ratio)])
    np.testing.assert_array_equal(out[8], 2 ** np.floor(np.log2(np.abs(ratio))))
