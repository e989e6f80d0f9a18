"""The CPU's implementations; of two that cost the same the first is taken.

The direct kernels read any image by its steps, and write rows: along the columns of one filter where channels come first,
along the filters of one pixel where they come last. The tiled kernels read sheets (sheets.py), or pixels in place; their tiles
are in tiles.py, how they are divided in divisions/.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastconv.cpu import (
    atrous,
    blocks,
    columns,
    depthwise,
    divisions,
    gradients,
    grouped,
    lines,
    machine,
    packing,
    pairs,
    phases,
    pointwise,
    separable,
    signals,
    standard,
    strassen,
    tiles,
    transposed,
    winograd,
    winograd_gradients,
)
from fastconv.cpu.toom import F2, F6, Nested, Scheme
from fastconv.cpu.windows import LEAST_HALF
from fastconv.plan import AnyProblem, Implementation
from fastconv.problem import Problem, SeparableProblem

FIRST, LAST = "channels_first", "channels_last"
COLUMNS, FILTERS, PIXELS = "columns of the result", "filters of the result", "pixels of the result"


def _in_order(*orders: Callable[[Any], Any]) -> Callable[..., Any]:
    """Pack each weight by an order of its own, as the direct kernels read it."""

    def pack(problem: AnyProblem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [order(weight) for order, weight in zip(orders, weights, strict=True)]

    return pack


def _in_lanes(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.lane_panels(weights[0], biases[0], unit)]


def _in_rows(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(weights[0], biases[0], unit)]


def _unless(data_format: str) -> Callable[[AnyProblem], str | None]:
    """Refuse a result in another data format."""
    return lambda problem: (
        None if problem.data_format == data_format else f"writes {data_format}, the result is {problem.data_format}"
    )


def _never(problem: AnyProblem) -> None:
    return None


def _pixels_suit(problem: Problem) -> str | None:
    return _unless(FIRST)(problem) or (_few_by_few(problem) if problem.kind == "depthwise" else None)


def _few_by_few(problem: Problem) -> str | None:
    """Of strides above 2, sheets are copied number by number, which takes longer than a direct kernel of few taps and filters."""
    few = problem.filters // problem.groups < machine.lanes(problem.dtype) // 2
    if problem.algorithm == "auto" and problem.stride[-1] > 2 and few:
        return f"copies an image of stride {problem.stride[-1]} number by number"
    return None


def _filters_suit(problem: Problem) -> str | None:
    """A depthwise layer has too few filters in a group, and comes here only if asked for."""
    few = problem.filters // problem.groups < machine.lanes(problem.dtype) // 2
    return "a channel's filters fill no vector" if problem.kind == "depthwise" and problem.algorithm == "auto" and few else None


def _in_place(problem: Problem) -> str | None:
    return f"reads neighbouring pixels, the stride is {problem.stride}" if any(s != 1 for s in problem.stride) else None


def _pixels_in_place_suit(problem: Problem) -> str | None:
    if refusal := _in_place(problem):
        return refusal
    if divisions.pointwise.pixels_tile(problem).width > problem.space[0]:
        return f"{problem.space[0]} pixels do not fill a tile"
    return _unless(FIRST)(problem)


def _in_pairs(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [strassen.combined_filters(weights[0], biases[0], unit)]


def _pairs_suit(problem: Problem) -> str | None:
    return _in_place(problem) or _pairs_of(problem)


def _pairs_of(problem: Problem) -> str | None:
    if problem.channels % 2 or problem.filters % 2:
        return f"halves channels and filters, here are {problem.channels} and {problem.filters}"
    if problem.filters // 2 < machine.lanes(problem.dtype):
        return f"half of {problem.filters} filters fill no vector"
    if problem.out_space[-1] < (least := divisions.strassen.least_pixels(problem.dtype)):
        return f"halves strips of {least} pixels, here are {problem.out_space[-1]}"
    return _unless(FIRST)(problem)


def _patches_suit(problem: Problem) -> str | None:
    if problem.dimensions == 3 or problem.groups > 1 or any(map(any, problem.pads)):
        return "computes planes and signals of one group without padding"
    if any(k > s for k, s in zip(problem.kernel, problem.stride, strict=True)) or any(d != 1 for d in problem.dilation):
        return f"computes windows that do not overlap, these are {problem.kernel} with stride {problem.stride}"
    return _pairs_of(divisions.strassen.as_channels(problem))


def _patches_in_pairs(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return _in_pairs(problem, unit, [weights[0].reshape(*weights[0].shape[:2], -1, 1)], biases)


def _separable_pairs_suit(problem: SeparableProblem) -> str | None:
    alone = divisions.separable.pixels_alone(problem)
    return _pairs_of(alone) or divisions.separable.unpaired(problem)


def _transformed(scheme: Nested) -> Callable[..., Any]:
    def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [winograd.transformed_filters(weights[0], biases[0], unit, machine.lanes(problem.dtype), scheme)]

    return pack


def _winograd_fresh_suits(scheme: Nested) -> Callable[[Problem], str | None]:
    return lambda problem: _winograd_suits(scheme)(problem) or ("computes planes" if problem.dimensions == 3 else None)


def _winograd_error(scheme: Nested) -> Callable[[Problem], float]:
    def error(problem: Problem) -> float:
        summed = problem.channels // problem.groups * math.prod(problem.kernel[:-2])
        return winograd.error_bound(scheme, summed, problem.dtype)

    return error


def _columns_error(scheme: Scheme) -> Callable[[Problem], float]:
    return lambda problem: columns.error_bound(problem, scheme)


def _winograd_suits(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.kernel[-2:] != scheme.window or problem.stride[-2:] != (scheme.stride, scheme.stride):
            rows, columns = scheme.window
            return f"computes {rows}x{columns} windows of stride {scheme.stride} in a plane"
        if scheme.transposed and (problem.dimensions != 2 or problem.dilation != (1, 1)):
            return "computes planes without dilation"
        if min(min(pad) for pad in problem.pads) < 0:
            return "reads the whole image, this one is cropped"
        return None

    return refuse


def _transformed_columns(scheme: Scheme) -> Callable[..., Any]:
    def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [columns.transformed_columns(weights[0], biases[0], unit, problem.stride[0], scheme)]

    return pack


def _columns_suit(scheme: Scheme) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.dilation[0] != 1 or -(-problem.kernel[0] // problem.stride[0]) != scheme.taps:
            return f"computes planes whose windows have {scheme.taps} rows, a stride apart"
        if scheme is F6 and problem.algorithm == "auto" and problem.filters <= problem.channels:
            return "transforms an image of many channels for few filters: of 64 to 3, F(4, 3) is 1.1 times as fast"
        return _unless(FIRST)(problem)

    return refuse


def _phases_suit(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.kernel != (3, 3) or problem.stride != (1, 1):
            return "computes 3x3 windows of stride 1 in planes"
        if any(pads != (apart, apart) for pads, apart in zip(problem.pads, problem.dilation, strict=True)):
            return f"has zeros of {problem.dilation} pixels on all sides, here are {problem.pads}"
        for size, apart, one in zip(problem.space, problem.dilation, (scheme.down, scheme.across), strict=True):
            if not (one.outputs - 1) * apart < size <= one.outputs * apart:
                return f"has phases of {one.outputs} pixels and one fewer, here are {size} of rate {apart}"
        return None

    return refuse


def _phases_error(scheme: Nested) -> Callable[[Problem], float]:
    return lambda problem: phases.error_bound(scheme, problem.channels // problem.groups, problem.dtype)


def _signal_suits(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 1 or problem.kernel != (scheme.across.taps,) or problem.stride != (scheme.across.stride,):
            return f"computes signals with windows of {scheme.across.taps}, {scheme.across.stride} apart"
        return "reads the whole signal, this one is cropped" if min(problem.pads[0]) < 0 else None

    return refuse


def _signal_error(scheme: Nested) -> Callable[[Problem], float]:
    return lambda problem: signals.error_bound(scheme, problem.channels // problem.groups, problem.dtype)


def _transformed_groups(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [grouped.transformed_groups(weights[0], unit, machine.lanes(problem.dtype))]


def _groups_suit(data_format: str) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.dilation != (1, 1):
            return "computes planes without dilation"
        if problem.algorithm == "auto" and problem.groups < machine.lanes(problem.dtype) // 2:
            return f"has a group in each lane, here are {problem.groups}"
        return _unless(data_format)(problem) or _winograd_suits(grouped.SCHEME)(problem)

    return refuse


def _columns_slide(problem: Problem) -> str | None:
    return _unless(FIRST)(problem) or divisions.depthwise.slides(problem)


def _half_columns_slide(problem: Problem) -> str | None:
    half = machine.lanes(problem.dtype) // 2
    if half < LEAST_HALF or problem.out_space[-1] > half:
        return f"computes planes of at most {half} columns, these have {problem.out_space[-1]}"
    if any(d != 1 for d in problem.dilation):
        return f"computes no dilation, this is {problem.dilation}"
    return _columns_slide(problem)


def _channels_at_points(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [pairs.channels_at_points(weights[0], biases[0], unit)]


def _channels_in_pairs(problem: Problem) -> str | None:
    if problem.kernel != (3, 3) or problem.stride != (1, 1) or problem.dilation != (1, 1):
        return "computes 3x3 windows of stride 1 without dilation"
    if problem.groups < machine.lanes(problem.dtype):
        return f"{problem.groups} channels fill no vector"
    if problem.algorithm == "auto" and machine.registers() < tiles.PAIRS_REGISTERS:
        return f"holds 24 weights and sums in registers, of which this target has {machine.registers()}"
    if problem.algorithm == "auto" and not machine.adds_beside():
        return "adds more than it saves products, and this target does both in the same pipes"
    return _channels_slide(problem)


def _channels_slide(problem: Problem) -> str | None:
    if problem.filters != problem.groups:
        return f"computes one filter a channel, here are {problem.filters // problem.groups}"
    if problem.kernel not in tiles.WALKED_ALONG:
        return f"computes windows of {' or '.join(f'{a}x{b}' for a, b in tiles.WALKED_ALONG)}, this is {problem.kernel}"
    return _unless(LAST)(problem) or divisions.depthwise.slides(problem)


def _lines_suit(problem: Problem) -> str | None:
    if problem.dimensions == 3 or (problem.stride[-1] > 1 and problem.dilation[-1] > 1):
        return "computes planes and signals, of strides or of dilations across"
    multiplier, half = problem.filters // problem.groups, machine.lanes(problem.dtype) // 2
    if problem.data_format == LAST:
        return None if multiplier < half else f"copies a number for each filter of its channel, here are {multiplier}"
    if multiplier > 1 or problem.filters < half:
        return f"turns an image for one filter a channel, of {half} at least, here are {problem.filters} for {problem.groups}"
    if problem.dimensions == 1 and problem.kernel[-1] < tiles.LEAST_TURNED:
        return f"turns an image, which costs more than it gains of {problem.kernel[-1]} taps"
    return None


def _windows_gathered(data_format: str) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.groups != problem.channels:
            return "computes depthwise layers"
        if data_format == LAST and problem.filters != problem.groups:
            return f"computes one filter a channel, here are {problem.filters // problem.groups}"
        return _unless(data_format)(problem) or divisions.depthwise.slides(problem)

    return refuse


def _dots_suit(problem: Problem) -> str | None:
    filters, numbers = problem.filters // problem.groups, problem.channels // problem.groups * math.prod(problem.kernel)
    tile = min(tiles.dots(problem.dtype), key=lambda tile: tile.vectors)
    if filters < tile.vectors:
        return f"has a vector for each of {tile.vectors} filters, here are {filters} in a group"
    if numbers * tile.width > divisions.shares.scratch_numbers(problem.dtype) // 2:
        return f"keeps all sums of {tile.vectors} filters in L2, here are {numbers} numbers in a filter"
    return _unless(FIRST)(problem)


def _winograd_of_weights(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        window, stride = (scheme.down.outputs, scheme.across.outputs), scheme.down.stride
        if problem.kernel != window or set(problem.stride) != {stride} or set(problem.dilation) != {1}:
            return f"computes windows of {window} of stride {stride} in planes, without dilation"
        if min(min(pad) for pad in problem.pads) < 0:
            return "reads the whole image, this one is cropped"
        return None

    return refuse


def _error_of_weights(scheme: Nested) -> Callable[[Problem], float]:
    def error(problem: Problem) -> float:
        images, tiles_of = max(1, problem.batch), (scheme.down.taps, scheme.across.taps)
        summed = images * math.prod(-(-size // taps) for size, taps in zip(problem.out_space, tiles_of, strict=True))
        return winograd_gradients.error_bound(scheme, summed, images * math.prod(problem.out_space), problem.dtype)

    return error


def _in_channel_lanes(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.channel_panels(weights[0], biases[0], unit)]


def _columns_spread(problem: Problem) -> str | None:
    filters = problem.filters // problem.groups
    if problem.dimensions == 3 or problem.stride[-1] != 2 or problem.kernel[-1] not in tiles.SPREADS:
        return f"computes windows of {', '.join(map(str, tiles.SPREADS))} columns two apart, of planes and signals"
    if any(d != 1 for d in problem.dilation):
        return f"computes no dilation, this is {problem.dilation}"
    if filters * 2 > machine.lanes(problem.dtype):
        return f"is for few filters in a group, here are {filters}"
    return _unless(FIRST)(problem)


def _columns_spread_by_two(problem: Problem) -> str | None:
    if problem.groups != problem.channels or problem.dimensions != 2:
        return "computes depthwise layers of planes"
    return _spread_by_two(problem) or _columns_spread(problem)


def _spread_by_two(problem: Problem) -> str | None:
    taps, strides = problem.kernel[-1], set(problem.stride)
    if strides != {2} or set(problem.kernel) != {taps} or taps not in tiles.SPREADS:
        return f"computes windows of {', '.join(map(str, tiles.SPREADS))} rows and columns, two apart"
    return None


def _channels_spread(problem: Problem) -> str | None:
    if problem.groups != problem.channels or problem.dimensions == 3 or any(d != 1 for d in problem.dilation):
        return "computes depthwise layers of planes and signals, without dilation"
    if problem.filters != problem.groups:
        return f"computes one filter a channel, here are {problem.filters // problem.groups}"
    return _unless(LAST)(problem)


def _channels_spread_by_two(problem: Problem) -> str | None:
    return _spread_by_two(problem) or _channels_spread(problem)


def _both(outer: Callable[..., Any]) -> Callable[..., Any]:
    """Pack a separable layer's weights: the windows' as their kernels read them, the outer ones by another function."""

    def pack(problem: SeparableProblem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        first, last = problem.depthwise, problem.data_format == LAST
        if last and divisions.depthwise.slides(first) is None and first.filters == first.groups:
            inner = packing.channel_panels(weights[0], biases[0], machine.lanes(problem.dtype))
        elif not last and divisions.depthwise.slides(first) is None:
            inner = packing.row_panels(weights[0], biases[0], 1)
        else:
            inner = (packing.taps_first if last else packing.contiguous)(weights[0])
        alone = weights[1].reshape(*weights[1].shape[:3], 1)
        return [inner, *outer(problem, unit, [alone], biases[1:])]

    return pack


def _outer_lanes(problem: Any, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.lane_panels(weights[0], biases[0], unit)]


def _outer_rows(problem: Any, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(weights[0], biases[0], unit)]


def _blocks_suit(problem: Problem) -> str | None:
    if problem.dimensions == 3 or any(d != 1 for d in problem.dilation):
        return "computes planes and signals without dilation"
    if problem.data_format == LAST and problem.groups > 1:
        return f"puts all filters of a pixel together, here are {problem.groups} groups"
    least = min(tile.short.rows for tile in tiles.blocks_in_lanes(problem.dtype))
    if problem.in_blocks().out_space[-1] < least:
        return f"sums {least} blocks of {problem.stride[-1]} columns at once, the result has {problem.out_space[-1]} columns"
    return None


def _in_blocks(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    outer = problem.dimensions if problem.data_format == LAST else 0
    return [packing.lane_panels(*packing.in_blocks(weights[0], biases[0], problem.stride, outer), unit)]


def _pixel_blocks_suit(problem: Problem) -> str | None:
    if problem.dimensions != 2 or any(d != 1 for d in problem.dilation):
        return "computes planes without dilation"
    return _unless(FIRST)(problem)


def _in_block_rows(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(*packing.in_blocks(weights[0], biases[0], problem.stride, 0), unit)]


def _weaves(problem: Problem) -> str | None:
    """Blocks of two columns that each see one pixel."""
    if problem.groups > 1 or problem.kernel != problem.stride or any(map(any, problem.pads)) or any(problem.output_padding):
        return "computes blocks that see one pixel each, whole ones, of one group"
    if problem.stride[-1] != 2:
        return f"weaves two phases of columns, here are {problem.stride[-1]}"
    if any(d != 1 for d in problem.dilation):
        return "computes layers without dilation"
    return _unless(FIRST)(problem)


def _pairs_weave(problem: Problem) -> str | None:
    conv = problem.in_blocks().flat()
    if conv.filters % 4:
        return f"weaves phases in pairs of filters, here are {problem.filters}"
    return _weaves(problem) or _pairs_of(conv)


def _woven(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    weight, bias = packing.in_blocks(weights[0], biases[0], problem.stride, problem.dimensions - 1)
    return _in_lanes(problem, unit, [weight], [bias])


def _woven_in_pairs(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    weight, bias = packing.in_blocks(weights[0], biases[0], problem.stride, problem.dimensions - 1)
    return _in_pairs(problem, unit, [weight], [bias])


def _in_spreads(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.spread_panels(weights[0], biases[0], unit)]


def _in_spreads_of_channels(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    stride = problem.stride[0] if problem.dimensions == 2 else 1
    return [packing.spread_channel_panels(weights[0], biases[0], unit, stride)]


def _one_by_one(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(weights[0], biases[0], 1)]


def _direct(kind: str, data_format: str, kernel: Any, divide: Callable[[Any, int], Any], *orders: Any) -> Implementation:
    """A last resort, and what `algorithm="direct"` takes; without orders it reads weights as they come."""
    name, vectorised = (f"direct_{kind}", COLUMNS) if data_format == FIRST else (f"direct_{kind}_last", FILTERS)
    pack, refuse = _in_order(*orders) if orders else None, _unless(data_format)
    return Implementation(name, "direct", (kind,), kernel, pack, divide, vectorised, refuse, cycles=lambda problem: math.inf)


SHEETS = ("columns", "channels")
DENSE = ("standard", "atrous", "pointwise")
IMPLEMENTATIONS = (
    *(
        Implementation(
            f"winograd_columns_{scheme.outputs}_{scheme.taps}", "winograd", ("standard",),
            columns.winograd_columns, _transformed_columns(scheme), divisions.columns.divide(scheme), PIXELS, _columns_suit(scheme),
            SHEETS, tiles.one_vector, scheme, divisions.columns.cycles(scheme), _columns_error(scheme),
            divisions.columns.packing(scheme),
        )
        for scheme in columns.SCHEMES
    ),
    *(
        Implementation(
            name, "winograd", ("transposed",) if scheme.transposed else ("standard", "atrous"),
            winograd.winograd, _transformed(scheme), divisions.winograd.divide(scheme), FILTERS, _winograd_suits(scheme), SHEETS,
            tiles.one_vector, scheme, divisions.winograd.cycles(scheme), _winograd_error(scheme),
            divisions.winograd.packing(scheme),
        )
        for name, scheme in winograd.SCHEMES.items()
    ),
    *(
        Implementation(
            f"{name}_fresh", "winograd", ("standard", "atrous"),
            winograd.winograd, None, divisions.winograd.divide(winograd.SCHEMES[name], True), FILTERS,
            _winograd_fresh_suits(winograd.SCHEMES[name]), SHEETS, tiles.one_vector, winograd.SCHEMES[name],
            divisions.winograd.cycles(winograd.SCHEMES[name], True), _winograd_error(winograd.SCHEMES[name]),
        )
        for name in winograd.FRESH
    ),
    *(
        Implementation(
            name, "winograd", ("atrous",),
            phases.winograd_phases, _transformed(scheme), divisions.phases.divide(scheme), FILTERS, _phases_suit(scheme), SHEETS,
            tiles.one_vector, scheme, divisions.phases.cycles(scheme), _phases_error(scheme), divisions.winograd.packing(scheme),
        )
        for name, scheme in phases.SCHEMES.items()
    ),
    *(
        Implementation(
            name, "winograd", ("standard", "atrous"),
            signals.winograd_signal, _transformed(scheme), divisions.signals.divide(scheme), FILTERS, _signal_suits(scheme), SHEETS,
            tiles.one_vector, scheme, divisions.signals.cycles(scheme), _signal_error(scheme), divisions.winograd.packing(scheme),
        )
        for name, scheme in signals.SCHEMES.items()
    ),
    *(
        Implementation(
            name, "winograd", ("standard",),
            grouped.winograd_groups, _transformed_groups, divisions.grouped.divide, "groups", _groups_suit(data_format),
            reads, tiles.one_vector, grouped.SCHEME, divisions.grouped.cycles, _winograd_error(grouped.SCHEME),
            divisions.grouped.packing,
        )
        for name, data_format, reads in (
            ("winograd_groups", FIRST, ("columns",)), ("winograd_groups_last", LAST, ("channels",)),
        )
    ),
    Implementation(
        "strassen_pointwise", "winograd", ("pointwise",),
        strassen.strassen_pointwise, _in_pairs, divisions.strassen.divide, FILTERS, _pairs_suit,
        ("columns",), tiles.one_vector, cycles=divisions.strassen.cycles, error=strassen.error_bound,
        packing=divisions.strassen.packing,
    ),
    Implementation(
        "strassen_patches", "winograd", ("standard", "pointwise"),
        strassen.strassen_patches, _patches_in_pairs, divisions.strassen.patches, FILTERS, _patches_suit,
        SHEETS, tiles.one_vector, cycles=divisions.strassen.patches_cycles,
        error=lambda problem: strassen.error_bound(divisions.strassen.as_channels(problem)), packing=divisions.strassen.packing,
    ),
    Implementation(
        "tiled_pointwise_pixels", "tiled", ("pointwise",),
        pointwise.tiled_pointwise_pixels, _in_rows, divisions.pointwise.pixels_in_lanes, PIXELS, _pixels_in_place_suit,
        ("columns",), tiles.pixels_in_lanes, cycles=divisions.pointwise.pixels_cycles, packing=divisions.costs.panels_packing,
    ),
    Implementation(
        "tiled_pointwise", "tiled", ("pointwise",),
        pointwise.tiled_pointwise, _in_lanes, divisions.pointwise.filters_in_lanes, FILTERS, _in_place,
        tiles=tiles.filters_in_lanes, cycles=divisions.standard.filters_cycles, packing=divisions.costs.panels_packing,
    ),
    Implementation(
        "winograd_depthwise_last", "winograd", ("depthwise",),
        pairs.winograd_depthwise_last, _channels_at_points, divisions.depthwise.pairs_of_rows, "channels", _channels_in_pairs,
        ("channels",), tiles.pairs, F2, error=pairs.error_bound,
    ),
    Implementation(
        "tiled_depthwise_two", "tiled", ("depthwise",),
        depthwise.tiled_depthwise_two, _one_by_one, divisions.depthwise.two_planes_in_lanes, COLUMNS, _half_columns_slide,
        ("columns",), tiles.windows,
    ),
    Implementation(
        "tiled_depthwise", "tiled", ("depthwise",),
        depthwise.tiled_depthwise, _one_by_one, divisions.depthwise.columns_in_lanes, COLUMNS, _columns_slide,
        ("columns",), tiles.windows,
    ),
    Implementation(
        "tiled_depthwise_last", "tiled", ("depthwise",),
        depthwise.tiled_depthwise_last, _in_channel_lanes, divisions.depthwise.channels_in_lanes, "channels", _channels_slide,
        ("channels",), tiles.windows_of_channels,
    ),
    Implementation(
        "tiled_depthwise_lines", "tiled", ("depthwise",),
        lines.tiled_depthwise_lines, _in_channel_lanes, divisions.depthwise.lines_in_vectors, "channels", _lines_suit,
        tiles=tiles.lines_in_vectors,
    ),
    Implementation(
        "tiled_standard_pixels", "tiled", (*DENSE, "depthwise"),
        standard.tiled_standard_pixels, _in_rows, divisions.standard.pixels_in_lanes, PIXELS, _pixels_suit,
        SHEETS, tiles.pixels_in_lanes, cycles=divisions.standard.pixels_cycles, packing=divisions.costs.panels_packing,
    ),
    Implementation(
        "tiled_standard", "tiled", (*DENSE, "depthwise"),
        standard.tiled_standard, _in_lanes, divisions.standard.filters_in_lanes, FILTERS, _filters_suit,
        SHEETS, tiles.grouped_filters_in_lanes, cycles=divisions.standard.filters_cycles, packing=divisions.costs.panels_packing,
    ),
    Implementation(
        "strassen_separable", "winograd", ("separable",),
        separable.strassen_separable, _both(_in_pairs), divisions.separable.pairs_in_rows, FILTERS,
        _separable_pairs_suit, ("columns",), tiles.one_vector,
        cycles=divisions.separable.pairs_cycles,
        error=lambda problem: strassen.error_bound(problem.pointwise),
    ),
    Implementation(
        "tiled_separable_pixels", "tiled", ("separable",),
        separable.tiled_separable_pixels, _both(_outer_rows), divisions.separable.pixels_in_lanes, PIXELS, _unless(FIRST),
        ("columns",), tiles.separable_pixels, cycles=divisions.separable.pixels_cycles,
    ),
    Implementation(
        "tiled_separable", "tiled", ("separable",),
        separable.tiled_separable, _both(_outer_lanes), divisions.separable.filters_in_lanes, FILTERS, _unless(FIRST),
        ("columns",), tiles.separable_filters, cycles=divisions.separable.filters_cycles,
    ),
    Implementation(
        "tiled_separable_last", "tiled", ("separable",),
        separable.tiled_separable_last, _both(_outer_lanes), divisions.separable.filters_in_lanes, FILTERS, _unless(LAST),
        ("channels",), tiles.separable_filters,
    ),
    _direct("pointwise", FIRST, pointwise.direct_pointwise, divisions.direct.by_filter),
    _direct("pointwise", LAST, pointwise.direct_pointwise_last, divisions.direct.by_image, packing.filters_last),
    _direct("depthwise", FIRST, depthwise.direct_depthwise, divisions.direct.by_filter),
    _direct("depthwise", LAST, depthwise.direct_depthwise_last, divisions.direct.by_image, packing.taps_first),
    _direct("separable", FIRST, separable.direct_separable, divisions.direct.by_scratch),
    _direct("separable", LAST, separable.direct_separable_last, divisions.direct.by_row, packing.taps_first, packing.filters_last),
    _direct("atrous", FIRST, atrous.direct_atrous, divisions.direct.by_filter),
    _direct("atrous", LAST, atrous.direct_atrous_last, divisions.direct.by_group, packing.filters_last),
    _direct("standard", FIRST, standard.direct_standard, divisions.direct.by_filter),
    _direct("standard", LAST, standard.direct_standard_last, divisions.direct.by_group, packing.filters_last),
    Implementation(
        "tiled_depthwise_spread", "tiled", ("transposed",),
        transposed.tiled_depthwise_spread, _one_by_one, divisions.transposed.columns_in_lanes, COLUMNS, _columns_spread_by_two,
        ("columns",), tiles.square_spreads,
    ),
    Implementation(
        "tiled_transposed_pixels", "tiled", ("transposed",),
        transposed.tiled_transposed_pixels, _in_spreads, divisions.transposed.pixels_in_lanes, PIXELS,
        _columns_spread, ("columns",), tiles.spreads,
    ),
    Implementation(
        "tiled_depthwise_spread_last", "tiled", ("transposed",),
        transposed.tiled_depthwise_spread_last, _in_spreads_of_channels, divisions.transposed.spread_channels_in_lanes, "channels",
        _channels_spread_by_two, ("channels",), tiles.spreads_of_channels,
    ),
    Implementation(
        "tiled_depthwise_transposed_last", "tiled", ("transposed",),
        transposed.tiled_depthwise_transposed_last, _in_channel_lanes, divisions.transposed.channels_in_lanes,
        "channels", _channels_spread, ("channels",), tiles.one_vector,
    ),
    Implementation(
        "strassen_transposed", "winograd", ("transposed",),
        strassen.strassen_pointwise, _woven_in_pairs, divisions.blocks.woven_pairs, FILTERS, _pairs_weave, ("columns",),
        tiles.one_vector, cycles=divisions.blocks.woven_pairs_cycles, error=strassen.error_bound,
        packing=divisions.blocks.pairs_packing,
    ),
    Implementation(
        "tiled_transposed_woven", "tiled", ("transposed",),
        pointwise.tiled_pointwise, _woven, divisions.blocks.woven, FILTERS, _weaves, ("columns",),
        tiles.filters_in_lanes, cycles=divisions.blocks.woven_cycles, packing=divisions.blocks.packing,
    ),
    Implementation(
        "tiled_transposed_blocks", "tiled", ("transposed",),
        blocks.tiled_transposed_blocks, _in_blocks, divisions.blocks.filters_in_lanes, "pixels of a block", _blocks_suit, SHEETS,
        tiles.blocks_in_lanes, cycles=divisions.blocks.filters_cycles, packing=divisions.blocks.packing,
    ),
    Implementation(
        "tiled_transposed_blocks_pixels", "tiled", ("transposed",),
        blocks.tiled_transposed_blocks_pixels, _in_block_rows, divisions.blocks.pixels_in_lanes, "blocks of pixels",
        _pixel_blocks_suit, SHEETS, tiles.pixels_of_blocks, cycles=divisions.blocks.pixels_cycles, packing=divisions.blocks.packing,
    ),
    Implementation(
        "tiled_transposed", "tiled", ("transposed",),
        transposed.tiled_transposed, _in_lanes, divisions.transposed.filters_in_lanes, FILTERS, _never, SHEETS,
        tiles.phases_in_lanes, cycles=divisions.transposed.cycles, packing=divisions.costs.panels_packing,
    ),
    _direct("transposed", FIRST, transposed.direct_transposed, divisions.direct.by_filter),
    _direct("transposed", LAST, transposed.direct_transposed_last, divisions.direct.by_group, packing.filters_last),
    *(
        Implementation(
            name, "winograd", ("weights",),
            winograd_gradients.winograd_weight_gradient, None, divisions.winograd_gradients.divide(scheme), FILTERS,
            _winograd_of_weights(scheme), SHEETS, tiles.weight_products_ahead, scheme,
            divisions.winograd_gradients.cycles(scheme), _error_of_weights(scheme),
        )
        for name, scheme in winograd_gradients.SCHEMES.items()
    ),
    Implementation(
        "tiled_depthwise_weight_gradient", "tiled", ("weights",),
        gradients.tiled_depthwise_weight_gradient, None, divisions.gradients.window_sums, "columns of the gradient",
        _windows_gathered(FIRST), ("columns",), divisions.gradients.tiles_of_windows,
    ),
    Implementation(
        "tiled_depthwise_weight_gradient_last", "tiled", ("weights",),
        gradients.tiled_depthwise_weight_gradient_last, None, divisions.gradients.window_sums_last, "channels",
        _windows_gathered(LAST), ("channels",), divisions.gradients.tiles_of_windows_last,
    ),
    Implementation(
        "tiled_weight_gradient_pixels", "tiled", ("weights",),
        gradients.tiled_weight_gradient_pixels, None, divisions.gradients.dot_sums, PIXELS, _dots_suit, ("columns",), tiles.dots,
        cycles=divisions.gradients.dots_cycles,
    ),
    Implementation(
        "tiled_weight_gradient", "tiled", ("weights",),
        gradients.tiled_weight_gradient, None, divisions.gradients.weight_sums, FILTERS, _never, SHEETS, tiles.numbers_in_rows,
        cycles=divisions.gradients.weight_cycles,
    ),
    Implementation(
        "direct_weight_gradient", "direct", ("weights",),
        gradients.direct_weight_gradient, None, divisions.direct.by_weight, "columns of the gradient", _never,
        cycles=lambda problem: math.inf,
    ),
)  # fmt: skip
