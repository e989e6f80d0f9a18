"""The separable layer's fusion: how much of it is under way at once, and what that saves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GREEN, ORANGE, RED

from fastconv.bench.article import BLOCKS
from fastconv.cpu import machine
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose


def bands() -> None:
    """The blocks of MobileNet v1: rows of a band, what its scratch takes of L2, and the traffic with and without fusion."""
    names = list(BLOCKS)
    choices = [choose(block, IMPLEMENTATIONS, 1, "columns") for block in BLOCKS.values()]
    scratch = np.array([c.division.scratch * np.dtype(c.problem.dtype).itemsize / 1024 for c in choices])
    whole = np.array([np.prod(b.depthwise.out_shape) * np.dtype(b.dtype).itemsize / 1024 for b in BLOCKS.values()])
    places = np.arange(len(names))
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3), layout="constrained", sharey=True)
    left.barh(places, whole, 0.7, color="#d5dde8", label="the whole depthwise result")
    left.barh(places, scratch, 0.42, color=BLUE, label="an item's scratch")
    for place, choice, size in zip(places, choices, scratch, strict=True):
        rows = choice.problem.out_space[0]
        words = f"{-(-rows // choice.division.bands)} of {rows} rows, {choice.implementation.name.removeprefix('tiled_')}"
        left.annotate(words, (size, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
    left.axvline(machine.caches()["L2"] / 1024, color=RED, linewidth=1)
    left.text(machine.caches()["L2"] / 1024 * 1.02, len(names) - 0.55, "L2", color=RED, fontsize=8)
    left.set_yticks(places, names)
    left.invert_yaxis()
    left.set(xlabel="KiB", xlim=(0, max(whole.max(), machine.caches()["L2"] / 1024) * 1.25))
    left.legend(loc="lower center", bbox_to_anchor=(0.4, 1.04), ncols=2, fontsize=7, frameon=False)
    fused = np.array([b.bytes for b in BLOCKS.values()]) / 1e6
    saved = np.array([b.saved_bytes for b in BLOCKS.values()]) / 1e6
    right.barh(places, fused, 0.6, color=GREEN, label="fused: image, weights, result")
    right.barh(places, saved, 0.6, left=fused, color=ORANGE, label="what two layers move besides")
    right.set(xlabel="least memory traffic, MB")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=7, frameon=False)
