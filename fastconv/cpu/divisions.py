"""How a problem is divided: which register tile, which bands of rows and chunks of filters make a work item.

Each function takes a problem and a number of threads and gives a `Division`. The tiles are tiles.py's, the choice among
them, and among kernels, a cost model: multiply-adds of a vector, those for pixels and filters that do not exist included.
Results do not depend on a division, so their bits do not depend on the threads.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import numpy as np

from fastconv.cpu import machine, strips, tiles
from fastconv.cpu.sheets import LINE, Sheets, fill_sheets, planes, rows_in_a_plane, taps, three
from fastconv.cpu.simd import TileShape
from fastconv.cpu.strips import Strip
from fastconv.cpu.toom import Scheme
from fastconv.cpu.winograd import lines_of_lanes
from fastconv.plan import Division
from fastconv.problem import Problem, SeparableProblem

# Operations that an item should hold at least: about 3 us of a direct kernel, against 0.1 us to claim an item.
ITEM_OPERATIONS = 100_000
# Share of L2 for a seat's scratch: the packed weights need the rest.
SCRATCH_SHARE = 0.5
# Pixels whose sums, of a tile's width of filters, stay in L1 until they are put where they belong.
RUN = 112
# Items for each thread: with fewer, threads wait for the slowest.
ITEMS_A_THREAD = 4


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def scratch_numbers(dtype: str) -> int:
    """Numbers of scratch that a seat may have."""
    return int(machine.caches()["L2"] * SCRATCH_SHARE) // np.dtype(dtype).itemsize


def _bytes(problem: Problem) -> int:
    """Of a group's weights."""
    return problem.parameters // problem.groups * np.dtype(problem.dtype).itemsize


# Direct kernels -------------------------------------------------------------------------------------------------------


def _banded(problem: Problem, others: int) -> Division:
    """Bands of rows, as small as an item may be; `others`: how many independent things there are besides rows."""
    *outer, _ = problem.out_space
    rows = math.prod(outer)
    least = min(rows, max(1, _ceil(ITEM_OPERATIONS * rows * others, max(problem.operations, 1))))
    bands = _ceil(rows, least)
    return Division(bands * others, bands, _ceil(rows, bands))


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
    bands = _ceil(rows, band)
    band = _ceil(rows, bands)  # even bands
    return Division(problem.batch * bands, bands, band, scratch=band * width * channels)


def by_row(problem: SeparableProblem, threads: int) -> Division:
    """An item is a row of the result; its scratch one pixel."""
    rows = math.prod(problem.out_space[:-1])
    return Division(problem.batch * rows, rows, 1, scratch=problem.depthwise.filters)


