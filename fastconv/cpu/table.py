"""The CPU's implementations in order of preference, and the sizes that they work with, each with its reason.

The direct kernels read any image by its steps, and write rows: along the columns of one filter where channels come first,
along the filters of one pixel where they come last.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.cpu import atrous, depthwise, gradients, packing, pointwise, separable, standard, transposed
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, SeparableProblem

# Operations that an item should hold at least: about 3 us of a direct kernel, against 0.1 us to claim an item.
ITEM_OPERATIONS = 100_000
# Bytes of a separable layer's scratch: half of the smallest L2 that we serve (512 KB), the other half holds the weights.
SCRATCH_BYTES = 256 * 1024


def _banded(problem: Problem, others: int, scratch: int = 0) -> Division:
    """Bands of rows, as small as an item may be; `others`: how many independent things there are besides rows."""
    *outer, _ = problem.out_space
    rows = math.prod(outer)
    least = min(rows, max(1, -(-ITEM_OPERATIONS * rows * others // max(problem.operations, 1))))
    bands = -(-rows // least)
    return Division(bands * others, bands, -(-rows // bands), scratch)


def by_filter(problem: Problem) -> Division:
    """An item is a band of one filter's rows."""
    return _banded(problem, problem.batch * problem.filters)


def by_group(problem: Problem) -> Division:
    """An item is a band of rows of all filters of a group."""
    return _banded(problem, problem.batch * problem.groups)


def by_image(problem: Problem) -> Division:
    """An item is a band of rows of all filters."""
    return _banded(problem, problem.batch)


def by_scratch(problem: SeparableProblem) -> Division:
    """An item is a band of rows whose depthwise result fits SCRATCH_BYTES."""
    *outer, width = problem.out_space
    rows, channels = math.prod(outer), problem.depthwise.filters
    row_bytes = width * channels * np.dtype(problem.dtype).itemsize
    band = max(1, min(rows, SCRATCH_BYTES // row_bytes))
    bands = -(-rows // band)
    band = -(-rows // bands)  # even bands
    return Division(problem.batch * bands, bands, band, band * width * channels)


def by_row(problem: SeparableProblem) -> Division:
    """An item is a row of the result; its scratch one pixel."""
    rows = math.prod(problem.out_space[:-1])
    return Division(problem.batch * rows, rows, 1, problem.depthwise.filters)


def by_weight(problem: Problem) -> Division:
    """An item is a filter and one of its channels; its scratch a sum for each column of the gradient."""
    return Division(problem.filters * problem.channels // problem.groups, scratch=problem.out_space[-1])


FIRST, LAST = "channels_first", "channels_last"
COLUMNS, FILTERS = "columns of the result", "filters of the result"
IMPLEMENTATIONS = (
    Implementation(
        "direct_pointwise", "direct", "pointwise", FIRST,
        pointwise.direct_pointwise, (packing.as_they_come,), by_filter, COLUMNS,
    ),
    Implementation(
        "direct_pointwise_last", "direct", "pointwise", LAST,
        pointwise.direct_pointwise_last, (packing.filters_last,), by_image, FILTERS,
    ),
    Implementation(
        "direct_depthwise", "direct", "depthwise", FIRST,
        depthwise.direct_depthwise, (packing.as_they_come,), by_filter, COLUMNS,
    ),
    Implementation(
        "direct_depthwise_last", "direct", "depthwise", LAST,
        depthwise.direct_depthwise_last, (packing.taps_first,), by_image, FILTERS,
    ),
    Implementation(
        "direct_separable", "direct", "separable", FIRST,
        separable.direct_separable, (packing.as_they_come, packing.as_they_come), by_scratch, COLUMNS,
    ),
    Implementation(
        "direct_separable_last", "direct", "separable", LAST,
        separable.direct_separable_last, (packing.taps_first, packing.filters_last), by_row, FILTERS,
    ),
    Implementation(
        "direct_atrous", "direct", "atrous", FIRST,
        atrous.direct_atrous, (packing.as_they_come,), by_filter, COLUMNS,
    ),
    Implementation(
        "direct_atrous_last", "direct", "atrous", LAST,
        atrous.direct_atrous_last, (packing.filters_last,), by_group, FILTERS,
    ),
    Implementation(
        "direct_standard", "direct", "standard", FIRST,
        standard.direct_standard, (packing.as_they_come,), by_filter, COLUMNS,
    ),
    Implementation(
        "direct_standard_last", "direct", "standard", LAST,
        standard.direct_standard_last, (packing.filters_last,), by_group, FILTERS,
    ),
    Implementation(
        "direct_transposed", "direct", "transposed", FIRST,
        transposed.direct_transposed, (packing.as_they_come,), by_filter, COLUMNS,
    ),
    Implementation(
        "direct_transposed_last", "direct", "transposed", LAST,
        transposed.direct_transposed_last, (packing.transposed_filters_last,), by_group, FILTERS,
    ),
    Implementation(
        "direct_weight_gradient", "direct", "weights", None,
        gradients.direct_weight_gradient, (), by_weight, "columns of the gradient",
    ),
)  # fmt: skip
