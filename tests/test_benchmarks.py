"""The airspeed-velocity suite: it leaves out no layer, kind, algorithm or function, and every benchmark runs."""

import importlib
import inspect
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench import LAYERS, MORE_LAYERS, Chain, Peer
from fastconv.bench.compare import ours
from fastconv.bench.layers import parts
from fastconv.bench.report import algorithms
from fastconv.bench.training import Step
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.problem import ALGORITHMS, Problem

ROOT = Path(fc.__file__).resolve().parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the suite is not installed with the package", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks import calls, chains, common, ran, start, training

ALL = {**LAYERS, **MORE_LAYERS}
COPYCAT = Peer("copycat", (), lambda problem: None, lambda segments, threads: ours(segments))
ABSENT = Peer("absent", ("no_such_library",), lambda problem: None, COPYCAT.build)
PICKY = Peer("picky", (), lambda problem: "does not feel like it", COPYCAT.build)

# One of each kind, which the names stand for here: the kernels of real layers would take minutes to compile.
SMALL = {
    "standard": "conv2d,n1c4i9f8k3p1,bias,relu",
    "pointwise": "conv2d,n1c4i9f8k1,bias,relu",
    "depthwise": "conv2d,n1c4i9f4k3p1g4,bias,relu",
    "separable": "conv2d,n1c4i9f4k3p1g4,bias,relu+conv2d,n1c4i9f8k1,bias,relu",
    "atrous": "conv2d,n1c4i9f8k3p2d2,bias,relu",
    "transposed": "transposed2d,n1c4i5f8k3s2p1,bias,relu",
    "gradient": "weights2d,n1c4i9f8k3p1",
}


def classes(base):
    """Of all files of the suite, those that say which layers; as asv finds them."""
    found = []
    for file in (ROOT / "benchmarks").glob("[a-z]*.py"):
        module = importlib.import_module(f"benchmarks.{file.stem}")
        found += [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, base) and not inspect.isabstract(c)]
    return found


def test_every_layer_is_timed_by_every_algorithm_and_beside_every_peer():
    timed, beside = (Counter(name for c in classes(base) for name in c().params[0]) for base in (common.Layers, common.BesidePeers))
    assert timed == Counter(list(ALL))
    assert beside == Counter([*ALL, *common.CHAINS, *calls.TINY.values()])
    assert common.ALGORITHMS == ALGORITHMS
    assert all(c().params[1:] == [common.ALGORITHMS, common.THREADS] for c in classes(common.Layers))
    assert all(c().params[1] == [peer.name for peer in common.PEERS] for c in classes(common.BesidePeers))


def test_no_kind_and_no_algorithm_of_the_package_is_left_out():
    there = {(kind, i.algorithm) for i in IMPLEMENTATIONS for kind in i.kinds}
    timed = {(problem.kind, algorithm) for problem in ALL.values() for algorithm in algorithms(problem)}
    assert len(timed) > 15
    assert there - timed == {("weights", "direct")}  # gradients of weights let nobody choose


def test_every_function_s_call_is_timed():
    public = {name for name in fc.__all__ if "conv" in name and callable(getattr(fc, name)) and name.islower()}
    assert set(calls.TINY) == public - {"fastconv"}


@pytest.fixture
def small(monkeypatch):
    """Names of kinds stand for small problems, and nothing is timed for long."""
    threads = fc.get_num_threads()
    monkeypatch.setattr(common, "find", lambda name: (name, Problem.parse(SMALL.get(name, name))))
    monkeypatch.setattr(common, "SECONDS", 1e-3)
    monkeypatch.setattr(common, "PEERS_BY_NAME", {peer.name: peer for peer in (COPYCAT, ABSENT, PICKY)})
    monkeypatch.setattr(common, "fma_peak", lambda dtype: 100.0)
    yield
    fc.set_num_threads(threads)


class Small(common.Layers):
    layers = tuple(SMALL)


class SmallBesidePeers(common.BesidePeers):
    layers = tuple(SMALL)


@pytest.mark.parametrize("kind", SMALL)
def test_a_layer_s_benchmarks(kind, small):
    benchmark, ran = Small(), []
    for algorithm in ALGORITHMS:
        try:
            benchmark.setup(kind, algorithm, 1)
        except NotImplementedError as error:
            assert "algorithm" in str(error)
            continue
        ran.append(algorithm)
        assert fc.get_num_threads() == 1
        assert [part.algorithm for part in parts(benchmark.problem)] == [algorithm] * len(parts(benchmark.problem))
        benchmark.time_layer(kind, algorithm, 1)
        assert benchmark.track_time_over_peak(kind, algorithm, 1) > 0
    problem = Problem.parse(SMALL[kind])
    assert ran == ["auto"] if kind == "gradient" else ["auto", *algorithms(problem)]


