"""Which versions: those that pyproject.toml asks for, and those that these pages were built with."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fastconv.info import gather

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def table() -> str:
    """What is needed at least, and what this build found."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    needed = {"Python": project["requires-python"]}
    for name in ("NumPy", "Numba"):
        needed[name] = next(d for d in project["dependencies"] if d.startswith(name.lower())).removeprefix(name.lower()) or "any"
    lines = [".. list-table::", "   :header-rows: 1", "", "   * -", "     - needed", "     - these pages were built with"]
    found = dict(gather())
    for name in ("Python", "NumPy", "Numba", "processor", "compiled for", "vectors"):
        lines += [f"   * - {name}", f"     - {needed.get(name, '')}", f"     - {found[name]}"]
    return "\n".join(lines)
