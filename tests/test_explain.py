"""What `explain` says, that it says what would run, and that it computes nothing."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv.cpu import launch, packing
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose, simplified

pytestmark = pytest.mark.usefixtures("every_tile")


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.fixture
def no_work(monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("something was computed")

    for name in ("Bound", "pack", "BoundWeightGradient", "bias_gradient"):
        monkeypatch.setattr(launch, name, refuse)
    for name in ("aligned_empty", "aligned_copy"):
        monkeypatch.setattr(packing, name, refuse)


x, w = ones(2, 4, 8, 8), ones(6, 4, 3, 3)
CALLS = {
    "conv1d": (fc.conv1d, (ones(4, 8), ones(6, 4, 3)), {}, "conv1d,n1c4i8f6k3"),
    "conv2d": (fc.conv2d, (x, w), {"stride": 2}, "conv2d,n2c4i8x8f6k3x3s2"),
    "epilogue": (fc.conv2d, (x, w, ones(6)), {"padding": "same", "activation": "silu", "residual": ones(2, 6, 8, 8)},
                 "conv2d,n2c4i8x8f6k3x3p1,bias,residual,silu"),
    "conv3d": (fc.conv3d, (ones(4, 5, 5, 5), ones(6, 4, 3, 3, 3)), {}, "conv3d,n1c4i5x5x5f6k3x3x3"),
    "atrous": (fc.atrous_conv2d, (x, w), {"rate": 3}, "conv2d,n2c4i8x8f6k3x3d3"),
    "depthwise": (fc.depthwise_conv2d, (x, ones(8, 1, 3, 3)), {}, "conv2d,n2c4i8x8f8k3x3g4"),
    "pointwise": (fc.pointwise_conv2d, (x, ones(6, 4)), {"algorithm": "direct"}, "conv2d,n2c4i8x8f6k1x1,direct"),
    "separable": (fc.separable_conv2d, (x, ones(4, 1, 3, 3), ones(6, 4)), {},
                  "conv2d,n2c4i8x8f4k3x3g4+conv2d,n2c4i6x6f6k1x1"),
    "transposed": (fc.conv_transpose2d, (x, ones(4, 6, 3, 3)), {"stride": 2, "output_size": 18},
                   "transposed2d,n2c4i8x8f6k3x3s2o1"),
    "input": (fc.grad.conv2d_input, (x.shape, w, ones(2, 6, 6, 6)), {}, "transposed2d,n2c6i6x6f4k3x3"),
    "weight": (fc.grad.conv2d_weight, (x, w.shape, ones(2, 6, 6, 6)), {}, "weights2d,n2c4i8x8f6k3x3"),
}  # fmt: skip


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("function", "arguments", "keywords", "text"), CALLS.values(), ids=CALLS)
def test_functions(function, arguments, keywords, text):
    said = fc.explain(function, *arguments, **keywords)
    assert str(said.problem) == text
    by_text, by_problem = fc.explain(text), fc.explain(said.problem)
    assert by_text == by_problem and said.problem == by_text.problem and str(said) == repr(said)
    if function is not fc.grad.conv2d_input:  # which counts packing
        assert said == by_text and str(said) == str(by_text)
    assert said.kernel == choose(said.problem, IMPLEMENTATIONS, fc.get_num_threads()).implementation.name
    assert said.operations == said.problem.operations
    assert said.bytes == said.problem.bytes
    assert said.intensity == pytest.approx(said.operations / said.bytes)
    assert said.workspace >= 0
    assert said.kernel not in dict(said.refused)


@pytest.mark.parametrize("text", [call[3] for call in CALLS.values()])
def test_prints_well(text):
    said = fc.explain(text)
    lines = str(said).splitlines()
    for word in ("problem", "result", "kernel", "vectorised", "work", "operations", "bytes", "limit", "workspace"):
        assert sum(line.startswith(word + " ") for line in lines) == 1, word
    assert f"{said.operations:,}" in str(said)
    assert said.kernel in str(said)
    assert str(said.problem) in lines[0]
    assert ("saved" in str(said)) == ("+" in text)
    kinds = {i.name: i.kinds for i in IMPLEMENTATIONS}
    others = [name for name, reason in said.refused if f"{name}: {reason}" not in str(said)]
    assert lines[-1] == f"not         {len(others)} kernels for other kinds of layers"
    assert not any(simplified(said.problem).kind in kinds[name] for name in others)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.usefixtures("no_work")
def test_it_looks_at_how_an_image_lies():
    """A view of channels-last memory, which is read in place, has kernels of its own."""
    image, weight = np.zeros((1, 14, 14, 512), np.float32).transpose(0, 3, 1, 2), np.zeros((512, 512), np.float32)
    said = fc.explain(fc.pointwise_conv2d, image, weight)
    by_text = fc.explain("conv2d,n1c512i14f512k1")
    assert said.problem == by_text.problem and said.kernel != by_text.kernel
    assert "neighbours in memory" in dict(said.refused)[by_text.kernel]
    assert said.kernel == choose(said.problem, IMPLEMENTATIONS, fc.get_num_threads(), "channels").implementation.name


@pytest.mark.usefixtures("no_work")
def test_out_is_left_alone():
    out = np.full((2, 6, 6, 6), 7, np.float32)
    fc.explain(fc.conv2d, x, w, out=out)
    assert (out == 7).all()


def test_layer():
    layer = fc.Conv2d(w, stride=2, algorithm="direct")
    assert layer.explain((2, 4, 8, 8)).problem == fc.explain("conv2d,n2c4i8f6k3s2,direct").problem


def test_direct():
    said = fc.explain("conv2d,n1c64i56f64k3p1,direct")
    assert said.kernel == "direct_standard"
    assert "direct_standard_last" in dict(said.refused)


def test_errors_are_those_of_the_call_and_calls_still_work():
    with pytest.raises(ValueError, match="stride: got 0"):
        fc.explain(fc.conv2d, x, w, stride=0)
    with pytest.raises(ValueError, match="algorithm: 'winograd' cannot"):
        fc.explain("conv2d,n1c4i8f8k3s3,winograd")
    with pytest.raises(ValueError, match="text: got 'nonsense'"):
        fc.explain("nonsense")
    with pytest.raises(TypeError, match="what: got int"):
        fc.explain(3)
    with pytest.raises(TypeError, match="what: got str and arguments"):
        fc.explain("conv2d,n1c4i8f8k3", np.ones((4, 8, 8), "f4"))
    with pytest.raises(ValueError, match="weight: a kernel"):
        fc.explain(replace(fc.Problem.parse("conv2d,n1c4i8f8k3"), kernel=(9, 9)))
    with pytest.raises(TypeError, match=r"^text: got 3 of type int"):
        fc.Problem.parse(3)
    with pytest.raises(TypeError, match=r"what: .*computes no convolution"):
        fc.explain(np.ones, 3)
    assert (fc.conv2d(x, w) == 36).all()


def test_says_of_few_operations_that_nobody_asked_for_direct():
    said = str(fc.explain("conv2d,n1c3i6f4k3"))
    assert "left to the direct kernels" in said and "was asked for" not in said


def test_it_says_how_many_images_an_item_computes():
    with fc.num_threads(1):
        several, single = (str(fc.explain(f"conv2d,n{n}c256i4f256k3p1")) for n in (8, 1))
    assert "up to 8 images each" in several and "images each" not in single
