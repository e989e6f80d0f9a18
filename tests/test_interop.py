"""Models of others: our layers give what their runtimes give."""

import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc

RNG = np.random.default_rng(8)


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def near(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# ONNX -----------------------------------------------------------------------------------------------------------------


def run_onnx(path, x, nodes, constants, shape=None):
    """Write a model of one input and run it; gives its results, those of all nodes without a taker."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    taken = {name for node in nodes for name in node.input}
    outputs = [node.output[0] for node in nodes if node.output[0] not in taken and node.op_type != "Constant"]
    graph = helper.make_graph(
        nodes, "model", [helper.make_tensor_value_info("x", 1, shape or x.shape)],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [to_tensor(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def node(kind, inputs, output, **attributes):
    return pytest.importorskip("onnx").helper.make_node(kind, inputs, [output], name=output, **attributes)


CONV = {
    "plain": {}, "pads": {"pads": [1, 0, 2, 1], "strides": [2, 1]}, "upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, "valid": {"auto_pad": "VALID"},
    "dilated": {"dilations": [2, 1], "group": 2},
}  # fmt: skip
TRANSPOSE = {
    "plain": {}, "strided": {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]}, "groups": {"group": 2},
    "upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "shaped": {"output_shape": [13, 15], "strides": [2, 2]},
    "dilated": {"dilations": [2, 1]}, "valid": {"auto_pad": "VALID", "output_shape": [13, 15], "strides": [2, 2]},
    "beyond": {"output_shape": [19, 23], "strides": [3, 3]},
}  # fmt: skip


@pytest.mark.parametrize("what", CONV)
def test_onnx_conv(tmp_path, what):
    x, w, b = numbers(2, 4, 9, 10), numbers(6, 4 // CONV[what].get("group", 1), 3, 2), numbers(6)
    path = str(tmp_path / "model.onnx")
    [want] = run_onnx(path, x, [node("Conv", ["x", "w", "b"], "y", **CONV[what])], {"w": w, "b": b})
    layers = fc.from_onnx(path)
    assert list(layers) == ["y"]
    near(layers["y"](x), want)


@pytest.mark.parametrize("what", TRANSPOSE)
def test_onnx_transposed(tmp_path, what):
    x, w = numbers(2, 4, 6, 7), numbers(4, 6 // TRANSPOSE[what].get("group", 1), 3, 3)
    path = str(tmp_path / "model.onnx")
    [want] = run_onnx(path, x, [node("ConvTranspose", ["x", "w"], "y", **TRANSPOSE[what])], {"w": w})
    near(fc.from_onnx(path)["y"](x), want)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    ("activation", "inputs", "attributes"),
    [("Relu", [], {}), ("Clip", ["low", "high"], {}), ("HardSwish", [], {}), ("LeakyRelu", [], {"alpha": 0.2}),
     ("Clip", ["", "high"], {})],
)  # fmt: skip
def test_onnx_fused(tmp_path, kind, activation, inputs, attributes):
    x, w = numbers(2, 4, 6, 7), numbers(4, 2, 3, 3)
    constants = {
        "w": w, "scale": numbers(4), "shift": numbers(4), "mean": numbers(4), "variance": numbers(4) ** 2,
        "low": np.float32(-0.5), "high": np.float32(0.75),
    }  # fmt: skip
    nodes = [
        node(kind, ["x", "w"], "sums", group=2),
        node("BatchNormalization", ["sums", "scale", "shift", "mean", "variance"], "normal", epsilon=1e-3),
        node(activation, ["normal", *inputs], "y", **attributes),
    ]
    path = str(tmp_path / "model.onnx")
    [want] = run_onnx(path, x, nodes, constants)
    near(fc.from_onnx(path)["sums"](x), want)


def test_onnx_does_not_fuse_what_others_take(tmp_path):
    x, path = numbers(1, 3, 5, 5), str(tmp_path / "model.onnx")
    nodes = [
        node("Conv", ["x", "w"], "sums"), node("Relu", ["sums"], "y"), node("Sigmoid", ["sums"], "z"),
        node("Conv", ["y", "v"], "last"),
    ]  # fmt: skip
    constants = {"w": numbers(4, 3, 3, 3), "v": numbers(2, 4, 1, 1)}
    z, last = run_onnx(path, x, nodes, constants)
    layers = fc.from_onnx(path)
    sums = layers["sums"](x)
    near(1 / (1 + np.exp(-sums)), z)
    near(layers["last"](np.maximum(sums, 0)), last)


def test_onnx_fuses_only_constants(tmp_path):
    """A weight through an Identity is one; a limit that the model computes is not, nor what a branch looks at."""
    helper = pytest.importorskip("onnx").helper
    x, w, path = numbers(1, 3, 5, 5), numbers(4, 3, 3, 3), str(tmp_path / "model.onnx")
    inner = helper.make_graph([node("Identity", ["same"], "inner")], "inner", [], [helper.make_tensor_value_info("inner", 1, None)])
    nodes = [
        node("Identity", ["w"], "shared"), helper.make_node("Conv", ["x", "shared"], ["sums"], name="conv"),
        helper.make_node("Constant", [], ["low"], value_float=-0.25), node("ReduceMax", ["x"], "high", keepdims=0),
        node("Clip", ["sums", "low", "high"], "y"),
        node("Conv", ["x", "w"], "same"), node("Relu", ["same"], "z"),
        node("If", ["true"], "seen", then_branch=inner, else_branch=inner),
    ]  # fmt: skip
    y, z, seen = run_onnx(path, x, nodes, {"w": w, "true": np.array(True)})
    layers = fc.from_onnx(path)
    assert list(layers) == ["conv", "same"]
    near(layers["same"](x), seen)
    near(np.clip(layers["conv"](x), -0.25, x.max()), y)
    near(np.maximum(layers["same"](x), 0), z)
    crossed = [*nodes[:3], node("Constant", [], "one", value_float=-1.0), node("Clip", ["sums", "low", "one"], "y")]
    [want] = run_onnx(path, x, crossed, {"w": w})
    near(fc.from_onnx(path)["conv"](x), want)  # the upper one


def test_onnx_errors(tmp_path):
    path = str(tmp_path / "model.onnx")
    x, w = numbers(1, 3, 5, 5), numbers(3, 2, 3, 3)
    shaped = [node("ConvTranspose", ["x", "w"], "y", output_shape=[7, 7])]
    run_onnx(path, x, shaped, {"w": w}, shape=(1, 3, "height", "width"))
    with pytest.raises(ValueError, match=r"^y: its output_shape can be kept only for an input of a shape that the model tells$"):
        fc.from_onnx(path)
    run_onnx(path, numbers(4, 4, 3, 3), [node("Identity", ["x"], "w"), node("Conv", ["x", "w"], "y")], {})
    with pytest.raises(ValueError, match=r"^y: its weight is computed by the model, expected a constant$"):
        fc.from_onnx(path)
    with pytest.raises(ValueError, match=r"^path: .*test_interop.py' is not an ONNX model"):
        fc.from_onnx(__file__)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"^path: .*empty.onnx' is not an ONNX model \(it holds no graph\)$"):
        fc.from_onnx(tmp_path / "empty.onnx")


def saved(path, *nodes, **constants):
    onnx = pytest.importorskip("onnx")
    ends = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("x", nodes[-1].output[0])]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "model", ends[:1], ends[1:], held)), path)
    return path


WRONG = {
    "auto_pad": ("FULL", "auto_pad is FULL, expected one of NOTSET"), "group": (0, "group is 0, expected a number that"),
    "strides": ([2], r"strides are \(2,\), expected 2 numbers of at least 1"), "dilations": ([1, 0], r"dilations are \(1, 0\)"),
    "pads": ([0, 0, 0, -1], r"pads are \(0, 0, 0, -1\), expected 4 numbers of at least 0"),
    "output_shape": ([5], r"output_shape is \[5\], expected 2 numbers"), "output_padding": ([1], r"output_padding are \(1,\)"),
}  # fmt: skip


@pytest.mark.parametrize("attribute", WRONG)
def test_onnx_names_the_node_of_a_wrong_attribute(tmp_path, attribute):
    value, said = WRONG[attribute]
    kind = "ConvTranspose" if attribute.startswith("output") else "Conv"
    wrong = saved(tmp_path / "model.onnx", node(kind, ["x", "w"], "y", **{attribute: value}), w=numbers(3, 3, 2, 2))
    with pytest.raises(ValueError, match=f"^y: its {said}"):
        fc.from_onnx(wrong)


def test_onnx_names_and_domains(tmp_path):
    """Nodes may share a name, and somebody else's Relu may be anything."""
    helper = pytest.importorskip("onnx").helper
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="same"), helper.make_node("Relu", ["a"], ["b"], domain="others"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="same"), helper.make_node("Clip", ["c", "low"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["e"], domain="others"),
    ]  # fmt: skip
    path = saved(tmp_path / "model.onnx", *nodes, w=numbers(3, 3, 1, 1), low=np.ones(1, np.float32))
    layers = fc.from_onnx(path)
    assert {name: layer.activation for name, layer in layers.items()} == {"same": None, "c": ("clip", 1.0, np.inf)}


