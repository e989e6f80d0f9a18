"""No kernel touches memory beside its arrays: they lie flush against pages that may not be touched.

In a process of its own, for a wrong read or write ends it; the problem at fault is the last that it has printed.
"""

import ctypes
import mmap
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu import launch, machine, packing
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

PAGE = mmap.PAGESIZE
CANARY = 0xA5
EACH_TILED = 25  # problems for each tiled kernel
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


def check_all():
    for flush, text in product(("after", "before"), TEXTS):
        print(f"{text}, {flush}", flush=True)
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


def check_tiled(without=()):
    """Every tiled kernel, with packed weights and scratch guarded as well, against the reference."""
    for name in tiled.OWN:
        if name in without:
            continue
        tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
        for line in tiled.problems(name, tile, EACH_TILED, seed=1):
            problem = cases.parse(line)
            plain, results = cases.arrays(problem, np.random.default_rng(0)), []
            for flush in ("after", "before"):
                print(f"{name}, {flush}: {line}", flush=True)
                results.append(one_tiled(name, problem, tile, plain, flush))
            tiled.agree(name, line, plain, results[0].reshape(problem.out_shape))
            assert results[0].tobytes() == results[1].tobytes(), "another result"
    print("done", flush=True)


def in_three_orders(weight):
    """Filters side by side in memory, then neither filters nor channels, then as it is: packing reads each by loops of its own."""
    apart = np.repeat(weight, 2, axis=1)[:, ::2]
    return np.asfortranarray(weight), apart, weight


def one_tiled(name, problem, tile, plain, flush):
    """What a kernel makes of arrays that lie beside pages that may not be touched."""
    kept = []
    given = {key: guarded(array, flush, kept) for key, array in plain.items()}
    choice = tiled.chosen(name, problem, tile)

    def room(size):
        scratch = guarded(np.empty(size, np.uint8), flush, kept)
        return scratch, scratch.ctypes.data

    with patch.object(packing, "scratch", room), fc.num_threads(1):
        for weight in in_three_orders(plain["weight"]):
            packed = launch.pack(choice, [weight], [plain.get("bias")])
    weights = [tuple(array if array is None else guarded(array, flush, kept) for array in pair) for pair in packed]
    scratch = guarded(np.full(choice.division.scratch, np.nan, problem.dtype), flush, kept)
    out = guarded(np.full(choice.problem.out_shape, np.nan, problem.dtype), flush, kept)
    with patch.object(packing, "scratch", lambda size: (scratch, scratch.ctypes.data)), fc.num_threads(1):
        tiled.bound(choice, given, weights).compute(given["x"], given.get("residual"), out)
    assert all(room.intact() for room in kept), "wrote beside an array"
    for key, array in plain.items():
        assert given[key].tobytes() == array.tobytes(), f"{key} was written to"
    return out


WEIGHTS = [
    "conv2d,n2c5i7x33f17k3p1", "conv2d,n1c3i9x10f5k3x4s2p1:0x0:2", "conv2d,n2c6i9x17f40k3d2g2", "conv2d,n1c17i13x17f33k1",
    "conv2d,n1c33i13x17f17k1", "conv2d,n2c5i7x33f7k2x3s3p1,channels_last", "conv1d,n1c3i70f8k5s2p2", "conv3d,n1c2i3x4x9f3k3p1",
    "conv2d,n2c5i9x19f5k3p1g5", "conv2d,n1c5i9x37f5k5s2p2g5", "conv2d,n1c3i9x7f6k3p2d2g3",
    "conv2d,n2c19i5x7f19k3p1g19,channels_last",
    "conv2d,n1c3i9x7f3k5s2p2g3,channels_last",
    "conv2d,n3c19i15x33f35k5p2", "conv2d,n2c9i15x21f33k3s2p1,channels_last",
]  # fmt: skip


def check_weight_gradients():
    """Every tiled kernel of weight gradients, and Winograd's, with image, gradient, result and scratch guarded."""
    gathering = [i for i in IMPLEMENTATIONS if i.kinds == ("weights",) and i.algorithm != "direct"]
    for line, flush, kernel in product(WEIGHTS, ("after", "before"), gathering):
        problem, kept, rng = cases.parse(line), [], np.random.default_rng(0)
        plain = [cases.whole_numbers(rng, shape, "f4") for shape in (problem.x_shape, problem.out_shape)]
        x, grad = (guarded(array, flush, kept) for array in plain)
        task, neighbours = replace(problem.weights(), algorithm=kernel.algorithm), launch.neighbours(x, problem)
        if kernel.accepts(task, neighbours) is not None:
            continue
        print(f"{line}, {flush}, {kernel.name}", flush=True)
        choice = choose(task, (kernel,), 1, neighbours)
        scratch = guarded(np.full(max(1, choice.division.scratch), np.nan, "f4"), flush, kept)
        out = guarded(np.full(problem.weight_shape, np.nan, "f4"), flush, kept)
        with patch.object(packing, "scratch", return_value=(scratch, scratch.ctypes.data)), fc.num_threads(1):
            launch.BoundWeightGradient(choice, x, grad).gradient(x, grad, out)
        sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
        name = f"conv{problem.dimensions}d_weight"
        want = getattr(fc.reference, name)(plain[0], problem.weight_shape, plain[1], **sizes, data_format=problem.data_format)
        allowed = kernel.error(task) * x.max() * grad.max() * problem.batch * np.prod(problem.out_space)
        assert np.abs(out - want).max() <= allowed, "another result"
        assert all(room.intact() for room in kept), "wrote beside an array"
    print("done", flush=True)


def run(call, **environment):
    """Call a function of this file in a process of its own; what it printed last is what was wrong."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-X", "faulthandler", "-c", f"import conftest, test_guard; test_guard.{call}"]
    variables = os.environ | {"PYTHONPATH": paths} | environment
    done = subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0 and last == ["done"], f"{last} in {call}:\n{done.stderr}"


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")


@linux
def test_nothing_beside_the_arrays_is_touched():
    run("check_all()")
    cases.computed["problems"] += 2 * len(TEXTS)


@linux
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_nor_by_tiled_kernels_of_any_width(lanes):
    if 4 * lanes > machine.target_vector()[0]:
        pytest.skip(f"this machine has no {lanes} lanes")
    own = 4 * lanes == machine.target_vector()[0]
    # Of narrower ones the first kernel of each file, by turns: each is compiled for each width.
    firsts = list({tiled.BY_NAME[name].kernel.__module__: name for name in reversed(tiled.OWN)}.values())
    without = () if own else tuple(name for name in tiled.OWN if name not in firsts[lanes // 8 :: 2])
    run(f"check_tiled({without})", FASTCONV_LANES=str(lanes))
    cases.computed["problems"] += 2 * EACH_TILED * (len(tiled.OWN) - len(without))


@linux
def test_nor_by_weight_gradients():
    run("check_weight_gradients()")
    cases.computed["problems"] += 2 * len(WEIGHTS)


def test_a_guard_guards():
    """Else the test above would show nothing."""
    script = "import test_guard, numpy; g = test_guard.Guarded(8); g.array(numpy.zeros(2, 'f4'), 'after')\n"
    script += "import ctypes; ctypes.string_at(g.bytes.ctypes.data + len(g.bytes), 1)"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode < 0
