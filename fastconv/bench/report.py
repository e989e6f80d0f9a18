"""What was measured, as a table for the terminal, as plain text, or as JSON."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TextIO, TypeVar

from fastconv.bench.chains import CHAINS, Chain, Timed
from fastconv.bench.compare import Comparison, best_in_turn, compare
from fastconv.bench.layers import LAYERS, MORE_LAYERS, TABLES, AnyProblem, asking, case, find
from fastconv.bench.peers import Peer
from fastconv.bench.results import check_picture, check_place, everything, write
from fastconv.bench.timing import Measurement, measure
from fastconv.cpu.machine import cpu_name, fma_peak
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import get_num_threads, num_threads
from fastconv.plan import choose, simplified
from fastconv.problem import ALGORITHMS

Item = TypeVar("Item")

QUICK = 0.02  # seconds a layer: enough to see that it runs, and about how fast


class Console:
    """Where lines and tables go: through rich on a terminal where it is installed, as plain text elsewhere."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = sys.stdout if file is None else file
        self._rich: Any = None
        if self.file.isatty():
            try:
                from rich.console import Console as RichConsole

                self._rich = RichConsole(file=self.file, highlight=False)
            except ImportError:
                pass

    def line(self, text: str = "") -> None:
        """Write one line, or several."""
        if self._rich:
            self._rich.print(text, markup=False)
        else:
            self.file.write(text + "\n")
            self.file.flush()

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; what looks like a number stands to the right."""
        rows = [list(map(str, row)) for row in rows]
        right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
        if not self._rich:
            self.line(plain_table(title, columns, rows, right))
            return
        from rich.table import Table

        made = Table(title=title, title_justify="left", header_style="bold")
        for name, to_right in zip(columns, right, strict=True):
            made.add_column(name, justify="right" if to_right else "left")
        for row in rows:
            made.add_row(*row)
        self._rich.print(made, markup=False)


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table in plain text.

    >>> print(plain_table("Sizes", ["name", "size"], [["a", "1"], ["b", "23"]], [False, True]))
    Sizes
    name  size
    ----  ----
    a        1
    b       23
    """
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return "  ".join(cells).rstrip()

    return "\n".join([title, line(columns), line(["-" * width for width in widths]), *map(line, rows)])


def _is_number(text: str) -> bool:
    head = text.split(" ")[0].rstrip("%").replace(",", "")
    try:
        float(head)
    except ValueError:
        return head == "-"
    return True


def time_text(seconds: float) -> str:
    """A time with its unit.

    >>> time_text(2.5e-6), time_text(0.0123), time_text(4.2)
    ('2.5 us', '12.30 ms', '4.20 s')
    """
    if seconds < 1e-4:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def progress(items: Sequence[Item], words: str) -> Iterable[Item]:
    """The items, with a bar on standard error while it is a terminal and rich is installed."""
    if not sys.stderr.isatty():
        return items
    try:
        from rich.console import Console as RichConsole
        from rich.progress import track
    except ImportError:
        return items
    return track(items, words, console=RichConsole(stderr=True), transient=True)


def selected(texts: Sequence[str], table: str | None = None, kind: str | None = None) -> list[tuple[str, AnyProblem]]:
    """Names and problems: those of the texts, or else of a table, or else of the first two; only one kind's if it is given.

    A text is a name, a pattern of names such as `resnet_*`, or a problem's text.

    Raises
    ------
    ValueError
        If nothing is left, or a text is neither a name nor a problem.

    Examples
    --------
    >>> [name for name, problem in selected([], "tuned", "atrous")]
    ['atrous_r2_28_256', 'atrous_r12_33']
    >>> [name for name, problem in selected(["pw_*_1024", "vgg16_14*", "conv1d,n1c4i20f6k3"])]
    ['pw_7_1024', 'vgg16_14_512', 'conv1d,n1c4i20f6k3']
    """
    names = [name for text in texts for name in _matching(text)] or (TABLES[table] if table else [*LAYERS, *MORE_LAYERS])
    found = [(name, problem) for name, problem in map(find, names) if kind in (None, problem.kind)]
    if not found:
        raise ValueError(f"kind: got {kind!r}, of which there is no layer among {', '.join(names)}")
    return found


