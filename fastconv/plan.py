"""Which kernel computes a problem: of a list of implementations, each of which says yes or why not, the cheapest.

An `Implementation` joins a kernel with what it asks for: which problems, which register tile, how the weights are packed, how
the work is divided into items, how much scratch a seat needs. The lists, one for each target, live with the kernels
(cpu/table.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from fastconv.problem import Problem, SeparableProblem

# Problems of fewer operations go to the direct kernels, which read weights as they are: packing them for another kernel would take
# longer than the direct one computes.
TINY = 10_000
# Problems of fewer operations keep to kernels that round like the direct loop. Another scheme would save 10 us at most, and small
# whole numbers would no longer give exactly whole numbers.
SMALL = 1_000_000
# The longest row into which the pixels of a 1x1 gradient are cut, where any length would do. With longer rows fewer channels share
# a gradient once it is turned: gradients of 1x1 weights took 4 to 14 % longer.
MOST_PIXELS = 128
AnyProblem = Problem | SeparableProblem
# What each precision promises: an error below this share of conv(|x|, |weight|), beyond that of the direct loop.
ERRORS = {"high": 1e-5, "highest": 0.0}


@dataclass(frozen=True)
class Division:
    """How a problem falls into work items, and which compiled functions an item calls.

    Attributes
    ----------
    items : int
        How many there are: bands times chunks, times images, groups and whatever else the kernel divides.
    bands, band : int
        The result's rows fall into so many bands of `band` rows.
    chunks, chunk : int
        The filters fall into so many chunks of `chunk` filters.
    scratch : int
        Numbers that each seat needs.
    tile : TileShape or None
        The register tile; None for a kernel without one.
    unit : int
        How many filters a panel of the packed weights holds.
    fill : function or None
        Copies an item's part of the image, or computes its part of a separable layer's depthwise result; None where the image
        is read in place.
    fields : mapping
        What else the kernel's job is told (cpu/job.py).
    window : TileShape or None
        Of a separable layer's depthwise part; None where its window has no machine code of its own.
    multiply : function or None
        Fills the register tile, for kernels that are compiled once for all tiles. They are compiled for `outer`, which says only
        what all of these tiles have in common.
    transform : function or None
        Transforms fresh weights from where they lie, for kernels that do so themselves.
    outer : TileShape or None
        See `multiply`.
    put : function or None
        Puts a panel's sums where they belong; None where the kernel does.
    seen : Problem or None
        The problem by whose geometry the kernel reads the image; None where it is the problem itself.
    """

    items: int
    bands: int = 1
    band: int = 1
    chunks: int = 1
    chunk: int = 1
    scratch: int = 0
    tile: Any = None
    unit: int = 0
    fill: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    window: Any = None
    multiply: Any = None
    transform: Any = None
    outer: Any = None
    put: Any = None
    seen: Any = None


@dataclass(frozen=True, eq=False)  # each is one of a kind, and hashing what they hold would take 30 us a plan
class Implementation:
    """One way to compute some problems.

    Attributes
    ----------
    name : str
        Of the kernel.
    algorithm : {"direct", "tiled", "winograd"}
        By which the `algorithm` argument of the API selects it.
    kinds : tuple of str
        Of the problems that it computes.
    kernel : object
        The compiled function `kernel(item, seat, job)`.
    pack : callable or None
        From a problem, a panel's number of filters, the weights by group (packing.py) and the biases to the arrays that the
        kernel reads; None if it reads the weights as they come.
    divide : callable
        From a problem and a number of threads to its `Division`.
    vectorised : str
        What lies in the lanes, for `explain`.
    refuse : callable
        From a problem of these kinds to None, or the reason why this implementation does not compute it.
    reads : tuple of {"columns", "channels", "any"}
        Images in which these are neighbours in memory; others are copied first.
    cycles : callable
        From a problem to what it should cost, in multiply-adds of a vector; infinite for a last resort, 0 without a rival.
    packing : callable
        From a problem to what it should cost to pack its weights, likewise.
    error : callable
        From a problem to a bound of its error, as a share of conv(|x|, |weight|); 0 where it rounds like the direct loop.
    tiles : callable
        From a dtype to every register tile, or row of one, for which the kernel has machine code of its own.
    scheme : Scheme or None
        Of Toom and Cook, if the kernel has one.
    busiest : callable or None
        From a problem and a number of threads to the cycles of the one that has most to do, where what each item repeats, or
        items of several sizes, are too much to be left out; None where threads share `cycles` evenly.
    """

    name: str
    algorithm: str
    kinds: tuple[str, ...]
    kernel: Any
    pack: Callable[..., Any] | None
    divide: Callable[[Any, int], Division]
    vectorised: str
    refuse: Callable[[Any], str | None]
    reads: tuple[str, ...] = ("columns", "channels", "any")
    tiles: Callable[[str], Sequence[Any]] = lambda dtype: (None,)
    scheme: Any = None
    cycles: Callable[[Any], float] = lambda problem: 0.0
    error: Callable[[Any], float] = lambda problem: 0.0
    packing: Callable[[Any], float] = lambda problem: 0.0
    busiest: Callable[[Any, int], float] | None = None

    def cost(self, problem: AnyProblem, fresh: bool, threads: int = 1) -> float:
        """Of a call, of all threads together as long as the busiest takes; if its weights are fresh, of packing them too."""
        cycles = self.cycles(problem) if self.busiest is None else threads * self.busiest(problem, threads)
        return cycles + (self.packing(problem) if fresh else 0.0)

    def accepts(self, problem: AnyProblem, neighbours: str) -> str | None:
        """None, or the reason why this implementation does not compute the problem; see `choose` for `neighbours`."""
        if problem.algorithm not in ("auto", self.algorithm):
            return f"algorithm={problem.algorithm!r} was asked for"
        if problem.kind not in self.kinds:
            return f"computes {' and '.join(self.kinds)} layers, this one is {problem.kind}"
        if neighbours not in self.reads and neighbours != "any":
            return f"reads images whose {' or '.join(self.reads)} are neighbours in memory, here {neighbours} are"
        refusal = self.refuse(problem)
        if refusal is None and problem.algorithm == "auto" and problem.operations < SMALL and self.error(problem) > 0:
            return f"rounds otherwise than the direct loop, for the sake of {problem.operations:,} operations"
        if refusal is None and (error := self.error(problem)) > ERRORS[problem.precision]:
            return f"may be {error:.1e} off, and precision={problem.precision!r} allows {ERRORS[problem.precision]:.0e}"
        return refusal


class Choice(NamedTuple):
    """What will run: the problem as the kernel sees it, the implementation and its division."""

    problem: Any
    implementation: Implementation
    division: Division
    mirrored: bool = False  # a convolution stands for a transposed one, and its weight is to be mirrored


def simplified(problem: AnyProblem) -> AnyProblem:
    """The same sums in the simplest geometry, unless the direct kernels were asked for.

    - Tiny problems are left to the direct kernels.
    - A transposed convolution of stride 1 becomes an ordinary one with its weight mirrored.
    - A pointwise layer of stride 1 does not depend on where rows end, so all pixels become one row. For the gradient of its
      weights they become rows of equal length, of up to MOST_PIXELS.
    - A volume whose windows extend in depth alone becomes a plane, with a long row for each of its planes.
    """
    if problem.algorithm == "auto" and problem.operations < TINY:
        return problem.directly()
    if isinstance(problem, SeparableProblem):
        return problem
    by_direct = problem.algorithm == "direct"
    if not by_direct and problem.operation == "transposed" and all(s == 1 for s in problem.stride):
        problem = problem.mirrored()
    if not by_direct and _sees_depth_alone(problem):
        return _as_plane(problem)
    if problem.kind == "pointwise" and _sees_one_pixel(problem):
        return problem.flat()
    if problem.kind == "weights" and not by_direct and _sees_one_pixel(problem):
        return _in_long_rows(problem)
    return problem


def _sees_depth_alone(problem: Problem) -> bool:
    others = zip(problem.kernel[1:], problem.stride[1:], problem.pads[1:], strict=True)
    return (
        problem.dimensions == 3
        and problem.kind in ("standard", "atrous", "depthwise")
        and all(each == (1, 1, (0, 0)) for each in others)
    )


def _as_plane(problem: Problem) -> Problem:
    """A volume whose windows have depth alone: a row for each of its planes."""
    (deep, *plane), kernel, stride = problem.space, (problem.kernel[0], 1), (problem.stride[0], 1)
    pads, dilation, space = (problem.pads[0], (0, 0)), (problem.dilation[0], 1), (deep, math.prod(plane))
    return replace(problem, space=space, kernel=kernel, stride=stride, pads=pads, dilation=dilation)


def _sees_one_pixel(problem: Problem) -> bool:
    return all(n == 1 for n in (*problem.stride, *problem.kernel)) and not any(map(any, problem.pads))


def _in_long_rows(problem: Problem) -> Problem:
    """The pixels in rows as long as divides them, up to MOST_PIXELS, unless theirs are longer."""
    pixels = math.prod(problem.space)
    width = max(n for n in range(1, MOST_PIXELS + 1) if pixels % n == 0)
    return problem.flat(width) if width > problem.space[-1] else problem


@lru_cache(maxsize=512)  # bounded: callers may come with ever new shapes
def choose(
    problem: AnyProblem, implementations: tuple[Implementation, ...], threads: int, neighbours: str = "any", fresh: bool = False
) -> Choice:  # fmt: skip
    """Of the implementations that accept the problem the one of the fewest cycles, and its division among that many threads.

    `neighbours` says what lies side by side in the image's memory: "columns", "channels", or "any" if neither does, or nothing
    is known; then an image is copied. `fresh` weights differ from call to call, as a gradient's do, and packing them counts.

    Raises
    ------
    ValueError
        If none does, which happens only for an `algorithm` that cannot do the problem.
    """
    asked, problem = problem, simplified(problem)
    mirrored = isinstance(asked, Problem) and asked.operation != problem.operation  # type: ignore[union-attr]
    accepting = [i for i in implementations if i.accepts(problem, neighbours) is None]
    if accepting:
        best = min(accepting, key=lambda i: i.cost(problem, fresh, threads))
        return Choice(problem, best, best.divide(problem, threads), mirrored)
    able = [i for i in implementations if problem.kind in i.kinds and i.algorithm == problem.algorithm]
    reasons = dict.fromkeys(str(i.accepts(problem, neighbours)) for i in able)  # each once: many kernels refuse for the same one
    why = "; ".join(reasons) or f"no kernel of that sort for {problem.kind} layers"
    raise ValueError(f"algorithm: {problem.algorithm!r} cannot compute {problem}: {why}; expected auto or direct")


def refusals(
    problem: AnyProblem, implementations: Sequence[Implementation], neighbours: str = "any", fresh: bool = False,
    unit: str = "vector cycles", threads: int = 1,
) -> list[tuple[str, str]]:  # fmt: skip
    """(name, reason) of every implementation that does not compute the problem; `unit` is that of their costs."""
    asked, problem = problem, simplified(problem)
    reasons = {i.name: i.accepts(problem, neighbours) for i in implementations}
    if asked.algorithm != problem.algorithm:
        tiny = f"so few operations, {asked.operations:,}, are left to the direct kernels"
        reasons |= {i.name: tiny for i in implementations if i.algorithm != problem.algorithm}
    cycles = {i.name: i.cost(problem, fresh, threads) for i in implementations if reasons[i.name] is None}
    best = min(cycles, key=lambda name: cycles[name], default="")
    for name, own in cycles.items():
        if name != best:
            reasons[name] = f"{own:,.0f} {unit} expected, {cycles[best]:,.0f} of {best}"
            if own == math.inf:
                reasons[name] = f"the last resort, and {best} can compute it"
            elif cycles[best] == 0:
                reasons[name] = f"{best} is made for such layers"
    return [(name, reason) for name, reason in reasons.items() if reason is not None]
