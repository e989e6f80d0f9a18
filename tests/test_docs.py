"""What the documentation says is so: its examples run, it names everything public, and everything public has an example."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

import fastconv as fc
from fastconv import grad, reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
SUBMODULES = {"__version__", "cuda", "grad", "reference"}
NEED = {"embedding.rst": "dask.array"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.rst")), ids=lambda page: page.name)
def test_pages(page):
    if page.name in NEED:
        pytest.importorskip(NEED[page.name])
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    assert not failed


@pytest.mark.parametrize("page", ["README.md", "docs/index.rst"])
def test_first_lines(page):
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S) or re.findall(r"code-block:: python\n\n((?: {3}.*\n|\n)+)", text)
    assert blocks
    for block in blocks:
        made = {}
        exec(re.sub(r"^ {3}", "", block, flags=re.M), made)
        assert made["y"].shape[:2] == (1, 128)


def public(module):
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
    return {name: value for name in names if callable(value := getattr(module, name))}


@pytest.mark.parametrize("name", ["fastconv", "fastconv.grad", "fastconv.dask", "fastconv.reference"])
def test_everything_public_has_an_example_that_runs(name):
    if name == "fastconv.dask":
        pytest.importorskip("dask.array")
    finder = doctest.DocTestFinder(recurse=False)
    for said, value in public(importlib.import_module(name)).items():
        examples = [example for test in finder.find(value, said) for example in test.examples]
        assert any(not example.options.get(doctest.SKIP) for example in examples), f"{name}.{said} has no example that runs"


def test_everything_public_is_in_the_reference():
    listed = {page.stem: set(page.read_text().split()) for page in (DOCS / "api").glob("*.rst")}
    everywhere = set().union(*listed.values())
    assert set(fc.__all__) - SUBMODULES - everywhere == set()
    assert set(grad.__all__) - listed["grad"] == set()
    assert set(public(reference)) - listed["reference"] == set()
    assert {name for name in fc.__all__ if name.endswith(("1d", "2d", "3d")) and name.islower()} - listed["dask"] == set()


@pytest.fixture
def figures(monkeypatch):
    for folder in ("figures", "extensions"):
        monkeypatch.syspath_prepend(str(DOCS / folder))
    yield
    for path in (DOCS / "figures").glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_map(figures):
    code_map = importlib.import_module("code_map")
    imports, rows = code_map.imports(), code_map.layers()
    files = {path for path in (ROOT / "fastconv").rglob("*.py") if path.name != "__main__.py"}
    assert len(files) == sum(map(len, rows))
    level = {name: depth for depth, row in enumerate(rows) for name in row}
    below = {(name, other) for name in level for other in imports[name] if level.get(other, -1) >= level[name]}
    assert not below  # no module imports one above it, so no two import each other
    assert "cpu.simd" in imports["cpu.tiles"] and "problem" in imports["plan"]


def test_matrices(figures):
    text = importlib.import_module("schemes").matrices("F2")
    assert r"A^\mathsf{T} = \begin{bmatrix} 1 & 1 & 1 & 0 \\ 0 & 1 & -1 & 1 \end{bmatrix}" in text


def test_performance(figures):
    results = importlib.import_module("results")
    text = results.page()
    for path in (DOCS / "performance").glob("*.json"):
        said = results.read(path.stem)
        assert said["command"] in text and said["machine"]["processor"] in text
        for row in said["rows"]:
            if row.get("best_peer_over_fastconv"):
                best = min(peer["seconds"] for peer in row["peers"].values())
                assert row["best_peer_over_fastconv"] == pytest.approx(best / row["seconds"])


def test_assembly():
    path = DOCS / "assembly.py"
    spec = importlib.util.spec_from_file_location("assembly", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert doctest.testmod(module).failed == 0
