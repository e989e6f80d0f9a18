"""What was measured, as a table for the terminal, as plain text, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TextIO

from fastconv.bench.layers import LAYERS, MORE_LAYERS, find
from fastconv.bench.timing import measure
from fastconv.cpu.machine import cpu_name, fma_peak
from fastconv.cpu.threads import get_num_threads, num_threads

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


def bench(
    texts: Sequence[str] = (), *, threads: int | None = None, seconds: float = 0.5, quick: bool = False,
    as_json: bool = False, console: Console | None = None,
) -> None:  # fmt: skip
    """Time layers and report them.

    Parameters
    ----------
    texts : sequence of str
        Names in the tables of layers, or problems' texts; all of both tables if there are none.
    threads : int, optional
        How many threads a call may use; as `fastconv.get_num_threads` says if not given.
    seconds : float
        How long each layer is timed.
    quick : bool
        Time each for a moment only.
    as_json : bool
        Write one JSON list instead of a table.
    console : Console, optional
        Where to; standard output if not given.
    """
    console = console or Console()
    found = [find(text) for text in texts or [*LAYERS, *MORE_LAYERS]]
    peak = lru_cache(fma_peak)  # of one core, once a dtype
    seconds = QUICK if quick else seconds
    with num_threads(get_num_threads() if threads is None else threads):
        measured = [measure(name, problem, seconds, peak(problem.dtype)) for name, problem in found]
        used = get_num_threads()
    if as_json:
        console.line(json.dumps([m.as_dict() for m in measured], indent=2))
        return
    peaks = ", ".join(f"{peak(dtype):.0f} GFLOP/s a core ({dtype})" for dtype in sorted({p.dtype for _, p in found}))
    console.table(
        f"{cpu_name()}, threads: {used}, multiply-add peak: {peaks}",
        ["layer", "kind", "MFLOP", "time", "GFLOP/s", "of peak", "GB/s"],
        [
            [
                m.name, m.problem.kind, f"{m.problem.operations / 1e6:,.1f}", time_text(m.seconds), f"{m.gflops:.1f}",
                f"{m.share:.0%}", f"{m.bandwidth:.1f}",
            ]
            for m in measured
        ],
    )  # fmt: skip
