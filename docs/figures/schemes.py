"""Winograd's schemes as the package has them: exact matrices, counts, errors, and how tiles cover a plane."""

from __future__ import annotations

from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GREEN, INK, ORANGE, PHASES, RED, axes, box, fit

import fastconv as fc
from fastconv.cpu import toom, winograd
from fastconv.cpu.toom import F4, Nested, Scheme


def _latex(matrix: list[list[Fraction]]) -> str:
    def number(value: Fraction) -> str:
        sign, size = ("-" if value < 0 else ""), abs(value)
        return sign + (str(size) if size.denominator == 1 else rf"\tfrac{{{size.numerator}}}{{{size.denominator}}}")

    return r"\begin{bmatrix} " + r" \\ ".join(" & ".join(map(number, row)) for row in matrix) + r" \end{bmatrix}"


def matrices(name: str) -> str:
    """A', G and B' of a scheme, as mathematics."""
    scheme: Scheme = getattr(toom, name)
    blocks = []
    for letter, matrix in (("A", scheme.a), ("G", scheme.g), ("B", scheme.b)):
        prime = "" if letter == "G" else r"^\mathsf{T}"
        blocks += [".. math::", "", f"   {letter}{prime} = {_latex(matrix)}", ""]
    return "\n".join(blocks)


def table() -> str:
    """Every scheme in two dimensions: products of a tile beside a direct kernel's, and what it may be off."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: auto", ""]
    heads = ("kernel", "window", "stride", "outputs", "products", "direct", "saved", "bound, 64 channels", "512 channels")
    rows = [heads]
    for kernel, scheme in winograd.SCHEMES.items():
        outputs, products = scheme.down.outputs * scheme.across.outputs, scheme.count
        (high, wide), areas = scheme.window, scheme.stride**2 if scheme.transposed else 1
        taps = high * wide * outputs // areas
        bounds = [winograd.error_bound(scheme, channels, "float32") for channels in (64, 512)]
        stride = f"{scheme.stride}, transposed" if scheme.transposed else str(scheme.stride)
        rows.append(
            (
                f"``{kernel}``", f"{high}x{wide}", stride, f"{scheme.down.outputs}x{scheme.across.outputs}",
                str(products), str(taps), f"{taps / products:.2f} x", *(f"{bound:.1e}" for bound in bounds),
            )
        )  # fmt: skip
    for row in rows:
        lines += [f"   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return "\n".join(lines)


def tiles_of_a_plane() -> None:
    """F(4x4) on a plane of 14 x 14: tiles of outputs, one window, and how many tiles each pair of points is multiplied for."""
    size, scheme = 14, F4
    _, (plane, kinds) = axes(9, 4.1, 2)
    across = -(-size // scheme.outputs)
    for r in range(across):
        for t in range(across):
            high, wide = (min(scheme.outputs, size - k * scheme.outputs) for k in (r, t))
            box(plane, t * scheme.outputs, r * scheme.outputs, wide, high, PHASES[(r + t) % 2], f"{r * across + t}", size=8)
    box(plane, 4 - 1, 4 - 1, scheme.numbers, scheme.numbers, "none", edgecolor=RED, linewidth=1.6)
    plane.text(4 - 0.8, 4 - 1.2, f"the {scheme.numbers}x{scheme.numbers} numbers that tile 5 sees", color=RED, fontsize=8)
    fit(plane, -0.2, size + 0.2, size + 0.2, -0.4)
    plane.set_title(f"{across * across} tiles of {scheme.outputs}x{scheme.outputs} outputs cover 14 x 14", fontsize=9)

    spared = scheme.spared[size % scheme.outputs]
    for i in range(scheme.count):
        for j in range(scheme.count):
            needed = (across - (spared >> i & 1)) * (across - (spared >> j & 1))
            box(kinds, j, i, 1, 1, BLUE if needed == across**2 else ORANGE if needed > (across - 1) ** 2 else GREEN, str(needed),
                ink="white", size=9)  # fmt: skip
    names = [str(p) for p in scheme.points] + ["inf"]
    for k, name in enumerate(names):
        kinds.text(k + 0.5, -0.25, name, ha="center", va="bottom", fontsize=8, color=INK)
        kinds.text(-0.2, k + 0.5, name, ha="right", va="center", fontsize=8, color=INK)
    fit(kinds, -0.8, scheme.count + 0.1, scheme.count + 0.1, -1)
    kinds.set_title("for each pair of points: how many tiles are multiplied", fontsize=9)


def errors() -> None:
    """The largest error of each kernel on normal numbers, as a share of conv(abs(x), abs(weight)), beside the plan's bound."""
    counts, size = (16, 64, 256, 512), 20
    colors = {"winograd_2x2": GREEN, "winograd_4x4": ORANGE}
    kernels = {"direct": (None, BLUE)} | {name: (winograd.SCHEMES[name], color) for name, color in colors.items()}
    rng = np.random.default_rng(0)
    _, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    found: dict[str, list[float]] = {name: [] for name in kernels}
    for channels in counts:
        x = rng.standard_normal((1, channels, size, size), np.float32)
        weight = rng.standard_normal((32, channels, 3, 3), np.float32)
        exact = fc.reference.conv2d(x.astype(float), weight.astype(float), padding=1)
        scale = fc.reference.conv2d(np.abs(x), np.abs(weight), padding=1).max()
        for name, (scheme, _) in kernels.items():
            result = _by(scheme, x, weight)
            found[name].append(float(np.abs(result - exact).max() / scale))
    for name, (scheme, color) in kernels.items():
        ax.plot(counts, found[name], "o-", color=color, label=f"{name}, measured")
        if scheme is not None:
            ax.plot(counts, [winograd.error_bound(scheme, c, "float32") for c in counts], ":", color=color, label=f"{name}, bound")
    ax.axhline(fc.plan.ERRORS["high"], color=RED, linewidth=1, label='what precision="high" allows')
    ax.set(xscale="log", yscale="log", xlabel="channels", ylabel="share of conv(|x|, |weight|)", xticks=counts)
    ax.set_xticks(counts, [str(c) for c in counts])
    ax.minorticks_off()
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _by(scheme: Nested | None, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """By the direct kernel, or by this scheme's: the plan is shown no other that the API could reach."""
    if scheme is None:
        return fc.conv2d(x, weight, padding=1, algorithm="direct")
    from unittest import mock

    from fastconv import functional
    from fastconv.cpu.table import IMPLEMENTATIONS

    only = tuple(i for i in IMPLEMENTATIONS if i.scheme is scheme)
    functional._calls.clear()
    with mock.patch.object(functional, "IMPLEMENTATIONS", only):
        result = fc.conv2d(x, weight, padding=1, algorithm="winograd")
    functional._calls.clear()
    return result
