"""Fair shares of the work: how many rows, filters and images an item has, and how much scratch."""

from __future__ import annotations

import numpy as np

from fastconv.cpu import machine
from fastconv.problem import Problem

# Operations that an item should hold at least: about 3 us of a direct kernel, against 0.1 us to claim an item.
ITEM_OPERATIONS = 100_000
# Share of L2 for a seat's scratch: the packed weights need the rest.
SCRATCH_SHARE = 0.5
# Items for each thread: with fewer, threads wait for the slowest.
ITEMS_A_THREAD = 4


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def scratch_numbers(dtype: str) -> int:
    """Numbers of scratch that a seat may have."""
    return int(machine.caches()["L2"] * SCRATCH_SHARE) // np.dtype(dtype).itemsize


def weight_bytes(problem: Problem) -> int:
    """Of a group's weights."""
    return problem.parameters // problem.groups * np.dtype(problem.dtype).itemsize


def evenly(count: int, most: int, wanted: int) -> int:
    """The size of even shares of at most so many, and if possible in so many shares."""
    return ceil(count, max(ceil(count, most), min(count, wanted)))


def even_shares(count: int, most: int) -> list[int]:
    """All sizes of even shares of at most so many, the largest first: some two square roots of `count`."""
    sizes = [ceil(count, ceil(count, most))]
    while sizes[-1] > 1:
        sizes.append(ceil(count, ceil(count, sizes[-1] - 1)))
    return sizes


def spread_out(rows: int, filters: int, unit: int, others: int, threads: int, most: int, weights: int) -> tuple[int, int]:
    """(band, chunk): at most `most` rows, as even as may be, enough items for the threads.

    Where a group's packed `weights`, in bytes, pass L2, each band would have them streamed anew: then filters are cut first.
    Else they are cut only when rows and `others` do not give enough items, for each chunk copies its sheets anew, and only if the
    busiest thread gains by it: of two bands of five panels, chunks of three and two would give one thread three fifths.
    """
    bands = ceil(rows, max(1, most))
    if weights > machine.caches()["L2"]:
        band = ceil(rows, bands)
        return band, unit * ceil(ceil(filters, unit), chunks_of(ceil(filters, unit), bands * others, threads))
    largest, least = ceil(rows, bands), ceil(rows, max(bands, min(rows, ceil(ITEMS_A_THREAD * threads, others))))
    # The band by which the busiest thread gets the fewest rows; of several the largest.
    band = min(range(largest, least - 1, -1), key=lambda b: ceil(ceil(rows, b) * others, threads) * b) if threads > 1 else largest
    panels, items = ceil(filters, unit), ceil(rows, band) * others
    most_chunks = min(panels, ceil(2 * threads, items)) if threads > 1 and items < 2 * threads else 1
    chunk = min((ceil(panels, n) for n in range(most_chunks, 0, -1)), key=lambda n: ceil(items * ceil(panels, n), threads) * n)
    return band, unit * chunk


def chunks_of(panels: int, items: int, threads: int) -> int:
    """Into how many chunks so many panels of heavy weights are cut: one a thread where there is but one item."""
    return min(panels, ceil(threads if items <= threads else 2 * threads, items)) if threads > 1 else 1
