"""Values for windows that slide: a column of vectors is walked down, line by line, and every line is read once.

A tile of `rows` x `vectors` is here the window itself: a window spans `rows` lines and `vectors` taps across, each a register.

    weights     shape.splats(p), or shape.load_tile(p, step) where every lane has weights of its own
    numbers     of one line: shape.windows(p, apart, edges), shape.taps(p, apart, edges)
    sums        of the windows that have begun and are not complete: shape.sums(start), s.weigh(weights, numbers, phase),
                s.oldest(), s.next(start)
    gradients   of the weights, a tile: t.gather(above, numbers, phase), where the sums' place is taken by the gradients `above`
                of the results of the windows under way; t.totals(p)
    at points   of neighbouring windows by a scheme (toom.py): shape.all_rows(start), s.weigh_points(weights, numbers), s.last(),
                s.behind(start), in tiles of scheme.seen(shape), scheme.at(shape) and scheme.start(shape); row.store_apart(p, n)
    spreads     of transposed windows two columns apart, for which numbers come from shape.reach.taps(p, -1, edges): the sums of
                even and of odd columns, shape.phases(p), s.spread(shape, weights, numbers), s.interleaved(), for which numbers
                or sums must be put in order first, t.as_windows(), s.store_between(p, step, rows, low, high); the rows of a tile
                are here filters, or the rows of the result that one row of the image spreads to: shape.begun(start), s.first(),
                s.rest(start)

Windows begin every `step` lines, so ceil(rows / step) of them are under way. A line in phase r of window t meets, in the window
that began q windows ago, the weights of line q * step + r. `edges` say which lanes a load may touch: made once a column, for
making them takes as long as the multiply-adds of a line. Two tiles of half the lanes stand `beside` each other in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError

import fastconv.cpu.transforms  # noqa: F401, where schemes get their first methods
from fastconv.cpu.simd import (
    BIT,
    BYTES,
    INDEX,
    NARROW,
    TileShape,
    TileShapeType,
    TileType,
    VectorType,
    _between,
    _clamped,
    _fma,
    _load_masked,
    _places,
    _shuffled,
    _store_masked,
    _tile_of,
    at,
    load_vector,
    splat_number,
    store_vector,
)  # fmt: skip
from fastconv.cpu.toom import SchemeType
from fastconv.cpu.values import attribute, held_as, method

SMALL_WINDOW = 9  # taps: weights and sums of no more leave registers for the rest of a walk
MASKED_VECTOR = 64  # bytes of the vectors, and of pairs of them, whose masks have registers of their own: AVX-512


class EdgesType(types.Type):  # type: ignore[misc]
    """One type for each number of lanes, and of masks."""

    def __init__(self, lanes: int, dtype: str, masks: int) -> None:
        self.lanes, self.dtype, self.masks = lanes, dtype, masks
        super().__init__(f"Edges({masks} of {lanes} x {dtype})")

    @property
    def as_bits(self) -> bool:
        """Otherwise as integers: AVX2 would make a vector from the bits anew at every load, 1.5 times the cycles of a line."""
        return self.lanes * BYTES[self.dtype] >= MASKED_VECTOR

    @property
    def mask(self) -> Any:
        return ir.VectorType(BIT if self.as_bits else ir.IntType(8 * BYTES[self.dtype]), self.lanes)


held_as(EdgesType, lambda t: ir.ArrayType(t.mask, t.masks))


def _edges(builder: Any, edges: EdgesType, masks: list[Any]) -> Any:
    value = ir.ArrayType(edges.mask, edges.masks)(ir.Undefined)
    for place, mask in enumerate(masks):
        value = builder.insert_value(value, mask if edges.as_bits else builder.sext(mask, edges.mask), place)
    return value


def _mask(builder: Any, edges: EdgesType, value: Any, place: int) -> Any:
    mask = builder.extract_value(value, place)
    return mask if edges.as_bits else builder.icmp_signed("<", mask, edges.mask(None))


def _count(lanes: int) -> Any:
    return ir.VectorType(NARROW, lanes)([NARROW(lane) for lane in range(lanes)])


def _within(builder: Any, lanes: int, place: Any, width: Any) -> Any:
    """The lanes l with 0 <= place + l < width."""
    low = splat_number(builder, builder.trunc(_clamped(builder, builder.neg(place), lanes), NARROW), lanes)
    high = splat_number(builder, builder.trunc(_clamped(builder, builder.sub(width, place), lanes), NARROW), lanes)
    return builder.and_(builder.icmp_signed(">=", _count(lanes), low), builder.icmp_signed("<", _count(lanes), high))


# A line of numbers ----------------------------------------------------------------------------------------------------
#
# Windows two columns apart: two vectors are loaded, from the middle tap on, where they are mostly aligned, and parted into even and
# odd columns. A tap further to one side is one of the two, moved by a lane, with one more number at its end. Columns are parted
# within each 16 bytes, which takes one cheap instruction. That leaves the lanes out of order (`_order`), and they stay so until the
# results are stored (`in_order`).


def _middle(s: TileShape) -> int:
    return (s.vectors - 1) // 2


def _ends(s: TileShape) -> list[int]:
    """Columns, counted from the middle tap of lane 0, of the single numbers that windows two columns apart need."""
    taps = [b - _middle(s) for b in range(s.vectors)]
    front = [e for e in taps if e < 0]
    back = [2 * s.lanes + e - 2 for e in taps if e > 1]
    return front + back


def _order(kind: Any) -> list[int]:
    """The window that each lane holds."""
    apiece = min(16 // BYTES[kind.dtype], kind.lanes) // 2  # from each vector of a pair, in 16 bytes
    return [
        vector * kind.lanes // 2 + first + i
        for first in range(0, kind.lanes // 2, apiece) for vector in (0, 1) for i in range(apiece)
    ]  # fmt: skip


def _parted(builder: Any, kind: Any, first: Any, second: Any) -> list[Any]:
    """The even and the odd columns of two vectors, in `_order`."""
    return [_shuffled(builder, first, second, [2 * window + parity for window in _order(kind)]) for parity in range(2)]


def _in_order(builder: Any, kind: Any, value: Any) -> Any:
    return _shuffled(builder, value, value, [_order(kind).index(lane) for lane in range(kind.lanes)])


@method(VectorType, "in_order")
def in_order(v):
    """The windows of step 2 in order."""
    return v(), lambda builder, value: _in_order(builder, v, value)


def _row_of(builder: Any, s: TileShape, vectors: list[Any]) -> Any:
    return _tile_of(builder, replace(s, rows=1), lambda row, vector: vectors[vector])


def _pairs(builder: Any, s: TileShape, load: Any, end: Any) -> list[Any]:
    """The taps of windows two columns apart, from load(0), load(1): the pair, and end(i): the number at _ends[i] everywhere."""
    ends, order = _ends(s), _order(s)
    moved = {(parity, 0): vector for parity, vector in enumerate(_parted(builder, s, load(0), load(1)))}
    front = [order.index(place - 1) if place else s.lanes for place in order]
    back = [order.index(place + 1) if place + 1 < s.lanes else s.lanes for place in order]
    taps = [(b - _middle(s)) for b in range(s.vectors)]
    for e in sorted(taps, key=abs):
        parity, by = e % 2, e // 2
        if by < 0:
            moved[parity, by] = _shuffled(builder, moved[parity, by + 1], end(ends.index(e)), front)
        elif by > 0:
            number = end(ends.index(2 * s.lanes + e - 2))
            moved[parity, by] = _shuffled(builder, moved[parity, by - 1], number, back)
    return [moved[e % 2, e // 2] for e in taps]


def _edges_of(shape: TileShape) -> EdgesType:
    return EdgesType(shape.lanes, shape.dtype, shape.vectors if shape.step == 1 else 2 + len(_ends(shape)))


@method(TileShapeType, "edges")
def edges(shape, u, apart, width):
    """For `windows` whose first tap of lane 0 lies in column u: the lanes whose column lies within 0..width."""
    s, kind = shape.shape, _edges_of(shape.shape)

    def build(builder: Any, shape: Any, u: Any, apart: Any, width: Any) -> Any:
        if s.step == 1:
            places = [builder.add(u, builder.mul(apart, INDEX(b))) for b in range(s.vectors)]
            return _edges(builder, kind, [_within(builder, s.lanes, place, width) for place in places])
        middle = builder.add(u, INDEX(_middle(s)))
        masks = [_within(builder, s.lanes, builder.add(middle, INDEX(start)), width) for start in (0, s.lanes)]
        one = ir.VectorType(BIT, s.lanes)([BIT(lane == 0) for lane in range(s.lanes)])
        for e in _ends(s):
            masks.append(builder.and_(one, _within(builder, s.lanes, builder.add(middle, INDEX(e)), width)))
        return _edges(builder, kind, masks)

    return kind(types.intp, types.intp, types.intp), build


@method(TileShapeType, "windows")
def windows(shape, p, apart, edges):
    """Lane l's window begins at p[l * step], its taps are `apart`; edges may be None. Step 2 takes neighbouring taps only."""
    s = shape.shape
    masked = isinstance(edges, EdgesType)
    if s.step == 1:
        return _side_by_side(s, p, edges)

    def build(builder: Any, shape: Any, p: Any, apart: Any, given: Any) -> Any:
        middle = at(builder, p, _middle(s))

        def load(place: int) -> Any:
            there = at(builder, middle, place * s.lanes)
            return (
                _load_masked(builder, there, _mask(builder, edges, given, place), s) if masked else load_vector(builder, there, s)
            )

        def end(place: int) -> Any:
            there = at(builder, middle, _ends(s)[place])
            if masked:
                return _load_masked(builder, there, _mask(builder, edges, given, 2 + place), s)
            return splat_number(builder, builder.load(there), s.lanes)

        return _row_of(builder, s, _pairs(builder, s, load, end))

    return TileType(replace(s, rows=1))(p, types.intp, edges), build


