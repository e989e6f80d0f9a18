"""Toom and Cook's schemes: outputs of a filter from fewer multiplications. The mathematics, in exact numbers.

A correlation of a few taps w with numbers d is a product of polynomials, known by its values at as many points as it has
coefficients: A' (G w * B' d), * number by number. The matrices are computed from the points alone, with fractions, and from the
matrices the bounds of the rounding error. transforms.py makes instructions of them. Winograd (1980) showed that no scheme takes
fewer products; Lavin and Gray (2015) brought them to layers of networks.

Points come in pairs +-t, whose rows of B' and columns of A' differ in signs only: half of the products serve both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import types

Matrix = list[list[Fraction]]


@dataclass(frozen=True)
class Scheme:
    """F(outputs, taps) of Toom and Cook: `points` are the finite ones, infinity comes last.

    A' (G w * B' d) is exactly the correlation of `numbers` numbers d with the taps w, taken at every stride-th number.

    With a stride, every stride-th tap meets every stride-th number. These are `stride` correlations of stride 1, here `phases`,
    each with points of its own, and their results are added up. A phase of one tap needs no points: its tap is multiplied by each
    number as it is. All of its rows of G are the same, so that only the first `matrices` of the transformed weights differ. A phase
    of one output needs none either.

    If the scheme is `transposed`, numbers are spread a stride apart, and each meets the taps from its place on: number n and tap t
    make a part of output (n - overlap) * stride + t. Then each phase, with its taps reversed, makes every stride-th output.
    """

    outputs: int
    taps: int
    points: tuple[Fraction, ...]
    stride: int = 1
    transposed: bool = False

    @cached_property
    def _numba_type_(self) -> SchemeType:
        """Read by Numba's dispatcher, as a TileShape's."""
        return SchemeType(self)

    @cached_property
    def phases(self) -> list[Scheme]:
        """The correlations of stride 1, those of more taps first."""
        taps = [len(range(phase, self.taps, self.stride)) for phase in range(self.stride)]
        outputs = self.outputs // self.stride if self.transposed else self.outputs
        return [Scheme(outputs, t, self.points[: outputs + t - 2]) for t in taps]

    @property
    def advance(self) -> int:
        """Numbers from one tile to the next."""
        return self.outputs // self.stride if self.transposed else self.outputs * self.stride

    @property
    def overlap(self) -> int:
        """Of a transposed scheme: numbers before the first that begins in a tile."""
        return -(-self.taps // self.stride) - 1 if self.transposed else 0

    @property
    def numbers(self) -> int:
        """Numbers that a tile's outputs see."""
        return self.advance + self.overlap if self.transposed else (self.outputs - 1) * self.stride + self.taps

    def place(self, tap: int, number: int) -> int:
        """Where the part of an output lies that they make: of a window's beginning, or of the output itself."""
        return number * self.stride + tap if self.transposed else number - tap

    @cached_property
    def count(self) -> int:
        """Products: as many as points, infinity among them."""
        return len(self.g)

    @cached_property
    def matrices(self) -> int:
        """How many of G's rows differ; those behind are as the last of them."""
        return len([row for k, row in enumerate(self.g) if row not in self.g[:k]])

    @cached_property
    def a(self) -> Matrix:
        """A', outputs x points: powers of the points."""
        if self.transposed:
            return _interleaved(self.phases)
        if self.stride > 1:
            return [[number for phase in self.phases for number in phase.a[k]] for k in range(self.outputs)]
        if self.taps == 1:
            return _unit_matrix(self.outputs)
        if self.outputs == 1:
            return [[Fraction(1)] * self.taps]
        last = self.outputs - 1
        return [[p**k for p in self.points] + [Fraction(k == last)] for k in range(self.outputs)]

    @cached_property
    def g(self) -> Matrix:
        """G, points x taps: values of the taps' polynomial, divided as in Lagrange's formula."""
        if self.stride > 1:
            order = -1 if self.transposed else 1
            return [_spread(row[::order], k, self.stride, self.taps) for k, phase in enumerate(self.phases) for row in phase.g]
        if self.taps == 1:
            return [[Fraction(1)]] * self.outputs
        if self.outputs == 1:
            return _unit_matrix(self.taps)
        rows = []
        for p in self.points:
            divisor = math.prod((p - q for q in self.points if q != p), start=Fraction(1))
            rows.append([p**k / divisor for k in range(self.taps)])
        return [*rows, [Fraction(k == self.taps - 1) for k in range(self.taps)]]

    @cached_property
    def b(self) -> Matrix:
        """B', points x numbers: coefficients of the product of (t - q) over all points but the row's own."""
        if self.transposed:
            return [[Fraction(0)] * (self.numbers - len(row)) + row for phase in self.phases for row in phase.b]
        if self.stride > 1:
            return [_spread(row, k, self.stride, self.numbers) for k, phase in enumerate(self.phases) for row in phase.b]
        if 1 in (self.taps, self.outputs):
            return _unit_matrix(self.numbers)
        rows = [_product([q for q in self.points if q != p]) for p in (*self.points, None)]
        return [row + [Fraction(0)] * (self.numbers - len(row)) for row in rows]

    @cached_property
    def point_of_bias(self) -> int:
        """The point whose products every output sees once, as they are: where a bias enters."""
        return [set(column) for column in zip(*self.a, strict=True)].index({1})

    @cached_property
    def edge(self) -> Edge | None:
        """The same for two outputs fewer, without each phase's last two finite points; None where there is nothing to leave out."""
        known = type(self) is Scheme and not self.transposed and self.taps > self.stride and self.outputs > 2
        return Edge(self.outputs, self.taps, self.points, self.stride) if known else None

    def at_edge(self, wanted: int) -> Scheme:
        """What computes so many outputs of a tile, of which no others are wanted."""
        return self.edge if self.edge and wanted <= self.outputs - 2 else self

    @cached_property
    def spared(self) -> tuple[int, ...]:
        """The products that the first outputs do without, by how many of them are wanted: bit k says it of the k-th."""
        rows = [self.at_edge(wanted).a[:wanted] for wanted in range(1, self.outputs)]
        return 0, *(sum(1 << k for k in range(self.count) if not any(row[k] for row in first)) for first in rows)


