"""The CUDA target without a device: what is said, that imports stay light, and all of its tests on Numba's simulator.

The simulator is another `numba.cuda`, chosen when Numba is imported, so those tests (tests/cuda_simulator) have a process of
their own. With a device they also run by themselves: `python -m pytest tests/cuda_simulator`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import cuda
from fastconv.__main__ import main

HERE = Path(__file__).parent


def environment(**more):
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])} | more


def test_every_kernel_on_the_simulator():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(HERE / "cuda_simulator")]
    variables = environment(NUMBA_ENABLE_CUDASIM="1")
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=900, check=False, cwd=HERE.parent)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert passed and int(passed[1]) > 250, done.stdout[-500:]


class Elsewhere:
    """What looks like an array on a device."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (1, 2, 4, 4), "typestr": "<f4", "data": (4096, False), "version": 3}

    shape, ndim, dtype = (1, 2, 4, 4), 4, np.dtype("f4")


@pytest.mark.skipif(cuda.is_available(), reason="there is a device")
def test_without_a_device_a_call_says_why():
    reason = cuda.why_not()
    assert "driver" in reason or "numba-cuda" in reason
    with pytest.raises(RuntimeError, match=f"cannot be computed here: {re.escape(reason)}"):
        fc.conv2d(Elsewhere(), Elsewhere(), padding=1)
    with pytest.raises(TypeError, match="weight: got a NumPy array, expected a device array"):
        fc.conv2d(Elsewhere(), np.ones((3, 2, 3, 3), "f4"))


@pytest.mark.parametrize(
    ("devices", "found", "said"),
    [(None, True, "no CUDA driver"), (0, True, "finds no device"), (1, False, r"fastconv\[cuda13\]"), (1, True, "^$")],
)
def test_why_not(devices, found, said, monkeypatch):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(cuda, "_devices", lambda: devices)
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: found or None)
    assert re.search(said, cuda.why_not())
    assert cuda.is_available() is (said == "^$")


def test_the_package_imports_no_kernels():
    script = "import sys, fastconv; sys.exit(any(name.startswith('fastconv.cuda.') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert done.returncode == 0


def test_every_module_imports_without_a_driver():
    names = [path.stem for path in (HERE.parent / "fastconv" / "cuda").glob("*.py") if path.stem != "__init__"]
    script = "".join(f"import fastconv.cuda.{name}\n" for name in names)
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Benchmarks -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cuda.is_available(), reason="there is a device")
def test_benchmarks_say_that_they_are_not_available():
    script = """
import benchmarks.cuda as twins
for name in sorted(name for name in vars(twins) if "OnDevice" in name and name != "OnDevice"):
    twin = getattr(twins, name)()
    first = twin.params[0] if isinstance(twin.params[0], str) else twin.params[0][0]
    try:
        twin.setup(*[first, "read"][: len(twin.param_names)])
    except NotImplementedError as error:
        print(name, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    of_kinds = {"Standard", "Pointwise", "Depthwise", "Separable", "Atrous", "Transposed", "Gradients"}
    others = {"Training", "Chains", "Calls", "FirstCall", "Memory"}
    assert {name.partition("OnDevice")[0] for name in said} == of_kinds | others
    assert {*said.values()} == {f"not available: {cuda.why_not()}"}


@pytest.mark.skipif(cuda.is_available(), reason="there is a device")
def test_bench_says_why_there_is_no_device(capsys):
    assert main(["bench", "--device", "pw_14_512"]) == 1
    assert capsys.readouterr().err == f"fastconv bench: arrays on a CUDA device cannot be computed here: {cuda.why_not()}\n"
