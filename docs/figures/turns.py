"""A channels-last image turned for a kernel that has pixels side by side: which square of registers takes which numbers where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from style import INK, PALE, PHASES, axes, box, fit

from fastconv.cpu import sheets


@dataclass(frozen=True)
class Place:
    """Stands for a pointer: all that `turn_pixels` does with one is to move it on."""

    at: int

    def __add__(self, numbers: int) -> Place:
        return Place(self.at + numbers)


class Square:
    """Stands for the tile that is transposed, and notes what it loads and where it stores that."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.moved: list[list[tuple[int, int]]] = []  # of each square, (from, to) of every number in it

    def load_tile(self, place: Place, step: int, rows: int, columns: int) -> Any:
        return Loaded(
            self, [[place.at + r * step + k for r in range(min(rows, self.lanes))] for k in range(min(columns, self.lanes))]
        )


@dataclass(frozen=True)
class Loaded:
    """A square's numbers by where they came from, transposed already: rows are channels."""

    square: Square
    rows: list[list[int]]

    def transpose(self) -> Loaded:
        return self

    def store(self, place: Place, pitch: int, *_: int) -> None:
        pairs = [(number, place.at + c * pitch + k) for c, row in enumerate(self.rows) for k, number in enumerate(row)]
        self.square.moved.append(pairs)


def squares(pixels: int = 10, channels: int = 6, lanes: int = 4) -> None:
    """Ten pixels of six channels by squares of four lanes, as `turn_pixels` moves them."""
    square, pitch = Square(lanes), 12
    sheets.turn_pixels.py_func(square, Place(0), channels, channels, pixels, Place(0), pitch)
    _, (before, after) = axes(9, 3.5, 2, (channels + 3, pitch + 4))
    for row in range(channels):
        box(after, 0, row, pitch, 1, PALE)
    for color, pairs in zip(PHASES, square.moved, strict=False):
        for source, target in pairs:
            box(before, source % channels, source // channels, 1, 1, color, str(source))
            box(after, target % pitch, target // pitch, 1, 1, color, str(source))
    for ax, high, down, across in ((before, pixels, "pixel", "channel"), (after, channels, "channel", "pixel")):
        ax.text(-0.35, high / 2, f"{down}s", rotation=90, ha="center", va="center", fontsize=8, color=INK)
        ax.text(0, -0.35, f"{across}s, side by side in memory", ha="left", va="center", fontsize=8, color=INK)
    fit(before, -0.8, channels + 0.2, pixels + 0.2, -0.8)
    fit(after, -0.8, pitch + 0.2, channels + 0.2, -0.8)
    before.set_title("the image, channels last", fontsize=9)
    after.set_title("turned: a row of pixels for each channel", fontsize=9)
