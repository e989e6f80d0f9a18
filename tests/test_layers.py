"""Layers: the functions' results, from arrays of their own, for many threads, and backwards."""

import pickle
import threading

import cases
import numpy as np
import pytest
from cases import arrays, call, named, parse, parts, same_bits, same_numbers, same_result

import fastconv as fc
from fastconv import layers

LAYERS = {
    "conv1d": fc.Conv1d, "conv2d": fc.Conv2d, "conv3d": fc.Conv3d, "depthwise_conv2d": fc.DepthwiseConv2d,
    "pointwise_conv2d": fc.PointwiseConv2d, "separable_conv2d": fc.SeparableConv2d,
    "conv_transpose1d": fc.ConvTranspose1d, "conv_transpose2d": fc.ConvTranspose2d,
    "conv_transpose3d": fc.ConvTranspose3d,
}  # fmt: skip
ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "leaky_relu:0.3", "sigmoid", "tanh", "silu", "hardswish", "gelu", "clip:-0.5:0.8",
]  # fmt: skip
BACKWARD = [
    "conv2d,n2c4i5x6f6k3x2s2x1p1:0x0:2d1x2g2,float64,bias",
    "conv2d,n2c4i5x6f6k3p1,float64,pixelbias,channels_last",
    "conv2d,n2c3i5x6f6k3p1g3,float64,bias",
    "conv2d,n2c3i5x6f4k1s2,float64,bias",
    "conv1d,n2c2i9f3k3s2p1,float64,bias",
    "conv3d,n1c2i3x4x3f2k2,float64,pixelbias",
    "transposed2d,n2c4i3x4f6k3x2s2x3p1d1x2g2o1x2,float64,bias",
    "transposed2d,n2c4i3x4f6k3s2g2o1,float64,pixelbias,channels_last",
    "conv2d,n2c3i5x6f6k3p1g3,float64,bias,tanh+conv2d,n2c6i5x6f4k1,float64,bias",
    "conv2d,n2c3i5x6f6k3p1g3,float64,pixelbias,gelu,channels_last+conv2d,n2c6i5x6f4k1,float64,pixelbias,channels_last",
]


def layer_of(problem, given, **more):
    name, wishes = named(problem)
    held = {key: array for key, array in given.items() if key not in ("x", "residual")}
    if "rate" in wishes:
        name, wishes["dilation"] = "conv2d", wishes.pop("rate")
    if name not in LAYERS:  # depthwise of one or three dimensions
        name, wishes["groups"] = name.removeprefix("depthwise_"), problem.groups
    return LAYERS[name](**held, **wishes | more)


def made(text, seed=0):
    problem = parse(text)
    given = arrays(problem, np.random.default_rng(seed))
    return problem, given, layer_of(problem, given)


@pytest.mark.parametrize("text", cases.CASES)
def test_layer_equals_function(text):
    problem, given, layer = made(text)
    want = call(fc, problem, given)
    residual = given.get("residual")
    same_bits(layer(given["x"], residual=residual), want)
    out = np.full_like(want, np.nan)
    assert layer(given["x"], out, residual=residual) is out  # packed by now
    same_bits(out, want)
    first = given | {"x": given["x"][:1]}
    same_result(problem, first, layer(first["x"], residual=None if residual is None else residual[:1]), want[:1], given["x"])


ONE_OF_EACH = [
    "conv1d,n1c3i9f4k3p1,bias,relu",
    "conv2d,n1c3i5x9f4k3p1,bias,relu",
    "conv3d,n1c3i3x4x5f4k3p1,bias",
    "conv2d,n1c4i5x9f4k3p1g4,bias",
    "conv2d,n1c3i5x9f4k1,bias,channels_last",
    "conv2d,n1c4i5x9f4k3p1g4,bias,relu+conv2d,n1c4i5x9f5k1,bias",
    "transposed1d,n1c3i9f4k3,bias",
    "transposed2d,n1c4i5x9f4k3s2g2o1,bias",
    "transposed3d,n1c3i3x4x5f4k3,bias",
]


def test_lists_are_copied():
    stride, padding = [1, 1], [[1, 0], 0]
    layer = fc.Conv2d(np.ones((1, 1, 2, 2), np.float32), stride=stride, padding=padding)
    stride[0], padding[0][0] = 2, 0
    assert (layer.stride, layer.padding) == ((1, 1), ((1, 0), 0))


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_arrays_are_copied_and_read_only(text):
    problem, given, layer = made(text)
    want = layer(given["x"])
    for name in [name for name in given if name != "x"]:
        held = getattr(layer, name)
        same_bits(held, given[name])
        assert not np.shares_memory(held, given[name])
        with pytest.raises(ValueError, match="read-only"):
            held[...] = 0
        with pytest.raises(AttributeError, match="read-only"):
            setattr(layer, name, given[name])
        with pytest.raises(AttributeError, match="read-only"):
            delattr(layer, name)
        given[name][...] = 0
    with pytest.raises(AttributeError, match="read-only"):
        layer.stride = 2
    with pytest.raises(AttributeError, match="no attribute"):
        layer.strides  # noqa: B018
    same_bits(layer(given["x"]), want)
    same_bits(layer_of(problem, {name: np.asfortranarray(a) for name, a in made(text)[1].items()})(given["x"]), want)


