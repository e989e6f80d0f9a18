"""Device arrays of any library and view: what goes in, what comes out, what is refused before any work."""

import sys
import types

import cases
import numpy as np
import pytest
from cases import arrays, call, parse

import fastconv as fc
from fastconv import cuda
from fastconv.problem import Problem, SeparableProblem

pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=f"no CUDA: {cuda.why_not()}")
if cuda.is_available():
    from fastconv.cuda import device as places
    from fastconv.cuda import launch, slopes, tape
    from fastconv.cuda.device import cuda as device

GRADIENTS = [
    "conv2d,n2c4i4x5f4k3x2s2x1p1:0x0:2d1x2g2",
    "conv2d,n2c2i4x5f4k2p1,float64,channels_last",
    "transposed2d,n2c4i3x4f4k3x2s2x3p1:0x0:1d1x2g2o1x2,channels_last",
    "conv1d,n2c2i9f3k3s2p1",
    "conv3d,n1c2i2x3x3f2k2p1,float64",
]


def there(array):
    return None if array is None else device.to_device(array)


def made(text, seed=0):
    problem = parse(text)
    return problem, arrays(problem, np.random.default_rng(seed))


def on_device(given):
    return {name: there(array) for name, array in given.items()}


@pytest.mark.parametrize("text", GRADIENTS)
def test_gradients(text):
    problem, given = made(text)
    x, w = given["x"], given["weight"]
    g = cases.whole_numbers(np.random.default_rng(1), problem.out_shape, problem.dtype)
    name, sizes = geometry_of(problem)
    for what, arguments in (("input", (x.shape, w, g)), ("weight", (x, w.shape, g))):
        want = getattr(fc.reference, f"{name}_{what}")(*arguments, **sizes)
        moved = [there(a) if isinstance(a, np.ndarray) else a for a in arguments]
        np.testing.assert_array_equal(getattr(fc.grad, f"{name}_{what}")(*moved, **sizes).copy_to_host(), want)
    want = getattr(fc.reference, f"{name}_bias")(g, data_format=problem.data_format)
    got = getattr(fc.grad, f"{name}_bias")(there(g), data_format=problem.data_format)
    np.testing.assert_array_equal(got.copy_to_host(), want)


