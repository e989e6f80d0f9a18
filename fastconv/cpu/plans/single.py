"""Plans for layers that are one product of matrices, for a batch together: of windows that see a whole image, and of single pixels.

A window that sees a whole image makes one pixel of it: channels and taps are channels of a pointwise layer, and the images of the
batch its pixels. A transposed layer makes one whole window of a single pixel: filters and taps are filters. Heads of networks are
of this kind, first layers of those that make pictures, squeeze-and-excite blocks, layers of neurons. The kernel is pointwise.py's,
weights come once for all images: 32 single pixels of 1024 channels and 1000 filters took 1.54 ms one by one, and take 0.57.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.cpu import packing, tiles
from fastconv.cpu.gradients import tiled_weight_gradient
from fastconv.cpu.plans import gradients, pointwise, standard
from fastconv.cpu.plans.costs import panels_packing
from fastconv.cpu.plans.rules import FILTERS, LAST, SHEETS
from fastconv.cpu.pointwise import tiled_pointwise
from fastconv.cpu.sheets import taps
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

Array = np.ndarray[Any, Any]


def whole_refuse(problem: Problem) -> str | None:
    if problem.kernel != problem.space or any(map(any, problem.pads)):
        return f"computes windows that see a whole image, here are {problem.kernel} of {problem.space}"
    if problem.batch < 2 and taps(problem) == 1:
        return "computes several single pixels together, here is one"
    return _apart(problem)


def weights_refuse(problem: Problem) -> str | None:
    if problem.data_format == LAST and taps(problem) > 1:
        return "sums up weights in the order of the image's numbers, channels last are not"
    return whole_refuse(problem)


def single_refuse(problem: Problem) -> str | None:
    if any(n != 1 for n in problem.space) or problem.out_space != problem.kernel or any(d != 1 for d in problem.dilation):
        return f"makes a whole window of a single pixel, here are {problem.out_space} of {problem.space}"
    if problem.operation == "transposed" and any(map(any, problem.pads)):
        return "makes whole windows, these are cropped"
    return _apart(problem)


def _apart(problem: Problem) -> str | None:
    if problem.groups > 1:
        return f"computes one group, here are {problem.groups}"
    return "takes images for pixels of one image, here is a bias for each of an image" if problem.bias == "pixel" else None


def whole_images(problem: Problem) -> Problem:
    """The pointwise layer whose pixels are images, and whose channels are an image's numbers as they lie."""
    return _product(problem, channels=problem.channels * taps(problem))


def single_pixels(problem: Problem) -> Problem:
    """The pointwise layer whose pixels are images, and whose filters are the numbers of an image of the result as they lie."""
    return _product(problem, filters=problem.filters * taps(problem))


def _product(problem: Problem, **sizes: Any) -> Problem:
    images: dict[str, Any] = {"operation": "conv", "batch": 1, "space": (problem.batch,), "data_format": LAST, "output_padding": ()}
    return replace(problem, kernel=(1,), stride=(1,), dilation=(1,), pads=((0, 0),), **images, **sizes)


def pack_whole(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    rows = _as_they_lie(problem, weights[0], 2)
    return [packing.lane_panels(rows.reshape(*rows.shape[:2], -1, 1), biases[0], unit)]


def pack_single(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    weight, [bias] = weights[0], biases
    if problem.operation == "conv":  # one of a border as wide as its window but for a pixel, which a transposed one of stride 1 is
        weight = np.flip(weight, tuple(range(3, weight.ndim)))
    rows = _as_they_lie(problem, np.moveaxis(weight, 2, -1), 1)
    if bias is not None:
        bias = (np.tile if problem.data_format == LAST else np.repeat)(bias, taps(problem))
    return [packing.lane_panels(rows.reshape(1, -1, problem.channels, 1), bias, unit)]


def _as_they_lie(problem: Problem, weight: Array, axis: int) -> Array:
    """With the taps behind this axis, or channels last in front of it."""
    first = axis + 1
    return np.moveaxis(weight, axis, first + problem.dimensions - 1) if problem.data_format == LAST else weight


def in_lanes(product: Callable[[Problem], Problem]) -> Callable[[Problem, int], Division]:
    """For tiled_pointwise, whose result is channels last."""

    def divide(problem: Problem, threads: int) -> Division:
        seen = product(problem)
        division = pointwise.filters_in_lanes(seen, threads)
        return replace(division, fields=dict(division.fields) | {"last": True}, seen=seen)

    return divide


def weight_sums(problem: Problem, threads: int) -> Division:
    """For tiled_weight_gradient: images are the pixels that it adds up."""
    seen = images_of_weights(problem)
    division = gradients.weight_sums(seen, threads)
    return replace(division, seen=seen.exchanged() if division.fields["exchanged"] else seen)


def images_of_weights(problem: Problem) -> Problem:
    """As whole_images, of a gradient."""
    return replace(whole_images(problem), operation="weights")


def _implementation(
    name: str, kinds: tuple[str, ...], pack: Any, refuse: Any, product: Callable[[Problem], Problem]
) -> Implementation:
    return Implementation(
        name, "tiled", kinds, tiled_pointwise, pack, in_lanes(product), FILTERS, refuse, tiles=tiles.filters_in_lanes,
        cycles=lambda problem: standard.filters_cycles(product(problem)), packing=panels_packing,
    )  # fmt: skip


IMPLEMENTATIONS = (
    _implementation("tiled_standard_whole", ("standard", "pointwise"), pack_whole, whole_refuse, whole_images),
    Implementation(
        "tiled_weight_gradient_whole", "tiled", ("weights",),
        tiled_weight_gradient, None, weight_sums, FILTERS, weights_refuse, SHEETS, tiles.numbers_in_rows,
        cycles=lambda problem: gradients.weight_cycles(images_of_weights(problem)),
    ),
    _implementation("tiled_transposed_single", ("transposed", "standard"), pack_single, single_refuse, single_pixels),
)  # fmt: skip
