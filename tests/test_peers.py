"""Other libraries: each computes what the reference does where it is installed, and says why not where it cannot."""

import subprocess
import sys

import numpy as np
import pytest
from cases import whole_numbers as drawn

import fastconv as fc
from fastconv.bench.chains import CHAINS
from fastconv.bench.layers import LAYERS, Convolution, Segment, parts, segment
from fastconv.bench.peers import PEERS, Peer
from fastconv.problem import Problem

BY_NAME = {peer.name: peer for peer in PEERS}
each_peer = pytest.mark.parametrize("peer", PEERS, ids=list(BY_NAME))

COMPUTED = [
    "conv2d,n1c4i9x8f6k3p1,bias,relu",
    "conv2d,n2c4i9x8f6k3x2s2x1p1x0d1x2g2,bias",
    "conv2d,n1c4i9f6k2p1:0,relu",
    "conv2d,n2c3i8f4k3p1,bias,relu,channels_last",
    "conv2d,n1c6i9f12k3p1g6,bias,relu6",
    "conv2d,n1c4i9f8k1s2,bias,leaky_relu:0.5",
    "conv2d,n1c4i9f6k3p2d2,clip:-3:5",
    "conv1d,n2c4i20f6k3s2p1:2g2,bias,relu",
    "conv1d,n2c4i20f6k3,channels_last",
    "conv3d,n1c2i5x4x6f3k2,bias,relu",
    "conv3d,n1c2i5x4x6f3k2s2,bias,channels_last",
    "transposed1d,n1c4i9f6k3s2p1,bias",
    "transposed2d,n2c4i5f6k3s2p1g2o1,bias,relu",
    "transposed3d,n1c2i3f3k2s2",
    "conv2d,n1c4i9f4k3s2p1g4,bias,relu+conv2d,n1c4i5f6k1,bias,relu",
    "conv2d,n1c4i9f4k3p1g4,bias,relu6+conv2d,n1c4i9f6k1,bias,residual",
    "conv2d,n2c4i9x8f6k3,residual,relu",
    "conv2d,n2c3i8f4k3p1,bias,residual,relu,channels_last",
]
SMOOTH = ["sigmoid", "tanh", "silu", "hardswish", "gelu"]


def whole_numbers(problem):
    """A layer filled with small integers, whose sums every library gets exactly right, in whatever order it adds."""
    rng = np.random.default_rng(7)

    def numbers(shape):
        return None if shape is None else rng.integers(-3, 4, shape).astype(problem.dtype)

    def convolution(p):
        return Convolution(p, numbers(p.weight_shape), numbers(p.bias_shape), numbers(p.out_shape if p.residual else None))

    return Segment(numbers(problem.x_shape), (tuple(map(convolution, parts(problem))),))


def expected(filled):
    y = filled.x
    for c in filled.convolutions:
        p = c.problem
        options = {"stride": p.stride, "padding": p.pads, "dilation": p.dilation, "groups": p.groups}
        if p.operation == "transposed":
            function, options["output_padding"] = getattr(fc.reference, f"conv_transpose{p.dimensions}d"), p.output_padding
        else:
            function, options["padding_mode"] = getattr(fc.reference, f"conv{p.dimensions}d"), p.padding_mode
        options |= {"activation": p.activation, "residual": c.residual, "data_format": p.data_format}
        y = function(y, c.weight, c.bias, **options)
    return y


def answer(peer, filled):
    """What a peer computes; skips where it is not installed, None where it refuses."""
    if peer.missing():
        pytest.skip(peer.missing())
    if any(peer.why_not(c.problem) for c in filled.convolutions):
        return None
    with peer.mode():
        [result] = peer.build([filled], 1)()
        return np.asarray(result)


@each_peer
@pytest.mark.parametrize("text", COMPUTED)
def test_the_result_is_the_reference_s(peer, text):
    filled = whole_numbers(Problem.parse(text))
    result = answer(peer, filled)
    if result is None:
        assert (peer.name, filled.x.ndim) == ("torch channels_last", 3)
        return
    np.testing.assert_array_equal(result, expected(filled))


@each_peer
@pytest.mark.parametrize("activation", SMOOTH)
def test_activations(peer, activation):
    filled = segment([Problem.parse(f"conv2d,n1c4i9f6k3p1,bias,{activation}")])
    np.testing.assert_allclose(answer(peer, filled), expected(filled), rtol=1e-4, atol=1e-4)  # some approximate them