def _matching(text: str) -> list[str]:
    """The names that a pattern stands for; any other text stands for itself, and so does a pattern without any name."""
    return fnmatch.filter([name for table in TABLES.values() for name in table], text) or [text]


def bench(
    texts: Sequence[str] = (), *, table: str | None = None, kind: str | None = None, chains: Sequence[str] = (),
    peers: Sequence[Peer] = (), threads: int | None = None, seconds: float = 0.5, quick: bool = False,
    plot: str | None = None, json: str | None = None, command: str = "", console: Console | None = None,
) -> None:  # fmt: skip
    """Time layers or chains of layers, beside other libraries if asked for, and report them.

    Parameters
    ----------
    texts : sequence of str
        Names in the tables of layers, patterns of names such as `resnet_*`, or problems' texts.
    table : {"tuned", "more", "other", "survey"}, optional
        Whose layers are timed if there are no texts; those of the first two if not given.
    kind : str, optional
        Keeps the layers of one kind.
    chains : sequence of str
        Names of networks, which are then timed instead.
    peers : sequence of Peer
        Libraries to measure beside, such as `fastconv.bench.PEERS`. Without any, layers are called with an `out`; with some,
        everybody allocates the result.
    threads : int, optional
        How many threads a call may use; as `fastconv.get_num_threads` says if not given.
    seconds : float
        How long each layer is timed, and each of its peers.
    quick : bool
        Time each for a moment only.
    plot : str, optional
        Name of a picture to draw: a roofline, and bars beside the peers.
    json : str, optional
        Name of a file for the results, as `fastconv.bench.results` describes it; "-" is the standard output, instead of a table.
    command : str
        What to type to measure it again; for that file.
    console : Console, optional
        Where to; standard output if not given.
    """
    for file in (plot, json):
        check_place(file)
    if plot:
        from fastconv.bench.plot import draw  # says what is missing now, likewise

        check_picture(plot)
    console = console or Console()
    found: list[tuple[str, Timed]] = [(c, CHAINS[c]) for c in chains] or list(selected(texts, table, kind))
    peak = lru_cache(fma_peak)  # of one core, once a dtype
    seconds = QUICK if quick else seconds
    measured: list[Measurement] = []
    with num_threads(get_num_threads() if threads is None else threads):
        for name, problem in progress(found, "timing"):
            if peers or isinstance(problem, Chain):
                measured.append(compare(problem, seconds, peers=peers, name=name, peak=peak(problem.dtype)))
            else:
                measured.append(measure(name, problem, seconds, peak(problem.dtype)))
        if plot:
            draw(measured, plot)
        if json:
            write(json, everything(measured, peers, command))
    if json == "-":
        return
    peaks = ", ".join(f"{peak(dtype):.0f} GFLOP/s a core ({dtype})" for dtype in sorted({p.dtype for _, p in found}))
    title = f"{cpu_name()}, threads: {measured[0].threads}, multiply-add peak: {peaks}"
    if chains:
        _report_chains(console, title, measured)
    else:
        _report_layers(console, title, measured, peers)
    for note in notes(measured, peers):
        console.line(note)


def _report_layers(console: Console, title: str, measured: Sequence[Measurement], peers: Sequence[Peer]) -> None:
    present = [peer.name for peer in peers if not peer.missing()]
    console.table(
        title,
        ["layer", "kind", "MFLOP", "time", "GFLOP/s", "of peak", "GB/s", *present, *(["ratio"] if present else [])],
        [
            [
                m.name, m.problem.kind, f"{m.problem.operations / 1e6:,.1f}", time_text(m.seconds), f"{m.gflops:.1f}",
                f"{m.share:.0%}", f"{m.bandwidth:.1f}", *_beside(m, present),
            ]
            for m in measured
        ],
    )  # fmt: skip