# torch ----------------------------------------------------------------------------------------------------------------


def test_torch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    parts = [
        (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2)), nn.BatchNorm2d(6), nn.ReLU6()),
        (nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4, padding_mode="circular"), nn.LeakyReLU(0.3)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), nn.BatchNorm2d(6, affine=False), nn.Hardswish()),
        (nn.Conv2d(4, 6, 2), nn.Hardtanh(-0.5, 0.25)), (nn.Conv2d(4, 6, 1, bias=False), nn.GELU()),
    ]  # fmt: skip
    x = numbers(2, 4, 9, 8)
    for part in parts:
        model = nn.Sequential(*part)
        for module in part:
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            want = model.eval()(torch.from_numpy(x)).numpy()
        layers = fc.from_torch(model)
        assert list(layers) == ["0"]
        near(layers["0"](x), want)
    line, volume = nn.Conv1d(4, 2, 3), nn.ConvTranspose3d(4, 2, 2)
    with torch.no_grad():
        near(fc.from_torch(line)[""](x[0, :, 0]), line(torch.from_numpy(x[0, :, 0])).numpy())
        near(fc.from_torch(volume)[""](x[None].swapaxes(1, 2)), volume(torch.from_numpy(x[None].swapaxes(1, 2).copy())).numpy())
    with pytest.raises(TypeError, match=r"^module: got int, expected a torch.nn.Module$"):
        fc.from_torch(3)
    with pytest.raises(ValueError, match=r"^weight: got dtype bfloat16"):
        fc.from_torch(nn.Conv1d(4, 2, 3).bfloat16())
    with pytest.raises(ValueError, match=r"^1.weight: got dtype float16, .* module.float\(\)"):
        fc.from_torch(nn.Sequential(nn.ReLU(), nn.Conv1d(4, 2, 3).half()))
    twice = nn.Conv2d(4, 4, 3)
    model = nn.Sequential(twice, nn.ReLU(), twice, nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 2, 1)), nn.SiLU())
    layers = fc.from_torch(model)
    assert {name: layer.activation for name, layer in layers.items()} == {"0": None, "4": "silu"}
    with pytest.raises(ValueError, match=r"^1.weight: has no numbers yet"):
        fc.from_torch(nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 3)))

    class Residual(nn.Sequential):  # which does not run its parts in turn
        def forward(self, x):
            return x + self[1](self[0](x) * 2)

    assert fc.from_torch(Residual(nn.Conv2d(3, 3, 1), nn.ReLU()))["0"].activation is None


@pytest.mark.parametrize(("package", "call"), [("onnx", "from_onnx('x')"), ("torch", "from_torch(1)")])
def test_without_the_package(package, call):
    program = (
        f"import sys; sys.modules[{package!r}] = None\nimport fastconv as fc\n"
        f"try: fc.{call}\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"from_{package} needs {package}: python -m pip install")
