"""A picture of measurements: a roofline with every layer as a point, and bars beside the peers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fastconv.bench.compare import Comparison
from fastconv.bench.timing import Measurement, memory_bandwidth
from fastconv.cpu.machine import cpu_name

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import LogLocator
    from matplotlib.transforms import Bbox
except ImportError as error:
    raise ImportError("a plot needs matplotlib: python -m pip install 'fastconv[bench]'") from error

COLUMN = 20  # layers in one column of bars at most, so that names stay readable however many layers there are
WIDTH, ROOF, BAR = 8, 7.5, 0.55  # inches: of a column, of the roofline's height, of a layer's bars
MARKERS = "osD^vP*X"  # of kinds, whose colours are not those of the peers
NAME_PLACES = [(side, up) for up in (2, -9, 12, -19, 22, -29, 32, -39) for side in ("left", "right")]  # points above the marker


def draw(measured: Sequence[Measurement], file: str) -> None:
    """Draw measurements into a file: a roofline, and, where there are peers, bars of everybody's GFLOP/s.

    Parameters
    ----------
    measured : sequence of Measurement
        As `fastconv.bench.measure` and `compare` give them.
    file : str
        Name of the picture; its ending says the format.
    """
    beside = [m for m in measured if isinstance(m, Comparison) and m.peers]
    count = -(-len(beside) // COLUMN)
    columns = [list(part) for part in np.array_split(np.array(beside, object), count)] if count else []
    names = ["fastconv", *dict.fromkeys(name for m in beside for name in m.peers)]
    longest = max(map(len, columns), default=0)
    width, heights = WIDTH * max(count, 1.5), [ROOF, *([1 + BAR * longest] if columns else [])]
    figure = Figure(figsize=(width, 0.6 + sum(heights)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(f"{cpu_name()}, threads: {measured[0].threads}")
    grid = figure.add_gridspec(len(heights), max(count, 1), height_ratios=heights)
    for i, column in enumerate(columns):
        bars = figure.add_subplot(grid[1, i])
        _bars(bars, column, longest, names)
    if columns:
        figure.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=9, frameon=False)
    roof = figure.add_subplot(grid[0, :])
    _roofline(roof, measured)
    figure.draw_without_rendering()  # sets the scales and sizes that names are placed by
    _name_points(roof, measured)
    figure.savefig(file)


def _roofline(axes: Any, measured: Sequence[Measurement]) -> None:
    """GFLOP/s over arithmetic intensity: no layer can do better than the lower of the two limits."""
    bandwidth = memory_bandwidth(measured[0].threads)
    peaks = sorted({m.problem.dtype: m.peak for m in measured}.items())
    intensities = [_intensity(m) for m in measured]
    span = min(0.5, *intensities) / 2, max(200.0, *intensities) * 2
    for dtype, peak in peaks:
        corner = peak / bandwidth
        roof = axes.plot([span[0], corner, span[1]], [span[0] * bandwidth, peak, peak], color="0.35", linewidth=1.5)[0]
        axes.annotate(f"{peak:.0f} GFLOP/s\n{dtype}", (span[1], peak), (4, 0), textcoords="offset points", va="center")
        roof.set_label(f"peak, and memory's {bandwidth:.1f} GB/s (a copy)" if dtype == peaks[0][0] else None)
    by_kind = sorted(measured, key=lambda m: m.problem.kind)
    for i, (kind, group) in enumerate(groupby(by_kind, key=lambda m: m.problem.kind)):
        points, marker, color = list(group), MARKERS[i % len(MARKERS)], f"C{9 - i}"
        axes.scatter([_intensity(m) for m in points], [m.gflops for m in points], c=color, marker=marker, label=kind, zorder=3)
    axes.set(
        xscale="log", yscale="log", xlabel="operations a byte, every array moved once", ylabel="GFLOP/s",
        title="Roofline (above it: Winograd, skipped padding, or arrays that stay in a cache)",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xlim(*span)
    axes.set_ylim(min(min(m.gflops for m in measured) / 2, bandwidth * span[0] * 2))
    axes.grid(which="both", color="0.92")
    axes.legend(loc="lower right")


def _intensity(m: Measurement) -> float:
    return m.problem.operations / m.problem.bytes


def _name_points(axes: Any, measured: Sequence[Measurement]) -> None:
    """Every point's name beside it, where no other name or point is; a thin line leads to one that has to stand apart."""
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    points = axes.transData.transform([(_intensity(m), m.gflops) for m in measured])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for m in sorted(measured, key=lambda m: -m.gflops):
        for i, (side, up) in enumerate(NAME_PLACES, 1):
            place = {"xytext": (7 if side == "left" else -7, up), "textcoords": "offset points", "ha": side}
            name = axes.annotate(m.name, (_intensity(m), m.gflops), fontsize=7, arrowprops=line if abs(up) > 9 else None, **place)
            name.update_positions(axes.figure.canvas.get_renderer())
            box = Text.get_window_extent(name)  # without the line
            if i == len(NAME_PLACES) or (box.x1 < axes.bbox.x1 and not any(map(box.overlaps, taken))):
                taken.append(box)
                break
            name.remove()


def _bars(axes: Any, measured: Sequence[Comparison], rows: int, names: Sequence[str]) -> None:
    """Everybody's GFLOP/s, layer under layer, the first on top, with room for so many layers."""
    height = 0.85 / len(names)
    places = np.arange(len(measured))
    first = (len(names) - 1) / 2 * height
    for i, name in enumerate(names):
        speeds = [m.gflops if name == "fastconv" else m.gflops_of(name) if name in m.peers else 0.0 for m in measured]
        axes.barh(places - first + i * height, speeds, height, label=name)
    for place, m in zip(places, measured, strict=True):
        end = (m.gflops, place - first)
        axes.annotate(f"{m.ratio:.2f}x", end, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [m.name for m in measured])
    axes.set_ylim(rows - 0.5, -0.5)
    axes.axvline(max(m.peak for m in measured), color="0.35", linewidth=1)
    axes.set(xlabel="GFLOP/s (the line: multiply-add peak)", title="Beside the peers; the number: best peer's time over fastconv's")
    axes.margins(x=0.08)