@method(TileShapeType, "sides")
def sides(shape, first, last, count):
    """For `taps`: of the taps first..last the first `count` lanes, of the others none."""
    s = shape.shape
    kind = EdgesType(s.lanes, s.dtype, s.vectors)

    def build(builder: Any, shape: Any, first: Any, last: Any, count: Any) -> Any:
        masks = []
        for b in range(s.vectors):
            met = builder.and_(builder.icmp_signed("<=", first, INDEX(b)), builder.icmp_signed("<", INDEX(b), last))
            masks.append(_within(builder, s.lanes, INDEX(0), builder.select(met, count, INDEX(0))))
        return _edges(builder, kind, masks)

    return kind(types.intp, types.intp, types.intp), build


@method(TileShapeType, "taps")
def taps(shape, p, apart, edges):
    """Tap b of all lanes is p[b * apart :]; edges, of `sides`, may be None.

    A tap without lanes loads from where another one lies: a processor that finds no memory behind a masked load asks the system
    whether it is to fail, some 200 cycles each time. 672 channels of 14 x 14 and stride 2 took 29 or 290 us, by what lay beside.
    """
    s = shape.shape
    if not isinstance(edges, EdgesType):
        return _side_by_side(s, p, edges)

    def build(builder: Any, shape: Any, p: Any, apart: Any, given: Any) -> Any:
        masks = [_mask(builder, edges, given, b) for b in range(s.vectors)]
        any_lane, none = ir.IntType(s.lanes), ir.IntType(s.lanes)(0)
        met = [builder.icmp_unsigned("!=", builder.bitcast(mask, any_lane), none) for mask in masks]
        places = [builder.mul(apart, INDEX(b)) for b in range(s.vectors)]
        other = places[-1]
        for b in reversed(range(s.vectors - 1)):
            other = builder.select(met[b], places[b], other)
        vectors = []
        for b, mask in enumerate(masks):
            there = at(builder, p, builder.select(met[b], places[b], other))
            vectors.append(_load_masked(builder, there, mask, s))
        return _row_of(builder, s, vectors)

    return TileType(replace(s, rows=1))(p, types.intp, edges), build


