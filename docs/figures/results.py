"""The performance page, made of what `python -m fastconv bench --json` wrote into docs/performance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator
from style import GREY, INK, RED

FOLDER = Path(__file__).parents[1] / "performance"
FORMAT = 1  # of fastconv/bench/results.py
TITLES = {
    "layers-1-thread": "Layers, one thread",
    "layers-2-threads": "Layers, two threads",
    "networks-1-thread": "All convolutions of a network in turn, one thread",
}
KINDS = ("standard", "atrous", "pointwise", "depthwise", "separable", "transposed", "weights", "chain")
FEWER_PRODUCTS = ("winograd", "strassen")  # kernels that may pass the peak


def read(name: str) -> dict[str, Any]:
    """One file of results."""
    said = json.loads((FOLDER / f"{name}.json").read_text())
    if said["format"] != FORMAT:
        raise ValueError(f"{name}.json: format {said['format']}, expected {FORMAT}")
    return said


def page() -> str:
    """A section for each file."""
    names = sorted((path.stem for path in FOLDER.glob("*.json")), key=lambda name: (list(TITLES) + [name]).index(name))
    return "\n\n".join(_section(name) for name in names)


def _section(name: str) -> str:
    said, title = read(name), TITLES.get(name, name)
    networks = all(row["kind"] == "chain" for row in said["rows"])
    lines = [title, "-" * len(title), "", *_summary(said), ""]
    lines += [".. plot::", "", "   import results", f"   results.ratios({name!r})", ""]
    if not networks:
        lines += [".. plot::", "", "   import results", f"   results.roofline({name!r})", ""]
    lines += _table(said) + [""] + _machine(said)
    return "\n".join(lines)


def _summary(said: dict[str, Any]) -> list[str]:
    rated = [row for row in said["rows"] if row.get("best_peer_over_fastconv")]
    by_kind = {kind: [r["best_peer_over_fastconv"] for r in rated if r["kind"] == kind] for kind in KINDS}
    means = {kind: math.exp(float(np.mean(np.log(ratios)))) for kind, ratios in by_kind.items() if ratios}
    ahead = sum(row["best_peer_over_fastconv"] > 1 for row in rated)
    words = ", ".join(f"{kind} {mean:.2f}" for kind, mean in means.items())
    return [
        f"The best peer's time over fastconv's, the geometric mean of each kind: {words}.",
        f"fastconv is ahead on {ahead} of {len(rated)}. Measured {said['date']}.",
    ]


def _table(said: dict[str, Any]) -> list[str]:
    peers = list(dict.fromkeys(peer for row in said["rows"] for peer in row.get("peers", {})))
    chains = all(row["kind"] == "chain" for row in said["rows"])
    heads = ["layer", *([] if chains else ["kernel"]), "time", "GFLOP/s", "of the peak", *peers, "best peer / fastconv"]
    rows = [heads]
    for row in said["rows"]:
        each = [f"{row['peers'][peer]['gflops']:.0f}" if peer in row.get("peers", {}) else "—" for peer in peers]
        ratio = row.get("best_peer_over_fastconv")
        kernel = [] if chains else [f"``{row['kernel']}``"]
        speed = [_time(row["seconds"]), f"{row['gflops']:.0f}", f"{row['share_of_peak']:.0%}"]
        rows.append([f"``{row['layer']}``", *kernel, *speed, *each, f"{ratio:.2f}" if ratio else "—"])
    lines = [".. dropdown:: Every number", "   :open:" if chains else "", "", "   Peers in GFLOP/s.", "", "   .. list-table::",
             "      :header-rows: 1", "      :class: wide", ""]  # fmt: skip
    for row in rows:
        lines += [f"      {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return [line for k, line in enumerate(lines) if line or k != 1]


def _machine(said: dict[str, Any]) -> list[str]:
    machine, caches = said["machine"], said["machine"]["caches"]
    peaks = ", ".join(f"{peak:.0f} GFLOP/s ({dtype})" for dtype, peak in machine["peak_gflops"].items())
    facts = {
        "processor": f"{machine['processor']}, compiled for {machine['compiled_for']}; {machine['system']}",
        "vectors": f"{machine['vector_bits']} bits, {machine['registers']} registers",
        "caches": ", ".join(f"{level} {size // 1024:,} KB" for level, size in caches.items()),
        "peak of a core, measured": peaks,
        "memory, a copy": f"{machine['copy_gbytes_per_second']:.0f} GB/s",
        "versions": ", ".join(f"{name} {version}" for name, version in said["versions"].items()),
        "measured by": f"``{said['command']}``",
    }
    lines = [".. dropdown:: Machine, versions, command", "   :open:", "", "   .. list-table::", "      :widths: 25 75", ""]
    for name, value in facts.items():
        lines += [f"      * - {name}", f"        - {value}"]
    return lines


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _colors(kinds: list[str]) -> dict[str, str]:
    return {kind: f"C{KINDS.index(kind)}" for kind in kinds}


def ratios(name: str) -> None:
    """The best peer's time over fastconv's, a bar a layer."""
    rows = [row for row in read(name)["rows"] if row.get("best_peer_over_fastconv")]
    rows.sort(key=lambda row: KINDS.index(row["kind"]))  # stable: in the tables' order within a kind
    values = [row["best_peer_over_fastconv"] for row in rows]
    colors = _colors(sorted({row["kind"] for row in rows}, key=KINDS.index))
    figure, ax = plt.subplots(figsize=(8, 0.6 + 0.21 * len(rows) + 0.4), layout="constrained")
    places = np.arange(len(rows))
    ax.barh(places, [value - 1 for value in values], left=1, color=[colors[row["kind"]] for row in rows], height=0.72)
    for place, row, value in zip(places, rows, values, strict=True):
        best = min(row["peers"], key=lambda peer: row["peers"][peer]["seconds"])
        end = (max(value, 1), place)
        ax.annotate(f"{value:.2f}  {best}", end, (4, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
    ax.set_xscale("log")
    ax.set_xlim(min(0.7, *values) / 1.1, max(values) * 1.8)
    ax.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.axvline(1, color=INK, linewidth=0.8)
    ax.set_yticks(places, [row["layer"] for row in rows], fontsize=7)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("best peer's time over fastconv's: to the right, fastconv is ahead")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.values()]
    figure.legend(handles, list(colors), loc="outside upper center", ncols=7, frameon=False, fontsize=8)


def roofline(name: str) -> None:
    """GFLOP/s over operations a byte, under the two limits that were measured with them."""
    said = read(name)
    rows, bandwidth = said["rows"], said["machine"]["copy_gbytes_per_second"]
    peak = said["machine"]["peak_gflops"]["float32"] * said["threads"]
    x = np.array([row["operations"] / row["bytes"] for row in rows])
    y = np.array([row["gflops"] for row in rows])
    span = np.geomspace(x.min() / 1.6, x.max() * 1.6, 200)
    _, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    ax.plot(span, np.minimum(peak, bandwidth * span), color=INK, linewidth=1.2)
    ax.text(span[-1], peak * 0.96, f"multiply-adds: {peak:.0f} GFLOP/s", ha="right", va="top", fontsize=8)
    place = 1.5 * span[0]  # below the line, where no layer is
    ax.text(1.08 * place, bandwidth * place, f"memory: {bandwidth:.0f} GB/s", ha="left", va="top", fontsize=8)
    colors = _colors(sorted({row["kind"] for row in rows}, key=KINDS.index))
    for kind, color in colors.items():
        own = [k for k, row in enumerate(rows) if row["kind"] == kind]
        by_scheme = np.array([any(name in rows[k]["kernel"] for name in FEWER_PRODUCTS) for k in own])
        ax.scatter(x[own][~by_scheme], y[own][~by_scheme], color=color, label=kind, zorder=3, s=26)
        ax.scatter(x[own][by_scheme], y[own][by_scheme], color=color, marker="^", zorder=3, s=34)
    ax.scatter([], [], color=GREY, marker="^", label="with fewer products")
    ax.set(xscale="log", yscale="log", xlabel="operations a byte, every array moved once", ylabel="GFLOP/s")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    ax.axhline(peak, color=RED, linewidth=0.5, linestyle=":")
    ax.legend(fontsize=7, loc="lower right")