@dataclass(frozen=True)
class Edge(Scheme):
    """`outputs` - 2 outputs of a tile by the transformed weights of all: F(2, 3) by those of F(4, 3), at four of its six points.

    A row of G is (1, p, p^2, ...) divided by (p - q) for all other points q, and fewer points make another divisor alone. So the
    rows of B' are multiplied by what the divisor has too many: A' (G w * B' d) is exact with G of the larger scheme. What is
    left out are rows of B' and columns of A' that are zero; the last two rows of A' have no meaning. Of a phase of one tap
    products are left as they are: each serves one output.
    """

    @cached_property
    def left(self) -> Scheme:
        """What it would be with weights of its own."""
        return Scheme(self.outputs - 2, self.taps, self.points[:-2])

    @cached_property
    def phases(self) -> list[Scheme]:
        """Those that have an edge, at it."""
        return [phase.edge or phase for phase in super().phases]

    @property
    def edge(self) -> Edge | None:
        """Of an edge there is none."""
        return None

    @cached_property
    def a(self) -> Matrix:
        """A', zeros for the outputs and points that are left out."""
        if self.stride > 1:
            return super().a
        nothing = [Fraction(0), Fraction(0)]
        return [[*row[:-1], *nothing, row[-1]] for row in self.left.a] + [[Fraction(0)] * self.count for _ in nothing]

    @cached_property
    def b(self) -> Matrix:
        """B', its rows as many times as large as G's are too small, zeros for the points that are left out."""
        if self.stride > 1:
            return super().b
        nothing, divisors = [Fraction(0), Fraction(0)], [math.prod(p - q for q in self.points[-2:]) for p in self.points[:-2]]
        rows = [[divisor * number for number in row] for divisor, row in zip([*divisors, Fraction(1)], self.left.b, strict=True)]
        return [[*row, *nothing] for row in rows[:-1]] + [[Fraction(0)] * self.numbers for _ in nothing] + [[*rows[-1], *nothing]]


