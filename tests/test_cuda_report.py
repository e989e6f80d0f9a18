"""What the compiler makes of the CUDA kernels, held to its bounds; skipped where NVIDIA's compiler is not installed."""

import json
import os
import subprocess
import sys

import pytest

from fastconv.__main__ import CAPABILITIES, main
from fastconv.cuda import atrous, pointwise, report, standard


def test_the_choices_of_the_command_are_those_that_exist():
    assert CAPABILITIES == report.CAPABILITIES == tuple(report.MULTIPROCESSORS)
    assert {product.capability for product in report.PRODUCTS.values()} == {*CAPABILITIES}


def test_a_missing_compiler_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(report, "tool", lambda name: None)
    assert main(["cuda-report"]) == 1
    printed = capsys.readouterr().err
    assert "ptxas, nvdisasm not found: python -m pip install 'fastconv[cuda-report]'" in printed and printed.count("\n") == 1


def test_the_main_loop_is_the_innermost_one_with_the_most_multiply_adds():
    text = """
    .L_x_0:
            /*0000*/                   LDG.E R1, [R2.64] ;
            /*0010*/                   FFMA R3, R1, R2, R3 ;
    .L_x_1:
            /*0020*/                   FFMA R3, R1, R2, R3 ;
            /*0030*/                   FFMA R3, R1, R2, R3 ;
            /*0040*/              @!P0 BRA `(.L_x_1) ;
            /*0050*/                   STG.E [R2.64], R3 ;
            /*0060*/               @P1 BRA `(.L_x_0) ;
            /*0070*/                   BRA `(.L_x_2) ;
    .L_x_2:
            /*0080*/                   EXIT ;
    """
    code = report.instructions_of(text)
    assert code.loops == [(2, 4), (0, 6)]
    assert report.share_of(code) == 2 / 3
    assert report.share_of(report.Code(["EXIT"], [])) is None


def test_kernels_by_another_name():
    """What the report does not list is what it lists."""
    assert {pointwise.tiled_pointwise, atrous.tiled_atrous} == {standard.tiled_standard}
    assert report.SAME_CODE == {"tiled_pointwise": "tiled_standard", "tiled_atrous": "tiled_standard"}


@pytest.fixture(scope="module")
def found():
    """Every kernel at 8.0, in a process of its own: the simulator, or a host without a compiler, must not be in the way."""
    if report.missing():
        pytest.skip(report.missing())
    variables = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-m", "fastconv", "cuda-report", "--json", "--layers", "--capability", "80"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_kernel_spills(found):
    assert len(found["kernels"]) > 50
    assert not [k for k in found["kernels"] if k["spilled"]]
    # A slice of tiled_separable is computed in a loop, which indexes the numbers that it leaves: an array of its own.
    assert not [k for k in found["kernels"] if k["stack"] and k["name"] != "tiled_separable"]


@pytest.mark.parametrize("name", ["tiled_standard", "tiled_weight_gradient"])
def test_four_of_five_instructions_are_multiply_adds(found, name):
    shares = [k["share"] for k in found["kernels"] if k["name"] == name and k["dtype"] == "float32"]
    assert shares and min(shares) >= 0.8


# In processes of their own, as the report is: a kernel's parameters, and its name.
PARAMETERS = """
import re
import numpy as np
from fastconv.cuda import job, report, tape
from fastconv.cuda.device import Memory

KINDS = {"float32": "f32", "float64": "f64", "int32": "u32", "int64": "u64"}

def kinds(value):
    if isinstance(value, Memory):
        return ["u64"] * tape.WORDS
    return sum(map(kinds, value), []) if isinstance(value, tuple) else [KINDS[value.dtype.name]]

for variant in report.variants(80):
    if variant.name in ("direct_standard", "add_splits") or variant.name == "tiled_depthwise" and "7x7" in variant.tile:
        wide = variant.name != "tiled_depthwise"
        given = {name: Memory(4096, 5, np.dtype("int64" if name == "terms" else variant.dtype), None) for name in job.ARRAYS}
        told = job.fill(given, getattr(np, variant.dtype), np.int64 if wide else np.int32)
        assert tape._type_of(told) == variant.argument == report.job_type(variant.dtype, wide)
        entry = re.search(r"[.]entry [^(]*[(]([^)]*)[)]", report.ptx_of(variant, 80))[1]
        found = re.findall(r"[.]param +(?:[.]align +[0-9]+ +)?[.](?:ptr +)?([a-z][0-9]+)", entry.replace(".b", ".u"))
        assert found == kinds(told) and len(tape._words(told)) == len(found), (variant, found, kinds(told))
        print(variant.name)
"""
NAMES = """
from fastconv.cuda import standard
from fastconv.cuda.compiled import name_of
from fastconv.cuda.indices import finisher
from fastconv.cuda.tiles import Tile
for bias in ("none", "channel"):
    for tile in (Tile(64, 64, 8), Tile(64, 64, 16)):
        print(name_of(standard.tiled_standard("float32", finisher(bias, False, "clip"), tile)))
"""


def printed(script):
    variables = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_parameters_lie_as_the_compiler_expects_them():
    """Each in the order, and of the type, that the kernel's own text says."""
    if report.missing():
        pytest.skip(report.missing())
    assert {*printed(PARAMETERS)} == {"direct_standard", "add_splits", "tiled_depthwise"}


def test_a_kernel_has_one_name_in_every_process():
    once = printed(NAMES)
    assert len({*once}) == 4 and once == printed(NAMES)


def test_estimates_are_called_that(found):
    layers = {(e["layer"], e["product"]) for e in found["estimates"]}
    assert {("resnet_3x3_56", "A100"), ("dw_112_32", "A100"), ("sep_28_256", "A100"), ("up_28_64_32", "A100")} <= layers
    assert all(e["estimate"] and e["arithmetic"] > 0 and e["memory"] > 0 for e in found["estimates"])
