"""Colours, and the few ways to draw a box that the figures share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN, RED, VIOLET = "#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2"
GREY, PALE, INK = "#bab0ac", "#eeeeee", "#333333"
PHASES = ("#9ecae9", "#ffbf79", "#88d27a", "#ff9d98", "#d6a5c9", "#e3d48f", "#9fd6cf", "#c9c9c9", "#b9a38f")


def axes(width: float, height: float, count: int = 1, ratios: Iterable[float] | None = None) -> tuple[Any, Any]:
    """A figure, and so many empty drawings side by side without any frame."""
    ratios = None if ratios is None else list(ratios)
    figure, drawn = plt.subplots(1, count, figsize=(width, height), layout="constrained", squeeze=False, width_ratios=ratios)
    for each in drawn[0]:
        each.set_axis_off()
    return figure, drawn[0] if count > 1 else drawn[0][0]


def box(ax: Any, x: float, y: float, width: float, height: float, color: str, text: str = "", **more: Any) -> None:
    """A filled box with a word in it."""
    size, ink = more.pop("size", 7), more.pop("ink", INK)
    more = {"edgecolor": "white", "linewidth": 0.8} | more
    ax.add_patch(Rectangle((x, y), width, height, facecolor=color, **more))
    if text:
        ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=ink)


def fit(ax: Any, left: float, right: float, bottom: float, top: float, *, square: bool = True) -> None:
    """Show this much, upside down: rows count from the top, as in an image."""
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    if square:
        ax.set_aspect("equal")