ACTIVATIONS = ["relu", "leaky_relu:0.25", "sigmoid", "tanh", "silu", "hardswish", "gelu", "clip:-3.0:5.0"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes(activation):
    problem = Problem.parse(f"conv2d,n1c1i1x9f1k1,float64,{activation}")
    v = np.array([-40.0, -3.0, -1.5, -0.0, 0.5, 3.0, 4.0, 5.0, np.nan])
    slope = slopes.slope_of(problem.activation.name)
    if cuda.simulated():
        got = [float(slope(np.float64(number), problem.activation.low, problem.activation.high)) for number in v]
        np.testing.assert_allclose(got, problem.activation.derivative(v), rtol=1e-14)
    got = launch.through_activation(problem, there(v), there(2 * np.ones(9)))
    np.testing.assert_allclose(got.copy_to_host(), 2 * problem.activation.derivative(v), rtol=1e-14, atol=1e-15)


LAYERS = [
    "conv2d,n1c2i4x5f3k3p1,bias,tanh,float64",
    "conv2d,n2c2i3x4f3k1,pixelbias,channels_last,float64",
    "transposed2d,n1c2i3x3f2k3s2,bias,relu,float64",
    "conv2d,n1c2i4x5f2k3p1g2,float64,bias,tanh+conv2d,n1c2i4x5f3k1,float64,bias",
]


@pytest.mark.parametrize("text", LAYERS)
def test_layers_of_numpy_arrays(text):
    """They put their arrays on the device once, and go forwards and backwards there."""
    from test_layers import layer_of

    problem, given = made(text)
    layer = layer_of(problem, given)
    x, g = given["x"], np.random.default_rng(2).standard_normal(problem.out_shape)
    want = call(fc.reference, problem, given)
    for _ in range(2):
        np.testing.assert_allclose(layer(there(x)).copy_to_host(), want, rtol=1e-12)
    assert len(layer._on_devices) == 1
    got = [gradient.copy_to_host() for gradient in layer.backward(there(x), there(g))]
    for one, expected in zip(got, backwards(problem, given, g), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-12)


def backwards(problem, given, g):
    """The gradients of a layer by the reference, in the order of its own."""
    if not isinstance(problem, SeparableProblem):
        return gradients_of(problem, given["x"], given["weight"], given["bias"], g)
    arrays = [given[f"{part}_{what}"] for part in ("depthwise", "pointwise") for what in ("weight", "bias")]
    inner, outer = cases.parts(problem)
    between = call(fc.reference, inner, {"x": given["x"], "weight": arrays[0], "bias": arrays[1]})
    above = gradients_of(outer, between, *arrays[2:], g)
    below = gradients_of(inner, given["x"], *arrays[:2], above[0])
    return below[0], below[1], above[1], below[2], above[2]


def gradients_of(problem, x, weight, bias, g):
    sums = call(fc.reference, cases.bare(problem), {"x": x, "weight": weight, "bias": bias})
    g = g * problem.activation.derivative(sums)
    name, sizes = geometry_of(problem)
    per_pixel = g.sum(axis=0) if problem.bias == "pixel" else None
    return (
        getattr(fc.reference, f"{name}_input")(x.shape, weight, g, **sizes),
        getattr(fc.reference, f"{name}_weight")(x, weight.shape, g, **sizes),
        getattr(fc.reference, f"{name}_bias")(g, data_format=problem.data_format) if per_pixel is None else per_pixel,
    )


def geometry_of(problem):
    """(name of a convolution, the arguments that its gradients share)."""
    sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    if problem.operation == "transposed":
        sizes["output_padding"] = problem.output_padding
    name = "conv_transpose" if problem.operation == "transposed" else "conv"
    return f"{name}{problem.dimensions}d", sizes | {"data_format": problem.data_format}


def every_other(array):
    """Along its last dimension. (Numba's arrays know no ellipsis.)"""
    return array[(*[slice(None)] * (array.ndim - 1), slice(None, None, 2))]


def test_layers_of_device_arrays():
    problem, given = made("conv2d,n1c2i4x5f3k3p1,bias")
    weight, bias = there(given["weight"]), there(given["bias"])
    layer = fc.Conv2d(weight, bias, padding=1)
    weight.copy_to_device(np.full(weight.shape, 7, "f4"))  # the layer has a copy of its own
    want = call(fc.reference, problem, given)
    np.testing.assert_array_equal(layer(there(given["x"])).copy_to_host(), want)
    with pytest.raises(TypeError, match="weight: got a device array, expected a NumPy array"):
        layer(given["x"])


def test_a_layer_whose_results_have_fewer_phases_than_its_stride():
    """The weights packed for them do not serve larger ones."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (2, 3, 6)).astype("f4")
    layer = fc.ConvTranspose1d(weight, stride=4, padding=2, algorithm="tiled")
    for length in (1, 3):
        x = rng.integers(-4, 5, (1, 2, length)).astype("f4")
        want = fc.reference.conv_transpose1d(x, weight, stride=4, padding=2)
        np.testing.assert_array_equal(layer(there(x)).copy_to_host(), want)


@pytest.mark.parametrize("algorithm", ["direct", "tiled"])
def test_views(algorithm):
    problem, given = made("conv2d,n2c3i3x4f4k3p1,bias,residual")
    want = call(fc.reference, problem, given)
    moved = on_device(given)

    def gaps(array):
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        return every_other(there(wide))

    def turned(array):
        return there(np.ascontiguousarray(array.T)).T

    for view in (gaps, turned) if cuda.simulated() else (gaps,):  # Numba turns no arrays on a device
        views = {name: view(given[name]) for name in ("x", "weight", "residual")}
        got = call(fc, problem, moved | views, algorithm=algorithm)
        np.testing.assert_array_equal(got.copy_to_host(), want)
    got = call(fc, problem, moved | {"x": moved["x"][1], "residual": moved["residual"][1]}, algorithm=algorithm)
    np.testing.assert_array_equal(got.copy_to_host(), want[1])  # unbatched


def test_reversed_views_begin_behind_their_memory():
    numbers = np.arange(12.0).reshape(3, 4)[::-1, ::-1]
    backwards = places.View(types.SimpleNamespace(_ary=numbers))
    assert (backwards.first, backwards.count, backwards.steps) == (11, 12, (-4, -1)) and not backwards.contiguous
    assert np.asarray(backwards.row)[backwards.first] == numbers[0, 0] == 11


def test_out():
    problem, given = made("conv2d,n1c2i4x5f3k3p1,bias")
    moved = on_device(given)
    out = there(np.full(problem.out_shape, np.nan, "f4"))
    assert call(fc, problem, moved, out=out) is out
    np.testing.assert_array_equal(out.copy_to_host(), call(fc.reference, problem, given))
    with pytest.raises(ValueError, match="out: got shape"):
        call(fc, problem, moved, out=there(np.zeros((1, 3, 4, 4), "f4")))
    with pytest.raises(ValueError, match="out: got dtype float64"):
        call(fc, problem, moved, out=there(np.zeros(problem.out_shape)))
    with pytest.raises(ValueError, match="out: expected a writable, C-contiguous array"):
        call(fc, problem, moved, out=every_other(there(np.zeros((1, 3, 4, 10), "f4"))))
    same = there(np.zeros((1, 3, 4, 5), "f4"))
    with pytest.raises(ValueError, match="out: shares memory"):
        fc.pointwise_conv2d(same, there(np.ones((3, 3), "f4")), out=same)


def test_an_empty_batch():
    x, w, g = np.zeros((0, 2, 4, 5), "f4"), np.ones((3, 2, 3, 3), "f4"), np.zeros((0, 3, 2, 3), "f4")
    assert fc.conv2d(there(x), there(w)).shape == (0, 3, 2, 3)
    assert not fc.grad.conv2d_weight(there(x), w.shape, there(g)).copy_to_host().any()
    assert not fc.grad.conv2d_bias(there(g)).copy_to_host().any()


@pytest.mark.parametrize("name", ["weight", "bias", "residual", "out"])
def test_mixed_arrays_are_refused(name):
    problem, given = made("conv2d,n0c2i4x5f3k3p1,bias,residual")  # an empty batch, for which the host compiles no kernel
    moved = on_device(given) | {"out": there(np.zeros(problem.out_shape, "f4"))}
    with pytest.raises(TypeError, match=f"{name}: got a NumPy array, expected a device array as the others are"):
        call(fc, problem, moved | {name: np.zeros(moved[name].shape, "f4")})
    alone = given | {"out": np.zeros(problem.out_shape, "f4"), name: moved[name]}
    with pytest.raises(TypeError, match=f"{name}: got a device array, expected a NumPy array"):
        call(fc, problem, alone)


def test_errors_name_the_argument():
    x, w = there(np.zeros((1, 2, 4, 5), "f4")), there(np.zeros((3, 2, 3, 3), "f4"))
    with pytest.raises(ValueError, match="weight: got 2 channels a filter"):
        fc.conv2d(x, w, groups=2)
    with pytest.raises(ValueError, match="weight: got dtype float64"):
        fc.conv2d(x, there(np.zeros((3, 2, 3, 3))))
    with pytest.raises(ValueError, match="algorithm: 'tiled' cannot compute"):
        fc.depthwise_conv2d(x, there(np.zeros((2, 1, 2, 2), "f4")), algorithm="tiled")


# Tapes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "conv2d,n1c2i3x4f3k3p1,pixelbias,residual,reflect,tiled",
    "conv2d,n1c2i3x4f1k3p1,bias,winograd",
    "transposed2d,n1c2i2x3f2k3s2p1,bias,tiled",
    "conv2d,n1c4i4x5f4k3p1g4,bias,tiled+conv2d,n1c4i4x5f3k1,bias,tiled",
])  # fmt: skip
@pytest.mark.parametrize("kept", [False, True])
def test_a_call_that_lies_as_one_before_is_played(text, kept, monkeypatch):
    """With other numbers elsewhere, and another result; nothing is planned, and no array of the first call is needed."""
    from test_layers import layer_of

    problem, given = made(text)
    layer = layer_of(problem, given) if kept else None
    planned = []
    monkeypatch.setattr(launch, "choose", lambda *asked, choose=launch.choose: planned.append(asked) or choose(*asked))
    calls = []
    for seed in range(4):
        given = given | {"x": made(text, seed)[1]["x"]} if kept else made(text, seed)[1]
        more = {"residual": there(given["residual"])} if given.get("residual") is not None else {}
        out = there(np.full(problem.out_shape, np.nan, "f4")) if seed == 2 else None
        got = layer(there(given["x"]), out, **more) if kept else call(fc, problem, on_device(given), out=out)
        assert out is None or got is out
        want = call(fc.reference, problem, given)
        np.testing.assert_allclose(got.copy_to_host(), want, rtol=1e-4, atol=1e-2 if "winograd" in text else 0)
        calls.append(len(planned))
    # The first packs what a layer keeps, so the second is taken down; with a result of the caller's, another way to lie.
    anew = [bool(after - before) for before, after in zip([0, *calls], calls)]
    assert anew == ([True, True, True, False] if kept else [True, False, True, False])
    assert all(view.owner is None for taken in launch.TAPES.values() for view in taken.views if view is not None)


def test_a_played_call_checks_its_result():
    x, w = there(np.ones((1, 3, 4, 5), "f4")), there(np.ones((3, 3), "f4"))
    for _ in range(2):
        fc.pointwise_conv2d(x, w, out=there(np.zeros((1, 3, 4, 5), "f4")))
        with pytest.raises(ValueError, match="out: shares memory"):
            fc.pointwise_conv2d(x, w, out=x)


# What is said ---------------------------------------------------------------------------------------------------------


def zeros(*shape):
    return there(np.zeros(shape, "f4"))


DEPTHWISE_GRADIENT = (zeros(1, 8, 9, 9), (8, 1, 3, 3), zeros(1, 8, 7, 7), 1, 0, 1, 8) if cuda.is_available() else ()
EXPLAINED = {
    "winograd_4x4": lambda: (fc.conv2d, zeros(1, 64, 28, 28), zeros(64, 64, 3, 3)),
    "tiled_standard": lambda: (fc.conv2d, zeros(1, 64, 28, 28), zeros(64, 64, 5, 5)),
    "tiled_parts": lambda: (fc.separable_conv2d, zeros(1, 8, 9, 9), zeros(8, 1, 3, 3), zeros(64, 8)),
    "tiled_depthwise": lambda: (fc.depthwise_conv2d, zeros(1, 8, 9, 9), zeros(8, 1, 3, 3)),
    "direct_depthwise": lambda: (fc.depthwise_conv2d, zeros(1, 8, 9, 9), zeros(8, 1, 2, 2)),
    "tiled_weight_gradient": lambda: (fc.grad.conv2d_weight, zeros(1, 8, 9, 9), (64, 8, 3, 3), zeros(1, 64, 7, 7)),
    "tiled_depthwise_weight_gradient": lambda: (fc.grad.conv2d_weight, *DEPTHWISE_GRADIENT),
}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kernel", EXPLAINED)
def test_explain_tells_what_would_run_on_the_device(kernel, monkeypatch):
    for name in ("compute", "weight_gradient"):
        monkeypatch.delattr(launch, name)  # nothing is computed
    said = fc.explain(*EXPLAINED[kernel]())
    assert said.kernel == kernel and kernel not in dict(said.refused)
    here, implementations, _ = launch.offers(zeros(1))
    assert {kernel, *dict(said.refused)} == {i.name for i in implementations}
    assert (said.capability, said.multiprocessors) == here
    assert (said.shared_bytes > 0) == kernel.startswith(("tiled", "winograd"))
    lines = str(said).splitlines()
    for word in ("problem", "result", "kernel", "device", "tile", "work", "operations", "bytes", "limit", "workspace"):
        assert sum(line.startswith(word + " ") for line in lines) == 1, word
    assert f"{said.shared_bytes:,} bytes of shared memory" in str(said) or not said.shared_bytes
    assert all(f"not         {name}: {reason}" in lines for name, reason in said.refused)
    if kernel == "tiled_standard":
        assert "cycles expected" in dict(said.refused)["direct_standard"]
        assert "3x3" in dict(said.refused)["winograd_4x4"]


def test_explain_of_text_is_of_the_host():
    assert type(fc.explain("conv2d,n1c64i28f64k3p1")) is not type(fc.explain(fc.conv2d, zeros(4, 8, 8), zeros(4, 4, 3, 3)))


def test_the_autoencoder_refuses():
    said = "x: got a device array, expected a NumPy array: ConvAutoencoder learns and computes on the CPU"
    with pytest.raises(TypeError, match=said):
        fc.ConvAutoencoder().encode(zeros(1, 1, 8, 8))


# Other libraries, which look as theirs do but keep their numbers on the host ------------------------------------------------


def library(name, **more):
    """A module with arrays of its own; `made` lists those that it was asked for."""

    class Ndarray:
        def __init__(self, array):
            self.host = array
            self.shape, self.ndim = array.shape, array.ndim
            self.dtype = f"torch.{array.dtype}" if name == "torch" else array.dtype
            self.device = types.SimpleNamespace(id=0, index=0)

        @property
        def __cuda_array_interface__(self):
            return self.host.__array_interface__

        def new_empty(self, shape):
            return Ndarray(np.empty(shape, self.host.dtype))

    Ndarray.__module__ = f"{name}._core"
    module = types.ModuleType(name)
    module.Array = Ndarray
    module.empty = lambda shape, dtype: Ndarray(np.empty(shape, dtype))
    stream = types.SimpleNamespace(ptr=1234, cuda_stream=1234)
    module.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, current_stream=lambda device: stream)
    return module


@pytest.mark.skipif(not cuda.simulated(), reason="their numbers are on the host")
@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_libraries(name, monkeypatch):
    module, streams = library(name), []
    monkeypatch.setitem(sys.modules, name, module)
    once = tape.Launch.__call__
    monkeypatch.setattr(tape.Launch, "__call__", lambda *launch: streams.append(launch[-1]) or once(*launch))
    problem, given = made("conv2d,n2c3i5x6f4k3p1,bias,residual,channels_last")
    moved = {key: module.Array(array) for key, array in given.items()}
    got = call(fc, problem, moved)
    assert type(got) is module.Array
    assert streams and {*streams} == {1234}
    np.testing.assert_array_equal(got.host, call(fc.reference, problem, given))
    with pytest.raises(TypeError, match="arrays: got Array of another"):
        places.library_of(type("Array", (), {"__module__": "another.one"})())
    with pytest.raises(ValueError, match="arrays: lie on devices"):
        moved["bias"].device = types.SimpleNamespace(id=1, index=1)
        call(fc, problem, moved)
