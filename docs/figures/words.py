"""Words and tables that pages take from the package."""

from __future__ import annotations

import fastconv as fc
from fastconv.bench import LAYERS, MORE_LAYERS


def explained(text: str) -> str:
    """What `explain` says of a problem."""
    return "\n".join([".. code-block:: text", "", *(f"   {line}" for line in str(fc.explain(text)).splitlines())])


def intensities() -> str:
    """Some layers and their operations a byte."""
    names = (
        "dw_112_32",
        "dw5_14_672",
        "pw_28_192_32",
        "sep_112_32_64",
        "seed_128_rgb",
        "pw_14_512",
        "resnet_3x3_56",
        "resnet_3x3_7",
    )
    lines = [".. list-table::", "   :header-rows: 1", ""]
    rows = [("layer", "kind", "million operations", "MB", "operations a byte", "limit")]
    for name in sorted(names, key=lambda name: _intensity(_layer(name))):
        problem = _layer(name)
        mega, moved = f"{problem.operations / 1e6:.1f}", f"{problem.bytes / 1e6:.2f}"
        rows.append((f"``{name}``", problem.kind, mega, moved, f"{_intensity(problem):.1f}", fc.explain(problem).limit))
    for row in rows:
        lines += [f"   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return "\n".join(lines)


def _layer(name: str):
    return (LAYERS | MORE_LAYERS)[name]


def _intensity(problem) -> float:
    return problem.operations / problem.bytes


def machine() -> str:
    """What the kernels are compiled for here."""
    from fastconv.info import gather

    found = dict(gather())
    return f"   {found['processor']}: {found['vectors']}; {found['caches']}."


def commands() -> str:
    """What each command says of itself with --help."""
    import argparse
    from functools import partial

    from fastconv.__main__ import parser

    top = parser()
    (choices,) = (a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction))
    lines = []
    for name, command in choices.items():
        command.formatter_class = partial(argparse.HelpFormatter, width=100)
        title = f"fastconv {name}"
        lines += [title, "-" * len(title), "", ".. code-block:: text", ""]
        lines += [f"   {line}".rstrip() for line in command.format_help().splitlines()] + [""]
    return "\n".join(lines)
