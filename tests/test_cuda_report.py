"""What the compiler makes of the CUDA kernels, held to its bounds; skipped where NVIDIA's compiler is not installed."""

import json
import os
import subprocess
import sys

import pytest

from fastconv.__main__ import CAPABILITIES, main
from fastconv.cuda import atrous, pointwise, report, standard, transposed


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
    same = pointwise.tiled_pointwise, atrous.tiled_atrous, transposed.tiled_transposed
    assert {*same} == {standard.tiled_standard} and {*report.SAME_CODE.values()} == {"tiled_standard"}
    assert [*report.SAME_CODE] == ["tiled_pointwise", "tiled_atrous", "tiled_transposed"]


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


def test_estimates_are_called_that(found):
    layers = {(e["layer"], e["product"]) for e in found["estimates"]}
    assert {("resnet_3x3_56", "A100"), ("dw_112_32", "A100"), ("sep_28_256", "A100"), ("up_28_64_32", "A100")} <= layers
    assert all(e["estimate"] and e["arithmetic"] > 0 and e["memory"] > 0 for e in found["estimates"])
