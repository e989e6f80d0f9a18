"""Layouts: weights in the order in which a kernel reads them, images where a kernel can read them, results aligned.

Everything here copies; convolutions never do. Weights are packed once a layer. An image is copied only when it must be: when its
numbers are not native or not aligned, or when its border is to show more of it (`padding_mode`), which np.pad does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastconv.cpu.atomics import load
from fastconv.cpu.compiled import compiled, quick
from fastconv.cpu.simd import TileShape, pointer

Array = np.ndarray[Any, Any]
BLOCK = 16  # channels whose rows stay in L1 while all taps of tiled_standard pass over them: 16 x 3 rows x 2 lines are 6 KB
ALIGNMENT = 64  # bytes: a cache line, and the widest vector; worth 15 % on depthwise layers
NUMBERS_AT = object.__basicsize__  # bytes from the beginning of an array object to the address of its numbers: NumPy's C API
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


class Room:
    """Makes C-contiguous arrays of one shape and dtype that begin on a cache line."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._size = math.prod(shape) * dtype.itemsize + ALIGNMENT
        self._numbers_of = quick(_numbers_of, types.int64)

    def __call__(self) -> Array:
        room = np.empty(self._size, np.uint8)
        return np.ndarray(self.shape, self.dtype, room, -self._numbers_of(id(room)) % ALIGNMENT)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A C-contiguous array that begins on a cache line."""
    return Room(shape, np.dtype(dtype))()


def address_of(array: Array) -> int:
    """Where an array's numbers lie: 0.2 us, where `array.ctypes.data` takes 1 us."""
    return _numbers_of(id(array))  # type: ignore[no-any-return]


@compiled
def _numbers_of(array):
    return load(array + NUMBERS_AT)


def aligned_copy(array: Array) -> Array:
    """The array as native numbers, C-contiguous, on a cache line."""
    copy = aligned_empty(array.shape, array.dtype.newbyteorder("="))
    copy[...] = array
    return copy


def readable(array: Array) -> Array:
    """The array, or a copy of it if its numbers are byte-swapped, misaligned, or a fraction of a number apart."""
    whole_steps = all(step % array.itemsize == 0 for step in array.strides)
    return array if array.dtype.isnative and array.flags.aligned and whole_steps else aligned_copy(array)


