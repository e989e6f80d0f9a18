"""What several kernels refuse, and how several have their weights packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.cpu import packing
from fastconv.plan import AnyProblem
from fastconv.problem import Problem

FIRST, LAST = "channels_first", "channels_last"
COLUMNS, FILTERS, PIXELS = "columns of the result", "filters of the result", "pixels of the result"
SHEETS = ("columns", "channels")  # images that sheets.py reads where they lie
DENSE = ("standard", "atrous", "pointwise")


def in_order(*orders: Callable[[Any], Any]) -> Callable[..., Any]:
    """Pack each weight by an order of its own, as the direct kernels read it."""

    def pack(problem: AnyProblem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [order(weight) for order, weight in zip(orders, weights, strict=True)]

    return pack


def in_lanes(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.lane_panels(weights[0], biases[0], unit)]


def in_rows(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(weights[0], biases[0], unit)]


def unless(data_format: str) -> Callable[[AnyProblem], str | None]:
    """Refuse a result in another data format."""
    return lambda problem: (
        None if problem.data_format == data_format else f"writes {data_format}, the result is {problem.data_format}"
    )


def never(problem: AnyProblem) -> None:
    return None


def in_channel_lanes(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.channel_panels(weights[0], biases[0], unit)]


def one_by_one(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(weights[0], biases[0], 1)]