@pytest.mark.parametrize("text", ONE_OF_EACH)
@pytest.mark.parametrize("called", [False, True])
def test_pickling(text, called):
    _, given, layer = made(text)
    if called:
        layer(given["x"])
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is type(layer) and repr(again) == repr(layer)
    same_bits(again(given["x"]), layer(given["x"]))
    assert not again.__getstate__()["arrays"].keys() ^ layer.__getstate__()["arrays"].keys()
    with pytest.raises(ValueError, match="read-only"):
        next(iter(again._arrays.values()))[...] = 0
    # Packed weights stay at home: the pickle is the arrays and little more.
    assert len(pickle.dumps(layer)) < sum(a.nbytes for name, a in given.items() if name != "x") + 1500


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_prepare_and_explain(text):
    problem, given, layer = made(text)
    assert layer.prepare(problem.x_shape) is None
    assert len(layer._packed) <= layers.MOST_PACKED
    told = layer.explain(problem.x_shape)
    assert str(told) == str(fc.explain(text))
    same_bits(layer(given["x"]), call(fc, problem, given))
    for function in (layer.prepare, layer.explain):
        with pytest.raises(ValueError, match="^shape: got -1, expected at least 0"):
            function((-1, *problem.x_shape[1:]))
        with pytest.raises(TypeError, match=r"^shape: got 2\.5"):
            function((2.5, *problem.x_shape[1:]))


def test_dtypes_are_refused_at_once():
    with pytest.raises(ValueError, match=r"^bias: got dtype float16.*bias\.astype"):
        fc.Conv2d(np.ones((4, 3, 3, 3), "f4"), np.ones(4, np.float16))


def test_output_size():
    rng = np.random.default_rng(0)
    x, w = cases.whole_numbers(rng, (1, 3, 5, 6), "f4"), cases.whole_numbers(rng, (3, 4, 3, 3), "f4")
    layer = fc.ConvTranspose2d(w, stride=2)
    for size in (11, 13), (12, 14), (11, 14):
        want = fc.reference.conv_transpose2d(x, w, stride=2, output_size=size)
        same_bits(layer(x, output_size=size), want)
        for one, other in ((x, want), (x[0], want[0])):  # whose shape tells the size
            more = (size[0] - 11, size[1] - 13)
            got, exact = layer.backward(one, other), fc.ConvTranspose2d(w, stride=2, output_padding=more).backward(one, other)
            same_bits(got.x, exact.x)
            same_bits(got.weight, exact.weight)
    with pytest.raises(ValueError, match="output_size"):
        layer(x, output_size=99)
    with pytest.raises(TypeError, match="output_size"):
        layer(x, output_size=11.0)
    with pytest.raises(ValueError, match="grad_output"):
        layer.backward(x, np.ones((1, 4, 99, 99), "f4"))


def test_pointwise_weight_of_two_dimensions():
    rng = np.random.default_rng(0)
    x, w = cases.whole_numbers(rng, (1, 3, 5, 6), "f4"), cases.whole_numbers(rng, (4, 3), "f4")
    layer, full = fc.PointwiseConv2d(w), fc.PointwiseConv2d(w.reshape(4, 3, 1, 1))
    same_bits(layer(x), full(x))
    g = np.ones((1, 4, 5, 6), "f4")
    assert layer.backward(x, g).weight.shape == (4, 3)
    same_bits(layer.backward(x, g).weight.reshape(4, 3, 1, 1), full.backward(x, g).weight)


# Backward ------------------------------------------------------------------------------------------------------------


def with_activation(text, activation):
    first, plus, last = text.partition("+")
    return f"{first}+{last},{activation}" if plus else f"{first},{activation}"


