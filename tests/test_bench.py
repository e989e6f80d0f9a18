"""The table of layers, how they are called, and what is reported."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench import (
    LAYERS,
    MORE_LAYERS,
    OTHER_LAYERS,
    TABLES,
    Console,
    Measurement,
    Peer,
    asking,
    bench,
    best_time,
    case,
    find,
    layer,
    measure,
    segment,
    selected,
    tune,
)
from fastconv.bench.chains import CHAINS, Chain
from fastconv.bench.compare import ours
from fastconv.bench.layers import parts
from fastconv.bench.report import algorithms, progress
from fastconv.bench.timing import memory_bandwidth
from fastconv.problem import Problem

ALL = {**LAYERS, **MORE_LAYERS}
COPYCAT = Peer("copycat", (), lambda problem: None, lambda segments, threads: ours(segments))
ABSENT = Peer("absent", ("no_such_library",), lambda problem: None, lambda segments, threads: ours(segments))
PICKY = Peer("picky", (), lambda problem: "wants float64" if problem.dtype == "float32" else None, COPYCAT.build)


def test_the_table_is_the_one_that_peers_were_measured_on():
    assert len(LAYERS) == 18
    assert all(problem.bias == "channel" and str(problem.activation) == "relu" for problem in LAYERS.values())
    assert all(problem.batch == 1 for problem in LAYERS.values())


@pytest.mark.parametrize(
    ("name", "out_shape", "kind", "mega"),
    [
        ("resnet_conv1", (1, 64, 112, 112), "standard", 236.0),
        ("resnet_3x3_s2", (1, 128, 28, 28), "standard", 231.2),
        ("pw_28_192_32", (1, 32, 28, 28), "pointwise", 9.6),
        ("dw_112_64_s2", (1, 64, 56, 56), "depthwise", 3.6),
        ("dw5_14_672", (1, 672, 14, 14), "depthwise", 6.6),
        ("atrous_r12_33", (1, 256, 33, 33), "atrous", 1284.6),
        ("seed_128_rgb", (1, 32, 126, 126), "standard", 27.4),
        ("grouped32_28", (1, 256, 28, 28), "standard", 28.9),
        ("sep_112_32_64", (1, 64, 112, 112), "separable", 58.6),
        ("up_28_64_32", (1, 32, 56, 56), "transposed", 51.4),
    ],
)
def test_layers_of_the_table(name, out_shape, kind, mega):
    problem = ALL[name]
    assert (problem.out_shape, problem.kind) == (out_shape, kind)
    assert problem.operations / 1e6 == pytest.approx(mega, abs=0.05)


def test_find():
    assert find("pw_14_512") == ("pw_14_512", LAYERS["pw_14_512"])
    assert find("conv2d,n1c3i8f4k3")[1] == Problem.parse("conv2d,n1c3i8f4k3")
    with pytest.raises(ValueError, match="pw_15_512.*such as pw_14_512, "):
        find("pw_15_512")
    with pytest.raises(ValueError, match="text"):
        find("conv2d,nonsense")


# A problem of each kind of layer, with every argument away from its default, and the function that computes it.
SMALL = [
    ("conv1d,n1c4i20f6k3s2p1:2g2,bias,relu", "conv1d"),
    ("conv2d,n2c4i9x8f6k3x2s2x1p1x0d1x2g2,pixelbias,residual,leaky_relu:0.1,channels_last", "conv2d"),
    ("conv3d,n1c2i5f3k2,bias,float64", "conv3d"),
    ("conv2d,n1c4i9f8k3p1g4,bias,relu,reflect", "depthwise_conv2d"),
    ("conv2d,n1c4i9f8k1s2,bias", "pointwise_conv2d"),
    ("conv2d,n1c4i9f6k3p2d2,relu", "conv2d"),
    ("transposed1d,n1c4i9f6k3s2p1,bias", "conv_transpose1d"),
    ("transposed2d,n1c4i5f6k3s2p1g2o1,bias,relu", "conv_transpose2d"),
    ("transposed3d,n1c2i3f3k2s2", "conv_transpose3d"),
]


@pytest.mark.parametrize(("text", "function"), SMALL)
def test_a_case_computes_its_problem(text, function):
    problem = Problem.parse(text)
    made, filled = case(problem), segment([problem])
    x, out = made.arguments
    [convolution] = filled.convolutions
    np.testing.assert_array_equal(x, filled.x)
    assert made() is out
    assert (x.shape, out.shape, out.dtype.name) == (problem.x_shape, problem.out_shape, problem.dtype)
    options = {"stride": problem.stride, "activation": problem.activation, "data_format": problem.data_format}
    if function != "pointwise_conv2d":
        options |= {"padding": problem.pads, "dilation": problem.dilation}
    if "transpose" in function:
        options["output_padding"] = problem.output_padding
    else:
        options["padding_mode"] = problem.padding_mode
    if function not in ("pointwise_conv2d", "depthwise_conv2d"):
        options["groups"] = problem.groups
    if problem.residual:
        options["residual"] = convolution.residual
    expected = getattr(fc.reference, function)(x, convolution.weight, convolution.bias, **options)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_a_case_of_a_separable_layer():
    problem = Problem.parse("conv2d,n1c4i9f4k3s2p1g4,bias,relu+conv2d,n1c4i5f6k1,bias,relu")
    made = case(problem)
    x, out = made.arguments
    arrays = (getattr(made.function, f"{part}_{what}") for what in ("weight", "bias") for part in ("depthwise", "pointwise"))
    expected = fc.reference.separable_conv2d(x, *arrays, 2, 1, depthwise_activation="relu", activation="relu")
    np.testing.assert_allclose(made(), expected, rtol=1e-4, atol=1e-5)
    assert made() is out


def test_a_case_of_a_weight_gradient():
    problem = Problem.parse("weights2d,n2c4i9f6k3s2p1g2,float64")
    made = case(problem)
    [x], [convolution] = made.arguments, segment([problem]).convolutions
    expected = fc.reference.conv2d_weight(x, problem.weight_shape, convolution.weight, 2, 1, 1, 2)
    np.testing.assert_allclose(made(), expected, rtol=1e-9, atol=1e-12)


def test_a_layer_without_bias_keeps_its_geometry():
    made = layer(Problem.parse("conv2d,n1c2i8f3k3s2p1"), np.ones((3, 2, 3, 3), np.float32))
    assert (made.bias, made.stride, made.padding) == (None, (2, 2), ((1, 1), (1, 1)))


def test_best_time_takes_the_shortest_and_stops():
    calls = []
    assert 0 < best_time(lambda: calls.append(1), seconds=0.01) < 1e-4
    assert len(calls) > 10


def test_measurement():
    problem = Problem.parse("conv2d,n1c8i10f8k1")
    m = Measurement("x", problem, 1e-6, 2, 100.0)
    assert m.gflops == pytest.approx(12.8)
    assert m.share == pytest.approx(0.128)
    measured = measure("x", problem, seconds=0.001, peak=100.0)
    assert measured.threads == fc.get_num_threads()
    assert measured.peak == 100.0 * measured.threads
    assert measured.seconds > 0


def test_the_report_in_plain_text():
    texts, plain = ["conv2d,n1c4i9f8k1,bias", "conv2d,n1c4i9f4k3g4,float64"], io.StringIO()
    bench(texts, threads=1, quick=True, console=Console(plain))
    lines = plain.getvalue().splitlines()
    assert "threads: 1" in lines[0]
    assert lines[1].split()[:2] == ["layer", "kind"]
    assert [line.split()[1] for line in lines[3:]] == ["pointwise", "depthwise"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_report_on_a_terminal():
    pytest.importorskip("rich")
    terminal = Terminal()
    Console(terminal).table("[Sizes]", ["name", "size"], [["[a]", "1"]])
    assert "[a]" in terminal.getvalue()
    assert "━" in terminal.getvalue()


def test_the_tables_of_layers_share_no_name_and_no_problem():
    names = [name for table in TABLES.values() for name in table]
    assert len(set(names)) == len(names)
    assert not set(OTHER_LAYERS.values()) & set(LAYERS.values())
    assert {problem.kind for problem in OTHER_LAYERS.values()} == {
        "standard", "pointwise", "depthwise", "separable", "atrous", "transposed",
    }  # fmt: skip


def test_selected():
    assert [name for name, _ in selected([])] == [*LAYERS, *MORE_LAYERS]
    assert [name for name, _ in selected([], "other")] == list(OTHER_LAYERS)
    assert [name for name, _ in selected(["pw_14_512", "dw_112_32"], kind="depthwise")] == ["dw_112_32"]
    assert [name for name, _ in selected(["resnet_3x3_*", "seed_128_rgb"], kind="standard")] == [
        "resnet_3x3_56", "resnet_3x3_28", "resnet_3x3_14", "resnet_3x3_7", "resnet_3x3_s2", "seed_128_rgb",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'vgg19_"):
        selected(["vgg19_*"])
    with pytest.raises(ValueError, match="'atrous'.*dw_112_32"):
        selected(["dw_112_32"], kind="atrous")


def test_the_report_beside_peers():
    plain = io.StringIO()
    texts = ["conv2d,n1c4i9f8k1,bias", "conv2d,n1c4i9f4k3g4,float64"]
    bench(texts, peers=[COPYCAT, PICKY, ABSENT], threads=1, quick=True, console=Console(plain))
    lines = plain.getvalue().splitlines()
    assert lines[1].split()[-3:] == ["copycat", "picky", "ratio"]
    assert lines[3].split()[-2] == "-"
    assert float(lines[3].split()[-1]) > 0
    assert "absent: not installed; pip install no_such_library" in lines
    assert "picky: wants float64: conv2d,n1c4i9x9f8k1x1,bias" in lines


def test_the_report_of_a_chain(monkeypatch):
    plain, layers = io.StringIO(), ["conv2d,n1c3i9f4k3p1", "conv2d,n1c4i9f4k1", "conv2d,n1c4i5f4k1"]
    monkeypatch.setitem(CHAINS, "tiny", Chain("tiny", tuple((Problem.parse(layer),) for layer in layers)))
    bench(chains=["tiny"], peers=[COPYCAT], threads=1, quick=True, console=Console(plain))
    lines = plain.getvalue().splitlines()
    assert lines[0].startswith("tiny: ")
    assert [line.split()[0] for line in lines[3:5]] == ["fastconv", "copycat"]


@pytest.mark.parametrize("peers", [[], [COPYCAT]], ids=["alone", "beside a peer"])
def test_the_picture(peers, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "roofline.png"
    texts = ["conv2d,n1c4i9f8k1,bias", "conv2d,n1c4i9f4k3g4,float64"]
    bench(texts, peers=peers, threads=1, quick=True, plot=str(file), console=Console(io.StringIO()))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_timed(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastconv.bench.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("fastconv.bench.report.measure", None)
    with pytest.raises(ImportError, match=r"a plot needs matplotlib: .*fastconv\[bench\]"):
        bench(["conv2d,n1c4i9f8k1"], plot="never.png")


def test_tune_times_every_algorithm_that_accepts_a_problem():
    plain = io.StringIO()
    tune([find("conv2d,n1c4i9f8k1,bias")], threads=1, seconds=0.01, console=Console(plain))
    _, columns, _, row = plain.getvalue().splitlines()
    assert columns.split() == ["layer", "kind", "direct", "tiled", "winograd", "auto", "takes", "best", "loss"]
    assert row.split()[1] == "pointwise"


@pytest.mark.parametrize("name", ["pw_14_512", "sep_14_512", "up_28_64_32"])
def test_algorithms(name):
    able = algorithms(ALL[name])
    assert "direct" in able
    for algorithm, problem in able.items():
        assert problem.algorithm == algorithm
        assert problem.out_shape == ALL[name].out_shape
    assert list(algorithms(find("conv2d,n1c4i9f8k1,direct")[1])) == ["direct"]


def test_gradients_of_weights_let_nobody_choose():
    problem = ALL["gradw_28_128"]
    assert algorithms(problem) == {"winograd": problem}
    with pytest.raises(ValueError, match="'direct'.*nobody choose"):
        asking(problem, "direct")


def test_asking_for_an_algorithm():
    for problem in (ALL["pw_14_512"], ALL["sep_14_512"], ALL["up_28_64_32"]):
        for part, asked in zip(parts(problem), parts(asking(problem, "direct"))):
            assert asked == replace(part, algorithm="direct")


def test_memory_bandwidth():
    assert memory_bandwidth(threads=2, seconds=0.01) > 0


def test_progress_gives_the_items_on_a_terminal_and_elsewhere(monkeypatch):
    assert list(progress([1, 2], "counting")) == [1, 2]
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress([1, 2], "counting")) == [1, 2]
    assert "counting" in terminal.getvalue()
