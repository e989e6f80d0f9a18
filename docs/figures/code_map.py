"""The code as a map: every module of the package, placed by what it imports."""

from __future__ import annotations

import ast
from functools import lru_cache
from itertools import accumulate
from pathlib import Path as File

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

import fastconv

PACKAGE = File(fastconv.__file__).parent
COLORS = {
    "cuda": "#54a24b", "cpu": "#f58518", "cpu.plans": "#e45756", "fastconv": "#4c78a8", "embed": "#b279a2", "export": "#439894",
    "bench": "#9d755d",
}  # fmt: skip
SIDE_BY_SIDE = {"cuda": 3, "cpu": 4, "cpu.plans": 3, "fastconv": 2, "embed": 1, "export": 1, "bench": 2}  # boxes in a column
LONG = 11  # letters of a name that is set smaller, on two lines if it has two words


@lru_cache(maxsize=1)
def imports() -> dict[str, set[str]]:
    """Of each module, by its dotted name in the package, those it imports when it is imported itself."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"] = path
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for node in _at_import(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastconv":
                above = (node.module or "").removeprefix("fastconv").lstrip(".")
                for alias in node.names:
                    whole = f"{above}.{alias.name}".lstrip(".")
                    found[name] |= {whole} if whole in names else {above} & names.keys()
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name.removeprefix("fastconv").lstrip(".") or "__init__" for alias in node.names
                                if alias.name.split(".")[0] == "fastconv"} & names.keys()  # fmt: skip
        found[name].discard(name)
    return found


def _at_import(tree: ast.AST):
    """The statements that run when a module is imported: not those inside functions, nor for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            continue
        yield node
        yield from _at_import(node)


def layers() -> list[list[str]]:
    """The modules, lowest first: each above all that it imports. Those that import one another share a layer."""
    below, depth = imports(), {}

    def of(name: str, under_way: tuple[str, ...] = ()) -> int:
        if name in under_way:
            return 0
        if name not in depth:
            deepest = max((of(n, (*under_way, name)) + 1 for n in below[name]), default=0)
            if under_way and any(n in under_way for n in below[name]):
                return deepest
            depth[name] = deepest
        return depth[name]

    wanted = [name for name in below if name.split(".")[-1] != "__main__"]
    rows: list[list[str]] = [[] for _ in range(1 + max(of(name) for name in wanted))]
    for name in wanted:
        rows[of(name)].append(name)
    return rows


def drawn() -> list[tuple[str, str]]:
    """The imports that are not implied by others: above and below, without what lies between."""
    below, place = imports(), {name: depth for depth, row in enumerate(layers()) for name in row}

    def reached(name: str, seen: set[str]) -> set[str]:
        for other in below[name]:
            if other not in seen and place.get(other, 0) < place[name]:
                seen.add(other)
                reached(other, seen)
        return seen

    pairs = []
    for name in place:
        direct = {other for other in below[name] if other in place and place[other] < place[name]}
        implied = {far for other in direct for far in reached(other, set())}
        pairs += [(name, other) for other in sorted(direct - implied)]
    return pairs


def draw() -> None:
    """A column for each folder, a level for each layer; a line from each module to those below it that it imports."""
    folders = SIDE_BY_SIDE
    lefts = dict(zip(folders, accumulate([0.0, *(width + 0.5 for width in folders.values())]), strict=False))
    place, y = {}, 0.0
    levels = []
    for row in layers():
        by_folder = {folder: sorted(name for name in row if folder_of(name) == folder) for folder in folders}
        high = max(-(-len(names) // folders[folder]) for folder, names in by_folder.items())
        for folder, names in by_folder.items():
            for k, name in enumerate(names):
                line, of = divmod(k, folders[folder])
                count = min(folders[folder], len(names) - line * folders[folder])
                place[name] = lefts[folder] + (folders[folder] - count) / 2 + of + 0.5, y + 0.62 * line
        levels.append(y)
        y += 0.62 * (high - 1) + 1.0
    width = lefts["bench"] + folders["bench"]
    _, ax = plt.subplots(figsize=(14, 0.42 * y + 0.6), layout="constrained")
    for name, other in drawn():
        (x0, y0), (x1, y1) = place[name], place[other]
        ends, middle = (y0 - 0.22, y1 + 0.22), (y0 + y1) / 2
        curve = Path([(x0, ends[0]), (x0, middle), (x1, middle), (x1, ends[1])], [Path.MOVETO, *[Path.CURVE4] * 3])
        color = COLORS[folder_of(name)]
        ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=0.7, alpha=0.55, zorder=1))
    for name, (x, at) in place.items():
        box = FancyBboxPatch((x - 0.46, at - 0.22), 0.92, 0.44, boxstyle="round,pad=0,rounding_size=0.1")
        box.set(facecolor=COLORS[folder_of(name)], edgecolor="white", zorder=2)
        ax.add_patch(box)
        word = {"__init__": "fastconv", **{folder: "__init__" for folder in COLORS}}.get(name, name.split(".")[-1])
        size = 7.5 if len(word) < LONG else 5.5
        word = word if len(word) < LONG else word.replace("_", "_\n")
        ax.text(x, at, word, ha="center", va="center", color="white", fontsize=size, linespacing=0.9, zorder=3)
    for folder, left in lefts.items():
        words = "fastconv/" if folder == "fastconv" else f"{folder.replace('.', '/')}/"
        ax.text(left + folders[folder] / 2, y - 0.3, words, ha="center", color=COLORS[folder], fontsize=9, fontweight="bold")
    ax.set(xlim=(-0.1, width + 0.1), ylim=(-0.5, y + 0.1))
    ax.set_axis_off()


def folder_of(name: str) -> str:
    """Where a module lies."""
    return next((folder for folder in sorted(COLORS, key=len, reverse=True) if f"{name}.".startswith(f"{folder}.")), "fastconv")


def table() -> str:
    """Each module with the first sentence of its docstring."""
    lines = [".. list-table::", "   :widths: 30 70", ""]
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: (len(p.relative_to(PACKAGE).parts) > 1, p)):
        said = ast.get_docstring(ast.parse(path.read_text()))
        if said and path.name != "__init__.py":
            sentence = " ".join(said.split("\n\n")[0].split()).rstrip(".").replace("`", "``")
            lines += [f"   * - ``fastconv/{path.relative_to(PACKAGE)}``", f"     - {sentence}."]
    return "\n".join(lines)
