"""The depthwise walk: which window takes which row of weights from which line, and how columns fall into vectors."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

from style import BLUE, GREEN, INK, ORANGE, PALE, PHASES, RED, axes, box, fit

from fastconv.cpu import depthwise, machine
from fastconv.cpu.plans.depthwise import columns_in_lanes
from fastconv.cpu.simd import TileShape
from fastconv.cpu.windows import has_quarters
from fastconv.problem import Problem


def sums_under_way(lines: int = 9) -> None:
    """For three kinds of windows: a column of the drawing is a line of the image, loaded once for all windows that see it."""
    kinds = ((3, 1), (3, 2), (5, 1))
    _, drawn = axes(10, 3.9, len(kinds))
    for ax, (taps, step) in zip(drawn, kinds, strict=True):
        tile = TileShape(taps, taps, machine.lanes(), step)
        under_way = -(-tile.rows // tile.step)  # sums in registers, as Tile.sums makes them
        windows = (lines - taps) // step + 1
        for t in range(windows + under_way - 1):
            for phase in range(step):
                line = t * step + phase
                if line >= lines:
                    continue
                for age in range(under_way):  # the window that began `age` steps ago takes this row of weights
                    a = age * tile.step + phase
                    if a < tile.rows and 0 <= t - age < windows:
                        box(ax, line, t - age, 1, 1, PHASES[a], f"w{a}", size=8)
        now = (taps // step) * step  # a line that several windows see
        ax.axvspan(now, now + 1, color=RED, alpha=0.12, linewidth=0)
        fit(ax, 0, lines, windows + 0.2, -1.2)
        ax.set_axis_on()
        ax.spines[:].set_visible(False)
        ax.xaxis.tick_top()
        ax.set_xticks([n + 0.5 for n in range(lines)], [str(n) for n in range(lines)], fontsize=8)
        ax.set_yticks([n + 0.5 for n in range(windows)], [str(n) for n in range(windows)], fontsize=8)
        ax.tick_params(length=0)
        ax.set(xlabel="line of the image", ylabel="row of the result")
        ax.xaxis.set_label_position("top")
        ax.set_title(f"{taps}x{taps}, stride {step}: {under_way} sums under way", fontsize=9, y=-0.14)


def vectors_of_columns() -> None:
    """How the kernel's own loop cuts planes of several widths: what it asks of `walk_column`, for this machine's tiles."""
    colors = {2 * machine.lanes(): BLUE, machine.lanes(): GREEN, machine.lanes() // 2: ORANGE}
    widths = (112, 56, 28, 14)
    figure, ax = axes(9, 3)
    for y, width in enumerate(widths):
        asked: list[tuple[int, int]] = []
        problem = Problem.parse(f"conv2d,n1c8i{width}f8k3p1g8")
        window = columns_in_lanes(problem, 1).tile
        lanes = window.lanes
        half = SimpleNamespace(lanes=lanes // 2, half=SimpleNamespace(lanes=lanes // 4))
        quarters = 1 if has_quarters(window) else None
        tile = SimpleNamespace(lanes=lanes, unmasked=1, half=half)
        job = SimpleNamespace(out_space=(1, width, width))
        with mock.patch.object(
            depthwise, "walk_column", lambda tile, unmasked, job, n, f, g, begin, end, j, *_, to=asked: to.append((j, tile.lanes))
        ):
            depthwise.walk_planes.py_func(tile, 1, quarters, job, 0, 0, 1, 0, width, None, 0, None)
        box(ax, 0, y, width, 0.8, PALE)
        for k, (j, size) in enumerate(asked):
            box(ax, j, y + 0.08 + 0.12 * (k % 2), min(size, width - j), 0.52, colors[size], alpha=0.75)
            if j + size > width:
                box(ax, width, y + 0.08, j + size - width, 0.52, "none", edgecolor=RED, linestyle=":")
        ax.text(-1, y + 0.4, f"{width} columns", ha="right", va="center", fontsize=8)
        ax.text(
            max(width, lanes) + 1.5,
            y + 0.4,
            f"{len(asked)} walk{'s' * (len(asked) > 1)}",
            ha="left",
            va="center",
            fontsize=8,
            color=INK,
        )
    fit(ax, -14, 126, len(widths), -0.2, square=False)
    figure.suptitle(
        "Two vectors at once (blue), one (green), half of one (orange) where it suffices; the last walk overlaps its neighbour",
        fontsize=9,
    )
