"""Strips: how a row of the result is cut for a register tile that holds pixels in its rows.

A strip is as long as the tile is tall, or one pixel shorter (`TileShape.short`): of those two almost every row is made up exactly,
17 pixels of 9 + 8, 49 of 10 + 10 + 10 + 10 + 9, and no sum is computed twice. Where it is not, strips overlap.

Taps that lie outside the image for all of a strip's pixels are skipped, and so is a first or last pixel that alone lies outside.
It may pay to cut a row where taps enter and leave the image: at dilation 18, a row of 33 sees two taps for 15 pixels, one for 3,
two for 15. A strip longer than its piece then computes its neighbours' pixels too, and wrongly, for want of their taps: strips
of fewer taps go first and are overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from fastconv.cpu import tiles
from fastconv.cpu.simd import TileShape
from fastconv.problem import Problem

# Cycles of an update that its loop costs, over the block of channels of one tap: 6x2 tiles are slower than 8x2 for it.
LOOP = 1.0


class Strip(NamedTuple):
    """One strip: where it begins, whether the tile or the short one computes it, and the taps begin..end that it sees."""

    first: int
    tall: bool
    begin: int
    end: int

    @property
    def taps(self) -> int:
        return self.end - self.begin


def cut(problem: Problem, tile: TileShape) -> list[Strip]:
    """A row of a problem's result, at least as long as the short tile is tall, in the order in which strips are to be computed."""
    width, borders = problem.out_space[-1], _borders(problem)
    whole, apart = _pieces(problem, tile, (0, width)), _pieces(problem, tile, borders)
    return (
        apart
        if len(borders) > 2 and _cycles(problem, apart, tile) < _cycles(problem, whole, tile) and _right(problem, tile, apart)
        else whole
    )


def work(problem: Problem, tile: TileShape) -> float:
    """Cycles of the updates of a row's strips, for one channel and one row of taps."""
    if len(_borders(problem)) == 2:
        loop = LOOP * -(-problem.out_space[-1] // tile.rows) if math.prod(problem.kernel) > 1 else 0.0
        return problem.kernel[-1] * (even_work(problem.out_space[-1], tile) + loop)
    return _cycles(problem, cut(problem, tile), tile)


def even_work(count: int, tile: TileShape) -> float:
    """Cycles of one update of so many pixels, cut evenly."""
    strips = -(-count // tile.rows)
    tall = max(0, count - strips * tile.short.rows)
    return tall * tiles.update_cycles(tile, tile.vectors) + (strips - tall) * tiles.update_cycles(tile.short, tile.vectors)


def _cycles(problem: Problem, strips: Sequence[Strip], tile: TileShape) -> float:
    tall, short = (tiles.update_cycles(shape, tile.vectors) + LOOP for shape in (tile, tile.short))
    columns, total = inside(problem, -1), 0.0
    for strip in strips:
        last = strip.first + (tile.rows if strip.tall else tile.short.rows) - 1
        spared = sum(enters > strip.first or leaves <= last for enters, leaves in columns[strip.begin : strip.end])
        total += (tall if strip.tall else short) * strip.taps - spared * tile.vectors
    return total


def _borders(problem: Problem) -> list[int]:
    """The ends of a row, and the columns between them at which a tap enters or leaves the image."""
    width = problem.out_space[-1]
    return sorted({0, width, *(column for tap in inside(problem, -1) for column in tap if 0 < column < width)})


def inside(problem: Problem, axis: int) -> list[tuple[int, int]]:
    """The outputs, from..to, for which each tap along an axis lies inside the image; to all of them if its border is drawn in."""
    size, stride, apart = problem.space[axis], problem.stride[axis], problem.dilation[axis]
    before, after = problem.pads[axis]
    if problem.padding_mode != "zeros":
        size, before = size + before + after, 0
    begins = [a * apart - before for a in range(problem.kernel[axis])]
    return [(-(at // stride), -((at - size) // stride)) for at in begins]


def _pieces(problem: Problem, tile: TileShape, borders: Sequence[int]) -> list[Strip]:
    """Each piece cut evenly."""
    width, columns, strips = problem.out_space[-1], inside(problem, -1), []
    for begin, end in pairwise(borders):
        count = -(-(end - begin) // tile.rows)
        tall = max(0, end - begin - count * tile.short.rows)
        at = begin
        for k in range(count):
            rows = tile.rows if k < tall else tile.short.rows
            first = min(max(begin, min(at, end - rows)), width - rows)
            seen = [
                b for b, (enters, leaves) in enumerate(columns) if enters < min(first + rows, end) and max(first, begin) < leaves
            ]
            strips.append(Strip(first, k < tall, *((seen[0], seen[-1] + 1) if seen else (0, 0))))
            at += rows
    return sorted(strips, key=lambda strip: strip.taps)


def _right(problem: Problem, tile: TileShape, strips: Sequence[Strip]) -> bool:
    """Whether the last strip that computes a pixel sees all of its taps."""
    last = {}
    for strip in strips:
        rows = tile.rows if strip.tall else tile.short.rows
        last.update(dict.fromkeys(range(strip.first, strip.first + rows), strip))
    return all(
        last[column].begin <= b < last[column].end
        for b, (enters, leaves) in enumerate(inside(problem, -1))
        for column in range(max(0, enters), min(problem.out_space[-1], leaves))
    )
