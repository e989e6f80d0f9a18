"""Plans for the direct kernels: rows, filters, groups, as many as make an item worth its claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastconv.cpu import packing
from fastconv.cpu.atrous import direct_atrous, direct_atrous_last
from fastconv.cpu.depthwise import direct_depthwise, direct_depthwise_last
from fastconv.cpu.gradients import direct_weight_gradient
from fastconv.cpu.plans.rules import COLUMNS, FILTERS, FIRST, LAST, in_order, never, unless
from fastconv.cpu.plans.shares import ITEM_OPERATIONS, ceil, scratch_numbers
from fastconv.cpu.pointwise import direct_pointwise, direct_pointwise_last
from fastconv.cpu.separable import direct_separable, direct_separable_last
from fastconv.cpu.standard import direct_standard, direct_standard_last
from fastconv.cpu.transposed import direct_transposed, direct_transposed_last
from fastconv.plan import Division, Implementation
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


def _direct(kind: str, data_format: str, kernel: Any, divide: Callable[[Any, int], Any], *orders: Any) -> Implementation:
    """A last resort, and what `algorithm="direct"` takes; without orders it reads weights as they come."""
    name, vectorised = (f"direct_{kind}", COLUMNS) if data_format == FIRST else (f"direct_{kind}_last", FILTERS)
    pack, refuse = in_order(*orders) if orders else None, unless(data_format)
    return Implementation(name, "direct", (kind,), kernel, pack, divide, vectorised, refuse, cycles=lambda problem: math.inf)


IMPLEMENTATIONS = (
    _direct("pointwise", FIRST, direct_pointwise, by_filter),
    _direct("pointwise", LAST, direct_pointwise_last, by_image, packing.filters_last),
    _direct("depthwise", FIRST, direct_depthwise, by_filter),
    _direct("depthwise", LAST, direct_depthwise_last, by_image, packing.taps_first),
    _direct("separable", FIRST, direct_separable, by_scratch),
    _direct("separable", LAST, direct_separable_last, by_row, packing.taps_first, packing.filters_last),
    _direct("atrous", FIRST, direct_atrous, by_filter),
    _direct("atrous", LAST, direct_atrous_last, by_group, packing.filters_last),
    _direct("standard", FIRST, direct_standard, by_filter),
    _direct("standard", LAST, direct_standard_last, by_group, packing.filters_last),
    _direct("transposed", FIRST, direct_transposed, by_filter),
    _direct("transposed", LAST, direct_transposed_last, by_group, packing.filters_last),
    Implementation(
        "direct_weight_gradient", "direct", ("weights",),
        direct_weight_gradient, None, by_weight, "columns of the gradient", never,
        cycles=lambda problem: math.inf,
    ),
)  # fmt: skip
