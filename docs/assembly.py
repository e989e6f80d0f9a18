"""What LLVM makes of a kernel: the innermost loops that multiply, and how many instructions of which sort a pass takes.

    python docs/assembly.py conv2d,n1c64i56f64k3p1,bias,relu,tiled [--print]

compiles and runs what the plan takes for a problem, and reads the x86-64 assembly of every variant of its kernel that is compiled
then. In the loop of a register tile there should be as many multiply-adds as the tile has sums, and no store to the stack.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections import Counter
from typing import NamedTuple

import fastconv as fc
from fastconv.bench import case

LABEL, JUMP = re.compile(r"^(\.?\w+):"), re.compile(r"\s+j\w+\s+(\.?\w+)$")
SORTS = {
    "multiply-adds": re.compile(r"\bvf(n?m(add|sub))\w+p[sd]\b"),
    "broadcasts": re.compile(r"\bvbroadcast|\{1to\d+\}"),
    "vector loads": re.compile(r"\bvmov[ua]p[sd]\s+-?\w*\(.*,\s*%[xyz]mm"),
    "vector stores": re.compile(r"\bvmov[ua]p[sd]\s+%[xyz]mm\d+,\s*-?\w*\("),
    "of these to the stack": re.compile(r"\bvmov[ua]p[sd]\s+%[xyz]mm\d+,\s*-?\w*\(%r[sb]p"),
    "instructions": re.compile(r"^\s+[a-z]"),
}


class Loop(NamedTuple):
    """An innermost loop: its first line in the assembly, and how many instructions of each sort."""

    line: int
    counts: Counter[str]


def loops(text: str) -> list[Loop]:
    """The innermost loops of an assembly that multiply vectors, those of most multiply-adds first.

    >>> [loop] = loops("a:\\n  vfmadd231ps %zmm1, %zmm2, %zmm0\\n  dec %rax\\n  jne a\\n")
    >>> loop.counts["multiply-adds"], loop.counts["instructions"]
    (1, 3)
    """
    lines = text.splitlines()
    labels = {match[1]: k for k, line in enumerate(lines) if (match := LABEL.match(line))}
    spans = [(labels[m[1]], k) for k, line in enumerate(lines) if (m := JUMP.match(line)) and labels.get(m[1], k) < k]
    inner = [(a, b) for a, b in spans if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in spans)]
    counted = []
    for first, last in inner:
        counts = Counter({sort: sum(bool(p.search(line)) for line in lines[first : last + 1]) for sort, p in SORTS.items()})
        if counts["multiply-adds"]:
            counted.append(Loop(first, counts))
    return sorted(counted, key=lambda loop: -loop.counts["multiply-adds"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", help="such as conv2d,n1c64i56f64k3p1,bias,relu,tiled")
    parser.add_argument("--print", action="store_true", help="the assembly of these loops too")
    given = parser.parse_args()
    said = fc.explain(given.problem)
    with tempfile.TemporaryDirectory() as empty:  # Numba shows no assembly of what comes from a cache
        os.environ["FASTCONV_CACHE_DIR"] = empty
        case(said.problem)()
    tile = said.division.tile
    print(f"{said.kernel}, tile {tile.rows}x{tile.vectors} of {tile.lanes} {tile.dtype}" if tile else said.kernel)
    for text in said.implementation.kernel.inspect_asm().values():
        for loop in loops(text)[:6]:
            print(f"  line {loop.line:6}: " + ", ".join(f"{count} {sort}" for sort, count in loop.counts.items()))
            if given.print:
                lines = text.splitlines()[loop.line :]
                print("\n".join(f"    {line}" for line in lines[: loop.counts["instructions"] + 1]))


if __name__ == "__main__":
    main()
