"""The transforms of Toom and Cook's schemes, as kernels compute them: sums of a few vectors with constant coefficients.

A kernel gets its scheme, one of toom.py, as `job.scheme`; the matrices are known when it is compiled, and a product with one of
them becomes as few instructions as its coefficients allow:

    scheme.to_points(tile, p, step, out, apart)       B' d of the vectors at p, p + step, ..., to out, out + apart, ...
    scheme.from_points(tile, p, step)                 a tuple, A' m of the vectors at p, p + step, ...
    scheme.from_taps(tile, p, step, out, apart)       G w, as to_points
    scheme.to_points_of(wanted, ...), .from_points_of(wanted, ...)    the same of a tile at an edge, of so many outputs
    scheme.at_points(row), scheme.outputs_of(row)     B' d and A' m of a row of vectors in registers, rows too
    scheme.from_filters(tile, p, step, backwards, filters, out, apart), .from_mirrored_filters(tile, p, out, apart)     G w G'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import NativeValue, unbox

from fastconv.cpu.simd import (
    CONTRACT,
    LLVM_FLOATS,
    TileType,
    VectorType,
    _tile_of,
    at,
    disentangled,
    load_vector,
    numbers_at,
    splat_number,
    store_vector,
)  # fmt: skip
from fastconv.cpu.toom import Matrix, NestedType, Scheme, SchemeType
from fastconv.cpu.values import attribute, held_as, method

for _type in (SchemeType, NestedType):
    held_as(_type, lambda t: ir.IntType(8).as_pointer())
for _name in ("down", "across"):
    attribute(NestedType, _name, lambda t, name=_name: (getattr(t, name), lambda builder, value: value))


@unbox(SchemeType)
def _unbox_scheme(fe_type: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


for _name in ("outputs", "taps", "numbers", "stride", "advance", "count", "matrices", "point_of_bias"):
    attribute(
        SchemeType,
        _name,
        lambda t, name=_name: (types.intp, lambda builder, value: ir.IntType(64)(getattr(t.scheme, name))),
    )
for _name in ("long", "short"):
    attribute(SchemeType, _name, lambda t, name=_name: (SchemeType(getattr(t.scheme, name)), lambda builder, value: value))


def _combined(builder: Any, coefficients: list[Fraction], vectors: list[Any]) -> Any:
    """The sum of coefficient * vector; coefficients 0, 1 and -1 cost no product."""
    total = None
    for c, vector in sorted(zip(coefficients, vectors, strict=True), key=lambda pair: abs(pair[0]) != 1):
        if c == 0:
            continue
        if abs(c) == 1:
            term, sign = vector, c
        else:
            number = LLVM_FLOATS["float32" if isinstance(vector.type.element, ir.FloatType) else "float64"](float(c))
            term, sign = builder.fmul(splat_number(builder, number, vector.type.count), vector, flags=CONTRACT), Fraction(1)
        if total is None:
            total = term if sign == 1 else builder.fsub(vector.type(None), term, flags=CONTRACT)
        else:
            total = (builder.fadd if sign == 1 else builder.fsub)(total, term, flags=CONTRACT)
    return vectors[0].type(None) if total is None else total


def _rows_in_pairs(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """Matrix @ vectors, where neighbouring rows may differ in signs only: even + odd and even - odd."""
    results: list[Any] = []
    while len(results) < len(matrix):
        row = matrix[len(results)]
        other = matrix[len(results) + 1] if len(results) + 1 < len(matrix) else None
        if other is not None and all(abs(a) == abs(b) for a, b in zip(row, other, strict=True)) and row != other:
            same = [a if a == b else Fraction(0) for a, b in zip(row, other, strict=True)]
            flipped = [a if a != b else Fraction(0) for a, b in zip(row, other, strict=True)]
            even, odd = _combined(builder, same, vectors), _combined(builder, flipped, vectors)
            results += [builder.fadd(even, odd, flags=CONTRACT), builder.fsub(even, odd, flags=CONTRACT)]
        else:
            results.append(_combined(builder, row, vectors))
    return results


def _columns_in_pairs(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """Matrix @ vectors, where neighbouring columns may differ in signs only: of the sum or the difference of two vectors."""
    columns = [list(column) for column in zip(*matrix, strict=True)]
    results: list[list[tuple[Fraction, Any]]] = [[] for _ in matrix]
    k = 0
    while k < len(columns):
        pair = k + 1 < len(columns) and all(abs(a) == abs(b) for a, b in zip(columns[k], columns[k + 1], strict=True))
        if pair:
            both = (
                builder.fadd(vectors[k], vectors[k + 1], flags=CONTRACT),
                builder.fsub(vectors[k], vectors[k + 1], flags=CONTRACT),
            )
        for row, terms in enumerate(results):
            same = not pair or columns[k][row] == columns[k + 1][row]
            terms.append((columns[k][row], both[0 if same else 1] if pair else vectors[k]))
        k += 2 if pair else 1
    return [_combined(builder, [c for c, _ in terms], [v for _, v in terms]) for terms in results]


def _vectors(builder: Any, kind: Any, p: Any, step: Any, count: int) -> list[Any]:
    return [load_vector(builder, at(builder, p, builder.mul(step, ir.IntType(64)(k))), kind) for k in range(count)]


def _put_rows(builder: Any, matrix: Matrix, kind: Any, p: Any, step: Any, out: Any, apart: Any) -> None:
    """Matrix @ vectors, from p, p + step, ..., to out, out + apart, ..., but for rows of zeros."""
    for k, value in enumerate(_rows_in_pairs(builder, matrix, _vectors(builder, kind, p, step, len(matrix[0])))):
        if any(matrix[k]):
            store_vector(builder, value, at(builder, out, builder.mul(apart, ir.IntType(64)(k))), kind)


def _rows_of(matrix: Matrix, scheme: Any, tile: Any, p: Any, out: Any) -> Any:
    """The rule of a method that does this."""
    kind = tile.shape

    def build(builder: Any, scheme: Any, tile: Any, *places: Any) -> None:
        _put_rows(builder, matrix, kind, *places)

    return types.void(tile, p, types.intp, out, types.intp), build


@method(SchemeType, "to_points")
def to_points(scheme, tile, p, step, out, apart):
    """B' d of the vectors at p, p + step, ..., to out, out + apart, ..."""
    return _rows_of(scheme.scheme.b, scheme, tile, p, out)


