"""Transposed convolution: which taps reach which output, as the kernel itself finds out."""

from __future__ import annotations

from types import SimpleNamespace

from style import PALE, PHASES, axes, box, fit

from fastconv.cpu import transposed
from fastconv.problem import Problem


def taps_that_reach() -> None:
    """Every output of three small layers, coloured by its phase: how many taps of the window reach it."""
    texts = ("transposed2d,n1c1i4f1k3s2p1o1", "transposed2d,n1c1i4f1k4s2p1", "transposed2d,n1c1i4f1k5s3p1")
    figure, drawn = axes(10, 3.7, len(texts))
    for ax, text in zip(drawn, texts, strict=True):
        problem = Problem.parse(text)
        assert isinstance(problem, Problem)
        (kernel, _), (stride, _), (size, _) = problem.kernel, problem.stride, problem.space
        job = SimpleNamespace(kernel=(1, kernel, kernel), spread=(1, stride, stride), apart=(1, 1, 1), hop=(1, stride, stride),
                              back=(1, 1, 1))  # fmt: skip
        crop, (height, width) = problem.pads[0][0], problem.out_space
        of_rows = [transposed.reaching.py_func(i + crop, 1, job, 0, size) for i in range(height)]
        for i in range(height):
            for j in range(width):
                down, across = of_rows[i][2], of_rows[j][2]
                phase = (i + crop) % stride * stride + (j + crop) % stride
                box(ax, j, i, 1, 1, PHASES[phase], str(down * across), size=8)
        for y in range(size):
            for u in range(size):
                ax.plot(u * stride - crop + 0.5, y * stride - crop + 0.5, "o", ms=17, mfc="none", mec="0.25", mew=0.8)
        fit(ax, -1.6, max(width, (size - 1) * stride - crop + 1) + 0.6, height + 0.6, -1.6)
        ax.set_facecolor(PALE)
        ax.set_title(f"{kernel}x{kernel}, stride {stride}: {stride * stride} phases", fontsize=9)
    figure.suptitle("Taps that reach each output; circles: outputs on which a pixel's first tap falls", fontsize=9)