def _side_by_side(s: TileShape, p: Any, edges: Any) -> Any:
    """Tap b of all lanes is p[b * apart :], for lanes of which some may lie outside."""

    def build(builder: Any, shape: Any, p: Any, apart: Any, given: Any) -> Any:
        vectors = []
        for b in range(s.vectors):
            there = at(builder, p, builder.mul(apart, INDEX(b)))
            if isinstance(edges, EdgesType):
                vectors.append(_load_masked(builder, there, _mask(builder, edges, given, b), s))
            else:
                vectors.append(load_vector(builder, there, s))
        return _row_of(builder, s, vectors)

    return TileType(replace(s, rows=1))(p, types.intp, edges), build


# Weights and sums -----------------------------------------------------------------------------------------------------


@method(TileShapeType, "splats")
def splats(shape, p, *apart):
    """The tile whose register at (row, vector) is p[row * vectors + vector] everywhere, or numbers that are so far `apart`."""
    s = shape.shape

    def build(builder: Any, shape: Any, p: Any, apart: Any = None) -> Any:
        def register(row: int, vector: int) -> Any:
            place = builder.mul(apart or INDEX(1), INDEX(row * s.vectors + vector))
            return splat_number(builder, builder.load(at(builder, p, place)), s.lanes)

        return _tile_of(builder, s, register)

    return TileType(s)(p, *apart), build


