"""All convolutions of a network in order, each with weights of its own, which then come from memory as they do in life.

A chain is timed as segments. Within one, each layer takes the result of the one before; where shapes do not fit, because the
network pools or branches there, a new segment begins with an input of its own. What else a network computes is left out:
pooling, the additions of residual branches, the final classifier. That is the same for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv.bench.layers import AnyProblem, Segment, parts, segment
from fastconv.problem import Problem


@dataclass(frozen=True)
class Chain:
    """A network's layers in segments, each a tuple of problems of which the next takes the one's result."""

    name: str
    segments: tuple[tuple[AnyProblem, ...], ...]

    kind = "chain"

    @property
    def problems(self) -> tuple[AnyProblem, ...]:
        """Of all segments, in order."""
        return sum(self.segments, ())

    @property
    def dtype(self) -> str:
        """Of everything."""
        return self.problems[0].dtype

    @property
    def operations(self) -> int:
        """Of all layers."""
        return sum(problem.operations for problem in self.problems)

    @property
    def bytes(self) -> int:
        """Least memory traffic, layer by layer."""
        return sum(problem.bytes for problem in self.problems)

    def filled(self) -> list[Segment]:
        """The segments with random numbers, all different."""
        rng = np.random.default_rng(0)
        return [segment(problems, rng) for problems in self.segments]

    def __str__(self) -> str:
        return self.name


Timed = AnyProblem | Chain


def filled(problem: Timed) -> list[Segment]:
    """A problem or a chain with random numbers.

    >>> [len(part.layers) for part in filled(CHAINS["resnet18"])]
    [1, 16, 3]
    """
    return problem.filled() if isinstance(problem, Chain) else [segment([problem])]


def convolutions(problem: Timed) -> tuple[Problem, ...]:
    """Of a layer or of a chain's layers, in order.

    >>> len(convolutions(CHAINS["mobilenet_v1"]))
    27
    """
    problems = problem.problems if isinstance(problem, Chain) else (problem,)
    return tuple(part for one in problems for part in parts(one))


def _segments(problems: list[AnyProblem]) -> tuple[tuple[AnyProblem, ...], ...]:
    """Cut where a result is not of the next input's shape."""
    cut = [i for i in range(1, len(problems)) if problems[i - 1].out_shape != problems[i].x_shape]
    return tuple(tuple(problems[i:j]) for i, j in zip([0, *cut], [*cut, len(problems)], strict=True))


def _chain(name: str, texts: list[str]) -> Chain:
    return Chain(name, _segments([Problem.parse(text) for text in texts]))


def _conv(c: int, size: int, f: int, k: int, s: int = 1, activation: str = "relu") -> str:
    return ",".join(filter(None, [f"conv2d,n1c{c}i{size}f{f}k{k}s{s}p{k // 2}", "bias", activation]))


def _separable(c: int, size: int, f: int, s: int = 1, inner: str = "relu", outer: str = "relu") -> str:
    out = -(-size // s)
    depthwise = f"conv2d,n1c{c}i{size}f{c}k3s{s}p1g{c},bias,{inner}"
    return f"{depthwise}+{_conv(c, out, f, 1, activation=outer)}"


def _resnet18() -> list[str]:
    """The stem; the four stages' 3x3 layers; last the three 1x1 layers of the shortcuts, whose shapes happen to fit too."""
    texts = [_conv(3, 224, 64, 7, 2)]
    texts += [_conv(64, 56, 64, 3)] * 4
    for c, size in ((64, 56), (128, 28), (256, 14)):
        texts += [_conv(c, size, 2 * c, 3, 2)] + [_conv(2 * c, size // 2, 2 * c, 3)] * 3
    return texts + [_conv(c, size, 2 * c, 1, 2, "") for c, size in ((64, 56), (128, 28), (256, 14))]


# (filters, stride) of the thirteen separable layers of MobileNet v1, and
# (expansion, filters, repetitions, first stride) of the blocks of MobileNet v2, as in their papers' tables.
MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _mobilenet_v1() -> list[str]:
    texts, c, size = [_conv(3, 224, 32, 3, 2)], 32, 112
    for f, s in MOBILENET_V1:
        texts.append(_separable(c, size, f, s))
        c, size = f, size // s
    return texts


def _mobilenet_v2() -> list[str]:
    texts, c, size = [_conv(3, 224, 32, 3, 2, "relu6")], 32, 112
    for expansion, f, repetitions, first in MOBILENET_V2:
        for s in [first] + [1] * (repetitions - 1):
            if expansion > 1:
                texts.append(_conv(c, size, expansion * c, 1, activation="relu6"))
            texts.append(_separable(expansion * c, size, f, s, "relu6", ""))
            c, size = f, size // s
    return [*texts, _conv(320, 7, 1280, 1, activation="relu6")]


CHAINS = {
    name: _chain(name, texts)
    for name, texts in {"resnet18": _resnet18(), "mobilenet_v1": _mobilenet_v1(), "mobilenet_v2": _mobilenet_v2()}.items()
}
