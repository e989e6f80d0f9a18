"""The decorator of all kernels: its flags, the machine code that comes of them, and the disk cache."""

import importlib
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.registry import CPUDispatcher

import fastconv.cpu
from fastconv.cpu import compiled, job, launch, machine, strassen, tiles
from fastconv.cpu.simd import TileShape
from fastconv.cpu.table import IMPLEMENTATIONS

PACKAGE = Path(fastconv.cpu.__file__).parent.parent
SMALL = """
from fastconv.cpu import rows
from fastconv.cpu.compiled import source_hash
assert rows.clip(2.0, 0.0, 1.0) == 1.0 and rows.leaky_relu(-1.0, 0.5, 0.0) == -0.5
assert rows.hardswish(4.0, 0.0, 0.0) == 4.0
print(source_hash(), *(sum(f.stats.cache_hits.values()) for f in (rows.clip, rows.leaky_relu, rows.hardswish)))
"""


def started(code=SMALL, package=PACKAGE, **environment):
    paths = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"PYTHONPATH": paths} | {name: str(value) for name, value in environment.items()}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")


def finished(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert error == ""
    return out.split()


def run(**keywords):
    return finished(started(**keywords))


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_second_process_hits_the_cache(tmp_path):
    source, *hits = run(FASTCONV_CACHE_DIR=tmp_path)
    first = files(tmp_path)
    assert len(first) >= 3
    assert {path.suffix for path in first} == {".bin"}
    assert {path.parent.name for path in first} == {source}
    again, *more = run(FASTCONV_CACHE_DIR=tmp_path)
    assert files(tmp_path) == first
    assert (again, hits, more) == (source, ["0"] * 3, ["1"] * 3)


def test_a_damaged_file_is_a_missing_one(tmp_path):
    run(FASTCONV_CACHE_DIR=tmp_path)
    first = files(tmp_path)
    for damage, path in enumerate(sorted(first)):
        whole = path.read_bytes()
        path.write_bytes([b"", whole[: len(whole) // 2], b"nonsense"][damage % 3])
    _, *hits = run(FASTCONV_CACHE_DIR=tmp_path)
    assert "1" not in hits
    assert set(files(tmp_path)) == set(first)
    assert run(FASTCONV_CACHE_DIR=tmp_path)[1:] == ["1"] * 3  # they were written anew


def test_no_folder_no_cache_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(FASTCONV_CACHE_DIR=tmp_path / "file" / "below")[1:] == ["0"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_home_no_cache_no_error(monkeypatch):
    """As of a container's user whom no file of the system knows."""

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    for name in ("FASTCONV_CACHE_DIR", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert compiled.cache_folder() is None


def test_three_processes_at_once(tmp_path):
    running = [started(FASTCONV_CACHE_DIR=tmp_path) for _ in range(3)]
    assert len({finished(process)[0] for process in running}) == 1
    assert {path.suffix for path in files(tmp_path)} == {".bin"}
    assert run(FASTCONV_CACHE_DIR=tmp_path)[1:] == ["1"] * 3


def test_every_change_of_the_package_counts(tmp_path):
    package = tmp_path / "fastconv"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from fastconv.cpu.compiled import source_hash, PACKAGE; print(source_hash(), PACKAGE)"
    before, where = run(code=code, package=package)
    assert where == str(package.resolve())
    assert run(code=code, package=package)[0] == before
    hashes = {before}
    for name in ("problem.py", "cpu/simd.py", "cuda/__init__.py"):
        with (package / name).open("a") as file:
            file.write("# a comment\n")
        hashes.add(run(code=code, package=package)[0])
    (package / "new.py").write_text("")
    hashes.add(run(code=code, package=package)[0])
    assert len(hashes) == 5


def dispatchers():
    for module in pkgutil.walk_packages(fastconv.cpu.__path__, "fastconv.cpu."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, CPUDispatcher):
                yield pytest.param(value, id=f"{module.name}.{name}")


@pytest.mark.parametrize("dispatcher", list(dispatchers()))
def test_flags(dispatcher):
    options = dispatcher.targetoptions
    assert options["nogil"] is True
    assert options["error_model"] == "numpy"
    flags = options.get("fastmath", False)
    assert flags is False or set(flags) <= {"contract", "reassoc", "nsz"}
    assert isinstance(dispatcher._cache, compiled._DiskCache) or options.get("forceinline")


def multiplying(implementation):
    """The function with the products: the kernel, or what it calls."""
    return strassen.multiply_pairs if implementation.name.startswith("strassen") else implementation.kernel


def instructions(function, arguments):
    """The machine code in words, whether it is compiled now or was found on disk: of what others may link into themselves."""
    function.compile(arguments)
    library = function.overloads[arguments].library
    return library.codegen._tm.emit_assembly(library._get_module_for_linking()).splitlines()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions")
@pytest.mark.skipif("+fma" not in machine.target_features().split(","), reason="the target has no fma")
@pytest.mark.parametrize("implementation", {multiplying(i): i for i in IMPLEMENTATIONS}.values(), ids=lambda i: i.name)
def test_kernels_are_packed_fmas(implementation):
    tile = next(iter(implementation.tiles("float32")), TileShape(4, 2, machine.lanes("float32")))  # which others compile too
    arguments, function = job.arguments("float32", tile, implementation.scheme), multiplying(implementation)
    if function is not implementation.kernel:
        arguments = launch.arguments_of_products(function, tiles.pairs_in_rows("float32")[0])
    # The products of phases.py are another function's; its own coefficients are 1 and -1.
    packed = [line for line in instructions(function, arguments) if re.search(r"vfn?m(add|sub)\w*ps\t|vaddps\t", line)]
    assert any("%ymm" in line or "%zmm" in line for line in packed)


def test_address_is_that_of_one_function():
    kernel = next(i.kernel for i in IMPLEMENTATIONS if i.name == "direct_weight_gradient")
    single, double = (compiled.address(kernel, *job.arguments(dtype)) for dtype in ("float32", "float64"))
    assert single != double
    assert single == compiled.address(kernel, *job.arguments("float32")) != 0