@pytest.mark.parametrize("kind", SMALL)
def test_what_is_timed_is_the_whole_problem(kind, small):
    problem, layer, x = common.called(kind)
    assert problem == Problem.parse(SMALL[kind])
    assert x.shape == problem.x_shape
    first, second = layer(x), layer(x)
    assert first.shape == (problem.weight_shape if kind == "gradient" else problem.out_shape)
    assert not np.shares_memory(first, second)  # each call allocates its result
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, layer(x + 1))


def test_a_layer_beside_peers(small):
    benchmark = SmallBesidePeers()
    benchmark.setup("pointwise", "copycat", 1)
    assert benchmark.track_time_over_peer("pointwise", "copycat", 1) > 0
    for peer, reason in (("absent", "pip install no_such_library"), ("picky", "does not feel like it")):
        with pytest.raises(NotImplementedError, match=reason):
            benchmark.setup("pointwise", peer, 1)


def test_ratios_grow_when_fastconv_becomes_slower(small, monkeypatch):
    """asv takes the larger number for the worse one."""
    taken = {"fastconv": 2.0, "copycat": 4.0}
    module = importlib.import_module("fastconv.bench.compare")  # the package has a function of that name
    monkeypatch.setattr(module, "best_in_turn", lambda calls, seconds: dict(taken))
    monkeypatch.setattr(common, "best_time", lambda call, seconds: taken["fastconv"])
    beside, alone = SmallBesidePeers(), Small()
    beside.setup("pointwise", "copycat", 1)
    alone.setup("pointwise", "auto", 1)
    before = beside.track_time_over_peer("pointwise", "copycat", 1), alone.track_time_over_peak("pointwise", "auto", 1)
    taken["fastconv"] = 3.0
    after = beside.track_time_over_peer("pointwise", "copycat", 1), alone.track_time_over_peak("pointwise", "auto", 1)
    assert before[0] == 0.5
    assert [a / b for a, b in zip(after, before)] == pytest.approx([1.5, 1.5])


def test_all_threads_are_timed_where_there_are_some(small, monkeypatch):
    monkeypatch.setattr(common, "ALL_THREADS", 1)
    with pytest.raises(NotImplementedError, match="one processor"):
        common.set_threads("all")


def test_a_chain(small, monkeypatch):
    problems = (Problem.parse(SMALL["standard"]), Problem.parse("conv2d,n1c8i9f4k1"))
    monkeypatch.setitem(common.CHAINS, "small", Chain("small", (problems,)))
    benchmark = chains.Chains()
    benchmark.setup("small", 1)
    benchmark.time_chain("small", 1)


@pytest.mark.parametrize("name", calls.TINY)
def test_a_call(name, small):
    benchmark = calls.Calls()
    benchmark.setup(name)
    benchmark.time_function(name)
    benchmark.time_layer(name)
    benchmark.time_layer_with_out(name)
    np.testing.assert_allclose(benchmark.out, benchmark.function(benchmark.x, *benchmark.weights), rtol=1e-5, atol=1e-6)


def test_a_step_of_training(small, monkeypatch):
    monkeypatch.setitem(training.STEPS, "small", Step((4, 2), (2, 1, 8, 8)))
    benchmark = training.Training()
    benchmark.setup("small")
    benchmark.time_step("small")


def test_what_a_process_pays_once(monkeypatch):
    asked = []
    monkeypatch.setattr(start, "first_call", lambda name, cache=None, code=None: asked.append(cache) or float(len(asked)))
    benchmark = start.FirstCall()
    assert [benchmark.track_first_call("pw_14_512", kernels) for kernels in ("compiled", "read")] == [1.0, 3.0]
    assert asked[0] != asked[1] == asked[2]  # another folder each time; what is read was compiled into it just before
    monkeypatch.setattr(start, "IMPORTS", 1)
    monkeypatch.setattr(start, "seconds", lambda code: 3.0 if "import fastconv" in code else 2.0)
    assert start.Import().track_import_over_numba() == 1.5
    assert set(start.LAYERS) | set(start.Memory.params) <= {*ALL, "vgg16_224_64"}


def test_a_first_call_in_a_process_of_its_own():
    assert 0 < start.first_call(SMALL["pointwise"]) < math.inf


def test_at_another_commit_the_layers_are_this_checkout_s(tmp_path):
    """A package without any fastconv.bench stands for an older one."""
    shutil.copytree(ROOT / "fastconv", tmp_path / "fastconv", ignore=shutil.ignore_patterns("__pycache__", "bench"))
    code = """if True:
        import runpy, sys
        common = runpy.run_path(sys.argv[1])
        print(common["fc"].__file__, sys.modules["fastconv.bench.layers"].__file__)
    """
    command = [sys.executable, "-c", code, str(ROOT / "benchmarks" / "common.py")]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "fastconv" / "__init__.py"), str(ROOT / "fastconv" / "bench" / "layers.py")]


def test_results_are_counted(tmp_path):
    file = tmp_path / "01234567-some.json"
    file.write_text('{"results": {"a": [[1.5, NaN, 2.0], []], "b": [[null], []], "c": [null, []]}}')
    assert ran.counted([file]) == (2, 1, ["b", "c"])
    assert ran.counted([]) == (0, 0, [])
