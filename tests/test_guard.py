"""No kernel touches memory beside its arrays: they lie flush against pages that may not be touched.

In a process of its own, for a wrong read or write ends it; the problem at fault is the last that it has printed.
"""

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest

import fastconv as fc

PAGE = mmap.PAGESIZE
CANARY = 0xA5
TEXTS = [text for text in cases.CASES if "n0" not in text]


class Guarded:
    """Memory between two pages that may not be touched."""

    def __init__(self, nbytes):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        room = -(-nbytes // PAGE) * PAGE
        self.memory = mmap.mmap(-1, room + 2 * PAGE)
        whole = np.frombuffer(self.memory, np.uint8)
        for start in (0, PAGE + room):
            if libc.mprotect(whole.ctypes.data + start, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = whole[PAGE : PAGE + room]
        self.bytes[:] = CANARY

    def array(self, like, flush):
        """A copy that ends with the memory, or begins with it; the margin on its other side keeps the canary."""
        size = like.nbytes
        self.margin = self.bytes[:-size] if flush == "after" else self.bytes[size:]
        own = self.bytes[-size:] if flush == "after" else self.bytes[:size]
        array = own.view(like.dtype).reshape(like.shape)
        array[...] = like
        return array

    def intact(self):
        return bool((self.margin == CANARY).all())


def guarded(array, flush, kept):
    kept.append(Guarded(array.nbytes))
    return kept[-1].array(array, flush)


def gradients(problem, given, flush, kept):
    """All gradients of a problem, the epilogue aside; their results lie where the package puts them."""
    operation = "conv_transpose" if problem.operation == "transposed" else "conv"
    d, form = problem.dimensions, {"data_format": problem.data_format}
    sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    if problem.operation == "transposed":
        sizes["output_padding"] = problem.output_padding
    grad = guarded(np.ones(problem.out_shape, problem.dtype), flush, kept)
    x, w = given["x"], given["weight"]
    getattr(fc.grad, f"{operation}{d}d_input")(x.shape, w, grad, **sizes, **form)
    getattr(fc.grad, f"{operation}{d}d_weight")(x, w.shape, grad, **sizes, **form)
    getattr(fc.grad, f"{operation}{d}d_bias")(grad, **form)


def check_all(flush):
    for text in TEXTS:
        print(text, flush=True)
        problem = cases.parse(text)
        plain = cases.arrays(problem, np.random.default_rng(0))
        want = cases.call(fc, problem, plain)
        kept = []
        given = {name: guarded(array, flush, kept) for name, array in plain.items()}
        out = guarded(np.full_like(want, np.nan), flush, kept)
        cases.call(fc, problem, given, out=out)
        assert out.tobytes() == want.tobytes(), "another result"
        if isinstance(problem, fc.Problem) and problem.padding_mode == "zeros":
            gradients(problem, given, flush, kept)
        for name, array in plain.items():
            assert given[name].tobytes() == array.tobytes(), f"{name} was written to"
        assert all(room.intact() for room in kept), "wrote beside an array"
        del given, out
    print("done", flush=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
@pytest.mark.parametrize("flush", ["after", "before"])
def test_nothing_beside_the_arrays_is_touched(flush):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-X", "faulthandler", "-c", f"import test_guard; test_guard.check_all({flush!r})"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.split()[-1:]
    assert done.returncode == 0 and last == ["done"], f"{last} against the page {flush} it:\n{done.stderr}"
    cases.computed["problems"] += 2 * len(TEXTS)


def test_a_guard_guards():
    """Else the test above would show nothing."""
    script = "import test_guard, numpy; g = test_guard.Guarded(8); g.array(numpy.zeros(2, 'f4'), 'after')\n"
    script += "import ctypes; ctypes.string_at(g.bytes.ctypes.data + len(g.bytes), 1)"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode < 0