# Weights of tiled_depthwise_spread that stay in registers, beside eight sums.
IN_REGISTERS = 16


@method(TileShapeType, "kept")
def kept(shape, p):
    """`splats` of weights that stay in registers, of more the pointer: a walk is compiled for what a window needs alone."""
    if shape.shape.rows * shape.shape.vectors <= IN_REGISTERS:
        return splats(shape, p)
    return p(p), lambda builder, shape, p: p


def _under_way(s: TileShape) -> TileShape:
    return replace(s, rows=-(-s.rows // s.step), vectors=1)


@method(TileShapeType, "sums")
def sums(shape, start):
    """The sums of windows under way, all of which begin with `start`; the newest is the first."""
    s = _under_way(shape.shape)
    return TileType(s)(start), lambda builder, shape, start: _tile_of(builder, s, lambda row, vector: start)


@method(TileType, "weigh")
def weigh(sums, weights, numbers, phase):
    """Add a line's numbers to every sum, with the weights that it has there; `phase` (a literal) of the newest window."""
    if not isinstance(phase, types.IntegerLiteral):
        raise TypingError(f"weigh: got {phase} as phase, expected a literal")  # Numba then tries the literal
    s, w = sums.shape, weights.shape

    def build(builder: Any, acc: Any, weight: Any, number: Any, phase_value: Any) -> Any:
        for vector in range(w.vectors):
            for row in range(s.rows):
                line = row * w.step + phase.literal_value
                if line < w.rows:
                    there = builder.extract_value(weight, line * w.vectors + vector)
                    total = _fma(builder, there, builder.extract_value(number, vector), builder.extract_value(acc, row), s)
                    acc = builder.insert_value(acc, total, row)
        return acc

    return sums(weights, numbers, phase), build


@method(TileType, "oldest")
def oldest(sums):
    """The sum of the window that began first, a Vector."""
    s = sums.shape
    return VectorType(s.lanes, s.dtype)(), lambda builder, acc: builder.extract_value(acc, s.rows - 1)


@method(TileType, "next")
def following(sums, start):
    """Without the oldest, and with a new one."""
    s = sums.shape

    def build(builder: Any, acc: Any, start: Any) -> Any:
        return _tile_of(builder, s, lambda row, vector: builder.extract_value(acc, row - 1) if row else start)

    return sums(start), build


# Windows at points ----------------------------------------------------------------------------------------------------
#
# Neighbouring windows together by Toom and Cook's scheme (toom.py): the numbers of a step are taken to points, and of the windows
# under way there are sums at points, a row of vectors for each, with weights of their own.


def _shape_of(name: str, of: Any) -> None:
    """A TileShape that a scheme makes of a window's."""

    @method(SchemeType, name)
    def rule(scheme, window):
        made = of(scheme.scheme, window.shape)._numba_type_
        return made(window), lambda builder, scheme, window: ir.IntType(8).as_pointer()(None)


_shape_of("seen", lambda scheme, window: replace(window, vectors=scheme.numbers))
_shape_of("at", lambda scheme, window: replace(window, vectors=scheme.count))
_shape_of("start", lambda scheme, window: replace(window, rows=1, vectors=scheme.count))


@method(TileShapeType, "all_rows")
def all_rows(shape, row):
    """The tile whose every row is this one."""
    s = shape.shape

    def build(builder: Any, shape: Any, row: Any) -> Any:
        return _tile_of(builder, s, lambda _, vector: builder.extract_value(row, vector))

    return TileType(s)(row), build


@method(TileType, "weigh_points")
def weigh_points(sums, weights, row):
    """Add a step's numbers at points to every row, with the weights that they have there."""
    s = sums.shape

    def build(builder: Any, acc: Any, weight: Any, number: Any) -> Any:
        for _, vector, place in _places(s):
            factors = builder.extract_value(weight, place), builder.extract_value(number, vector)
            acc = builder.insert_value(acc, _fma(builder, *factors, builder.extract_value(acc, place), s), place)
        return acc

    return sums(weights, row), build


@method(TileType, "last")
def last(sums):
    """The last row: of the windows that began first."""
    s = sums.shape
    row, first = replace(s, rows=1), (s.rows - 1) * s.vectors

    def build(builder: Any, acc: Any) -> Any:
        return _tile_of(builder, row, lambda _, vector: builder.extract_value(acc, first + vector))

    return TileType(row)(), build


@method(TileType, "behind")
def behind(sums, row):
    """Behind a new first row, without the last."""
    s = sums.shape

    def build(builder: Any, acc: Any, new: Any) -> Any:
        def register(row: int, vector: int) -> Any:
            return builder.extract_value(acc, (row - 1) * s.vectors + vector) if row else builder.extract_value(new, vector)

        return _tile_of(builder, s, register)

    return sums(row), build


@method(TileType, "store_apart")
def store_apart(row, p, apart):
    """Vector k to p[k * apart :], the first one last: of vectors that are not apart it remains."""
    s = row.shape

    def build(builder: Any, acc: Any, p: Any, apart: Any) -> None:
        for vector in reversed(range(s.vectors)):
            store_vector(builder, builder.extract_value(acc, vector), at(builder, p, builder.mul(apart, INDEX(vector))), s)

    return types.void(p, types.intp), build


# Gradients ------------------------------------------------------------------------------------------------------------


@method(TileType, "gather")
def gather(tile, above, numbers, phase):
    """Add a line's numbers to what they add to the weights' gradients, as `weigh` adds them to the sums."""
    if not isinstance(phase, types.IntegerLiteral):
        raise TypingError(f"gather: got {phase} as phase, expected a literal")
    s = tile.shape

    def build(builder: Any, acc: Any, above: Any, number: Any, phase_value: Any) -> Any:
        for row, vector, place in _places(s):
            if row % s.step == phase.literal_value:
                factors = builder.extract_value(above, row // s.step), builder.extract_value(number, vector)
                acc = builder.insert_value(acc, _fma(builder, *factors, builder.extract_value(acc, place), s), place)
        return acc

    return tile(above, numbers, phase), build


@method(VectorType, "as_windows")
def as_windows(v):
    """Neighbouring numbers in the order of windows of step 2."""
    return v(), lambda builder, value: _shuffled(builder, value, value, _order(v))


@method(TileType, "totals")
def totals(tile, p):
    """The sum of the lanes of each register, to p[row * vectors + vector]: by halves, always in the same order.

    Halves of two registers are added up in one: of nine registers 15 additions and 30 shuffles, where one by one they took 108.
    """
    s = tile.shape

    def build(builder: Any, acc: Any, p: Any) -> None:
        registers = [builder.extract_value(acc, place) for *_, place in _places(s)]
        for first in range(0, len(registers), s.lanes):
            some, half = registers[first : first + s.lanes], s.lanes // 2
            while half:
                lower, upper = ([lane for lane in range(2 * s.lanes) if lane // half % 2 == side] for side in (0, 1))
                pairs = zip(some[::2], some[1::2] + some[-1:], strict=False)
                some = [builder.fadd(_shuffled(builder, a, b, lower), _shuffled(builder, a, b, upper)) for a, b in pairs]
                half //= 2
            count = min(s.lanes, len(registers) - first)
            mask = ir.VectorType(BIT, s.lanes)([BIT(lane < count) for lane in range(s.lanes)])
            _store_masked(builder, some[0], at(builder, p, first), mask, s)

    return types.void(p), build


# Transposed windows, two columns apart --------------------------------------------------------------------------------
#
# The number in lane l of an image's row is spread to columns 2l, 2l + 1, ... of the result, as many as there are taps. Seen from
# the result, an even column takes the even taps of lanes l, l - 1, ..., and an odd column the odd taps of the same lanes. Layers
# that crop an odd number of columns begin with an odd one, as those of 3 and 7 taps mostly do. For these, a pair of registers
# holds an odd column and the even one behind it, so that rows are stored from their first column on and from the beginning of a
# cache line: that gains 10 to 17 %.
ODD = (3, 7)

attribute(TileShapeType, "odd", lambda shape: (types.intp, lambda builder, value: INDEX(int(shape.shape.vectors in ODD))))


attribute(
    TileShapeType,
    "reach",
    lambda shape: (
        TileShapeType(replace(shape.shape, rows=1, vectors=-(-shape.shape.vectors // 2), step=1)),
        lambda builder, value: ir.IntType(8).as_pointer()(None),
    ),
)


@method(TileShapeType, "phases")
def phases(shape, p):
    """The sums of even and of odd columns, for as many filters as there are rows; those of filter r begin with p[r]."""
    s = replace(shape.shape, vectors=2, step=1)

    def build(builder: Any, shape: Any, p: Any) -> Any:
        starts = [splat_number(builder, builder.load(at(builder, p, row)), s.lanes) for row in range(s.rows)]
        return _tile_of(builder, s, lambda row, vector: starts[row])

    return TileType(s)(p), build


@method(TileType, "spread")
def spread(sums, shape, weights, numbers):
    """Add what a row's numbers spread, with the weights [filter][tap] of one row of taps: in memory, or of a tile of `splats`."""
    s, held = shape.shape, isinstance(weights, TileType)

    def build(builder: Any, acc: Any, shape: Any, weights: Any, numbers: Any) -> Any:
        for b in range(s.vectors):
            for row in range(s.rows):
                if held:
                    weight = builder.extract_value(weights, row * s.vectors + b)
                else:
                    weight = splat_number(builder, builder.load(at(builder, weights, row * s.vectors + b)), s.lanes)
                number, place = (b // 2, b % 2) if s.vectors not in ODD else (b // 2 + b % 2, 1 - b % 2)
                place += 2 * row
                total = _fma(builder, weight, builder.extract_value(numbers, number), builder.extract_value(acc, place), s)
                acc = builder.insert_value(acc, total, place)
        return acc

    return sums(shape, weights, numbers), build


@method(TileShapeType, "begun")
def begun(shape, start):
    """The sums of as many rows of the result as there are rows of taps, each of even and of odd columns."""
    s = replace(shape.shape, vectors=2, step=1)
    return TileType(s)(start), lambda builder, shape, start: _tile_of(builder, s, lambda row, vector: start)


@method(TileType, "first")
def first(sums):
    """A tile of the first row alone."""
    s = replace(sums.shape, rows=1)
    return TileType(s)(), lambda builder, acc: _tile_of(builder, s, lambda row, vector: builder.extract_value(acc, vector))


@method(TileType, "rest")
def rest(sums, start):
    """Without the first row, and with a new one behind the last."""
    s = sums.shape

    def build(builder: Any, acc: Any, start: Any) -> Any:
        return _tile_of(
            builder, s, lambda row, v: builder.extract_value(acc, (row + 1) * s.vectors + v) if row + 1 < s.rows else start
        )

    return sums(start), build


@method(TileType, "as_windows")
def all_as_windows(tile):
    """Neighbouring numbers of each register in the order of windows of step 2."""
    s = tile.shape

    def build(builder: Any, acc: Any) -> Any:
        vectors = [builder.extract_value(acc, place) for *_, place in _places(s)]
        ordered = [_shuffled(builder, vector, vector, _order(s)) for vector in vectors]
        return _tile_of(builder, s, lambda row, vector: ordered[row * s.vectors + vector])

    return tile(), build


@method(TileType, "interleaved")
def interleaved(sums):
    """Even and odd columns, a register each, both in the order of windows of step 2, side by side: rows of two vectors.

    In that order a pair's numbers lie in the same 16 bytes of both. Numbers that are put into it before they are weighed take one
    permutation of one vector, where four vectors of results took one each of two (see across.py): 64 planes of 56 x 56 to 112 x 112
    take 72 us for 80.
    """
    s = replace(sums.shape, rows=sums.shape.rows * sums.shape.vectors // 2, vectors=2)
    order = _order(s)

    def build(builder: Any, acc: Any) -> Any:
        def register(row: int, vector: int) -> Any:
            even, odd = (builder.extract_value(acc, 2 * row + parity) for parity in range(2))
            columns = range(vector * s.lanes, (vector + 1) * s.lanes)
            return _shuffled(builder, even, odd, [order.index(column // 2) + s.lanes * (column % 2) for column in columns])

        return _tile_of(builder, s, register)

    return TileType(s)(), build


@method(TileType, "store_between")
def store_between(tile, p, step, rows, low, high):
    """As `store`, of the first `rows` rows only the numbers from `low` on and before `high`."""
    s = tile.shape

    def build(builder: Any, acc: Any, p: Any, step: Any, rows: Any, low: Any, high: Any) -> None:
        for row, vector, place in _places(s):
            first, last = INDEX(vector * s.lanes), builder.select(builder.icmp_signed("<", INDEX(row), rows), high, low)
            mask = _between(builder, s.lanes, builder.sub(low, first), builder.sub(last, first))
            there = at(builder, at(builder, p, builder.mul(step, INDEX(row))), first)
            _store_masked(builder, builder.extract_value(acc, place), there, mask, s)

    return types.void(p, types.intp, types.intp, types.intp, types.intp), build


# Halves ---------------------------------------------------------------------------------------------------------------


LEAST_HALF = 2  # lanes: one number is no vector, so the half of two lanes is all of them


attribute(
    TileShapeType,
    "half",
    lambda shape: (
        TileShapeType(replace(shape.shape, lanes=_half_of(shape.shape.lanes))),
        lambda builder, value: ir.IntType(8).as_pointer()(None),
    ),
)


# Of which dtypes the last columns of a plane are computed in half of the lanes if they fit. Not float64: only rows of 28 and of 20
# numbers would gain by it, an eighth, and code for half of the lanes takes as long to compile as for all.
HALVED = ("float32",)


def is_pair(window: TileShape) -> bool:
    """Whether a window's lanes are those of two of the widest registers."""
    return window.lanes * BYTES[window.dtype] > MASKED_VECTOR


def has_quarters(window: TileShape) -> bool:
    """Whether columns left over are walked by half and by a quarter of a pair's lanes: rows of 56 take 78 us for 84.

    With stride 2 they take 76 for 73, and with 25 taps as long: there a walk takes its time however narrow it is.
    """
    return is_pair(window) and window.dtype in HALVED and window.step == 1 and window.rows * window.vectors <= SMALL_WINDOW


def _if(name: str, of: Callable[[TileShape], bool]) -> None:
    """An attribute that is 1 for the windows for which `of` holds and None for all others.

    Numba leaves out a branch on an argument that is None, so that only the loops that a window may need are compiled for it.
    """

    def rule(shape: TileShapeType) -> Any:
        held = of(shape.shape)
        return types.intp if held else types.none, lambda builder, value: INDEX(1) if held else ir.IntType(8).as_pointer()(None)

    attribute(TileShapeType, name, rule)


_if("pair", is_pair)
_if("halves", lambda window: window.dtype in HALVED)
_if("quarters", has_quarters)
attribute(TileShapeType, "registers", lambda shape: (types.intp, lambda builder, value: INDEX(1 + is_pair(shape.shape))))
_if("by_one", lambda window: window.step == 1)
_if("unmasked", lambda window: window.step == 2 or window.rows * window.vectors <= SMALL_WINDOW)


@method(TileType, "beside")
def beside(tile, other):
    """The tile whose registers hold the lanes of this one's, then those of the other's."""
    s = tile.shape
    whole = replace(s, lanes=2 * s.lanes)

    def build(builder: Any, left: Any, right: Any) -> Any:
        def register(row: int, vector: int) -> Any:
            place = row * s.vectors + vector
            parts = builder.extract_value(left, place), builder.extract_value(right, place)
            return _shuffled(builder, *parts, range(2 * s.lanes))

        return _tile_of(builder, whole, register)

    return TileType(whole)(tile), build


def _half_of(lanes: int) -> int:
    return max(LEAST_HALF, lanes // 2)


def _half(name: str, first: Callable[[int], int]) -> None:
    """The half of a vector, or of all registers of a tile, from that lane on."""

    def places(lanes: int) -> range:
        return range(first(lanes), first(lanes) + _half_of(lanes))

    @method(VectorType, name)
    def half(v):
        return VectorType(_half_of(v.lanes), v.dtype)(), lambda builder, value: _shuffled(builder, value, value, places(v.lanes))

    @method(TileType, name)
    def half_of_all(tile):
        s, lanes = replace(tile.shape, lanes=_half_of(tile.shape.lanes)), places(tile.shape.lanes)

        def build(builder: Any, acc: Any) -> Any:
            whole = [builder.extract_value(acc, place) for *_, place in _places(s)]
            halves = [_shuffled(builder, vector, vector, lanes) for vector in whole]
            return _tile_of(builder, s, lambda row, vector: halves[row * s.vectors + vector])

        return TileType(s)(), build


_half("lower", lambda lanes: 0)
_half("upper", lambda lanes: lanes - _half_of(lanes))