def contiguous(array: Array) -> Array:
    """The array, or a copy if it is not native, aligned and C-contiguous."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned and array.dtype.isnative else aligned_copy(array)


def bordered(x: Array, pads: tuple[tuple[int, int], ...], mode: str, data_format: str) -> Array:
    """The image with its border drawn in."""
    widths = [(0, 0), *pads, (0, 0)] if data_format == "channels_last" else [(0, 0), (0, 0), *pads]
    return np.pad(x, widths, mode=PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]


# Weights: (filters, channels / groups, *kernel), or (channels, filters / groups, *kernel) of a transposed convolution -----


def as_they_come(weight: Array, groups: int) -> Array:
    """No change of order."""
    return contiguous(weight)


def filters_last(weight: Array, groups: int) -> Array:
    """[group][tap][channel][filter]."""
    filters, channels, *kernel = weight.shape
    w = weight.reshape(groups, filters // groups, channels, math.prod(kernel))
    return aligned_copy(w.transpose(0, 3, 2, 1))


def transposed_filters_last(weight: Array, groups: int) -> Array:
    """[group][tap][channel][filter], from the weight of a transposed convolution."""
    channels, filters, *kernel = weight.shape
    w = weight.reshape(groups, channels // groups, filters, math.prod(kernel))
    return aligned_copy(w.transpose(0, 3, 1, 2))


def exchanged(weight: Array, groups: int) -> Array:
    """(filters, channels / groups, *kernel), from the weight of a transposed convolution."""
    channels, filters, *kernel = weight.shape
    by_group = weight.reshape(groups, channels // groups, filters, *kernel).swapaxes(1, 2)
    return by_group.reshape(groups * filters, channels // groups, *kernel)


def mirrored(weight: Array, groups: int) -> Array:
    """The weight of the convolution that computes a transposed one of stride 1."""
    return np.flip(exchanged(weight, groups), axis=tuple(range(2, weight.ndim)))


def taps_first(weight: Array, groups: int) -> Array:
    """[tap][filter], from the weight of a depthwise convolution."""
    return aligned_copy(weight.reshape(weight.shape[0], -1).T)


# For tiled kernels: panels of as many filters as a tile has, each with its bias in front, filled up with zeros -----------


def lane_panels(weight: Array, bias: Array | None, groups: int, width: int, lanes: int) -> Array:
    """[group][panel][bias, then block of BLOCK channels, tap, channel][filter]: filters in lanes."""
    filters, channels, taps = weight.shape[0] // groups, weight.shape[1], math.prod(weight.shape[2:])
    out = panels(weight, bias, groups, width, 1 + channels * taps)
    square = TileShape(lanes, 1, lanes, 1, out.dtype.name)
    room = aligned_empty((lanes * lanes,), out.dtype)
    pack_lanes(square, flat(weight), room, flat(out), out.shape[1], width, (groups, filters, channels, taps))
    return out


def row_panels(weight: Array, bias: Array | None, groups: int, rows: int) -> Array:
    """[group][panel][bias, then channel, tap][filter]: filters in rows."""
    filters, depth = weight.shape[0] // groups, math.prod(weight.shape[1:])
    out = panels(weight, bias, groups, rows, 1 + depth)
    pack_rows(flat(weight), flat(out), out.shape[1], rows, (groups, filters, depth))
    return out


def spread_panels(weight: Array, bias: Array | None, groups: int, rows: int) -> Array:
    """[group][panel][bias, then channel, row of taps][filter][tap of the row]."""
    filters, channels, *kernel = weight.shape
    taps_b, per_group = kernel[-1], filters // groups
    out = panels(weight, bias, groups, rows, 1 + channels * math.prod(kernel))
    padded = np.zeros((groups, out.shape[1] * rows, channels * math.prod(kernel) // taps_b, taps_b), out.dtype)
    padded[:, :per_group] = weight.reshape(groups, per_group, -1, taps_b)
    by_row = padded.reshape(groups, out.shape[1], rows, -1, taps_b).swapaxes(2, 3)
    out[:, :, 1:] = by_row.reshape(groups, out.shape[1], -1, rows)
    return out


def channel_panels(weight: Array, bias: Array | None, width: int) -> Array:
    """[panel][bias, then tap, columns of taps first][filter] of a depthwise weight; the last panel overlaps its neighbour."""
    filters, _, *kernel = weight.shape
    numbers = weight.reshape(filters, -1, kernel[-1]).swapaxes(1, 2).reshape(filters, -1)
    start = np.zeros(filters) if bias is None or bias.ndim > 1 else bias
    rows = np.concatenate([start[:, None], numbers], axis=1).T
    panels = -(-filters // width)
    out = aligned_empty((panels, *rows.shape[:1], width), weight.dtype.newbyteorder("="))
    out[...] = 0
    for panel in range(panels):
        first = max(0, min(panel * width, filters - width))
        out[panel, :, : filters - first] = rows[:, first : first + width]
    return out


def panels(weight: Array, bias: Array | None, groups: int, size: int, depth: int) -> Array:
    """Room for [group][panel][depth][filter], with a bias per channel in front; any other is added late."""
    filters = weight.shape[0] // groups
    count = -(-filters // size)
    out = aligned_empty((groups, count, depth, size), weight.dtype.newbyteorder("="))
    out[:, :, 0] = 0
    if filters % size:
        out[:, -1] = 0
    if bias is not None and bias.ndim == 1:
        starts = np.zeros((groups, count * size), out.dtype)
        starts[:, :filters] = bias.reshape(groups, filters)
        out[:, :, 0] = starts.reshape(groups, count, size)
    return out


def flat(array: Array) -> Array:
    """All numbers in a row, for compiled code."""
    return contiguous(array).reshape(-1)


@compiled
def pack_lanes(square, weight, room, out, panels, width, sizes):
    """lane_panels, after the biases: squares of filters by numbers of a filter, transposed through `room`."""
    (groups, filters, channels, taps), lanes = sizes, square.lanes
    depth, source, turned = channels * taps, pointer(weight), pointer(room)
    for g in range(groups):
        for f in range(0, filters, lanes):
            panel = pointer(out) + ((g * panels + f // width) * (1 + depth) + 1) * width + f % width
            for q in range(0, depth, lanes):
                rows = source + ((g * filters + f) * depth + q)
                if filters - f >= lanes and depth - q >= lanes:
                    square.load_tile(rows, depth).transpose().store(turned, lanes)
                else:
                    square.load_tile(rows, depth, filters - f, depth - q).transpose().store(turned, lanes)
                for k in range(min(lanes, depth - q)):
                    c, tap = (q + k) // taps, (q + k) % taps
                    first = c // BLOCK * BLOCK
                    place = first * taps + tap * min(BLOCK, channels - first) + c - first
                    square.load(turned + k * lanes).store(panel + place * width)


@compiled
def pack_rows(weight, out, panels, rows, sizes):
    """row_panels, after the biases."""
    groups, filters, depth = sizes
    source = pointer(weight)
    for g in range(groups):
        for f in range(filters):
            panel, w = (
                pointer(out) + ((g * panels + f // rows) * (1 + depth) + 1) * rows + f % rows,
                source + (g * filters + f) * depth,
            )
            for q in range(depth):
                panel[q * rows] = w[q]
