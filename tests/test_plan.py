"""Which implementation computes which problem, and how the problems fall into items."""

import math

import pytest

from fastconv.cpu.plans.shares import scratch_numbers
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose, refusals
from fastconv.problem import Problem

pytestmark = pytest.mark.usefixtures("every_tile")
# Each kind of layer, and the kernel that its name must contain.
KINDS = {
    "conv2d,n1c4i16f8k3p1": "standard",
    "conv1d,n1c4i16f8k3p1": "standard",
    "conv3d,n1c4i6f8k3p1g2": "standard",
    "conv2d,n1c4i16f8k3p2d2": "atrous",
    "conv2d,n1c4i16f8k1": "pointwise",
    "conv2d,n1c4i16f8k3g4": "depthwise",
    "transposed2d,n1c4i16f8k2s2": "transposed",
    "conv2d,n1c4i16f8k3g4+conv2d,n1c8i14f4k1": "separable",
}


def written(text, *options):
    return Problem.parse("+".join(",".join([part, *options]) for part in text.split("+")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("text", "kind"), KINDS.items())
def test_every_kind_has_kernels(text, kind, data_format, dtype):
    for algorithm in ("auto", "direct"):
        problem = written(text, data_format, dtype, algorithm)
        task, implementation, division, _ = choose(problem, IMPLEMENTATIONS, 2)
        assert kind in implementation.kinds
        assert kind == problem.kind == task.kind
        assert implementation.accepts(task, "any") is None
        assert division.items >= 1
    assert implementation.algorithm == "direct"
    assert implementation.name == f"direct_{kind}" + ("_last" if data_format == "channels_last" else "")


def test_weight_gradient():
    assert choose(Problem.parse("weights2d,n1c4i16f8k3"), IMPLEMENTATIONS, 2).implementation.name == "tiled_weight_gradient"
    assert choose(Problem.parse("weights2d,n1c2i4f2k3"), IMPLEMENTATIONS, 2).implementation.name == "direct_weight_gradient"


def test_names_are_unique_and_algorithms_known():
    names = [i.name for i in IMPLEMENTATIONS]
    assert len(set(names)) == len(names)
    for implementation in IMPLEMENTATIONS:
        assert implementation.algorithm in ("direct", "tiled", "winograd")
        family = ("winograd", "strassen") if implementation.algorithm == "winograd" else implementation.algorithm
        assert implementation.name.startswith(family)


@pytest.mark.parametrize(("text", "kind"), KINDS.items())
def test_every_refusal_has_its_reason(text, kind):
    problem = written(text, "direct")
    reasons = dict(refusals(problem, IMPLEMENTATIONS))
    chosen = choose(problem, IMPLEMENTATIONS, 2).implementation
    assert chosen.name not in reasons
    for implementation in IMPLEMENTATIONS:
        if implementation.name in reasons:
            reason = reasons[implementation.name]
            if implementation.algorithm != "direct":
                assert "'direct' was asked for" in reason
            elif kind not in implementation.kinds:
                assert f"computes {' and '.join(implementation.kinds)} layers, this one is {kind}" == reason
            elif implementation.name.endswith("_last"):
                assert reason == "writes channels_last, the result is channels_first"


@pytest.mark.parametrize("text", [t for t, kind in KINDS.items() if kind not in ("standard", "atrous", "transposed")])
def test_impossible_algorithm(text):
    problem = written(text, "winograd")
    with pytest.raises(ValueError, match=r"algorithm: 'winograd' cannot compute .*; expected auto or direct"):
        choose(problem, IMPLEMENTATIONS, 2)


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_bands_cover_the_rows(text, size):
    """All rows are in a band, and no band is empty."""
    text = text.replace("i16", f"i{size + 4}").replace("i14", f"i{size + 2}")
    for data_format in ("channels_first", "channels_last"):
        problem = written(text, data_format, "direct")
        task, _, division, _ = choose(problem, IMPLEMENTATIONS, 2)
        rows = math.prod(task.out_space[:-1])
        assert division.bands * division.band >= rows > (division.bands - 1) * division.band
        assert division.items % division.bands == 0


def test_separable_scratch_is_bounded():
    for width in (8, 64, 512):
        problem = Problem.parse(f"conv2d,n1c32i{width}f32k3p1g32,direct+conv2d,n1c32i{width}f64k1,direct")
        division = choose(problem, IMPLEMENTATIONS, 2).division
        assert division.scratch <= max(scratch_numbers("float32"), width * 32)
        assert division.scratch == division.band * width * 32
