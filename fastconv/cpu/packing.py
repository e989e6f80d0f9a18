"""Layouts: weights in the order in which a kernel reads them, images where a kernel can read them, results aligned.

Everything here copies; kernels never do. Weights are packed once a layer. An image is copied only when it must be: when its
numbers are not native or not aligned, or when its border is to show more of it (`padding_mode`), which np.pad does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ALIGNMENT = 64  # bytes: a cache line, and the widest vector; worth 15 % on depthwise layers
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A C-contiguous array that begins on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


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
    return array if array.flags.c_contiguous and array.dtype.isnative and array.flags.aligned else aligned_copy(array)


def bordered(x: Array, pads: tuple[tuple[int, int], ...], mode: str, data_format: str) -> Array:
    """The image with its border drawn in."""
    widths = [(0, 0), *pads, (0, 0)] if data_format == "channels_last" else [(0, 0), (0, 0), *pads]
    return np.pad(x, widths, mode=PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]


# Weights: (filters, channels / groups, *kernel), or (channels, filters / groups, *kernel) of a transposed convolution -----


def as_they_come(weight: Array, groups: int) -> Array:
    """No change of order."""
    return aligned_copy(weight)


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


def taps_first(weight: Array, groups: int) -> Array:
    """[tap][filter], from the weight of a depthwise convolution."""
    return aligned_copy(weight.reshape(weight.shape[0], -1).T)


# For tiled kernels: panels of as many filters as a tile has, each with its bias in front, filled up with zeros -----------


def lane_panels(weight: Array, bias: Array | None, groups: int, width: int, block: int) -> Array:
    """[group][panel][bias, then block of channels, tap, channel][filter]: filters in lanes."""
    by_panel = _by_panel(weight, groups, width)
    _, panels, _, channels, taps = by_panel.shape
    out = aligned_empty((groups, panels, 1 + channels * taps, width), weight.dtype.newbyteorder("="))
    out[:, :, 0] = _bias_by_panel(bias, groups, panels, width, weight.shape[0] // groups)
    for first in range(0, channels, block):
        part = by_panel[:, :, :, first : first + block].transpose(0, 1, 4, 3, 2)
        rows = out[:, :, 1 + first * taps :][:, :, : part.shape[2] * part.shape[3]]
        rows.reshape(part.shape)[...] = part
    return out


def row_panels(weight: Array, bias: Array | None, groups: int, rows: int) -> Array:
    """[group][panel][bias, then channel, tap][filter]: filters in rows."""
    by_panel = _by_panel(weight, groups, rows)
    _, panels, _, channels, taps = by_panel.shape
    out = aligned_empty((groups, panels, 1 + channels * taps, rows), weight.dtype.newbyteorder("="))
    out[:, :, 0] = _bias_by_panel(bias, groups, panels, rows, weight.shape[0] // groups)
    out[:, :, 1:] = by_panel.transpose(0, 1, 3, 4, 2).reshape(groups, panels, channels * taps, rows)
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


def _by_panel(weight: Array, groups: int, size: int) -> Array:
    """[group][panel][filter][channel][tap]."""
    filters, channels, *kernel = weight.shape
    w = weight.reshape(groups, filters // groups, channels, math.prod(kernel))
    missing = -(filters // groups) % size
    if missing:
        w = np.pad(w, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return w.reshape(groups, -1, size, *w.shape[2:])


def _bias_by_panel(bias: Array | None, groups: int, panels: int, size: int, filters: int) -> Array | int:
    """[group][panel][filter]; only a bias per channel enters the sums, any other is added late."""
    if bias is None or bias.ndim > 1:
        return 0
    return np.pad(bias.reshape(groups, filters), ((0, 0), (0, panels * size - filters))).reshape(groups, panels, size)