def of_normal_numbers(text):
    problem = parse(text)
    draw = np.random.default_rng(5)
    given = arrays(problem, draw, draw=lambda rng, shape, dtype: rng.standard_normal(shape).astype(dtype))
    for name in given:  # sums of a few units, where activations bend
        given[name] *= 0.7
    grad = draw.standard_normal(problem.out_shape)
    return problem, given, grad


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("text", BACKWARD)
def test_backward_is_the_slope(text, activation):
    """Along a random direction in each argument: a central difference of step h is off by h**2 f''' / 6 + eps f / h."""
    problem, given, grad = of_normal_numbers(with_activation(text, activation))
    gradients = layer_of(problem, given).backward(given["x"], grad)
    assert [name for name in gradients._fields if getattr(gradients, name) is not None] == sorted(
        given, key=gradients._fields.index
    )
    rng, h = np.random.default_rng(6), 1e-6
    for name, array in given.items():
        gradient = getattr(gradients, name)
        assert gradient.shape == array.shape and gradient.dtype == array.dtype
        direction = rng.standard_normal(array.shape)
        above, below = (call(fc, problem, given | {name: array + step * direction}) for step in (h, -h))
        slope = ((above - below) * grad).sum() / (2 * h)
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("text", BACKWARD)
def test_backward_without_activation_is_that_of_the_functions(text):
    problem, given, _ = made(text)
    if len(parts(problem)) == 2:
        return
    grad = cases.whole_numbers(np.random.default_rng(1), problem.out_shape, problem.dtype)
    got = layer_of(problem, given).backward(given["x"], grad)
    first = given["x"][0], grad[0]
    single = layer_of(problem, given).backward(*first)
    assert single.x.shape == first[0].shape and single.bias.shape == got.bias.shape
    name = f"{'conv_transpose' if problem.operation == 'transposed' else 'conv'}{problem.dimensions}d"
    sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    if problem.operation == "transposed":
        sizes["output_padding"] = problem.output_padding
    sizes["data_format"] = problem.data_format
    same_numbers(got.x, getattr(fc.reference, f"{name}_input")(given["x"].shape, given["weight"], grad, **sizes))
    same_numbers(got.weight, getattr(fc.reference, f"{name}_weight")(given["x"], given["weight"].shape, grad, **sizes))


@pytest.mark.skipif(cases.torch is None, reason="torch is not installed")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_agrees_with_torch(activation):
    from torch.nn import functional as F

    functions = {
        "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "leaky_relu:0.3": lambda v: F.leaky_relu(v, 0.3),
        "sigmoid": cases.torch.sigmoid, "tanh": cases.torch.tanh, "silu": F.silu, "hardswish": F.hardswish,
        "gelu": F.gelu, "clip:-0.5:0.8": lambda v: cases.torch.clamp(v, -0.5, 0.8),
    }  # fmt: skip
    problem, given, grad = of_normal_numbers(f"conv2d,n2c4i5x6f6k3s2p1d2g2,float64,bias,{activation}")
    got = layer_of(problem, given).backward(given["x"], grad)
    x, w, b = (cases.torch.from_numpy(given[name]).requires_grad_() for name in ("x", "weight", "bias"))
    result = functions[activation](F.conv2d(x, w, b, 2, 1, 2, 2))
    (result * cases.torch.from_numpy(grad)).sum().backward()
    for gradient, tensor in zip(got, (x, w, b)):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_backward_refuses():
    layer = fc.Conv2d(np.ones((4, 3, 3, 3), "f4"), padding=1, padding_mode="reflect")
    x = np.ones((1, 3, 8, 8), "f4")
    with pytest.raises(ValueError, match="padding_mode"):
        layer.backward(x, layer(x))
    with pytest.raises(ValueError, match="grad_output"):
        fc.Conv2d(np.ones((4, 3, 3, 3), "f4")).backward(x, x)


# Many threads, many shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_many_threads_share_a_layer(text):
    problem, given, layer = made(text)
    space = parts(problem)[0].space
    last = problem.data_format == "channels_last"
    rng = np.random.default_rng(0)
    images = []
    for more in range(8):
        *outer, width = space
        size = (*outer, width + more)
        channels = parts(problem)[0].channels
        images.append(cases.whole_numbers(rng, (1, *size, channels) if last else (1, channels, *size), "f4"))
    alone = [layer_of(problem, given)(image) for image in images]
    start, wrong = threading.Barrier(8), []

    def use(own):
        start.wait()
        for turn in range(40):
            which = (own + turn) % 8
            if layer(images[which]).tobytes() != alone[which].tobytes():
                wrong.append((own, turn))

    threads = [threading.Thread(target=use, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert len(layer._packed) <= layers.MOST_PACKED


def test_caches_are_bounded():
    layer = fc.Conv1d(np.ones((2, 1, 3), "f4"))
    for width in range(3, 3 + 2 * layers.MOST_PLANS):
        assert layer(np.ones((1, width), "f4")).shape == (2, width - 2)
    assert len(layer._plans) == layers.MOST_PLANS and len(layer._packed) == 1


def test_a_refused_call_leaves_nothing_behind():
    layer = fc.Conv2d(np.ones((4, 3, 3, 3), "f4"))
    for wrong in (np.ones((1, 2, 8, 8), "f4"), np.ones((1, 3, 2, 2), "f4"), np.ones((1, 3, 8, 8))):
        with pytest.raises(ValueError):
            layer(wrong)
    assert not layer._plans and not layer._packed