@dataclass(frozen=True)
class OfWeights(Scheme):
    """Of a gradient with respect to weights: the outputs are a filter's taps, the taps a tile of the result's gradient.

    out[i] = sum over t of w[t] d[i + t * stride]: each phase of the outputs is a correlation of stride 1 with all of w.
    """

    @cached_property
    def phases(self) -> list[Scheme]:
        """Those of more outputs first."""
        outputs = [len(range(phase, self.outputs, self.stride)) for phase in range(self.stride)]
        return [Scheme(n, self.taps, self.points[: n + self.taps - 2]) for n in outputs]

    @property
    def advance(self) -> int:
        """Numbers from one tile to the next."""
        return self.taps * self.stride

    @property
    def numbers(self) -> int:
        """Numbers that a tile meets."""
        return (self.taps - 1) * self.stride + self.outputs

    @property
    def matrices(self) -> int:
        """All are kept."""
        return self.count

    def place(self, tap: int, number: int) -> int:
        """Of the output."""
        return number - tap * self.stride

    @cached_property
    def a(self) -> Matrix:
        """A', outputs x points."""
        return _interleaved(self.phases)

    @cached_property
    def g(self) -> Matrix:
        """G, points x taps."""
        return [row for phase in self.phases for row in phase.g]

    @cached_property
    def b(self) -> Matrix:
        """B', points x numbers."""
        return [_spread(row, k, self.stride, self.numbers) for k, phase in enumerate(self.phases) for row in phase.b]


@dataclass(frozen=True)
class Enclosed(Scheme):
    """Of three taps and at most three numbers between zeros, as many outputs: out[i] = w[0] d[i - 1] + w[1] d[i] + w[2] d[i + 1].

    One number takes one product, and two take three for four (Karatsuba):

        w1 (d0 + d1) + (w2 - w1) d1,  w1 (d0 + d1) + (w0 - w1) d0

    Three take five for seven. Their correlation is circular modulo t^4 - 1, for behind them there is a zero, and it is known by
    its values at 1 and -1 and by a product of (d0 - d2) + d1 t and w1 + (w0 - w2) t modulo t^2 + 1, which takes three. All
    coefficients of B' and A' are 1 and -1, so that hardly any error is added.
    """

    taps: int = 3
    points: tuple[Fraction, ...] = ()

    @property
    def numbers(self) -> int:
        """All that there are."""
        return self.outputs

    @cached_property
    def a(self) -> Matrix:
        """A', outputs x products."""
        return _fractions(ENCLOSED[self.outputs][0])

    @cached_property
    def g(self) -> Matrix:
        """G, products x taps."""
        return _fractions(ENCLOSED[self.outputs][1], 2 ** (self.outputs - 1))

    @cached_property
    def b(self) -> Matrix:
        """B', products x numbers."""
        return _fractions(ENCLOSED[self.outputs][2])


