"""Which kernel computes a problem: an ordered list of implementations, each of which says yes, or why not.

An `Implementation` joins a kernel with what it asks for: which problems, how the weights are packed, how the work is divided
into items, how much scratch a seat needs. The lists, one for each target, live with the kernels (cpu/table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastconv.problem import Problem, SeparableProblem

AnyProblem = Problem | SeparableProblem


@dataclass(frozen=True)
class Division:
    """How a problem falls into work items: `bands` of `band` rows of the result each, times whatever else is independent."""

    items: int
    bands: int = 1
    band: int = 1
    scratch: int = 0  # numbers for each seat


@dataclass(frozen=True)
class Implementation:
    """One way to compute some problems.

    Attributes
    ----------
    name : str
        Of the kernel.
    algorithm : {"direct", "tiled", "winograd"}
        By which the `algorithm` argument of the API selects it.
    kind : str
        Of the problems that it computes.
    data_format : str or None
        Of the results that it writes; None if it does not matter.
    kernel : object
        The compiled function `kernel(item, seat, job)`.
    pack : tuple of callables
        One for each weight: (weight, groups) to the order in which the kernel reads.
    divide : callable
        From a problem to its `Division`.
    vectorised : str
        What lies in the lanes, for `explain`.
    """

    name: str
    algorithm: str
    kind: str
    data_format: str | None
    kernel: Any
    pack: tuple[Callable[[Any, int], Any], ...]
    divide: Callable[[Any], Division]
    vectorised: str

    def accepts(self, problem: AnyProblem) -> str | None:
        """None, or the reason why this implementation does not compute the problem."""
        if problem.algorithm not in ("auto", self.algorithm):
            return f"algorithm={problem.algorithm!r} was asked for"
        if self.kind != problem.kind:
            return f"computes {self.kind} layers, this one is {problem.kind}"
        if self.data_format not in (None, problem.data_format):
            return f"writes {self.data_format}, the result is {problem.data_format}"
        return None


@lru_cache(maxsize=512)  # bounded: callers may come with ever new shapes
def choose(problem: AnyProblem, implementations: tuple[Implementation, ...]) -> tuple[Implementation, Division]:
    """The first implementation that accepts the problem, and its division.

    Raises
    ------
    ValueError
        If none does, which happens only for an `algorithm` that cannot do the problem.
    """
    for implementation in implementations:
        if implementation.accepts(problem) is None:
            return implementation, implementation.divide(problem)
    able = {i.algorithm for i in implementations if i.kind == problem.kind}
    raise ValueError(
        f"algorithm: {problem.algorithm!r} cannot compute a {problem.kind} layer here, expected auto or {' or '.join(sorted(able))}"
    )


def refusals(problem: AnyProblem, implementations: Sequence[Implementation]) -> list[tuple[str, str]]:
    """(name, reason) of every implementation that does not compute the problem."""
    reasons = [(i.name, i.accepts(problem)) for i in implementations]
    return [(name, reason) for name, reason in reasons if reason is not None]
