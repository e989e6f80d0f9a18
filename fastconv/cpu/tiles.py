"""Register tiles: one table for each kind of machine, each size with its reason.

A tile of `rows` x `vectors` sums needs rows * vectors registers, the vectors of one operand and one for a broadcast. Each update
loads `vectors` vectors and `rows` broadcasts for rows * vectors multiply-adds: two loads a cycle must keep up with one or
two multiply-adds a cycle, and at least SUMS_IN_FLIGHT sums must be under way to hide their latency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastconv.cpu import machine
from fastconv.cpu.simd import TileShape

# A multiply-add takes 4 cycles, and a core starts at most two a cycle.
SUMS_IN_FLIGHT = {32: 8, 16: 10}  # by registers; with vectors of eight 4x2 sums just hide it, and 4x3 was a tenth faster

# Filters in lanes, pixels in rows: (vectors, rows). Each tile is machine code of its own, compiled in a second, for strips of so
# many pixels and of one less: strips.py makes up a row of the result of the two, so every other number of rows will do. Two
# vectors a row are best; one where a group has few filters, three or four where they divide its number of filters.
FILTERS_IN_LANES = {
    # 14x2 is 31 registers, 9x3 31, 6x4 29; 7x4 would be 33, and spills: a third of the speed.
    32: {2: (14, 12, 10, 8, 6, 4, 2), 1: (14, 8, 4, 2), 3: (9, 7, 5), 4: (6, 4)},
    # 6x2 is 15 registers, 4x3 16.
    16: {2: (6, 4, 2), 1: (8, 4, 2), 3: (4, 2)},
}
# Rows and vectors of tiles that float64, which is rarer, does without: four rows cut what they would, and each is compiled.
FEWER = {32: ((12, 2), (8, 2), (8, 1), (7, 3), (5, 3), (4, 4)), 16: ()}
BETWEEN = (10, 12)  # rows that transposed layers do without: their phases are cut as well of fewer, and each takes 2.5 s to compile
# The same for Winograd's products, which have rows enough to choose from: short tiles, of which some number divides nearly every
# number of tiles of a plane. A sum over channels is long, and a short tile loses little: 3x4 reaches 95 % of the peak, 14x2 97 %.
# With 14, 12, 11 and 10 rows in place of 6x2, 5x4 and 3x4 planes of 10, 11, 19 and 20 pixels took 10 to 20 % longer. 6x4 is for the
# 36 tiles by which F(5x5) covers 28 x 28, and 4 phases of 14 x 14: 2.37 ms of 256 channels for 2.53 with 6x2.
WINOGRAD_PRODUCTS: dict[int, dict[int, tuple[int, ...]]] = {32: {2: (9, 8, 7, 6), 4: (6, 5, 4, 3)}, 16: {2: (6, 5, 4)}}
# Of one vector, for groups of no more filters than lanes: 512 channels in 32 groups at 14x14 take 192 us, with 8x2 328.
ONE_VECTOR_OF_PRODUCTS = 8
# The same for gradients of weights, channels in rows and filters in lanes: rows divide a vector, in which channels are gathered.
# With 8x3 the layers of the networks took as long or longer.
WEIGHT_PRODUCTS = {32: (8, 2), 16: (4, 2)}
# Pixels in lanes, filters in rows: (rows, vectors). Eight rows divide the usual numbers of filters; fewer, with more vectors,
# are for layers with few filters.
PIXELS_IN_LANES = {
    32: ((8, 3), (8, 2), (6, 4), (4, 6), (2, 8), (1, 8)),  # 8x3 is 28 registers
    16: ((4, 3), (4, 2), (2, 4), (1, 6), (8, 1)),  # 4x3 is 16 registers; 6x2 reaches 71 to 82 % of the peak where it has 99
}

# Filters in lanes, numbers of a filter in rows, for gradients: (rows, vectors). Tall tiles that nearly fill the registers, to
# choose from: 128 numbers take ten times 13 rows, 147 fourteen times 11, and the nine of one channel take 9. Of the gradient two
# pixels' vectors are held at once: 14x2 would be 33 registers, and spills, which took 1.4 times as long where the system had put
# the stack, where spilled vectors lie, off a cache line: in three of four processes.
NUMBERS_IN_ROWS = {
    32: ((13, 2), (12, 2), (11, 2), (9, 2), (8, 3), (14, 1), (9, 1)),
    16: ((5, 2), (4, 2), (3, 3), (9, 1)),
}

# Numbers of a filter in rows, filters in vectors, pixels in lanes, for gradients of few channels: (rows, vectors). Both operands
# are vectors, and a tile need not be tall. Nine rows divide the numbers of 3x3 windows: 27 take a tenth less time than with 6x4.
DOTS = {32: ((6, 4), (9, 2)), 16: ((3, 4),)}

LEAST_TO_HALVE = 16  # lanes; eight of float64 might be halved too, but each tile is compiled


def numbers_in_rows(dtype: str) -> list[TileShape]:
    """Every tile of tiled_weight_gradient; for few filters also of half the lanes, which a core multiplies twice as many of."""
    lanes = machine.lanes(dtype)
    whole = [TileShape(rows, vectors, lanes, 1, dtype) for rows, vectors in NUMBERS_IN_ROWS[machine.registers()]]
    return [*whole, *(replace(tile, lanes=lanes // 2) for tile in whole if tile.vectors == 1 and lanes >= LEAST_TO_HALVE)]


def dots(dtype: str) -> list[TileShape]:
    """Every tile of tiled_weight_gradient_pixels."""
    return [TileShape(rows, vectors, machine.lanes(dtype), 1, dtype) for rows, vectors in DOTS[machine.registers()]]


def filters_in_lanes(dtype: str) -> list[TileShape]:
    """Every tile with filters in lanes."""
    every = _filters_in_lanes(dtype)
    return [tile for tile in every if tile.vectors > 1 or not any(_as_fast(tile, other) for other in every)]


def _as_fast(tile: TileShape, other: TileShape) -> bool:
    """Whether another tile computes twice as many filters in the same time: of few rows one vector's sums hide no latency."""
    return other == replace(tile, vectors=2) and update_cycles(other, 0) == update_cycles(tile, 0)


