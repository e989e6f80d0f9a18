"""Compiling ahead: the variants that there are, that no division takes another, and that a later process finds them."""

import os
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest

from fastconv import bench
from fastconv.ahead import Variant, variants
from fastconv.bench.article import BLOCKS as ARTICLE
from fastconv.cpu import machine, tiles
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose, simplified
from fastconv.problem import SeparableProblem

pytestmark = pytest.mark.usefixtures("every_tile")
VECTORS = [(64, 32), (32, 16), (16, 32), (16, 16)]  # bytes, registers
NETWORKS = [str(problem) for table in bench.TABLES.values() for problem in table.values()]


def test_variants_are_unique():
    every = variants()
    assert len({str(variant) for variant in every}) == len({*every}) == len(every)
    named = {i.name for i in IMPLEMENTATIONS if list(i.tiles("float32"))}
    assert {variant.name for variant in every} == named
    assert {variant.dtype for variant in every} == {"float32", "float64"}


def test_names():
    assert {v.name for v in variants(["tiled_pointwise"])} == {"tiled_pointwise", "tiled_pointwise_pixels"}
    assert variants(["direct_atrous_last"]) == [
        Variant("direct_atrous_last", "float32", None), Variant("direct_atrous_last", "float64", None),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="kernel: got 'no_such', expected the beginning of one of winograd_columns"):
        variants(["direct", "no_such"])


def many_problems():
    """The tests' and the networks', and layers of every size around the vectors' in both formats."""
    rng = np.random.default_rng(0)
    lines = [*cases.CASES, *NETWORKS]
    for _ in range(150):
        groups, size, kernel, stride = (
            int(rng.choice(c)) for c in ((1, 1, 2, 4), (1, 3, 7, 14, 28, 57), (1, 3, 4, 5, 7), (1, 2, 3))
        )
        channels, filters = groups * int(rng.integers(1, 70)), groups * int(rng.integers(1, 140))
        operation = rng.choice(["conv2d", "conv2d", "transposed2d"])
        last, dtype = rng.choice(["", ",channels_last"]), rng.choice(["float32", "float64"])
        pad, width = kernel // 2, int(rng.integers(kernel, 70))
        lines.append(f"{operation},n1c{channels}i{size + kernel}x{width}f{filters}k{kernel}s{stride}p{pad}g{groups},{dtype}{last}")
    lines += [f"conv2d,n1c40i9f40k3p1g40{last},winograd" for last in ("", ",channels_last")]
    lines += ["conv2d,n1c80i9f80k3p1g40,channels_last"]
    single = ("conv2d", "i1f80k1"), ("conv2d", "i4f80k4"), ("transposed2d", "i1f8k4")
    lines += [f"{operation},n{batch}c40{rest}" for batch in (2, 9, 33) for operation, rest in single]
    lines += [f"transposed2d,n1c40i9f40k{kernel}s2p1g40,channels_last" for kernel in tiles.SPREADS]
    return list({cases.bare(cases.parse(line)): None for line in lines})


PROBLEMS = many_problems()


@pytest.mark.parametrize("vector", VECTORS)
def test_every_tile_that_a_division_takes_is_among_them(vector, monkeypatch):
    """Of every implementation that can compute a problem, whether or not the plan would take it."""
    monkeypatch.setattr(machine, "_vector", lambda: vector)
    known, met = {(v.name, v.dtype, v.tile) for v in variants()}, set()
    for k, problem in enumerate(PROBLEMS):
        task = simplified(problem)
        if isinstance(task, SeparableProblem) or "n0" in str(task):
            continue
        for implementation in IMPLEMENTATIONS:
            if task.kind not in implementation.kinds or implementation.refuse(task):
                continue
            division = implementation.divide(task, (1, 4)[k % 2])
            if division.multiply is not None:
                products = tiles.winograd_products(task.dtype) + tiles.narrow_winograd_products(task.dtype)
                assert division.tile in products + tiles.pixels_in_lanes(task.dtype) + tiles.pairs_in_rows(task.dtype), task
            taken = implementation.name, task.dtype, division.tile if division.multiply is None else division.outer
            assert taken in known, f"{task}: {Variant(*taken)}"
            met.add(taken)
    assert {name for name, _, _ in met} >= {i.name for i in IMPLEMENTATIONS if i.kinds not in (("separable",), ("weights",))}


BLOCKS = [problem for problem in bench.layers.MORE_LAYERS.values() if isinstance(problem, SeparableProblem)]


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_mobilenet_are_among_them(threads):
    """With the tiles of this machine: by others the plan takes others."""
    known = {(v.name, v.tile) for v in variants(["tiled_separable", "strassen_separable"])}
    for problem in [*BLOCKS, *ARTICLE.values()]:
        division = (choice := choose(problem, IMPLEMENTATIONS, threads, "columns")).division
        if machine.registers() == 32:
            assert (choice.implementation.name, division.outer or division.tile) in known, problem
            assert division.window in tiles.windows_of_bands("float32"), problem


# Two processes --------------------------------------------------------------------------------------------------------

COMPILE = "from fastconv.__main__ import main; import sys; sys.exit(main(['compile', 'direct_pointwise_last']))"
CALL = """
import numpy as np
import fastconv as fc
from fastconv.cpu import job
from fastconv.cpu.compiled import address
from fastconv.cpu.pointwise import direct_pointwise_last
for dtype in ("float32", "float64"):
    address(direct_pointwise_last, *job.arguments(dtype))
x, weight = np.ones((9, 7, 3), np.float32), np.ones((5, 3, 1, 1), np.float32)
for algorithm in ("direct", "tiled"):
    fc.conv2d(x, weight, activation="silu", data_format="channels_last", algorithm=algorithm)
"""


def run(script, folder):
    variables = os.environ | {"FASTCONV_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder, name="*"):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob(f"{name}.bin")}


def test_a_second_process_finds_what_was_compiled(tmp_path):
    """And a third all that the second needed beside: nothing that a call compiles stays off the disk."""
    lines = run(COMPILE, tmp_path).splitlines()
    assert lines[:2] == ["direct_pointwise_last float32", "direct_pointwise_last float64"]
    assert lines[2].startswith("2 variants for ") and lines[2].endswith(str(next(tmp_path.iterdir())))
    before = files(tmp_path, "*direct_pointwise_last*")
    assert len(before) == 2
    run(CALL, tmp_path)
    assert files(tmp_path, "*direct_pointwise_last*") == before
    everything = files(tmp_path)
    run(CALL, tmp_path)
    assert files(tmp_path) == everything


def test_no_folder_is_said_in_one_line(tmp_path):
    nothing = tmp_path / "a file"
    nothing.write_text("")
    variables = os.environ | {"FASTCONV_CACHE_DIR": str(nothing / "below"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fastconv", "compile", "direct_pointwise_last"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1 and "FASTCONV_CACHE_DIR" in done.stderr and done.stderr.count("\n") == 1, done.stderr