def by_weight(problem: Problem, threads: int) -> Division:
    """An item is a filter and one of its channels; its scratch a sum for each column of the gradient."""
    return Division(problem.filters * problem.channels // problem.groups, scratch=problem.out_space[-1])


# Tiled kernels --------------------------------------------------------------------------------------------------------


def _spread_out(rows: int, filters: int, unit: int, others: int, threads: int, most: int, weights: int) -> tuple[int, int]:
    """(band, chunk): at most `most` rows, as even as may be, enough items for the threads.

    Where a group's packed `weights`, in bytes, pass L2, each band would have them streamed anew: then filters are cut first.
    Else they are cut only when rows and `others` do not give enough items, for each chunk copies its sheets anew.
    """
    bands = _ceil(rows, max(1, most))
    if weights > machine.caches()["L2"]:
        band = _ceil(rows, bands)
        return band, unit * _ceil(_ceil(filters, unit), _chunks(_ceil(filters, unit), bands * others, threads))
    largest, least = _ceil(rows, bands), _ceil(rows, max(bands, min(rows, _ceil(ITEMS_A_THREAD * threads, others))))
    # The band by which the busiest thread gets the fewest rows; of several the largest.
    band = min(range(largest, least - 1, -1), key=lambda b: _ceil(_ceil(rows, b) * others, threads) * b) if threads > 1 else largest
    chunks = 1
    if threads > 1 and _ceil(rows, band) * others < 2 * threads:
        chunks = min(_ceil(filters, unit), _ceil(2 * threads, _ceil(rows, band) * others))
    return band, unit * _ceil(_ceil(filters, unit), chunks)


def _chunks(panels: int, items: int, threads: int) -> int:
    """Into how many chunks so many panels of heavy weights are cut: one a thread where there is but one item."""
    return min(panels, _ceil(threads if items <= threads else 2 * threads, items)) if threads > 1 else 1


def filters_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_standard: the tile whose strips and panels waste least, bands whose sheets fit a seat's scratch."""
    lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
    rows, out_width = rows_in_a_plane(problem), problem.out_space[-1]
    tile = lanes_tile(problem)
    run = max(1, RUN // out_width)
    sums = (run * out_width + max(lanes, tile.rows)) * tile.width
    pieces = strips.cut(problem, tile)
    most = _largest_band(problem, scratch_numbers(problem.dtype) - sums, 0)
    others = max(1, problem.batch) * problem.groups * planes(problem)
    band, chunk = _spread_out(rows, filters, tile.width, others, threads, most, _bytes(problem))
    return _over_sheets(problem, tile, band, chunk, tile.width, sums, {"run": run, "strips": len(pieces)}, pieces)


def pixels_in_lanes(problem: Problem, threads: int, whole: bool = False) -> Division:
    """For tiled_standard_pixels: bands of rows whose sheets and sums fit a seat's scratch; `whole`: filters are not cut."""
    filters = problem.filters // problem.groups
    rows, tile = rows_in_a_plane(problem), pixel_tile(problem)
    pitch = Sheets.of(problem, 1).pitch
    most = _largest_band(problem, scratch_numbers(problem.dtype) - tile.rows * tile.width, tile.rows * pitch)
    others = max(1, problem.batch) * problem.groups * planes(problem)
    band, chunk = _spread_out(rows, filters, tile.rows, others, threads, most, _bytes(problem))
    chunk = _ceil(filters, tile.rows) * tile.rows if whole else chunk
    flat = _ceil(band * pitch, tile.width) * tile.width
    sums = tile.rows * flat + tile.lanes  # a short row's sums are read as a whole vector
    return _over_sheets(problem, tile, band, chunk, tile.rows, sums, {"sums_pitch": flat}, slack=tile.width)


def _largest_band(problem: Problem, room: int, sums_a_row: int) -> int:
    """Rows whose sheets and sums fit so much room; one if none do."""
    channels = problem.channels // problem.groups
    return 1 + bisect_right(
        range(2, rows_in_a_plane(problem) + 1), room, key=lambda b: channels * Sheets.of(problem, b).sheet + b * sums_a_row
    )


def transposed(problem: Problem, threads: int) -> Division:
    """For tiled_transposed: bands of rows whose part of the image fits a seat's scratch."""
    out_space, kernel, stride, dilation = map(three, (problem.out_space, problem.kernel, problem.stride, problem.dilation))
    crop = [0] * (3 - problem.dimensions) + [before for before, _ in problem.pads]
    lanes, channels, filters = machine.lanes(problem.dtype), problem.channels // problem.groups, problem.filters // problem.groups
    tile = transposed_tile(problem)
    # Rows of the image that reach `band` rows of the result; for columns, all of them, from the first that is reached on.
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    first = -((spans[2] - crop[2]) // stride[2])
    pitch = (out_space[2] - 1 + crop[2]) // stride[2] - first + 1
    depth = spans[0] // stride[0] + 1

    def sheet(band: int) -> int:
        size = depth * pitch * sheet_rows(band, spans[1], stride[1])
        return LINE * (_ceil(size + LINE, LINE) | 1)

    run = max(1, RUN // out_space[2])
    sums = (run * out_space[2] + max(lanes, tile.rows * stride[2])) * tile.width
    room = scratch_numbers(problem.dtype) - sums
    most = max(1, room * out_space[1] // (channels * sheet(out_space[1])))
    others = max(1, problem.batch) * problem.groups * out_space[0]
    band, chunk = _spread_out(out_space[1], filters, tile.width, others, threads, min(most, out_space[1]), _bytes(problem))
    bands, chunks = _ceil(out_space[1], band), _ceil(filters, chunk)
    sums_at = _ceil(channels * sheet(band) + tile.rows + LINE, LINE) * LINE
    ones = (1, 1, 1)
    hop, back = zip(*((s // math.gcd(s, d), d // math.gcd(s, d)) for s, d in zip(stride, dilation, strict=True)), strict=True)
    fields = {
        "spread": stride, "apart": dilation, "crop": crop, "hop": hop, "back": back, "run": run,
        "stride": ones, "dilation": ones, "before": (0, 0, -first), "phases": (depth, 1, 1),
        "table": (0,) * (taps(problem) + 2), "pitch": pitch, "phase_size": sheet_rows(band, spans[1], stride[1]) * pitch,
        "sheet": sheet(band), "sums_at": sums_at, "panels": _ceil(filters, tile.width),
        "panel": tile.width * (1 + channels * taps(problem)),
    }  # fmt: skip
    scratch = sums_at + sums
    return Division(others * bands * chunks, bands, band, chunks, chunk, scratch, tile, tile.width, fill_sheets, fields)


def sheet_rows(band: int, span: int, stride: int) -> int:
    """Rows of the image that reach a band of rows of a transposed convolution's result."""
    return (band - 1 + span) // stride + 1


def transposed_tile(problem: Problem) -> TileShape:
    """The tile whose strips of a phase, and panels, waste least; its strips end where a phase's row does."""
    columns, filters = problem.out_space[-1] // problem.stride[-1], problem.filters // problem.groups
    fitting = [tile for tile in tiles.phases_in_lanes(problem.dtype) if tile.short.rows <= max(1, columns)]
    return min(fitting, key=lambda tile: _ceil(filters, tile.width) * strips.even_work(columns, tile))


def phases_as_filters(problem: Problem) -> Problem:
    """The convolution of stride 1 that computes all phases of a transposed one, undilated: see transposed.py."""
    ones, sizes = (1,) * problem.dimensions, zip(
        problem.kernel, problem.stride, problem.pads, problem.space, problem.out_space, strict=True
    )  # fmt: skip
    kernel, pads = [], []
    for taps_, stride, (crop, _), size, out in sizes:
        kernel.append(taps_ // stride)
        before = kernel[-1] - 1 - crop // stride
        pads.append((before, (crop % stride + out - 1) // stride + kernel[-1] - size - before))
    filters = problem.filters * math.prod(problem.stride)
    return replace(
        problem, operation="conv", filters=filters, kernel=tuple(kernel), stride=ones, pads=tuple(pads), dilation=ones,
        bias="none", residual=False, output_padding=(0,) * problem.dimensions,
    )  # fmt: skip


def transposed_pixels(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_pixels: bands of rows of every phase, whose sheets and sums fit a seat's scratch."""
    phases = phases_as_filters(problem)
    # A whole chunk holds all phases of a row: filters are never cut.
    division = pixels_in_lanes(phases, threads, whole=True)
    fields = {
        "filters": phases.filters // phases.groups, "kernel": three(phases.kernel), "stride": (1, 1, 1), "dilation": (1, 1, 1),
        "before": (0,) * (3 - problem.dimensions) + tuple(before for before, _ in phases.pads), "spread": three(problem.stride),
        "crop": (0,) * (3 - problem.dimensions) + tuple(pad % s for (pad, _), s in zip(problem.pads, problem.stride, strict=True)),
    }  # fmt: skip
    return replace(division, fields=dict(division.fields) | fields)


def columns(scheme: Scheme) -> Callable[[Problem, int], Division]:
    """For winograd_columns: bands of rows of tiles whose sheets, points and products fit L2."""

    def divide(problem: Problem, threads: int) -> Division:
        lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
        channels, count, outputs = problem.channels // problem.groups, len(scheme.points) + 1, scheme.outputs
        down = _ceil(problem.out_space[0], outputs)
        tile = columns_tile(problem, scheme)
        room = machine.caches()["L2"] // np.dtype(problem.dtype).itemsize

        def layout(band: int) -> tuple[dict[str, Any], int]:
            sheets = Sheets.of(problem, band * outputs)
            phases = sheets.phases[1] * sheets.phases[2]
            rows_of_taps = [row * sheets.phases[2] for row in range(sheets.phases[1])]
            plane = _ceil(band * sheets.pitch, tile.width) * tile.width + sheets.pitch + lanes
            (_, stride_j), (_, apart_j), (_, taps_b) = problem.stride, problem.dilation, problem.kernel
            slots = sorted({b * apart_j % stride_j for b in range(taps_b)})
            table = [
                (row + slots.index(b * apart_j % stride_j)) * plane + b * apart_j // stride_j
                for row in rows_of_taps
                for b in range(taps_b)
            ]
            kept = sheets.table[taps(problem) :]
            values_at = _ceil(channels * sheets.sheet + outputs * sheets.pitch + LINE, LINE) * LINE
            products_at = values_at + count * channels * phases * plane
            fields = asdict(sheets) | {
                "table": (*table, *(0,) * (taps(problem) - len(table)), *kept), "down": band, "plane": plane,
                "values_at": values_at, "products_at": products_at, "panels": _ceil(filters, tile.rows),
                "panel": tile.rows * (1 + count * channels * len(table)),
            }  # fmt: skip
            return fields, products_at + count * tile.rows * plane

        band = max([b for b in range(1, down + 1) if layout(b)[1] <= room], default=1)
        others = max(1, problem.batch) * problem.groups
        band, chunk = _spread_out(down, filters, tile.rows, others, threads, band, _bytes(problem))
        bands, chunks = _ceil(down, band), _ceil(filters, chunk)
        fields, scratch = layout(band)
        return Division(others * bands * chunks, bands, band, chunks, chunk, scratch, tile, tile.rows, fill_sheets, fields)

    return divide


def columns_tile(problem: Problem, scheme: Scheme) -> TileShape:
    """The tile of pixels in lanes that wastes least."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: _columns_cycles(problem, scheme, tile))


def columns_cycles(scheme: Scheme) -> Callable[[Problem], float]:
    """Of winograd_columns: products, and transforms of a vector for each number read and made."""
    return lambda problem: _columns_cycles(problem, scheme, columns_tile(problem, scheme))


def _columns_cycles(problem: Problem, scheme: Scheme, tile: TileShape) -> float:
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets, count = Sheets.of(problem, scheme.outputs), len(scheme.points) + 1
    down = _ceil(problem.out_space[0], scheme.outputs)
    depth, strips = channels * sheets.phases[1] * problem.kernel[1], down * sheets.pitch / tile.width + 0.5
    products = count * _ceil(filters, tile.rows) * strips * depth * tiles.update_cycles(tile, tile.vectors)
    vectors = down * _ceil(sheets.pitch, tile.lanes)
    into = vectors * channels * sheets.phases[1] * sheets.phases[2] * count * (scheme.outputs + scheme.taps) / 2
    outof = vectors * filters * count * (scheme.outputs + 2) / 2
    return max(1, problem.batch) * problem.groups * (products + into + outof)


def pixel_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over planes of sheets."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: pixels_cycles(problem, tile))


def _over_sheets(
    problem: Problem, tile: TileShape, band: int, chunk: int, unit: int, sums: int, fields: dict[str, int],
    pieces: Sequence[Strip] = (), slack: int = LINE,
) -> Division:  # fmt: skip
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets = Sheets.of(problem, band)
    rows = rows_in_a_plane(problem)
    bands, chunks = _ceil(rows, band), _ceil(filters, chunk)
    sums_at = _ceil(channels * sheets.sheet + slack, LINE) * LINE
    fields = fields | asdict(sheets) | {
        "table": (*sheets.table, *chain.from_iterable(pieces)), "strips_at": len(sheets.table),
        "panels": _ceil(filters, unit), "panel": unit * (1 + channels * taps(problem)), "sums_at": sums_at,
    }  # fmt: skip
    items = problem.batch * problem.groups * planes(problem) * bands * chunks
    return Division(items, bands, band, chunks, chunk, sums_at + sums, tile, unit, fill_sheets, fields)


def pixels_in_place(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise_pixels: bands of strips of an image's pixels, read where they lie."""
    tile = pointwise_tile(problem)
    fields = {"panel": tile.rows * (1 + problem.channels)}
    # What is done late is done to a whole band, which should still lie in L2.
    bands = _ceil(math.prod(problem.out_space) * problem.filters, scratch_numbers(problem.dtype))
    return _over_pixels(problem, tile, tile.width, tile.rows, bands, threads, fields)


def filters_in_place(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise: bands of pixels whose sums stay in L1."""
    tile, pixels = lanes_tile(problem), problem.out_space[-1]
    most = max(1, machine.caches()["L1d"] // 2 // (tile.width * np.dtype(problem.dtype).itemsize) // tile.rows)
    bands = _ceil(pixels // tile.rows, most)
    fields = {"panel": tile.width * (1 + problem.channels)}
    division = _over_pixels(problem, tile, tile.rows, tile.width, bands, threads, fields)
    longest = division.band + pixels - division.band * division.bands  # the last band takes what is left over
    return replace(division, scratch=(longest + tile.rows + tile.lanes) * tile.width)


def _over_pixels(
    problem: Problem, tile: TileShape, pixels: int, filters: int, least_bands: int, threads: int, fields: dict[str, Any]
) -> Division:
    """Bands of whole strips of so many pixels; the last takes what is left over, so that only its own strips overlap."""
    count = max(1, problem.out_space[-1] // pixels)
    images, panels = max(1, problem.batch), _ceil(problem.filters, filters)
    if _bytes(problem) > machine.caches()["L2"]:
        bands = max(1, min(count, least_bands))
        chunks = _chunks(panels, bands * images, threads)
        band, chunk = max(1, count // bands), filters * _ceil(panels, chunks)
        bands, chunks = count // band, _ceil(problem.filters, chunk)
        return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)
    wanted = max(least_bands, _ceil(ITEMS_A_THREAD * threads, images) if threads > 1 else 1)
    band = max(1, count // min(count, wanted))
    bands = count // band
    chunks = 1
    if threads > 1 and bands * images < 2 * threads:
        chunks = min(panels, _ceil(2 * threads, bands * images))
    chunk = filters * _ceil(panels, chunks)
    chunks = _ceil(problem.filters, chunk)
    return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)


def pointwise_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over an image's pixels; one that is not wider than they are many."""
    shapes = tiles.pixels_in_lanes(problem.dtype)
    fitting = [shape for shape in shapes if shape.width <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: in_place_cycles(problem, tile), default=min(shapes, key=lambda s: s.width))


def lanes_tile(problem: Problem) -> TileShape:
    """The tile of filters in lanes whose strips and panels waste least."""
    fitting = [shape for shape in tiles.filters_in_lanes(problem.dtype) if shape.short.rows <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: lanes_cycles(problem, tile))


def slides(problem: Problem) -> str | None:
    """None if windows slide down a plane with code of their own (windows.py), or the reason why not."""
    if problem.dimensions != 2 or problem.kernel not in tiles.WINDOWS:
        return f"computes windows of {' or '.join(f'{a}x{b}' for a, b in tiles.WINDOWS)}, this is {problem.kernel}"
    if problem.stride not in ((1, 1), (2, 2)) or (problem.stride == (2, 2) and problem.dilation != (1, 1)):
        return f"computes strides 1, and 2 without dilation, these are {problem.stride} and {problem.dilation}"
    return None


def columns_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise: chunks of channels, and bands of rows where there are few of them."""
    taps_i, taps_j = problem.kernel
    tile = TileShape(taps_i, taps_j, machine.lanes(problem.dtype), problem.stride[0], problem.dtype)
    return _over_channels(problem, tile, 1, threads, {"panel": 1 + taps(problem)})


def two_planes_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_two: as columns_in_lanes, in twos."""
    one = columns_in_lanes(problem, 1)
    return _over_channels(problem, one.tile, 2, threads, dict(one.fields))


def channels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_last: bands of rows, which cost nothing, and chunks of channels only where rows are few."""
    one = columns_in_lanes(problem, 1)
    tile = replace(one.tile, rows=one.tile.vectors, vectors=one.tile.rows)  # windows slide along a row
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, images = rows_in_a_plane(problem), max(1, problem.batch)
    band = _ceil(rows, min(rows, _ceil(wanted, images)))
    bands, units = _ceil(rows, band), max(1, problem.filters // tile.lanes)  # the last chunk takes what is left over
    chunk = _ceil(units, min(units, _ceil(wanted, bands * images)))
    chunks, fields = _ceil(units, chunk), {"panel": tile.lanes * (1 + taps(problem))}
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk * tile.lanes, 0, tile, tile.lanes, None, fields)


def _over_channels(problem: Problem, tile: TileShape, unit: int, threads: int, fields: dict[str, Any]) -> Division:
    """Chunks of whole units of channels; bands of rows only where chunks are too few for the threads."""
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, units, images = rows_in_a_plane(problem), _ceil(problem.filters, unit), max(1, problem.batch)
    chunk = _ceil(units, min(units, _ceil(wanted, images)))
    chunks = _ceil(units, chunk)
    band = _ceil(rows, min(rows, _ceil(wanted, chunks * images)))
    bands = _ceil(rows, band)
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk * unit, 0, tile, unit, None, fields)


def separable_pixels(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable_pixels: bands of rows as large as fit L2, whose pixels fill strips."""
    tile = pointwise_tile(_pixels_alone(problem))
    return _separable(problem, tile, tile.rows, tile.width, 0, threads)


def separable_filters(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable and tiled_separable_last: bands of rows whose sums stay in L1."""
    alone = _pixels_alone(problem)
    shapes = [shape for tile in tiles.filters_in_lanes(problem.dtype) for shape in (tile, tile.short)]
    tile = min((shape for shape in shapes if shape.rows <= alone.out_space[-1]), key=lambda shape: _even_cycles(alone, shape))
    return _separable(problem, tile, tile.width, tile.rows, 0 if problem.data_format == "channels_last" else tile.width, threads)


def _separable(problem: SeparableProblem, tile: TileShape, unit: int, strip: int, sums: int, threads: int) -> Division:
    """Bands of rows, of which few pixels are left over from strips; chunks of filters only where bands are too few.

    `sums`: numbers that are kept of each pixel until they are put where they belong.
    """
    first, filters, channels = problem.depthwise, problem.filters, problem.depthwise.filters
    last, width, lanes = problem.data_format == "channels_last", problem.out_space[-1], machine.lanes(problem.dtype)
    rows, images = math.prod(problem.out_space[:-1]), max(1, problem.batch)
    most = max(1, min(rows, scratch_numbers(problem.dtype) // (width * (channels + sums))))
    if threads > 1:
        wanted = _ceil(ITEMS_A_THREAD * threads, images)
        most = max(1, min(most, max(_ceil(rows, wanted), _ceil(4 * strip, width))))
    band = min(range(max(1, most // 2), most + 1), key=lambda b: _ceil(rows, b) * _ceil(b * width, strip) * (1 + 8 / b))
    bands, units = _ceil(rows, band), _ceil(filters, unit)
    chunk = _ceil(units, min(units, _ceil(2 * threads, bands * images)) if threads > 1 else 1)
    chunks = _ceil(units, chunk)
    window = None
    if slides(first) is None and not (last and first.filters != first.groups):
        window = TileShape(first.kernel[0], first.kernel[1], lanes, first.stride[0], problem.dtype)
    pitch = LINE * (_ceil(max(band * width, strip) + lanes, LINE) | 1)
    panel = (lanes if last else 1) * (1 + taps(first))
    most_pixels = max(band * width, strip, lanes)
    sums_at = most_pixels * channels if last else channels * pitch
    fields = {"pitch": pitch, "panel": panel, "outer_panel": unit * (1 + channels), "sums_at": sums_at}
    scratch = sums_at + sums * most_pixels
    items = problem.batch * bands * chunks
    return Division(items, bands, band, chunks, chunk * unit, scratch, tile, unit, None, fields, window)


def _even_cycles(problem: Problem, tile: TileShape) -> float:
    """Of a pointwise layer whose strips are all as long as the tile is tall."""
    updates = _ceil(problem.out_space[-1], tile.rows) * problem.channels * tiles.update_cycles(tile, tile.vectors)
    return _ceil(problem.filters, tile.width) * (updates + _ceil(problem.out_space[-1], tile.lanes) * tile.width * TURN)


def _pixels_alone(problem: SeparableProblem) -> Problem:
    """The pointwise part, without ends of rows."""
    one, space = (1,), (math.prod(problem.out_space),)
    return replace(problem.pointwise, space=space, kernel=one, stride=one, pads=((0, 0),), dilation=one)


def separable_cycles(problem: SeparableProblem) -> tuple[float, float]:
    """Of the pointwise part, with pixels in lanes and with filters in lanes."""
    alone = _pixels_alone(problem)
    return in_place_cycles(alone, pointwise_tile(alone)), lanes_cycles(alone, lanes_tile(alone))


def winograd(outputs: int) -> Callable[[Problem, int], Division]:
    """For winograd_2x2 and winograd_4x4: bands of rows of tiles whose transforms fit L2."""

    def divide(problem: Problem, threads: int) -> Division:
        lanes, points = machine.lanes(problem.dtype), outputs + 2
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        (apart_i, apart_j), (out_height, out_width) = problem.dilation, problem.out_space
        down = _ceil(_ceil(out_height, apart_i), outputs)
        across = sum(_ceil(_ceil(out_width - phase, apart_j), outputs) for phase in range(min(apart_j, out_width)))
        padded = _ceil(channels, lanes) * lanes
        room = machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
        most = max(1, min(down, room // (points**2 * padded * across)))
        others = max(1, problem.batch) * problem.groups * apart_i
        band, chunk = _spread_out(down, filters, 2 * lanes, others, threads, most, _bytes(problem) * points**2 // 9)
        tile = winograd_tile(problem, band * across)
        tiles_at_once = _ceil(band * across, tile.rows) * tile.rows
        pitch = max(
            apart_j * (outputs * _ceil(_ceil(out_width, apart_j), outputs) + 2),
            problem.pads[1][0] + _ceil(problem.space[1], lanes) * lanes,
            _ceil(out_width, lanes) * lanes,
        )
        rows_seen = outputs * band + 2
        columns_at = rows_seen * pitch * lanes
        values_at = columns_at + points * max(pitch, points) * lanes
        products_at = values_at + points**2 * padded * tiles_at_once
        sums_at = products_at + points**2 * tiles_at_once * tile.width
        fields = {
            "pitch": pitch, "rows_seen": rows_seen, "tiles": tiles_at_once, "across": across,
            "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at,
            "panels": _ceil(filters, tile.width), "panel": tile.width * (1 + points**2 * padded),
        }  # fmt: skip
        bands, chunks = _ceil(down, band), _ceil(filters, chunk)
        scratch = sums_at + outputs * pitch * tile.width
        return Division(others * bands * chunks, bands, band, chunks, chunk, scratch, tile, tile.width, lines_of_lanes, fields)

    return divide


def winograd_tile(problem: Problem, count: int) -> TileShape:
    """The tile of two vectors of filters whose rows divide so many tiles best."""
    return min(tiles.winograd_products(problem.dtype), key=lambda s: _ceil(count, s.rows) * tiles.update_cycles(s, 1))


# What a problem should cost, in multiply-adds of a vector: to compare tiles and kernels ------------------------------------

COPY, TURN = 3.0, 7.0  # for a vector of numbers: to copy it, and to transpose it with its neighbours and store it
PUT_ONE = 1.5  # for a number: to store it away from its neighbours


def lanes_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of filters in lanes; taps that a whole strip misses are left out. Here and below with the best tile if none is given."""
    tile = tile or lanes_tile(problem)
    filters = problem.filters // problem.groups
    images, panels = problem.batch * problem.groups, _ceil(filters, tile.width)
    depth = problem.channels // problem.groups * math.prod(_taps_inside(problem, axis) for axis in range(problem.dimensions - 1))
    put = COPY if problem.data_format == "channels_last" else TURN
    sums = panels * _rows(problem) * _ceil(problem.out_space[-1], tile.lanes) * tile.width * put
    return images * panels * depth * strips.work(problem, tile) * _from_afar(problem) + sums


def _from_afar(problem: Problem) -> float:
    """How much longer filters in lanes take for numbers that L2 does not hold, beside updates that hide most of it."""
    channels, number, caches = problem.channels // problem.groups, np.dtype(problem.dtype).itemsize, machine.caches()
    if 4 * _bytes(problem) > caches["L3"]:  # they come once for each band: 33 x 33 x 1024 of rate 12, whose bands are a row
        return 1.2
    # A 1x1 layer's panel of so many channels, and the line that a strip takes of each, do not stay in L2 side by side, and a
    # large image comes from beyond it for every panel: 33 x 33 x 2048.
    panel, image = channels * 2 * machine.lanes(problem.dtype) * number, channels * math.prod(problem.space) * number
    return 1.15 if taps(problem) == 1 and image > caches["L2"] and 4 * panel >= caches["L2"] else 1.0


def _taps_inside(problem: Problem, axis: int) -> int:
    """Of all windows along one axis together."""
    out = problem.out_space[axis]
    return sum(max(0, min(out, leaves) - max(0, enters)) for enters, leaves in strips.inside(problem, axis))


def pixels_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of pixels in lanes, over planes of sheets."""
    tile = tile or pixel_tile(problem)
    depth, filters = problem.channels // problem.groups * taps(problem), problem.filters // problem.groups
    pitch = Sheets.of(problem, 1).pitch
    strips = problem.batch * problem.groups * planes(problem) * (rows_in_a_plane(problem) * pitch / tile.width + 0.5)
    put = COPY * filters * _rows(problem) * _ceil(problem.out_space[-1], tile.lanes)
    return _ceil(filters, tile.rows) * strips * depth * tiles.update_cycles(tile, tile.vectors) + put


def in_place_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of a pointwise layer's pixels in lanes."""
    tile = tile or pointwise_tile(problem)
    strips = problem.batch * _ceil(problem.out_space[-1], tile.width)
    return _ceil(problem.filters, tile.rows) * strips * problem.channels * tiles.update_cycles(tile, tile.vectors)


def transposed_cycles(problem: Problem) -> float:
    """Of tiled_transposed, the taps in the padding included."""
    tile, filters = transposed_tile(problem), problem.filters // problem.groups
    *outer, width = problem.out_space
    updates = taps(problem) / math.prod(problem.stride[:-1]) * strips.even_work(width // problem.stride[-1], tile)
    put = COPY if problem.data_format == "channels_last" else TURN
    a_row = problem.channels // problem.groups * updates + _ceil(width, tile.lanes) * tile.width * put
    return problem.batch * problem.groups * math.prod(outer) * _ceil(filters, tile.width) * a_row


def transposed_pixels_cycles(problem: Problem) -> float:
    """Of tiled_transposed_pixels: the results are put one by one."""
    return pixels_cycles(phases_as_filters(problem)) + math.prod(problem.out_shape) * PUT_ONE


def _rows(problem: Problem) -> int:
    """Of all groups' results together."""
    return problem.batch * problem.groups * planes(problem) * rows_in_a_plane(problem)


# A tile's transforms, for each vector of channels (B' d B and the transposition) and of filters (A' m A).
GATHER, SCATTER = {2: 120.0, 4: 300.0}, {2: 90.0, 4: 220.0}
# Bytes of transformed weights that a core takes in, while it multiplies a vector: from L2, from L3, from memory.
STREAM = (32.0, 12.0, 4.0)


def winograd_cycles(outputs: int) -> Callable[[Problem], float]:
    """Of Winograd's form: the products, or the stream of transformed weights if that takes longer, and the transforms."""

    def cycles(problem: Problem) -> float:
        division, points = winograd(outputs)(problem, 1), (outputs + 2) ** 2
        tile, lanes, count = division.tile, division.tile.lanes, division.fields["tiles"]
        blocks, filters = _ceil(problem.channels // problem.groups, lanes), problem.filters // problem.groups
        panels, used = _ceil(filters, tile.width), division.band * division.fields["across"]
        update = tiles.update_cycles(tile, 1)
        products = points * panels * blocks * lanes * count // tile.rows * update
        weights = points * panels * blocks * lanes * tile.width * np.dtype(problem.dtype).itemsize
        caches = machine.caches()
        speed = STREAM[0] if weights < caches["L2"] else STREAM[1] if weights * problem.groups < caches["L3"] / 2 else STREAM[2]
        transforms = used * (blocks * GATHER[outputs] + panels * tile.vectors * SCATTER[outputs])
        return division.items * (max(products, weights / speed) + transforms)

    return cycles