def _beside(m: Measurement, present: Sequence[str]) -> list[str]:
    """The cells of the peers' columns: GFLOP/s each, and how far fastconv is ahead of the best."""
    if not present or not isinstance(m, Comparison):
        return []
    each = [f"{m.gflops_of(name):.1f}" if name in m.peers else "-" for name in present]
    return [*each, f"{m.ratio:.2f}" if m.peers else "-"]


def _report_chains(console: Console, title: str, measured: Sequence[Measurement]) -> None:
    for m in measured:
        times = {"fastconv": m.seconds} | (m.peers if isinstance(m, Comparison) else {})
        console.table(
            f"{m.name}: {title}",
            ["library", "time", "GFLOP/s", "time over fastconv's"],
            [
                [name, time_text(seconds), f"{m.problem.operations / seconds / 1e9:.1f}", f"{seconds / m.seconds:.2f}"]
                for name, seconds in times.items()
            ],
        )


def notes(measured: Sequence[Measurement], peers: Sequence[Peer]) -> list[str]:
    """What the peers' columns mean, who is missing and how to install it, and who refused what."""
    if not peers:
        return []
    lines = ["Peers in GFLOP/s; ratio: the best peer's time over fastconv's. Everybody allocates the result."]
    lines += [f"{peer.name}: not installed; {advice}" for peer in peers if (advice := peer.missing())]
    here = {peer.name for peer in peers if not peer.missing()}
    refused: dict[tuple[str, str], list[str]] = {}
    for m in measured:
        if isinstance(m, Comparison):
            for peer, reason in m.refused.items():
                if peer in here:
                    refused.setdefault((peer, reason), []).append(m.name)
    return lines + [f"{peer}: {reason}: {', '.join(names)}" for (peer, reason), names in refused.items()]


def tune(
    found: Sequence[tuple[str, AnyProblem]], *, threads: int | None = None, seconds: float = 0.5, console: Console | None = None,
) -> None:  # fmt: skip
    """Time every algorithm that can compute each problem, in turn, and say which of them `auto` takes. Changes nothing.

    Parameters
    ----------
    found : sequence of (name, problem)
        As `selected` gives them.
    threads, seconds, console
        As in `bench`; so many seconds for each algorithm.
    """
    rows = []
    with num_threads(get_num_threads() if threads is None else threads):
        for name, problem in progress(found, "tuning"):
            taken = choose(problem, IMPLEMENTATIONS, get_num_threads()).implementation.algorithm
            able = algorithms(problem)
            times = best_in_turn({algorithm: case(asked) for algorithm, asked in able.items()}, seconds)
            speeds = [f"{problem.operations / times[a] / 1e9:.1f}" if a in times else "-" for a in ALGORITHMS[1:]]
            best = min(times, key=times.__getitem__)
            rows.append([name, problem.kind, *speeds, taken, best, f"{times[taken] / times[best]:.2f}"])
    console = console or Console()
    title = f"{cpu_name()}, GFLOP/s of each algorithm; loss: the time of what auto takes over the best"
    console.table(title, ["layer", "kind", *ALGORITHMS[1:], "auto takes", "best", "loss"], rows)


def algorithms(problem: AnyProblem) -> dict[str, AnyProblem]:
    """The algorithms that can compute a problem, each with the problem that asks for it.

    >>> list(algorithms(LAYERS["pw_14_512"]))[0]
    'direct'
    """
    if problem.kind == "weights":  # whose functions let nobody choose
        return {choose(problem, IMPLEMENTATIONS, get_num_threads()).implementation.algorithm: problem}
    asked = {algorithm: asking(problem, algorithm) for algorithm in ALGORITHMS[1:] if problem.algorithm in ("auto", algorithm)}
    return {a: p for a, p in asked.items() if any(i.accepts(simplified(p), "any") is None for i in IMPLEMENTATIONS)}
