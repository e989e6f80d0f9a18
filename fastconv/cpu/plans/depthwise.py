"""Plans for depthwise.py, across.py, volumes.py, lines.py and pairs.py: chunks of channels, bands of rows where these are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.across import tiled_depthwise_across, winograd_depthwise
from fastconv.cpu.depthwise import tiled_depthwise, tiled_depthwise_last, tiled_depthwise_two
from fastconv.cpu.lines import tiled_depthwise_lines
from fastconv.cpu.neighbours import ROWS
from fastconv.cpu.pairs import channels_at_points, error_bound, winograd_depthwise_last
from fastconv.cpu.plans.rules import COLUMNS, FIRST, LAST, in_channel_lanes, one_by_one, unless
from fastconv.cpu.plans.shares import ITEMS_A_THREAD, ceil
from fastconv.cpu.sheets import rows_in_a_plane, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.toom import F2
from fastconv.cpu.volumes import tiled_depthwise_volume
from fastconv.cpu.windows import HALVED, LEAST_HALF, SMALL_WINDOW, has_quarters
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, three

# Weights of two channels' planes that fit the registers, or nearly: 768 planes of 7 x 7 with 7x7 windows take 62 us in twos, 85 one
# by one, and 52 over copied lines, with 5x5 windows 35, 46 and 52.
TAPS_OF_TWO = 25
# Of a batch, images whose planes pass the same weights in twos, one after the other: so many streams keep memory busy. 64 images of
# 576 planes of 14 x 14 take 1.4 ms; with two images an item 1.7, with eight 2.7, and 4.3 in twos of channels. 32 of 960 of 7 x 7
# with 5x5 windows take 0.88 for 1.11. An odd image is computed twice, which of fewer than ALONE costs more than it gains.
IMAGES, ALONE = 4, 16


def columns_refuse(problem: Problem) -> str | None:
    if _share_a_vector(problem) and taps(problem) > TAPS_OF_TWO and lines_refuse(problem) is None:
        return f"{problem.out_space[-1]} columns fill half of a vector, copied lines do better by windows of {taps(problem)} taps"
    return unless(FIRST)(problem) or (None if _sees_one_column(problem) else slides(problem))


def _sees_one_column(problem: Problem) -> bool:
    """Whether windows are walked down whose code is compiled when they are called."""
    return problem.dimensions == 2 and problem.kernel in tiles.OF_ONE_COLUMN and problem.stride == (1, 1)


def _share_a_vector(problem: Problem) -> bool:
    """Whether two planes do."""
    return problem.out_space[-1] <= machine.lanes(problem.dtype) // 2 and all(d == 1 for d in problem.dilation)


def two_planes_refuse(problem: Problem) -> str | None:
    if problem.dimensions != 2:
        return slides(problem)
    half = _two_planes(problem).lanes // 2
    if half < LEAST_HALF or problem.out_space[-1] > half:
        return f"computes planes of at most {half} columns, these have {problem.out_space[-1]}"
    if any(d != 1 for d in problem.dilation):
        return f"computes no dilation, this is {problem.dilation}"
    return columns_refuse(problem)


def pack_at_points(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [channels_at_points(weights[0], biases[0], unit)]


def pairs_refuse(problem: Problem) -> str | None:
    if problem.kernel != (3, 3) or problem.stride != (1, 1) or problem.dilation != (1, 1):
        return "computes 3x3 windows of stride 1 without dilation"
    return _at_points_refuse(problem, problem.groups) or channels_refuse(problem)


def _at_points_refuse(problem: Problem, filters: int) -> str | None:
    """Why a layer is not computed at points, to which the weights of a vector of filters are taken together."""
    if filters < machine.lanes(problem.dtype):
        return f"{filters} filters fill no vector"
    if problem.algorithm == "auto" and machine.registers() < tiles.PAIRS_REGISTERS:
        return f"holds 24 weights and others in registers, of which this target has {machine.registers()}"
    if problem.algorithm == "auto" and not machine.adds_beside():
        return "adds more than it saves products, and this target does both in the same pipes"
    return None


def channels_refuse(problem: Problem) -> str | None:
    if problem.filters != problem.groups:
        return f"computes one filter a channel, here are {problem.filters // problem.groups}"
    if problem.kernel not in tiles.WALKED_ALONG:
        return f"computes windows of {' or '.join(f'{a}x{b}' for a, b in tiles.WALKED_ALONG)}, this is {problem.kernel}"
    return unless(LAST)(problem) or slides(problem)


def lines_refuse(problem: Problem) -> str | None:
    if problem.dimensions == 3:
        return "computes planes and signals"
    multiplier, half = problem.filters // problem.groups, machine.lanes(problem.dtype) // 2
    if problem.data_format == LAST:
        return None if multiplier < half else f"copies a number for each filter of its channel, here are {multiplier}"
    if multiplier > 1 or problem.filters < half:
        return f"turns an image for one filter a channel, of {half} at least, here are {problem.filters} for {problem.groups}"
    if problem.dimensions == 1 and problem.kernel[-1] < tiles.LEAST_TURNED:
        return f"turns an image, which costs more than it gains of {problem.kernel[-1]} taps"
    return None


def slides(problem: Problem) -> str | None:
    """None if windows slide down a plane with code of their own (windows.py), or the reason why not."""
    if problem.dimensions != 2 or problem.kernel not in tiles.WINDOWS:
        return f"computes windows of {' or '.join(f'{a}x{b}' for a, b in tiles.WINDOWS)}, this is {problem.kernel}"
    if problem.stride not in ((1, 1), (2, 2)) or (problem.stride == (2, 2) and problem.dilation != (1, 1)):
        return f"computes strides 1, and 2 without dilation, these are {problem.stride} and {problem.dilation}"
    return None


def volumes_refuse(problem: Problem) -> str | None:
    if problem.dimensions != 3 or problem.kernel[1:] not in tiles.WINDOWS:
        return f"computes volumes whose windows have planes of {' or '.join(f'{a}x{b}' for a, b in tiles.WINDOWS)}"
    if problem.stride[1:] not in ((1, 1), (2, 2)) or any(d != 1 for d in problem.dilation[1:]):
        return f"computes strides 1 and 2 down and across, without dilation, these are {problem.stride} and {problem.dilation}"
    return unless(FIRST)(problem)


def across_refuses(stride: int) -> Callable[[Problem], str | None]:
    """Of windows that are so far apart."""

    def refuse(problem: Problem) -> str | None:
        if problem.kernel != (3, 3) or problem.stride != (stride, stride) or problem.dilation != (1, 1):
            return f"computes 3x3 windows of stride {stride} without dilation"
        if problem.pads[1][0] != 1:
            return f"computes rows with one column of padding before them, here are {problem.pads[1][0]}"
        least = tiles.least_across(problem.dtype, stride)
        if problem.algorithm != "winograd" and problem.out_space[1] < least:
            return f"takes longer to begin a row than it gains of fewer than {least} columns, these are {problem.out_space[1]}"
        return unless(FIRST)(problem)

    return refuse


def points_across_refuse(problem: Problem) -> str | None:
    return across_refuses(1)(problem) or _at_points_refuse(problem, problem.filters)


def steps_across(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_across: as columns_in_lanes, in bands of an even number of rows, and with a line of zeros."""
    return _across(problem, threads, 1, 1 + taps(problem))


