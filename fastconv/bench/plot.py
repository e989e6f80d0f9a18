"""A picture of measurements: a roofline with every layer as a point, and bars beside the peers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fastconv.bench.compare import Comparison
from fastconv.bench.timing import Measurement, memory_bandwidth
from fastconv.cpu.machine import cpu_name

COLUMN = 20  # layers in one column of bars, so that names stay readable however many layers there are


def draw(measured: Sequence[Measurement], file: str) -> None:
    """Draw measurements into a file: a roofline, and, where there are peers, bars of everybody's GFLOP/s.

    Parameters
    ----------
    measured : sequence of Measurement
        As `fastconv.bench.measure` and `compare` give them.
    file : str
        Name of the picture; its ending says the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    beside = [m for m in measured if isinstance(m, Comparison) and m.peers]
    columns = [beside[i : i + COLUMN] for i in range(0, len(beside), COLUMN)]
    figure = Figure(figsize=(10 + 7 * len(columns), max(7, 0.7 * max(map(len, columns), default=0))), layout="constrained")
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 1 + len(columns), squeeze=False)[0]
    for axes, column in zip(others, columns, strict=True):
        _bars(axes, column)
    _roofline(left, measured)
    figure.suptitle(f"{cpu_name()}, threads: {measured[0].threads}")
    figure.savefig(file, dpi=110)


def _roofline(axes: Any, measured: Sequence[Measurement]) -> None:
    """GFLOP/s over arithmetic intensity: no layer can do better than the lower of the two limits."""
    bandwidth = memory_bandwidth(measured[0].threads)
    peaks = sorted({m.problem.dtype: m.peak for m in measured}.items())
    intensities = [m.problem.operations / m.problem.bytes for m in measured]
    span = np.geomspace(min(0.5, *intensities) / 1.5, max(200.0, *intensities) * 1.5, 200)
    for dtype, peak in peaks:
        roof = axes.plot(span, np.minimum(peak, bandwidth * span), color="0.35", linewidth=1.5)[0]
        axes.annotate(f"{peak:.0f} GFLOP/s, {dtype}", (span[-1], peak), (0, 3), textcoords="offset points", ha="right", va="bottom")
        roof.set_label(f"peak, and memory's {bandwidth:.1f} GB/s (a copy)" if dtype == peaks[0][0] else None)
    by_kind = sorted(measured, key=lambda m: m.problem.kind)
    for kind, group in groupby(by_kind, key=lambda m: m.problem.kind):
        points = list(group)
        axes.scatter([m.problem.operations / m.problem.bytes for m in points], [m.gflops for m in points], label=kind, zorder=3)
    for m, intensity in zip(measured, intensities, strict=True):
        axes.annotate(m.name, (intensity, m.gflops), (4, 3), textcoords="offset points", fontsize=7)
    axes.set(
        xscale="log", yscale="log", xlabel="operations a byte, every array moved once", ylabel="GFLOP/s",
        title="Roofline (above it: Winograd, skipped padding, or arrays that stay in a cache)",
    )  # fmt: skip
    axes.grid(which="both", color="0.92")
    axes.legend(loc="lower right")


def _bars(axes: Any, measured: Sequence[Comparison]) -> None:
    """Everybody's GFLOP/s, layer under layer, the first on top."""
    names = ["fastconv", *dict.fromkeys(name for m in measured for name in m.peers)]
    height = 0.85 / len(names)
    places = np.arange(len(measured))
    for i, name in enumerate(names):
        speeds = [m.gflops if name == "fastconv" else m.gflops_of(name) if name in m.peers else 0.0 for m in measured]
        axes.barh(places + (i - (len(names) - 1) / 2) * height, speeds, height, label=name)
    for place, m in zip(places, measured, strict=True):
        best = max(m.gflops, *map(m.gflops_of, m.peers))
        axes.annotate(f"{m.ratio:.2f}x", (best, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [m.name for m in measured])
    axes.invert_yaxis()
    axes.axvline(max(m.peak for m in measured), color="0.35", linewidth=1)
    axes.set(xlabel="GFLOP/s (the line: multiply-add peak)", title="Best peer's time over fastconv's")
    axes.margins(x=0.08, y=0.01)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=len(names), frameon=False)