def _filters_in_lanes(dtype: str) -> list[TileShape]:
    table, without = FILTERS_IN_LANES[machine.registers()], FEWER[machine.registers()] if dtype == "float64" else ()
    sizes = [(rows, vectors) for vectors, every in table.items() for rows in every if (rows, vectors) not in without]
    return [TileShape(rows, vectors, machine.lanes(dtype), 1, dtype) for rows, vectors in sizes]


def few_filters_in_lanes(dtype: str) -> list[TileShape]:
    """Tiles of half the lanes, for groups of no more filters: a core multiplies twice as many of them."""
    halved = [tile for tile in _filters_in_lanes(dtype) if tile.vectors == 1 and tile.lanes >= LEAST_TO_HALVE]
    return [replace(tile, lanes=tile.lanes // 2) for tile in halved]


def grouped_filters_in_lanes(dtype: str) -> list[TileShape]:
    """Every tile of tiled_standard."""
    return filters_in_lanes(dtype) + few_filters_in_lanes(dtype)


def phases_in_lanes(dtype: str) -> list[TileShape]:
    """Those of transposed layers: of one or two vectors, for few numbers of filters call for more and each tile is compiled."""
    return [tile for tile in filters_in_lanes(dtype) if tile.vectors <= 2 and tile.rows not in BETWEEN]


BLOCKS = (14, 6)  # rows of the tiles for blocks: rows of a picture's blocks are cut well enough of few sizes


def blocks_in_lanes(dtype: str) -> list[TileShape]:
    """Every tile of tiled_transposed_blocks."""
    return [tile for tile in filters_in_lanes(dtype) if tile.vectors == 2 and tile.rows in BLOCKS]


# Blocks in lanes, phases in rows: (rows, vectors). Nine rows are the phases of stride 3; four divide those of 2 and 4.
BLOCKS_OF_PIXELS = {32: ((9, 3), (4, 6)), 16: ((9, 1), (4, 3))}  # 9x3 and 4x6 are 31 registers


def pixels_of_blocks(dtype: str) -> list[TileShape]:
    """Every tile of tiled_transposed_blocks_pixels."""
    return [TileShape(rows, vectors, machine.lanes(dtype), 1, dtype) for rows, vectors in BLOCKS_OF_PIXELS[machine.registers()]]


# Of pairs of pixels: 98 of 14x14 are seven strips of 14, 25 of 7x7 13 and 12; each takes seconds to compile.
PAIRS_IN_ROWS = {32: (14, 13), 16: (6,)}


def pairs_in_rows(dtype: str) -> list[TileShape]:
    """Every tile of the products of strassen.py."""
    return [TileShape(rows, 2, machine.lanes(dtype), 1, dtype) for rows in PAIRS_IN_ROWS[machine.registers()]]


def winograd_products(dtype: str) -> list[TileShape]:
    """Every tile of Winograd's products, with a step of a block of channels."""
    table, lanes = WINOGRAD_PRODUCTS[machine.registers()], machine.lanes(dtype)
    return [TileShape(rows, vectors, lanes, lanes, dtype) for vectors, sizes in table.items() for rows in sizes]


def narrow_winograd_products(dtype: str) -> list[TileShape]:
    """The same for groups of few filters."""
    lanes = machine.lanes(dtype)
    return [TileShape(ONE_VECTOR_OF_PRODUCTS, 1, lanes, lanes, dtype)]


def weight_products(dtype: str) -> list[TileShape]:
    """The tile of winograd_weight_gradient."""
    (rows, vectors), lanes = WEIGHT_PRODUCTS[machine.registers()], machine.lanes(dtype)
    return [TileShape(min(rows, lanes), vectors, lanes, 1, dtype)]


def in_float32(of: Callable[[str], list[TileShape]]) -> Callable[[str], list[TileShape]]:
    """To compile ahead of gradients: networks train in float32, and a weight's take from half a second to three, each."""
    return lambda dtype: of(dtype) if dtype == "float32" else []


def pixels_in_lanes(dtype: str) -> list[TileShape]:
    """Every tile with pixels in lanes."""
    return [TileShape(rows, vectors, machine.lanes(dtype), 1, dtype) for rows, vectors in PIXELS_IN_LANES[machine.registers()]]


def update_cycles(tile: TileShape, streamed: int) -> float:
    """Multiply-adds of one rank-1 update, or what it takes if that is more: a load for each; `streamed` vectors come from L2."""
    return max(tile.rows * tile.vectors, tile.rows + tile.vectors, SUMS_IN_FLIGHT[machine.registers()]) + streamed / 2


# Windows that slide down a plane, with code of their own: those of the networks. 25 weights and 5 sums still fit 32 registers;
# what does not is read from the stack by the multiply-adds themselves, one load each, which a core can do.
WINDOWS = ((3, 3), (5, 5), (7, 7))
# More that tiled_depthwise walks down, compiled when they are called: a load for all their taps, where copied lines cost two turns.
# 54 volumes of 16x28x28 with 5x1x1 windows take 117 us for 470, 192 planes of 17x17 with 7x1 windows 18 for 40.
OF_ONE_COLUMN = ((3, 1), (5, 1), (7, 1))
# Those that walk down two vectors at once, for rows of more than one: the sums of both wait for no other, where those of one wait
# for each other, and a row between one vector and two is walked once, where a second walk would read and write half of it again.
# On a Zen 4 core 256 planes of 28 x 28 take 40 us for 51, of stride 2 35 for 43, with 5x5 windows 99 for 110, and 32 of 112 x 112
# 73 for 77. For the 9 weights and 6 sums of 3x3 it takes 32 registers; 25 weights are then read from the stack, most of them twice.
WIDE, WIDE_REGISTERS = ((3, 3), (5, 5)), 32
# And those that walk down two planes at once of up to a vector each, for the same reason: 512 planes of 14 x 14 take 21.4 us for
# 23.2, of stride 2 19.2 for 20.6. The 50 weights of two channels' 5x5 windows do not fit: 83 us for 69.
TWO_WHOLE = ((3, 3),)
TWO_NARROW = ((3, 3), (5, 5))  # of a quarter of a vector each: those of the networks' last planes
# Along a row, with channels in lanes, 7x7 takes as long over copied lines as in place, where numbers come from many pages.
WALKED_ALONG = ((3, 3), (5, 5))
PAIRS_REGISTERS = 32  # for the 12 weights of 3x3 windows at the points of pairs.py and across.py, and 12 sums or numbers and more


def windows(dtype: str) -> list[TileShape]:
    """Every window that slides with code of its own, of step 1 and 2."""
    return [TileShape(a, b, machine.lanes(dtype), step, dtype) for a, b in WINDOWS for step in (1, 2)]


def wide_windows(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise of two vectors a line."""
    if machine.registers() < WIDE_REGISTERS:
        return []
    return [replace(tile, lanes=2 * tile.lanes) for tile in windows(dtype) if (tile.rows, tile.vectors) in WIDE]


def windows_of_columns(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise to compile ahead: in float64 two vectors wide when they are called."""
    return windows(dtype) + (wide_windows(dtype) if dtype == "float32" else [])


def two_whole_planes(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise_two of a whole vector of each plane."""
    return [tile for tile in wide_windows(dtype) if (tile.rows, tile.vectors) in TWO_WHOLE]


def two_narrow_planes(dtype: str) -> list[TileShape]:
    """Those of a quarter of a vector of each plane, in float32."""
    if dtype != "float32" or machine.lanes(dtype) < LEAST_TO_HALVE:
        return []
    return [replace(tile, lanes=tile.lanes // 2) for tile in windows(dtype) if (tile.rows, tile.vectors) in TWO_NARROW]


def windows_of_two_planes(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise_two to compile ahead."""
    return windows(dtype) + (two_whole_planes(dtype) if dtype == "float32" else []) + two_narrow_planes(dtype)


def windows_of_channels(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise_last of one vector of channels."""
    return [tile for tile in windows(dtype) if (tile.rows, tile.vectors) in WALKED_ALONG]


def pairs_of_channels(dtype: str) -> list[TileShape]:
    """And of two: 256 channels of 28 x 28 and stride 2 take 19.7 us for 23, 512 of 14 x 14 12 for 15; with 5x5 windows longer.

    With stride 1 Winograd's pairs of rows are faster, and each window takes three seconds to compile.
    """
    wide = wide_windows(dtype) if dtype == "float32" else []
    return [tile for tile in wide if (tile.rows, tile.vectors) in TWO_WHOLE and tile.step == 2]


def windows_along_rows(dtype: str) -> list[TileShape]:
    """All those of tiled_depthwise_last."""
    return windows_of_channels(dtype) + pairs_of_channels(dtype)


def windows_across(dtype: str) -> list[TileShape]:
    """The window of tiled_depthwise_across."""
    return [TileShape(3, 3, machine.lanes(dtype), 2, dtype)]


# Vectors of columns from which on rows are walked across. With stride 1, by Winograd's scheme and so on Zen cores alone, planes of
# 72 to 112 columns take 0.9 to 0.95 of the time then, of 56 as long, of 28 1.25.
POINTS_ACROSS = 4.5
# With stride 2, by bytes of a vector: of 64, 20 to 56 columns take 0.77 to 0.95, 14 take 1.15; of 32, timed with 32 registers, 14
# take 0.8; of 16 none were timed.
STEPS_ACROSS = {64: 1.25, 32: 1.25, 16: 1.25}


def least_across(dtype: str, stride: int) -> int:
    """The narrowest row that is walked across."""
    lanes = machine.lanes(dtype)
    return int((POINTS_ACROSS if stride == 1 else STEPS_ACROSS[lanes * np.dtype(dtype).itemsize]) * lanes)


def windows_of_volumes(dtype: str) -> list[TileShape]:
    """Those of tiled_depthwise_volume to compile ahead: of video networks."""
    return [tile for tile in windows(dtype) if dtype == "float32" and (tile.rows, tile.vectors) == WINDOWS[0]]


# What blocks of MobileNet v1, v2 and v3 take of the tiles above, in float32: the others are compiled when they are called.
SEPARABLE_PIXELS, SEPARABLE_FILTERS = ((8, 2),), ((14, 2), (10, 2), (14, 1))
SEPARABLE_WINDOWS = ((3, 3), (5, 5))


def separable_pixels(dtype: str) -> list[TileShape]:
    """Tiles of tiled_separable_pixels to compile ahead."""
    return [tile for tile in pixels_in_lanes(dtype) if dtype == "float32" and (tile.rows, tile.vectors) in SEPARABLE_PIXELS]


def separable_filters(dtype: str) -> list[TileShape]:
    """Those of tiled_separable and tiled_separable_last."""
    return [tile for tile in filters_in_lanes(dtype) if dtype == "float32" and (tile.rows, tile.vectors) in SEPARABLE_FILTERS]


def separable_windows(dtype: str) -> list[TileShape]:
    """Windows of their depthwise part, of one vector."""
    return [tile for tile in windows(dtype) if dtype == "float32" and (tile.rows, tile.vectors) in SEPARABLE_WINDOWS]


def wide_bands(dtype: str) -> list[TileShape]:
    """Windows of separable.fill_band of two vectors a line; with 5x5 ones they gain 4 % at most, and take 4 s to compile."""
    return [tile for tile in wide_windows(dtype) if (tile.rows, tile.vectors) in TWO_WHOLE]


def windows_of_bands(dtype: str) -> list[TileShape]:
    """Those of separable.fill_band to compile ahead."""
    return separable_windows(dtype) + (wide_bands(dtype) if dtype == "float32" else [])


def pairs(dtype: str) -> list[TileShape]:
    """The window of winograd_depthwise and of winograd_depthwise_last."""
    return [TileShape(3, 3, machine.lanes(dtype), 1, dtype)]


LEAST_TURNED = 8  # taps of a signal: of 4, over 256 channels of 1024 numbers, a kernel that turns nothing takes 190 us for 250
PIXELS_IN_ROWS = 14  # and half of them: the networks' planes have 7, 14, 28, 56 columns


def lines_in_vectors(dtype: str) -> list[TileShape]:
    """The tile of tiled_depthwise_lines."""
    return [TileShape(PIXELS_IN_ROWS, 1, machine.lanes(dtype), 1, dtype)]


def one_vector(dtype: str) -> list[TileShape]:
    """The tile of tiled_depthwise_transposed_last, and all that kernels know of one whose products are compiled apart."""
    return [TileShape(1, 1, machine.lanes(dtype), 1, dtype)]


# Taps across of transposed windows two columns apart, with code of their own: those of up-sampling layers and of gradients.
SPREADS = (2, 3, 4, 5, 7)
MOST_SPREAD = 3  # filters at once: those of an image, six sums under way; four take two turns


def spreads_of_channels(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_spread_last: taps across, and rows of taps that reach a pixel of a plane or a signal."""
    return [TileShape(taps, rows, machine.lanes(dtype), 1, dtype) for taps in SPREADS for rows in sorted({1, -(-taps // 2)})]


def square_spreads(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_spread: rows of taps, taps across; for narrow planes also of half the lanes."""
    lanes = machine.lanes(dtype)
    widths = [lanes, lanes // 2] if lanes >= LEAST_TO_HALVE else [lanes]
    return [TileShape(taps, taps, width, 2, dtype) for taps in SPREADS for width in widths]


def spreads(dtype: str) -> list[TileShape]:
    """Every tile of tiled_transposed_pixels."""
    return [TileShape(rows, taps, machine.lanes(dtype), 2, dtype) for taps in SPREADS for rows in range(1, MOST_SPREAD + 1)]