# Outputs: A', G times 2^(outputs - 1), B'.
ENCLOSED = {
    1: ([[1]], [[0, 1, 0]], [[1]]),
    2: ([[1, 1, 0], [1, 0, 1]], [[0, 2, 0], [0, -2, 2], [2, -2, 0]], [[1, 1], [0, 1], [1, 0]]),
    3: (
        [[1, 1, 1, 0, -1], [1, -1, 1, 1, 0], [1, 1, -1, 0, 1]],
        [[1, 1, 1], [-1, 1, -1], [0, 2, 0], [2, -2, -2], [2, 2, -2]],
        [[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, 0, -1], [0, 1, 0]],
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two enclosed schemes of one dimension, for `outputs` numbers and for one fewer; transformed weights hold those of both."""

    outputs: int
    stride: int = 1
    transposed: bool = False

    @cached_property
    def _numba_type_(self) -> SchemeType:
        return SchemeType(self)

    @property
    def long(self) -> Enclosed:
        """Of so many numbers."""
        return Enclosed(self.outputs)

    @property
    def short(self) -> Enclosed:
        """Of one fewer."""
        return Enclosed(self.outputs - 1)

    @property
    def taps(self) -> int:
        """Of both."""
        return self.long.taps

    @property
    def count(self) -> int:
        """Products of both together."""
        return self.long.count + self.short.count

    @property
    def matrices(self) -> int:
        """As many."""
        return self.count

    @property
    def g(self) -> Matrix:
        """G of the one, and below it that of the other."""
        return [*self.long.g, *self.short.g]


@dataclass(frozen=True)
class Nested:
    """A scheme in two dimensions: one down the columns of a plane, one along its rows, of the same stride."""

    down: Any  # a Scheme or a Pair of them
    across: Any

    @cached_property
    def _numba_type_(self) -> NestedType:
        return NestedType(self)

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of taps."""
        return self.down.taps, self.across.taps

    @property
    def taps(self) -> int:
        """The more of these."""
        return max(self.window)

    @property
    def stride(self) -> int:
        """Of the windows, each way."""
        return self.down.stride

    @property
    def transposed(self) -> bool:
        """Whether both are."""
        return self.down.transposed

    @property
    def count(self) -> int:
        """Products in two dimensions."""
        return self.down.count * self.across.count

    @property
    def matrices(self) -> int:
        """Of weights, that differ."""
        return self.down.matrices * self.across.matrices


def nested(scheme: Scheme | Pair) -> Nested:
    """The same scheme both ways."""
    return Nested(scheme, scheme)


def _fractions(matrix: list[list[int]], divisor: int = 1) -> Matrix:
    return [[Fraction(number, divisor) for number in row] for row in matrix]


def _unit_matrix(size: int) -> Matrix:
    return [[Fraction(i == j) for j in range(size)] for i in range(size)]


def _interleaved(phases: list[Scheme]) -> Matrix:
    """A' of phases whose outputs take turns."""
    rows = []
    for k in range(sum(phase.outputs for phase in phases)):
        turn, nothing = k % len(phases), [[Fraction(0)] * phase.count for phase in phases]
        parts = [*nothing[:turn], phases[turn].a[k // len(phases)], *nothing[turn + 1 :]]
        rows.append([number for part in parts for number in part])
    return rows


def _spread(row: list[Fraction], first: int, stride: int, size: int) -> list[Fraction]:
    """`size` numbers, of which those at first, first + stride, ... are the row's, and the others 0."""
    spread = [Fraction(0)] * size
    spread[first::stride] = row
    return spread


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (t - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [s - t for s, t in zip(shifted, scaled, strict=True)]
    return coefficients


def _points(*pairs: str) -> tuple[Fraction, ...]:
    """0, and plus and minus each."""
    return Fraction(0), *(sign * Fraction(p) for p in pairs for sign in (1, -1))


# Points and their inverses: every coefficient stays near one. F4 loses a quarter of the usual +-1, +-2.
F2 = Scheme(2, 3, _points("1"))
F4 = Scheme(4, 3, _points("2/3", "3/2"))
F5 = Scheme(5, 3, _points("1/3", "7/8", "8/5")[1:])  # without 0, so that all come in pairs; of fractions below 9 the best
F6 = Scheme(6, 3, _points("1/2", "1", "2"))
F2_5 = Scheme(2, 5, _points("2/3", "3/2"))
F4_5 = Scheme(4, 5, _points("1/2", "1", "2"))
F4_2 = Scheme(4, 2, _points("2/3", "3/2")[1:])
F4_4 = Scheme(4, 4, (*_points("1/2", "1"), Fraction(2)))
F7_4 = Scheme(7, 4, _points("1/2", "3/4", "4/3", "2"))
# Of stride 2: F(4, 2) for the outer two taps and four plain products for the middle one, 9 for 12; by F(2, 2), 5 for 6. Of five
# taps, F(4, 3) and F(4, 2), 11 for 20.
F4_5_2 = Scheme(4, 5, (*_points("2/3", "3/2")[1:], Fraction(0)), stride=2)
F2_3_2 = Scheme(2, 3, _points("1")[1:], stride=2)
F4_3_2 = Scheme(4, 3, _points("2/3", "3/2")[1:], stride=2)

# Of gradients with respect to three, four and five taps, from four gradients in a row.
W3_4 = OfWeights(3, 4, _points("2/3", "3/2"))
W3_4_2 = OfWeights(3, 4, _points("2/3", "3/2")[1:], stride=2)
W4_4_2 = OfWeights(4, 4, _points("2/3", "3/2")[1:], stride=2)
W5_4 = OfWeights(5, 4, _points("1/2", "1", "2"))
W5_4_2 = OfWeights(5, 4, (*_points("2/3", "3/2")[1:], Fraction(0)), stride=2)

ONE = Scheme(1, 1, ())  # of a dimension in which a window has one tap

# Transposed, of stride 2: F(4, 2) for every other output of three taps, and both of four.
F8_3_UP = Scheme(8, 3, _points("2/3", "3/2")[1:], 2, transposed=True)
F8_4_UP = Scheme(8, 4, _points("2/3", "3/2")[1:], 2, transposed=True)


# Atrous layers of large rates: phases of three and two numbers, of two and one.
PAIR_3 = Pair(3)
PAIR_2 = Pair(2)


# Rounding errors that many of their standard deviations from nothing are met once in 4e13 numbers (Hoeffding: 2 exp(-k^2 / 2)).
CONFIDENCE = 8.0
# Errors of half a unit in the last place that one product meets on its way through G w G', B' d B and A' m A, bias included.
# A pass of G or B' rounds a coefficient, its product and two sums, one of A' a sum more; in float64 the coefficients of B' and
# A' carry up to six errors themselves.
ROUNDINGS = {"float32": 4 + 4 + 5, "float64": 4 + 9 + 10}


def error_bound(schemes: Sequence[Scheme], depth: int, terms: int, dtype: str) -> float:
    """Bound of the error, as a share of conv(|x|, |weight|), that holds for numbers without a common trend.

    Each scheme transforms a dimension, `depth` products are added up at each point, `terms` in the direct sum. The share is of an
    image's and filter's largest value, over all places where a window meets the image, which holds a whole one. An output is a
    sum over points of A' times m, m a sum of u * v. Take image and weights to be independent, of mean 0 and normal, and
    rounding errors too, uniform within half a unit in the last place (Higham and Mary 2019). Then squares add up, over points,
    products and errors alike: the sum of the first k products is of size sqrt(k), so that adding D of them has a mean square
    error of 1 + ... + D = D (D + 1) / 2 units, and their N other ROUNDINGS one of N D. Coefficients amplify it by the sum of
    the squares of A' G B', which a second dimension multiplies by its own. The scale is 2/pi a term for the same numbers.

    It is what the plan holds against `plan.ERRORS`. Numbers with a common trend, constant images under constant filters above all,
    may pass it in any kernel, the direct one before this one, which adds more of them; for them `worst_error` holds.
    """
    spread = math.prod(map(amplification, schemes))
    errors = math.sqrt(spread * depth * ((depth + 1) / 2 + len(schemes) * ROUNDINGS[dtype] + 1))
    return CONFIDENCE * unit(dtype) / math.sqrt(3) * errors / (terms * 2 / math.pi)


def amplification(scheme: Scheme) -> float:
    """Of the mean square of errors in one dimension: the largest sum over an output of the squares of A' G B'."""
    return float(_terms(scheme, 2).sum((1, 2)).max())


def worst_error(schemes: Sequence[Scheme], depth: int, dtype: str) -> float:
    """Bound of the same share that holds for any numbers: every error the largest, all of one sign.

    |error| <= gamma_n |A'| (sum over c of |G||w||G'| * |B'||d||B|) |A|, gamma_n = n u / (1 - n u), n = D + ROUNDINGS (Higham
    2002, section 3.1). The tap t meets the number s in the window at s - t, inside the tile or not; of a transposed scheme they
    make the output at s * stride + t. Of a place's terms the largest coefficient counts for all, and all places for as much as
    the largest value.
    """
    n = (len(schemes) * ROUNDINGS[dtype] + 1 + depth) * unit(dtype)
    return math.prod(_worst_spread(scheme) for scheme in schemes) * n / (1 - n)


def _worst_spread(scheme: Scheme) -> float:
    met: dict[tuple[int, int], float] = {}
    for (i, t, s), term in np.ndenumerate(_terms(scheme, 1)):
        place = i, scheme.place(t, s)
        met[place] = max(met.get(place, 0.0), float(term))
    return max(sum(term for (k, _), term in met.items() if k == i) for i in range(scheme.outputs))


@lru_cache(maxsize=16)
def _terms(scheme: Scheme, power: int) -> Any:
    """[output][tap][number]: coefficients of A' G B', each taken to this power, summed over the points."""
    a, g, b = (np.abs(np.array(matrix, float)) ** power for matrix in (scheme.a, scheme.g, scheme.b))
    return np.einsum("ip,pt,ps->its", a, g, b)


def unit(dtype: str) -> float:
    """The unit roundoff."""
    return float(np.finfo(dtype).eps) / 2


# Types of compiled code: a scheme's numbers live in its type, as a TileShape's do ---------------------------------------------


class SchemeType(types.Type):  # type: ignore[misc]
    """One type for each scheme."""

    def __init__(self, scheme: Scheme | Pair) -> None:
        self.scheme = replace(scheme)  # a copy that does not hold this type in turn: the disk cache pickles types
        super().__init__(str(scheme))


class NestedType(types.Type):  # type: ignore[misc]
    """One type for each pair."""

    def __init__(self, scheme: Nested) -> None:
        self.down, self.across = SchemeType(scheme.down), SchemeType(scheme.across)
        super().__init__(f"Nested({self.down}, {self.across})")