def points_across(problem: Problem, threads: int) -> Division:
    """The same for winograd_depthwise, of whole panels of filters."""
    return _across(problem, threads, machine.lanes(problem.dtype), _panel_at_points(problem))


def _across(problem: Problem, threads: int, unit: int, panel: int) -> Division:
    one, lanes = over_channels(problem, window(problem), unit, threads, {"panel": panel}), machine.lanes(problem.dtype)
    return replace(_of_two_rows(problem, one), scratch=lanes * ceil(problem.space[-1], lanes))


def _of_two_rows(problem: Problem, one: Division) -> Division:
    """In bands of an even number of rows."""
    band = ROWS * ceil(one.band, ROWS)
    bands = ceil(rows_in_a_plane(problem), band)
    return replace(one, items=problem.batch * bands * one.chunks, bands=bands, band=band)


def planes_in_bands(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_volume: chunks of channels, and bands of planes where there are few of them."""
    taps_i, taps_j = problem.kernel[1:]
    tile = TileShape(taps_i, taps_j, machine.lanes(problem.dtype), problem.stride[1], problem.dtype)
    return over_channels(problem, tile, 1, threads, {"panel": 1 + taps(problem)})


def columns_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise: chunks of channels, and bands of rows where there are few of them."""
    return over_channels(problem, _columns(problem), 1, threads, {"panel": 1 + taps(problem)})


def window(problem: Problem) -> TileShape:
    taps_i, taps_j = problem.kernel
    return TileShape(taps_i, taps_j, machine.lanes(problem.dtype), problem.stride[0], problem.dtype)


def _along(problem: Problem) -> TileShape:
    """The window that slides along a row, of one vector of channels."""
    taps_i, taps_j = problem.kernel
    return replace(window(problem), rows=taps_j, vectors=taps_i)


def _columns(problem: Problem) -> TileShape:
    """The window of tiled_depthwise: two vectors wide where the columns left over do not make that more work."""
    one = window(problem)
    wide, width = replace(one, lanes=2 * one.lanes), problem.out_space[1]
    if wide not in tiles.wide_windows(problem.dtype) or width <= one.lanes:
        return one
    return wide if _vectors(width, wide) <= _vectors(width, one) else one


def widest(problem: Problem) -> TileShape:
    """The window of separable.fill_band: two vectors wide where rows are wider than one, with one for the columns left over."""
    one = window(problem)
    wide = replace(one, lanes=2 * one.lanes)
    return wide if wide in tiles.wide_bands(problem.dtype) and problem.out_space[1] > one.lanes else one


def _vectors(width: int, tile: TileShape) -> float:
    """Registers that a line of the result takes, the last of them fewer where columns left over fit; see walk_planes."""
    whole, left = divmod(width, tile.lanes)
    parts = (0.0, 0.5, 0.75) if has_quarters(tile) else (0.0, 0.5) if tile.dtype in HALVED else (0.0,)
    part = next((part for part in parts if left <= part * tile.lanes), 1.0) if whole else 1.0
    return (whole + part) * tile.lanes / machine.lanes(tile.dtype)


def two_planes_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_two: as columns_in_lanes, in twos of channels or, of a batch, of images."""
    images = images_together(problem)
    fields = {"panel": 1 + taps(problem), "images": images}
    return over_channels(problem, _two_planes(problem), 2 if images == 1 else 1, threads, fields, images)


def images_together(problem: Problem) -> int:
    """Images that an item of tiled_depthwise_two computes, in twos; one by one channels come in twos."""
    return min(IMAGES, problem.batch) if problem.batch >= ALONE or (problem.batch > 0 and problem.batch % 2 == 0) else 1


def _two_planes(problem: Problem) -> TileShape:
    """The window of tiled_depthwise_two: half a vector of each plane, or a whole one, or a quarter, by how many columns it has.

    Quarters take 105 us for 132 of 32 images of 256 planes that stride 2 makes 4 x 4 of, of 1280 planes with 5x5 windows 23 for 32;
    with 3x3 windows of stride 1 in one image 14 for 13.
    """
    one, width = window(problem), problem.out_space[-1]
    whole, narrow = replace(one, lanes=2 * one.lanes), replace(one, lanes=one.lanes // 2)
    gains = problem.batch > 1 or one.step == 2 or taps(problem) > SMALL_WINDOW
    if narrow in tiles.two_narrow_planes(problem.dtype) and width <= narrow.lanes // 2 and gains:
        return narrow
    return whole if whole in tiles.two_whole_planes(problem.dtype) and width > one.lanes // 2 else one


def channels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_last: bands of rows, which cost nothing, and chunks of channels only where rows are few."""
    one = _along(problem)
    pair = replace(one, lanes=2 * one.lanes)
    tile = pair if pair in tiles.pairs_of_channels(problem.dtype) and problem.groups >= pair.lanes else one
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, images = rows_in_a_plane(problem), max(1, problem.batch)
    band = ceil(rows, min(rows, ceil(wanted, images)))
    bands, units = ceil(rows, band), max(1, problem.filters // one.lanes)  # the last chunk takes what is left over
    chunk = ceil(units, min(units, ceil(wanted, bands * images)))
    chunks, fields = ceil(units, chunk), {"panel": one.lanes * (1 + taps(problem))}
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk * one.lanes, 0, tile, one.lanes, None, fields)


# Vectors of channels that are copied together, one after the other in memory: with one alone each number comes from another page.
# Columns are cut until their lines fit so much of L1, beside weights and the result, or make one strip.
TOGETHER, LINES_SHARE = 4, 0.75
# Items a thread that rows are cut for, each band of which has lines copied anew that the next one sees too; where columns are
# neighbours, vectors of channels are parted before.
LEAST_ITEMS = 2


def lines_in_vectors(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_lines: chunks of a few vectors of channels, and bands of rows where these are too few."""
    (tile,) = tiles.lines_in_vectors(problem.dtype)
    (_, taps_i, taps_j), (_, _, stride), (_, apart_i, apart_j) = map(three, (problem.kernel, problem.stride, problem.dilation))
    width, reach = problem.out_space[-1], (taps_j - 1) * apart_j
    span = (taps_i - 1) * apart_i + 1
    vectors = machine.caches()["L1d"] * LINES_SHARE // (tile.lanes * np.dtype(problem.dtype).itemsize)
    room = int(vectors) // taps_i  # columns of all vectors
    units = max(1, problem.filters // tile.lanes)  # the last chunk takes what is left over
    least = LEAST_ITEMS * threads if threads > 1 else 1
    most = min(TOGETHER, units if problem.data_format == LAST else max(1, units // least))

    def columns(run: int) -> int:
        return (max(run, tile.few.rows) - 1) * stride + reach + 1

    runs = [ceil(width, n) for n in range(1, max(1, width // tile.rows) + 1)]
    run = next((run for run in runs if most * columns(run) <= room), runs[-1])
    together = max(1, min(most, room // columns(run)))
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, images, several = rows_in_a_plane(problem), max(1, problem.batch), ceil(units, together)
    chunk = together * ceil(several, min(several, ceil(wanted, images)))
    chunks = ceil(units, chunk)
    band = ceil(rows, min(rows, ceil(least, chunks * images)))
    bands, pitch = ceil(rows, band), columns(run) * tile.lanes
    ring = together * span * pitch
    fields = {
        "panel": tile.lanes * (1 + taps(problem)), "run": run, "together": together, "span": span,
        "pitch": pitch, "sums_at": ring,
    }  # fmt: skip
    items, scratch = problem.batch * bands * chunks, ring + (run + tile.lanes) * tile.lanes
    return Division(items, bands, band, chunks, chunk * tile.lanes, scratch, tile, tile.lanes, None, fields)


def pairs_of_rows(problem: Problem, threads: int) -> Division:
    """For winograd_depthwise_last: as channels_in_lanes, in bands of two rows or more."""
    tile, division = _along(problem), _of_two_rows(problem, channels_in_lanes(problem, threads))
    return replace(division, tile=tile, fields={"panel": _panel_at_points(problem)})


def _panel_at_points(problem: Problem) -> int:
    """Numbers of a vector of filters: biases and columns of taps, at each point."""
    return machine.lanes(problem.dtype) * (1 + problem.kernel[1]) * F2.count


def over_channels(
    problem: Problem, tile: TileShape, unit: int, threads: int, fields: dict[str, Any], together: int = 1
) -> Division:  # fmt: skip
    """Chunks of whole units of channels, of so many images `together`.

    Bands of rows, of volumes of planes, only where chunks are too few for the threads.
    """
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows = problem.out_space[0] if problem.dimensions == 3 else rows_in_a_plane(problem)
    units, images = ceil(problem.filters, unit), ceil(problem.batch, together)
    chunk = ceil(units, min(units, ceil(wanted, max(1, images))))
    chunks = ceil(units, chunk)
    band = ceil(rows, min(rows, ceil(wanted, chunks * max(1, images))))
    bands = ceil(rows, band)
    return Division(images * bands * chunks, bands, band, chunks, chunk * unit, 0, tile, unit, None, fields)


IMPLEMENTATIONS = (
    Implementation(
        "winograd_depthwise_last", "winograd", ("depthwise",),
        winograd_depthwise_last, pack_at_points, pairs_of_rows, "channels", pairs_refuse,
        ("channels",), tiles.pairs, F2, error=error_bound,
    ),
    Implementation(
        "tiled_depthwise_two", "tiled", ("depthwise",),
        tiled_depthwise_two, one_by_one, two_planes_in_lanes, COLUMNS, two_planes_refuse,
        ("columns",), tiles.windows_of_two_planes,
    ),
    Implementation(
        "winograd_depthwise", "winograd", ("depthwise",),
        winograd_depthwise, pack_at_points, points_across, COLUMNS, points_across_refuse,
        ("columns",), tiles.pairs, F2, error=error_bound,
    ),
    Implementation(
        "tiled_depthwise_across", "tiled", ("depthwise",),
        tiled_depthwise_across, one_by_one, steps_across, COLUMNS, across_refuses(2),
        ("columns",), tiles.windows_across,
    ),
    Implementation(
        "tiled_depthwise", "tiled", ("depthwise",),
        tiled_depthwise, one_by_one, columns_in_lanes, COLUMNS, columns_refuse,
        ("columns",), tiles.windows_of_columns,
    ),
    Implementation(
        "tiled_depthwise_volume", "tiled", ("depthwise",),
        tiled_depthwise_volume, one_by_one, planes_in_bands, COLUMNS, volumes_refuse,
        ("columns",), tiles.windows_of_volumes,
    ),
    Implementation(
        "tiled_depthwise_last", "tiled", ("depthwise",),
        tiled_depthwise_last, in_channel_lanes, channels_in_lanes, "channels", channels_refuse,
        ("channels",), tiles.windows_along_rows,
    ),
    Implementation(
        "tiled_depthwise_lines", "tiled", ("depthwise",),
        tiled_depthwise_lines, in_channel_lanes, lines_in_vectors, "channels", lines_refuse,
        tiles=tiles.lines_in_vectors,
    ),
)  # fmt: skip