@method(SchemeType, "to_points_of")
def to_points_of(scheme, wanted, tile, p, step, out, apart):
    """As to_points, of a tile of which so many outputs are wanted."""
    kind, s = tile.shape, scheme.scheme

    def build(builder: Any, scheme: Any, wanted: Any, tile: Any, *places: Any) -> None:
        _at_edge(builder, s, wanted, lambda here: _put_rows(builder, here.b, kind, *places))

    return types.void(types.intp, tile, p, types.intp, out, types.intp), build


@method(SchemeType, "from_taps")
def from_taps(scheme, tile, p, step, out, apart):
    """G w of the vectors at p, p + step, ..., to out, out + apart, ...; of G the rows that differ."""
    return _rows_of(scheme.scheme.g[: scheme.scheme.matrices], scheme, tile, p, out)


@method(SchemeType, "from_filters")
def from_filters(scheme, tile, p, step, backwards, filters, out, apart):
    """G w G' of so many filters to out, out + apart, ...; the taps of each follow p, p + step, ..., perhaps backwards."""
    kind, s = tile.shape, scheme.scheme

    def build(builder: Any, scheme: Any, tile: Any, p: Any, step: Any, backwards: Any, filters: Any, out: Any, apart: Any) -> None:
        back = builder.icmp_signed("!=", backwards, ir.IntType(64)(0))
        taps = numbers_at(builder, p, step, filters, s.taps**2, kind)
        taps = [builder.select(back, taps[-1 - k], tap) for k, tap in enumerate(taps)]
        _store_filters(builder, s, taps, out, apart, kind)

    return types.void(tile, p, types.intp, types.intp, types.intp, out, types.intp), build


@method(SchemeType, "from_mirrored_filters")
def from_mirrored_filters(scheme, tile, p, out, apart):
    """The same of a vector of filters that lie one after the other, each backwards."""
    kind, s = tile.shape, scheme.scheme

    def build(builder: Any, scheme: Any, tile: Any, p: Any, out: Any, apart: Any) -> None:
        numbers = [load_vector(builder, at(builder, p, k * kind.lanes), kind) for k in range(s.taps**2)]
        # Of three registers every third number, twice: half the shuffles of a transposition, which would fill 9 of 16 rows.
        rows = [disentangled(builder, numbers[k : k + s.taps]) for k in range(0, s.taps**2, s.taps)]
        columns = [disentangled(builder, [row[b] for row in rows]) for b in range(s.taps)]
        taps = [columns[b][a] for a in range(s.taps) for b in range(s.taps)]
        _store_filters(builder, s, taps[::-1], out, apart, kind)

    return types.void(tile, p, out, types.intp), build


