"""The article's claim, measured: a separable layer takes (k^2 + F) / (k^2 F) of a standard layer's operations.

How much of that becomes speed? Each block of MobileNet v1 is timed beside the standard layer that it stands for, both
fastconv's, in turn, with the same rounding: `precision="highest"`, for Winograd's form would take fewer products than the
operations that are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastconv.bench.compare import best_in_turn
from fastconv.bench.layers import case
from fastconv.bench.report import Console, time_text
from fastconv.bench.results import check_picture
from fastconv.cpu.machine import cpu_name
from fastconv.cpu.threads import get_num_threads, num_threads
from fastconv.problem import Problem, SeparableProblem


def _block(c: int, size: int, f: int, stride: int = 1) -> SeparableProblem:
    out = size // stride
    text = f"conv2d,n1c{c}i{size}f{c}k3s{stride}p1g{c},bias,relu+conv2d,n1c{c}i{out}f{f}k1,bias,relu"
    problem = Problem.parse(text)
    assert isinstance(problem, SeparableProblem)
    return problem


# One of each size of MobileNet v1 (Howard et al. 2017, table 1).
BLOCKS = {
    "32 to 64, 112 x 112": _block(32, 112, 64),
    "64 to 128, stride 2": _block(64, 112, 128, 2),
    "128 to 128, 56 x 56": _block(128, 56, 128),
    "256 to 256, 28 x 28": _block(256, 28, 256),
    "512 to 512, 14 x 14": _block(512, 14, 512),
    "1024 to 1024, 7 x 7": _block(1024, 7, 1024),
}


@dataclass(frozen=True)
class Claim:
    """A separable block beside its standard layer; seconds of each.

    Examples
    --------
    >>> block = BLOCKS["32 to 64, 112 x 112"]
    >>> claim = Claim("a block", standard_of(block), block, 8e-3, 1e-3)
    >>> f"{claim.operations:.2f} times the operations, {claim.speed:.0f} times the speed, {claim.share:.0%}"
    '7.89 times the operations, 8 times the speed, 101%'
    """

    name: str
    standard: Problem
    separable: SeparableProblem
    standard_seconds: float
    separable_seconds: float

    @property
    def parameters(self) -> float:
        """The standard layer's parameters over the block's."""
        return self.standard.parameters / self.separable.parameters

    @property
    def operations(self) -> float:
        """The standard layer's operations over the block's: k^2 F / (k^2 + F)."""
        return self.standard.operations / self.separable.operations

    @property
    def speed(self) -> float:
        """The standard layer's time over the block's."""
        return self.standard_seconds / self.separable_seconds

    @property
    def share(self) -> float:
        """Of the ratio of operations that becomes speed."""
        return self.speed / self.operations


def standard_of(block: SeparableProblem) -> Problem:
    """The standard layer of a block's shape, bias and activation.

    >>> str(standard_of(BLOCKS["512 to 512, 14 x 14"]))
    'conv2d,n1c512i14x14f512k3x3p1,bias,relu,highest'
    """
    first, last = block.depthwise, block.pointwise
    return replace(first, filters=last.filters, groups=1, bias=last.bias, activation=last.activation, precision="highest")


def measured(blocks: dict[str, SeparableProblem] | None = None, seconds: float = 0.5) -> list[Claim]:
    """Time each block and its standard layer, in turn, at the present number of threads."""
    claims = []
    for name, block in (BLOCKS if blocks is None else blocks).items():
        standard = standard_of(block)
        times = best_in_turn({"standard": case(standard), "separable": case(block)}, seconds)
        claims.append(Claim(name, standard, block, times["standard"], times["separable"]))
    return claims


def article(
    *, threads: int | None = None, seconds: float = 0.5, plot: str | None = None, console: Console | None = None,
    blocks: dict[str, SeparableProblem] | None = None,
) -> list[Claim]:  # fmt: skip
    """Print, and draw if asked to, what share of the saved operations becomes speed.

    Parameters
    ----------
    threads : int, optional
        How many threads a call may use; as `fastconv.get_num_threads` says if not given.
    seconds : float
        How long each layer is timed.
    plot : str, optional
        Name of a picture to draw.
    console : Console, optional
        Where to; standard output if not given.
    blocks : dict of str to SeparableProblem, optional
        What to time; `BLOCKS` if not given.
    """
    if plot:
        check_picture(plot)
    console = console or Console()
    with num_threads(get_num_threads() if threads is None else threads):
        claims, used = measured(blocks, seconds), get_num_threads()
    console.table(
        f"{cpu_name()}, threads: {used}; a standard layer over the separable block that stands for it",
        ["block", "standard", "separable", "parameters", "operations", "speed", "of the operations' ratio"],
        [
            [
                c.name, time_text(c.standard_seconds), time_text(c.separable_seconds), f"{c.parameters:.2f}",
                f"{c.operations:.2f}", f"{c.speed:.2f}", f"{c.share:.0%}",
            ]
            for c in claims
        ],
    )  # fmt: skip
    if plot:
        draw(claims, plot, used)
    return claims


def draw(claims: Sequence[Claim], file: str, threads: int) -> None:
    """Bars of each block's ratio of operations and of speed, into a file whose ending says the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.6 * len(claims)), layout="constrained")
    FigureCanvasAgg(figure)
    axes, places = figure.subplots(), range(len(claims))
    axes.barh([p - 0.2 for p in places], [c.operations for c in claims], 0.4, color="0.8", label="operations")
    axes.barh([p + 0.2 for p in places], [c.speed for c in claims], 0.4, color="tab:blue", label="speed")
    for place, claim in zip(places, claims, strict=True):
        end = (claim.speed, place + 0.2)
        axes.annotate(f"{claim.share:.0%} of it", end, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(list(places), [c.name for c in claims])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(
        xlabel="standard layer over separable block",
        title=f"Depthwise separable convolution: operations saved, and speed gained\n{cpu_name()}, threads: {threads}",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, frameon=False)
    figure.savefig(file, dpi=110)
