"""The plan's choice in words: which kernel runs a problem and why, why the others do not, and what limits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import functional
from fastconv.cpu import threads
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import AnyProblem, Division, Implementation, choose, refusals
from fastconv.problem import Problem, SeparableProblem

BALANCE = 6  # operations a byte: 100 to 250 GFLOP/s a core, beside 20 to 40 GB/s


def _size(tile: Any) -> str:
    return f"{tile.rows} rows of {tile.vectors} vectors of {tile.lanes} {tile.dtype}"


@dataclass(frozen=True)
class Explanation:
    """What would run. Prints as a few lines; the numbers are attributes.

    Attributes
    ----------
    problem : Problem or SeparableProblem
        What is computed.
    kernel : str
        The kernel that computes it.
    refused : tuple of (name, reason)
        The kernels that do not.
    operations, bytes, workspace : int
        Multiplications and additions; least memory traffic; bytes of scratch at the present number of threads.
    limit : {"multiply-adds", "memory"}
        What binds a kernel that does everything else right.
    """

    problem: AnyProblem
    implementation: Implementation
    division: Division
    refused: tuple[tuple[str, str], ...]

    @property
    def kernel(self) -> str:
        return self.implementation.name

    @property
    def operations(self) -> int:
        return self.problem.operations

    @property
    def bytes(self) -> int:
        return self.problem.bytes

    @property
    def intensity(self) -> float:
        """Operations a byte of memory traffic."""
        return self.operations / self.bytes

    @property
    def limit(self) -> str:
        """By the intensity: a core does about `BALANCE` operations in the time in which it moves a byte from beyond its L2."""
        return "multiply-adds" if self.intensity > BALANCE else "memory"

    @property
    def workspace(self) -> int:
        return threads.seats() * self.division.scratch * np.dtype(self.problem.dtype).itemsize

    def __str__(self) -> str:
        division = self.division
        lines = [
            f"problem     {self.problem}",
            f"result      {self.problem.out_shape} from {self.problem.x_shape}, {self.problem.dtype}",
            f"kernel      {self.kernel}: the first in the list that does not refuse",
            f"vectorised  along the {self.implementation.vectorised}",
            *([f"tile        {_size(division.tile)}"] if division.tile is not None else []),
            f"work        {division.items} items: {division.bands} bands of {division.band}, {division.chunks} chunks of filters, "
            f"for {threads.get_num_threads()} threads",
            f"operations  {self.operations:,}",
            f"bytes       {self.bytes:,} at least, {self.intensity:.1f} operations a byte",
            f"limit       {self.limit}",
            f"workspace   {self.workspace:,} bytes",
        ]
        if isinstance(self.problem, SeparableProblem):
            lines.append(f"saved       {self.problem.saved_bytes:,} bytes of traffic: the depthwise result stays in the scratch")
        lines += [f"not         {name}: {reason}" for name, reason in self.refused]
        return "\n".join(lines)

    __repr__ = __str__


def explain(what: str | Problem | SeparableProblem | Callable[..., Any], *arguments: Any, **keywords: Any) -> Explanation:
    """Say which kernel would run and why, without running it.

    Parameters
    ----------
    what : callable, Problem or str
        A function of fastconv (or of `fastconv.grad`), followed by its arguments; or a problem, or the text form of one.
    *arguments, **keywords
        Of the function.

    Returns
    -------
    Explanation
        An object that prints well.

    Raises
    ------
    TypeError, ValueError
        As the function would, or if the text describes no problem.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.explain(fc.conv2d, np.ones((64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32), padding=1).kernel
    'winograd_4x4'
    >>> fc.explain("conv2d,n1c32i112x112f32k3p1g32").kernel
    'tiled_depthwise'
    """
    fresh = False
    if callable(what):
        answer = functional.ask(what, *arguments, **keywords)
        problem, fresh = answer.problem, answer.fresh
    elif isinstance(what, str):
        problem = Problem.parse(what)
    elif isinstance(what, (Problem, SeparableProblem)):
        problem = what
    else:
        raise TypeError(f"what: got {type(what).__name__}, expected a function of fastconv, a Problem or its text")
    _, implementation, division, _ = choose(problem, IMPLEMENTATIONS, threads.get_num_threads(), fresh=fresh)
    return Explanation(problem, implementation, division, tuple(refusals(problem, IMPLEMENTATIONS, fresh=fresh)))