def _store_filters(builder: Any, scheme: Scheme, taps: list[Any], out: Any, apart: Any, kind: Any) -> None:
    """G w G' of the taps row by row, to out, out + apart, ..."""
    matrix = scheme.g[: scheme.matrices]
    columns = [_rows_in_pairs(builder, matrix, taps[b :: scheme.taps]) for b in range(scheme.taps)]
    for i in range(scheme.matrices):
        for j, value in enumerate(_rows_in_pairs(builder, matrix, [column[i] for column in columns])):
            place = builder.mul(apart, ir.IntType(64)(i * scheme.matrices + j))
            store_vector(builder, value, at(builder, out, place), kind)


@method(SchemeType, "from_points")
def from_points(scheme, tile, p, step):
    """A tuple, A' m of the vectors at p, p + step, ..."""
    kind, s = tile.shape, scheme.scheme

    def build(builder: Any, scheme: Any, tile: Any, p: Any, step: Any) -> Any:
        return _made_tuple(builder, _columns_in_pairs(builder, s.a, _vectors(builder, kind, p, step, s.count)))

    return types.UniTuple(VectorType(kind.lanes, kind.dtype), s.outputs)(tile, p, types.intp), build


@method(SchemeType, "from_points_of")
def from_points_of(scheme, wanted, tile, p, step):
    """As from_points, of a tile of which so many outputs are wanted."""
    kind, s = tile.shape, scheme.scheme

    def build(builder: Any, scheme: Any, wanted: Any, tile: Any, p: Any, step: Any) -> Any:
        def outputs_of(here: Any) -> list[Any]:
            return _columns_in_pairs(builder, here.a, _vectors(builder, kind, p, step, s.count))

        return _made_tuple(builder, _at_edge(builder, s, wanted, outputs_of))

    return types.UniTuple(VectorType(kind.lanes, kind.dtype), s.outputs)(types.intp, tile, p, types.intp), build


def _made_tuple(builder: Any, values: list[Any]) -> Any:
    made = ir.ArrayType(values[0].type, len(values))(ir.Undefined)
    for k, value in enumerate(values):
        made = builder.insert_value(made, value, k)
    return made


def _at_edge(builder: Any, scheme: Scheme, wanted: Any, make: Callable[[Scheme], list[Any] | None]) -> list[Any]:
    """The vectors that `make` makes with the scheme, or with its edge where no more outputs are wanted than that has."""
    if scheme.edge is None:
        return make(scheme) or []
    made = []
    with builder.if_else(builder.icmp_signed("<=", wanted, ir.IntType(64)(scheme.outputs - 2))) as branches:
        for branch, here in zip(branches, (scheme.edge, scheme), strict=True):
            with branch:
                made.append((make(here) or [], builder.block))
    values = []
    for several in zip(*(of_branch for of_branch, _ in made), strict=True):
        values.append(builder.phi(several[0].type))
        for value, (_, block) in zip(several, made, strict=True):
            values[-1].add_incoming(value, block)
    return values


def _row_of(matrix: Matrix, row: Any, product: Callable[[Any, Matrix, list[Any]], list[Any]]) -> Any:
    """The rule of a method that gives matrix @ row."""
    kind = replace(row.shape, vectors=len(matrix))

    def build(builder: Any, scheme: Any, row: Any) -> Any:
        values = product(builder, matrix, [builder.extract_value(row, k) for k in range(len(matrix[0]))])
        return _tile_of(builder, kind, lambda _, vector: values[vector])

    return TileType(kind)(row), build


@method(SchemeType, "at_points")
def at_points(scheme, row):
    """B' d of a row of vectors."""
    return _row_of(scheme.scheme.b, row, _rows_in_pairs)


@method(SchemeType, "outputs_of")
def outputs_of(scheme, row):
    """A' m of a row of vectors."""
    return _row_of(scheme.scheme.a, row, _columns_in_pairs)
