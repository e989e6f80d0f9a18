"""How the tiled kernels divide a layer, drawn from the package's own tables and plans."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GREEN, INK, ORANGE, PALE, PHASES, RED, axes, box, fit

from fastconv.cpu import machine, packing, strips, tiles
from fastconv.cpu.sheets import Sheets
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import Choice, choose
from fastconv.problem import Problem


def planned(text: str, threads: int = 1) -> Choice:
    """How tiled_standard divides a problem, whether or not another kernel would be cheaper on this machine."""
    problem = Problem.parse(text)
    assert isinstance(problem, Problem)
    return choose(problem, tuple(i for i in IMPLEMENTATIONS if i.name == "tiled_standard"), threads, "columns")


def register_files() -> None:
    """Every tile with filters in lanes: what of the registers it takes."""
    figure, (large, small) = plt.subplots(
        2, 1, figsize=(9, 5.2), layout="constrained", height_ratios=[max(tiles.FILTERS_IN_LANES[n][2]) + 4 for n in (32, 16)]
    )
    for ax, registers in ((large, 32), (small, 16)):
        left, tallest = 0.0, max(max(rows) for rows in tiles.FILTERS_IN_LANES[registers].values())
        for vectors, sizes in tiles.FILTERS_IN_LANES[registers].items():
            for rows in sizes:
                for column in range(vectors):
                    box(ax, left + 1.2 + column, 0, 1, 1, ORANGE)
                    for row in range(rows):
                        box(ax, left + 1.2 + column, 1.2 + row, 1, 1, BLUE)
                box(ax, left, 1.2, 1, 1, GREEN)
                used = rows * vectors + vectors + 1
                ax.text(left + 1.2 + vectors / 2, 1.6 + rows, f"{rows}x{vectors}", ha="center", va="top", fontsize=8, color=INK)
                ax.text(left + 1.2 + vectors / 2, 2.9 + rows, f"{used}", ha="center", va="top", fontsize=7, color="0.45")
                left += vectors + 2
        fit(ax, -0.5, left, tallest + 4.2, -1.4)
        ax.set_axis_off()
        ax.set_title(f"{registers} registers: rows x vectors, and below how many registers that takes", loc="left", fontsize=9)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in (BLUE, ORANGE, GREEN)]
    figure.legend(
        handles, ["sums", "one vector of filters' weights each", "a pixel, broadcast"], loc="outside lower center", ncols=3
    )


def bands(text: str = "conv2d,n1c64i56f64k3p1,bias,relu,tiled", threads: int = 2) -> None:
    """A layer's items; one row of its result; and what of it stays in which cache."""
    problem, implementation, division, _ = planned(text, threads)
    rows, width = problem.out_space[-2:]
    tile, filters = division.tile, problem.filters // problem.groups
    figure, (items, row, caches) = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained", width_ratios=(1.1, 1.2, 1.3))
    for band in range(division.bands):
        for chunk in range(division.chunks):
            first, line = chunk * division.chunk, band * division.band
            wide, high = min(division.chunk, filters - first), min(division.band, rows - line)
            color = PHASES[(band + chunk) % 2]
            box(items, first, line, wide, high, color, str(band * division.chunks + chunk), size=8)
    for f in range(0, filters, tile.width):
        items.axvline(f, color=RED, linewidth=0.8, linestyle=":")
    fit(items, 0, filters, rows, 0, square=False)
    items.set(xlabel="filter (dotted: panels)", ylabel="row of the result")
    items.set_title(f"{division.items} items for {threads} threads", fontsize=9)

    for k, strip in enumerate(strips.cut(problem, tile)):
        size = tile.rows if strip.tall else tile.short.rows
        words = f"{size} pixels\nx\n{tile.width} filters" if 5 * size > width else f"{size}\nx\n{tile.width}"
        box(row, strip.first, 0, size, tile.width, PHASES[k % 3], words, size=8)
    fit(row, 0, width, tile.width, 0, square=False)
    row.set(xlabel="column of the result", ylabel="filter of a panel", yticks=[0, tile.lanes, tile.width])
    row.set_title(f"a row, a panel: one {tile.rows}x{tile.vectors} tile a box", fontsize=9)

    number, block = np.dtype(problem.dtype).itemsize, min(packing.BLOCK, problem.channels // problem.groups)
    taps = problem.kernel[-2] * problem.kernel[-1]
    seen = ((tile.rows - 1) * problem.stride[-1] + (problem.kernel[-1] - 1) * problem.dilation[-1] + 1) * problem.kernel[-2]
    sizes = {
        "a tile's sums": tile.rows * tile.width,
        f"what a strip sees\nof {block} channels": seen * block,
        f"a tap's weights\nof {block} channels": tile.width * block,
        "sums of a run of rows": division.fields["run"] * width * tile.width,
        "a panel's weights": division.fields["panel"],
        "an item's sheets": division.fields["sums_at"],
        "all weights": problem.channels // problem.groups * taps * filters,
    }
    places = np.arange(len(sizes))
    caches.barh(places, [n * number / 1024 for n in sizes.values()], color=BLUE, height=0.6)
    for name, size in sorted(machine.caches().items()):
        caches.axvline(size / 1024, color=RED, linewidth=1)
        caches.text(size / 1024, -0.7, name, color=RED, ha="center", va="bottom", fontsize=8)
    caches.set_yticks(places, list(sizes))
    caches.set_ylim(len(sizes) - 0.5, -0.7)
    caches.set(xscale="log", xlabel="KiB at hand at once; red: the caches")
    for ax in (items, row):
        ax.spines[:].set_visible(False)
    figure.suptitle(f"{implementation.name}: {problem}, {tile.lanes} lanes, {machine.registers()} registers", fontsize=9)


def tap_strips(text: str = "conv2d,n1c256i33f256k3p18d18,tiled") -> None:
    """How a row is cut: one line for each tap, of the columns for which it lies inside the image; then the strips."""
    problem, _, division, _ = planned(text)
    width, tile, inside = problem.out_space[-1], division.tile, strips.inside(problem, -1)
    cut = strips.cut(problem, tile)
    figure, ax = axes(8, 0.34 * (len(inside) + len(cut)) + 0.9)
    for b, (enters, leaves) in enumerate(inside):
        box(ax, 0, b, width, 0.8, PALE)
        box(ax, max(0, enters), b, min(width, leaves) - max(0, enters), 0.8, GREEN)
        ax.text(-0.3, b + 0.4, f"tap {b} meets the image", ha="right", va="center", fontsize=8)
    for k, strip in enumerate(cut):
        y, size = len(inside) + 0.6 + k, tile.rows if strip.tall else tile.short.rows
        box(ax, strip.first, y, size, 0.8, PHASES[strip.taps % len(PHASES)], f"{size} pixels, {strip.taps} taps")
        ax.text(-0.3, y + 0.4, f"strip {k + 1}", ha="right", va="center", fontsize=8)
    for j in range(0, width + 1, 1):
        ax.axvline(j, color="white", linewidth=0.4)
    fit(ax, -9, width, len(inside) + len(cut) + 1.4, -0.4, square=False)
    for j in (0, *sorted({strip.first for strip in cut} - {0}), width):
        ax.text(j, len(inside) + len(cut) + 0.9, str(j), ha="center", va="center", fontsize=7, color="0.4")
    figure.suptitle(f"a row of {width} columns, rate {problem.dilation[-1]}, tile {tile.rows}x{tile.vectors}", fontsize=9)


def sheet_layout(size: int = 7, kernel: int = 3, stride: int = 2, padding: int = 1) -> None:
    """An image's pixels by their phase, and where its sheet has them; the taps of two windows are marked in both."""
    problem = Problem.parse(f"conv2d,n1c1i{size}f1k{kernel}s{stride}p{padding}")
    assert isinstance(problem, Problem)
    band = problem.out_space[0]
    sheets = Sheets.of(problem, band)
    step, before, taps = problem.stride[0], problem.pads[0][0], problem.kernel[0]
    padded = problem.space[0] + 2 * before
    _, (image, memory) = axes(9, 4, 2, (1, 1.15))

    def color(y: int, u: int) -> str:
        return PHASES[y % step * step + u % step]

    for y in range(padded):
        for u in range(padded):
            border = min(y, u) < before or max(y, u) >= padded - before
            box(image, u, y, 1, 1, PALE if border else color(y, u))
    windows = ((0, 0, INK), (1, 2, RED))
    for i, j, ink in windows:
        for a in range(taps):
            for b in range(taps):
                image.text(j * step + b + 0.5, i * step + a + 0.5, f"{a},{b}", ha="center", va="center", fontsize=8, color=ink)
    fit(image, -0.2, padded + 0.2, padded + 0.2, -0.2)
    image.set_title(f"the image, its border of zeros, the taps of outputs (0, 0) and {windows[1][:2]}", fontsize=9)

    _, slots_i, slots_j = sheets.phases
    rows = sheets.phase_size // sheets.pitch
    kept_i, kept_j = sheets.table[taps * taps : taps * taps + slots_i], sheets.table[taps * taps + slots_i :]
    at = {}  # number in the sheet: where it is drawn
    for slot_i in range(slots_i):
        for slot_j in range(slots_j):
            for row in range(rows):
                for column in range(sheets.pitch):
                    x, y = slot_j * (sheets.pitch + 0.7) + column, slot_i * (rows + 0.7) + row
                    at[(slot_i * slots_j + slot_j) * sheets.phase_size + row * sheets.pitch + column] = x, y
                    there = kept_i[slot_i] + row * step, kept_j[slot_j] + column * step
                    border = min(there) < before or max(there) >= padded - before
                    box(memory, x, y, 1, 1, PALE if border else color(*there))
    for i, j, ink in windows:
        for tap in range(taps * taps):
            x, y = at[sheets.table[tap] + i * sheets.pitch + j]
            memory.text(x + 0.5, y + 0.5, f"{tap // taps},{tap % taps}", ha="center", va="center", fontsize=8, color=ink)
    right, bottom = slots_j * (sheets.pitch + 0.7), slots_i * (rows + 0.7)
    fit(memory, -0.2, right, bottom, -0.2)
    memory.set_title(f"its sheet: output (i, j) finds each tap {sheets.pitch} i + j numbers further on", fontsize=9)
