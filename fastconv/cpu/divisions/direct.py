"""Divisions of the direct kernels: rows, filters, groups, as many as make an item worth its claim."""

from __future__ import annotations

import math

from fastconv.cpu.divisions.shares import ITEM_OPERATIONS, ceil, scratch_numbers
from fastconv.plan import Division
from fastconv.problem import Problem, SeparableProblem


def _banded(problem: Problem, others: int) -> Division:
    """Bands of rows, as small as an item may be; `others`: how many independent things there are besides rows."""
    *outer, _ = problem.out_space
    rows = math.prod(outer)
    least = min(rows, max(1, ceil(ITEM_OPERATIONS * rows * others, max(problem.operations, 1))))
    bands = ceil(rows, least)
    return Division(bands * others, bands, ceil(rows, bands))


def by_filter(problem: Problem, threads: int) -> Division:
    """An item is a band of one filter's rows."""
    return _banded(problem, problem.batch * problem.filters)


def by_group(problem: Problem, threads: int) -> Division:
    """An item is a band of rows of all filters of a group."""
    return _banded(problem, problem.batch * problem.groups)


def by_image(problem: Problem, threads: int) -> Division:
    """An item is a band of rows of all filters."""
    return _banded(problem, problem.batch)


def by_scratch(problem: SeparableProblem, threads: int) -> Division:
    """An item is a band of rows whose depthwise result fits a seat's scratch."""
    *outer, width = problem.out_space
    rows, channels = math.prod(outer), problem.depthwise.filters
    band = max(1, min(rows, scratch_numbers(problem.dtype) // (width * channels)))
    bands = ceil(rows, band)
    band = ceil(rows, bands)  # even bands
    return Division(problem.batch * bands, bands, band, scratch=band * width * channels)


def by_row(problem: SeparableProblem, threads: int) -> Division:
    """An item is a row of the result; its scratch one pixel."""
    rows = math.prod(problem.out_space[:-1])
    return Division(problem.batch * rows, rows, 1, scratch=problem.depthwise.filters)


def by_weight(problem: Problem, threads: int) -> Division:
    """An item is a filter and one of its channels; its scratch a sum for each column of the gradient."""
    return Division(problem.filters * problem.channels // problem.groups, scratch=problem.out_space[-1])