@pytest.mark.parametrize("name", ["torch", "torch channels_last"])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(name, mode):
    filled = whole_numbers(Problem.parse(f"conv2d,n1c4i9x8f6k3p2x1:0,bias,{mode}"))
    np.testing.assert_array_equal(answer(BY_NAME[name], filled), expected(filled))


def test_torch_computes_float64_as_it_is():
    filled = segment([Problem.parse("conv2d,n1c4i9f6k3p1,bias,float64")])
    result = answer(BY_NAME["torch"], filled)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected(filled), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["torch", "torch channels_last"])
@pytest.mark.parametrize("text", ["weights2d,n2c4i9f6k3x2s2p1d2x1g2", "weights2d,n1c4i9f4k3p1g4", "weights2d,n1c4i9f6k3,float64"])
def test_weight_gradients(name, text):
    problem, rng = Problem.parse(text), np.random.default_rng(0)
    x, grad = (drawn(rng, shape, problem.dtype) for shape in (problem.x_shape, problem.out_shape))
    sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    filled = Segment(x, ((Convolution(problem, grad, None, None),),))
    np.testing.assert_array_equal(answer(BY_NAME[name], filled), fc.reference.conv2d_weight(x, problem.weight_shape, grad, **sizes))


GRAPHS = ("onnxruntime", "openvino")
TORCHES = ("torch", "torch channels_last")


@pytest.mark.parametrize(
    ("names", "text", "reason"),
    [
        (BY_NAME, "conv2d,n1c4i9f6k3,pixelbias", "each pixel"),
        (GRAPHS, "weights2d,n1c4i9f6k3", "gradients"),
        (TORCHES, "weights2d,n1c4i9f6k3,channels_last", "channels first"),
        (BY_NAME, "conv2d,n1c4i9f6k3p1,symmetric", "symmetric"),
        (BY_NAME, "conv2d,n1c4i9f6k3p-1", "negative"),
        (GRAPHS, "conv2d,n1c4i9f6k3,float64", "float32 only"),
        (GRAPHS, "conv2d,n1c4i9f6k3p1,reflect", "reflect"),
        (TORCHES, "transposed2d,n1c4i9f6k3p1:0", "as much before as after"),
        (["torch channels_last"], "conv1d,n1c4i9f6k3", "signals"),
        (BY_NAME, "conv2d,n1c4i9f4k3g4+conv2d,n1c4i7f6k1,pixelbias", "each pixel"),
    ],
)
def test_refusals(names, text, reason):
    for name in names:
        assert reason in BY_NAME[name].refuses(Problem.parse(text))


@each_peer
def test_every_call_gives_a_result_of_its_own(peer):
    if peer.missing():
        pytest.skip(peer.missing())
    with peer.mode():
        call = peer.build([whole_numbers(Problem.parse("conv2d,n1c4i9f6k3,bias"))], 1)
        first, second = np.asarray(call()[0]), np.asarray(call()[0])
        assert not np.shares_memory(first, second)


@each_peer
def test_several_segments(peer):
    if peer.missing():
        pytest.skip(peer.missing())
    filled = [whole_numbers(Problem.parse(text)) for text in COMPUTED[:3]]
    with peer.mode():
        results = peer.build(filled, 1)()
        for result, part in zip(results, filled, strict=True):
            np.testing.assert_array_equal(np.asarray(result), expected(part))


@each_peer
def test_the_number_of_threads_changes_no_result(peer):
    filled = whole_numbers(Problem.parse("conv2d,n1c4i9f6k3,bias"))
    one = answer(peer, filled)
    with peer.mode():
        np.testing.assert_array_equal(np.asarray(peer.build([filled], 2)()[0]), one)


def test_what_is_missing_is_said_with_how_to_install_it():
    nobody = Peer("nobody", ("no_such_library", "json"), lambda problem: None, lambda segments, threads: list)
    assert nobody.missing() == "pip install no_such_library json"


def test_the_package_imports_no_peer():
    script = "import sys, fastconv.bench; print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@each_peer
def test_what_every_peer_computes(peer):
    for problem in [*LAYERS.values(), *CHAINS.values()]:
        assert peer.refuses(problem) is None
