"""Inside jitted code: the functions' own results, arguments and errors, layers, caches, threads, and nothing that leaks."""

import gc
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import same_bits
from numba import TypingError, njit, types
from numba.core.runtime import _nrt_python, rtsys
from test_threads import SCRIPTS, find_spec, python, succeed

import fastconv as fc
from fastconv.cpu import threads
from fastconv.embed import entry, record
from fastconv.embed import njit as twins

RNG = np.random.default_rng(5)


def whole(*shape, dtype=np.float32):
    return RNG.integers(-4, 5, shape).astype(dtype)


@pytest.fixture
def no_plans():
    """Plans of other tests are not counted."""
    with entry._lock:
        entry._forget(entry._plans.copy())
    yield
    with entry._lock:
        entry._forget(entry._plans.copy())


# Every function -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", twins.TWINS)
def test_twin_has_the_parameters_of_the_function(name):
    def parameters(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    twin = twins.TWINS[name]
    assert parameters(twin) == parameters(entry.function_of(name))


def test_every_function_has_a_twin():
    public = {name for name in fc.__all__ if "conv" in name and inspect.isfunction(getattr(fc, name))}
    assert set(twins.TWINS) == public | {f"grad.{name}" for name in fc.grad.__all__} == set(record.FUNCTIONS[1:])


SPACES = {1: (9,), 2: (6, 7), 3: (4, 5, 6)}


def of_conv(transposed, d):
    """Image and weight, and the result's shape with stride 1 and no padding."""
    weight = whole(4, 3, *(2,) * d) if transposed else whole(6, 4, *(2,) * d)
    return whole(2, 4, *SPACES[d]), weight


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
def test_convolutions_and_gradients(name):
    x, weight = of_conv("transpose" in name, int(name[-2]))
    function, grad_x, grad_weight, grad_bias = (
        getattr(fc, name), *(getattr(fc.grad, f"{name}_{what}") for what in ("input", "weight", "bias")),
    )  # fmt: skip

    @njit
    def all_of(x, weight):
        y = function(x, weight, padding=1)
        return (
            y, function(x[0], weight, None, 2, activation="relu"), grad_x(x.shape, weight, y, 1, 1),
            grad_weight(x, weight.shape, y, padding=1), grad_bias(y),
        )  # fmt: skip

    for got, want in zip(all_of(x, weight), all_of.py_func(x, weight)):
        same_bits(got, want)
        assert got.flags.c_contiguous and got.ctypes.data % 64 == 0


def test_the_other_functions():
    x, line, volume = whole(2, 4, 8, 9), whole(2, 4, 9), whole(2, 4, 3, 4, 5)
    w, w1, w3, point = whole(8, 1, 3, 3), whole(4, 1, 3), whole(4, 1, 2, 2, 2), whole(6, 4)

    @njit
    def all_of(x, line, volume, w, w1, w3, point, wide):
        return (
            fc.depthwise_conv1d(line, w1), fc.depthwise_conv2d(x, w, stride=2), fc.depthwise_conv3d(volume, w3),
            fc.pointwise_conv2d(x, point, activation="hardswish"), fc.atrous_conv2d(x, wide, rate=3),
            fc.separable_conv2d(x, w[:4], point, padding="same", depthwise_activation="relu6"),
        )  # fmt: skip

    given = x, line, volume, w, w1, w3, point, whole(2, 4, 3, 3)
    for got, want in zip(all_of(*given), all_of.py_func(*given)):
        same_bits(got, want)


# Arguments ------------------------------------------------------------------------------------------------------------


@njit
def convolved(x, w, b, stride, padding, mode, activation, residual, order, out):
    return fc.conv2d(
        x, w, b, stride, padding, padding_mode=mode, activation=activation, residual=residual, data_format=order, out=out
    )  # fmt: skip


def same_as_python(*given):
    want = convolved.py_func(*given)
    same_bits(convolved(*given), want)
    return want


def test_arguments():
    x, w, b = whole(2, 4, 8, 9), whole(6, 4, 3, 3), whole(6)
    plain = same_as_python(x, w, None, 1, 0, "zeros", None, None, "channels_first", None)
    same_as_python(x, w, b, (2, 1), "same", "zeros", "relu", None, "channels_first", None)
    same_as_python(x, w, b, (2, 1), (1, 2), "reflect", ("clip", -3.0, 7), None, "channels_first", None)
    same_as_python(x, w, whole(6, 6, 7), 1, ((0, 0), 0), "circular", "relu6", None, "channels_first", None)
    same_as_python(x, w, None, 1, 0, "zeros", "relu", whole(*plain.shape), "channels_first", None)
    last = x.transpose(0, 2, 3, 1)
    same_as_python(last, w, b, 1, ((2, 1), 1), "symmetric", None, None, "channels_last", None)
    same_as_python(last.copy(), w, b, 1, 1, "zeros", None, None, "channels_last", None)
    out = np.full_like(plain, np.nan)
    assert convolved(x, w, None, 1, 0, "zeros", None, None, "channels_first", out) is not None
    same_bits(out, plain)


@pytest.mark.filterwarnings("ignore:.*reflected list:numba.NumbaPendingDeprecationWarning")
def test_lists():
    @njit
    def strided(x, w):
        return fc.conv2d(x, w, stride=[2, 1], padding=[1, 2])

    x, w = whole(2, 4, 8, 9), whole(6, 4, 3, 3)
    same_bits(strided(x, w), strided.py_func(x, w))
    with pytest.raises(TypingError, match="padding: got a list of UniTuple.*, expected .* a tuple where entries are pairs"):
        njit(lambda x, w: fc.conv2d(x, w, padding=[(1, 2), (0, 1)]))(x, w)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "symmetric"])
def test_any_view(mode):
    x, w, b = whole(2, 8, 12, 18), whole(6, 8, 3, 3), whole(12)
    frozen = x.copy()
    frozen.flags.writeable = False
    views = [x[:, ::2, ::-1, ::2], np.asfortranarray(x[:, :4]), frozen[:, :4], x.astype(np.float64)[:, 4:]]
    for view in views:
        same_as_python(
            view, w[::-1, ::2].astype(view.dtype), b[::2].astype(view.dtype), 1, 1, mode, None, None, "channels_first", None
        )


def test_empty_batch():
    x, w = whole(0, 4, 5, 5), whole(6, 4, 3, 3)
    assert same_as_python(x, w, None, 1, 1, "zeros", None, None, "channels_first", None).shape == (0, 6, 5, 5)

    @njit
    def gradient(x, w, y):
        return fc.grad.conv2d_weight(x, w.shape, y)

    same_bits(gradient(x, w, whole(0, 6, 3, 3)), np.zeros_like(w))


def test_an_argument_that_may_be_none():
    @njit
    def either(x, w, b, biased):
        bias = b if biased else None
        return fc.conv2d(x, w, bias, padding=1)

    x, w, b = whole(1, 3, 4, 4), whole(2, 3, 3, 3), whole(2)
    for biased in (True, False, True):
        same_bits(either(x, w, b, biased), either.py_func(x, w, b, biased))


@njit
def enlarged(x, w, b, stride, groups, order):
    return fc.conv_transpose2d(x, w, b, stride, 1, groups=groups, data_format=order)


@njit
def separated(x, w, point, order):
    return fc.separable_conv2d(x, w, point, data_format=order)


FIRST, LAST = "channels_first", "channels_last"
PACKED = {  # a layer of each order of packed weights, and where it comes from
    "panels of filters in lanes": (fc.conv2d, (1, 12, 12, 8), (20, 8, 4, 4), LAST),
    "in rows": (fc.conv2d, (1, 8, 12, 12), (3, 8, 2, 2), FIRST),
    "of numbers that run otherwise": (fc.conv2d, (1, 8, 12, 12), (4, 4, 8, 10), FIRST),
    "Winograd's": (fc.conv2d, (1, 32, 28, 29), (33, 32, 3, 3), FIRST),
    "transformed columns": (fc.conv2d, (1, 16, 40, 41), (33, 16, 3, 3), FIRST),
    "filters last": (fc.conv2d, (1, 4, 6, 4), (2, 4, 2, 3), LAST),
    "mirrored": (fc.conv_transpose2d, (1, 8, 20, 20), (8, 9, 3, 3), FIRST),
    "of a transposed layer": (fc.conv_transpose2d, (1, 8, 20, 20), (8, 40, 3, 3), FIRST),
    "rows of taps": (fc.conv_transpose2d, (1, 8, 20, 20), (8, 3, 4, 4), FIRST),
    "channels": (fc.conv_transpose2d, (1, 20, 20, 20), (20, 1, 3, 3), LAST),
    "of a separable layer": (fc.separable_conv2d, (1, 20, 20, 20), (20, 1, 3, 3), FIRST),
    "of another": (fc.separable_conv2d, (1, 20, 20, 20), (20, 1, 3, 3), LAST),
    "copied beside panels": (fc.separable_conv2d, (1, 20, 20, 20), (20, 1, 2, 3), FIRST),
    "Strassen's sums beside panels": (fc.separable_conv2d, (1, 256, 16, 16), (256, 1, 3, 3), FIRST),
}


@pytest.mark.parametrize("what", PACKED)
def test_weights_that_change(no_plans, what):
    """Layers of one shape find their own plans; beyond a few of them, weights are packed anew, in compiled code."""
    function, image, shape, order = PACKED[what]
    x = whole(*image)
    for _ in range(entry.MOST_WEIGHTS + 3):
        w, bias = whole(*shape), whole(shape[1] if function is fc.conv_transpose2d else shape[0])
        if "otherwise" in what:
            w = w.reshape(20, 4, 4, 4)[:, :, ::-1].swapaxes(0, 1)[:, :8]
        if function is fc.conv2d:
            same_as_python(x, w, bias[: len(w)], 1, 1, "zeros", None, None, order, None)
        elif function is fc.separable_conv2d:
            w = np.asfortranarray(w) if "copied" in what else w
            given = x, w, whole(256 if "Strassen" in what else 9, len(w)), order
            same_bits(separated(*given), separated.py_func(*given))
        else:
            stride, groups = 1 if what == "mirrored" else 2, 20 if what == "channels" else 1
            given = x, w, bias if groups == 1 else None, stride, groups, order
            same_bits(enlarged(*given), enlarged.py_func(*given))
        planned = len(entry._plans)
    assert planned == entry.MOST_WEIGHTS and all(plan.words[entry.ONCE // 8] == 2 for plan in entry._once)


def test_an_image_is_copied_in_the_order_that_its_kernel_reads():
    """Its rows do not follow one another; Strassen's algorithm then wants channels side by side in the copy, too."""

    @njit
    def mixed(x, w):
        return fc.pointwise_conv2d(x, w, algorithm="winograd")

    x, w = whole(1, 9, 16, 64).transpose(0, 3, 2, 1), whole(64, 64)
    same_bits(mixed(x, w), mixed.py_func(x, w))


def test_plans_are_bounded(no_plans, monkeypatch):
    monkeypatch.setattr(entry, "MOST_PLANS", 5)
    w = whole(2, 3, 3, 3)
    for size in [*range(3, 20), 3, 4]:
        same_as_python(whole(1, 3, size, 5), w, None, 1, 0, "zeros", None, None, "channels_first", None)
        assert len(entry._plans) <= 5
    entry.slots[entry.INSIDE // 8] += 1  # a call that takes long: nothing can be freed
    try:
        for size in range(3, 30):
            same_as_python(whole(1, 3, size, 5), w, None, 1, 0, "zeros", None, None, "channels_first", None)
            assert len(entry._plans) <= 5 and len(entry._forgotten) <= 5
    finally:
        entry.slots[entry.INSIDE // 8] -= 1


# Errors ---------------------------------------------------------------------------------------------------------------


X, W = whole(1, 3, 6, 6), whole(2, 3, 3, 3)
BAD_VALUES = {
    "stride": (X, W, None, 0, 0, "zeros", None, None, "channels_first", None),
    "padding": (X, W, None, 1, (1, -2), "zeros", None, None, "channels_first", None),
    "padding's name": (X, W, None, 1, "sane", "zeros", None, None, "channels_first", None),
    "padding's count": (X, W, None, 1, (1, 1, 1), "zeros", None, None, "channels_first", None),
    "mode": (X, W, None, 1, 1, "mirror", None, None, "channels_first", None),
    "activation": (X, W, None, 1, 1, "zeros", "rélu", None, "channels_first", None),
    "clip": (X, W, None, 1, 1, "zeros", ("clip", 2.0, 1.0), None, "channels_first", None),
    "bias": (X, W, whole(3), 1, 1, "zeros", None, None, "channels_first", None),
    "residual": (X, W, None, 1, 1, "zeros", None, whole(1, 2, 6, 5), "channels_first", None),
    "dtype": (X, W.astype(np.float64), None, 1, 1, "zeros", None, None, "channels_first", None),
    "integers": (X.astype(np.int32), W, None, 1, 1, "zeros", None, None, "channels_first", None),
    "no dimensions": (np.array(1, np.float32), W, None, 1, 1, "zeros", None, None, "channels_first", None),
    "dimensions": (X[0, 0], W, None, 1, 1, "zeros", None, None, "channels_first", None),
    "out": (X, W, None, 1, 1, "zeros", None, None, "channels_first", np.zeros((1, 2, 6, 5), np.float32)),
    "strided out": (X, W, None, 1, 1, "zeros", None, None, "channels_first", np.zeros((1, 2, 6, 12), np.float32)[..., ::2]),
}


@pytest.mark.parametrize("what", BAD_VALUES)
def test_bad_values(what):
    given = BAD_VALUES[what]
    with pytest.raises(ValueError) as expected:
        convolved.py_func(*given)
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            convolved(*given)
        assert str(error.value).encode("ascii", "backslashreplace").decode() in (
            str(expected.value),
            ascii(str(expected.value))[1:-1],
        )


def test_out_that_shares_memory():
    memory = np.zeros((4, 3, 6, 6), np.float32)
    memory[0] = X

    @njit
    def over(x, w, out):
        return fc.conv2d(x, w, padding=1, out=out)

    w = whole(3, 3, 3, 3)
    over(memory[:1], w, memory[1:2])
    for shared in (memory[:1], memory.reshape(-1)[60 : 60 + 108].reshape(1, 3, 6, 6)):
        before = memory.copy()
        with pytest.raises(ValueError, match="out: shares memory with an input"):
            over(memory[:1], w, shared)
        same_bits(memory, before)
    apart = np.zeros((1, 3, 6, 12), np.float32)  # its extent holds that of out, but no number is of both
    room = apart.reshape(-1)
    view = np.lib.stride_tricks.as_strided(room, (1, 3, 6, 6), (4, 4, 4, 4))
    assert not np.shares_memory(view, memory)
    same_bits(over(view, w, np.zeros_like(X)), fc.conv2d(view, w, padding=1))


BAD_TYPES = {
    "x: got int, expected a NumPy array": lambda: fc.conv2d(1, W),
    "bias: got float, expected a NumPy array": lambda: fc.conv2d(X, W, 1.5),
    "weight: got NoneType, expected a NumPy array": lambda: fc.conv2d(X, None),
    "stride: got a value of type float, expected an integer": lambda: fc.conv2d(X, W, stride=2.0),
    "groups: got True of type bool, expected an integer": lambda: fc.conv2d(X, W, groups=True),
    "data_format: got 1 of type int, expected one of channels_first, channels_last": lambda: fc.conv2d(X, W, data_format=1),
    "rate: got a value of type float, expected an integer": lambda: fc.atrous_conv2d(X, W, rate=(2.0, 1)),
    "input_size: got 1 of type int, expected a tuple of integers": lambda: fc.grad.conv2d_input(4, W, X),
}


@pytest.mark.parametrize("sentence", BAD_TYPES)
def test_bad_types(sentence):
    with pytest.raises(TypingError) as error:
        njit(BAD_TYPES[sentence])()
    assert sentence in str(error.value)
    with pytest.raises(TypeError) as plain:
        BAD_TYPES[sentence]()
    assert str(plain.value).split(" of type ")[-1] == sentence.split(" of type ")[-1]


def test_half_precision_is_refused():
    """Numba would say no more than float16."""
    with pytest.raises(TypingError, match="x: got dtype float16, expected float32 or float64"):
        njit(lambda x, w: fc.conv2d(x, w))(X.astype(np.float16), W)


def test_errors_can_be_caught_inside():
    @njit
    def careful(x, w, stride):
        try:
            return fc.conv2d(x, w, None, stride)  # by place: Numba forgets the names of arguments inside a try
        except Exception:
            return np.zeros((1, 1, 1, 1), np.float32)

    assert careful(X, W, 0).shape == (1, 1, 1, 1)
    same_bits(careful(X, W, 2), fc.conv2d(X, W, stride=2))


# Layers ---------------------------------------------------------------------------------------------------------------


@njit
def called(layer, x):
    return layer(x)


def test_layers():
    x = whole(2, 4, 9, 8)
    for layer in (
        fc.Conv2d(whole(6, 4, 3, 3), whole(6), padding=1), fc.DepthwiseConv2d(whole(8, 1, 3, 3)),
        fc.PointwiseConv2d(whole(5, 4), activation="relu"), fc.SeparableConv2d(whole(4, 1, 3, 3), whole(6, 4), padding=2),
        fc.ConvTranspose2d(whole(4, 3, 3, 3), stride=2),
    ):  # fmt: skip
        for image in (x, x[0], x[:, :, ::2, ::-1]):
            same_bits(called(layer, image), layer(image))


def test_layer_arguments():
    @njit
    def with_all(layer, x, out, residual):
        return layer(x, out, residual=residual)

    @njit
    def up(layer, x, size):
        return layer(x, output_size=size)

    x, layer = whole(2, 4, 9, 8), fc.Conv2d(whole(6, 4, 3, 3), padding=1)
    residual, out = whole(2, 6, 9, 8), np.empty((2, 6, 9, 8), np.float32)
    same_bits(with_all(layer, x, out, residual), layer(x, residual=residual))
    transposed = fc.ConvTranspose2d(whole(4, 3, 3, 3), stride=2)
    same_bits(up(transposed, x, (20, 17)), transposed(x, output_size=(20, 17)))
    with pytest.raises(TypingError, match="Conv2d takes no output_size"):
        up(layer, x, (20, 17))
    with pytest.raises(ValueError, match="^output_size: got "):
        up(transposed, x, (40, 17))
    with pytest.raises(ValueError, match=r"^out: got shape"):
        with_all(layer, x, out[:, :, 1:].copy(), residual)
    with pytest.raises(TypingError, match="x: got int, expected a NumPy array"):
        called(layer, 3)


def test_layer_from_outside():
    layer, x = fc.Conv2d(whole(6, 4, 3, 3), padding=1), whole(2, 4, 9, 8)

    @njit
    def closed_over(x):
        return layer(x)

    same_bits(closed_over(x), layer(x))


def test_forgotten_layers_leave_nothing(no_plans):
    layer = fc.Conv2d(whole(6, 4, 3, 3))
    called(layer, whole(1, 4, 5, 5))
    assert len(entry._plans) == 1
    del layer
    gc.collect()
    assert not entry._plans


def test_layer_type():
    assert str(twins.LayerType("Conv2d", "float32")) == "fastconv.Conv2d(float32)"
    assert twins.LayerType("Conv2d", "float32") == twins.LayerType("Conv2d", "float32") != types.float32


# Threads, processes, memory -------------------------------------------------------------------------------------------


def test_nothing_leaks():
    _nrt_python.memsys_enable_stats()

    @njit
    def often(x, w, layer, n):
        total = np.float32(0)
        for _ in range(n):
            total += fc.conv2d(x, w)[0, 0, 0, 0] + layer(x)[0, 0, 0, 0]
        return total

    layer = fc.Conv2d(W)
    often(X, W, layer, 1)
    counts, before = [sys.getrefcount(a) for a in (X, W, layer)], rtsys.get_allocation_stats()
    often(X, W, layer, 100)
    after = rtsys.get_allocation_stats()
    assert [sys.getrefcount(a) for a in (X, W, layer)] == counts
    assert after.alloc - before.alloc == after.free - before.free


def test_without_the_gil():
    x, w = whole(2, 16, 24, 24), whole(16, 16, 3, 3)

    @njit(nogil=True)
    def often(x, w, n):
        for _ in range(n):
            y = fc.conv2d(x, w, padding=1)
        return y

    want = fc.conv2d(x, w, padding=1)
    with ThreadPoolExecutor(8) as callers:
        for y in callers.map(lambda n: often(x, w, 20 + n), range(16)):
            same_bits(y, want)


def test_limit_of_a_thread():
    words = entry._at(threads.words)
    threads.tell()
    seen = []
    before = threads.limit_here(words)
    with threads._limited(before + 1):
        assert threads.limit_here(words) == before + 1
        other = threading.Thread(target=lambda: seen.append(threads.limit_here(words)))
        other.start()
        other.join()
        with threads._limited(1):
            assert threads.limit_here(words) == 1
        assert threads.limit_here(words) == before + 1
    assert threads.limit_here(words) == before and seen == [before]
    assert not threads.words[threads.SAYING // 8]


CACHED = """
import sys, numpy as np, fastconv as fc
from numba import njit, prange

@njit(cache=True)
def edges(x, w):
    return fc.conv2d(x, w, padding="same", activation="relu")

@njit(cache=True)
def called(layer, x):
    return layer(x)

if __name__ == "__main__":
    x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((2, 3, 3, 3), np.float32)
    assert np.array_equal(edges(x, w), fc.conv2d(x, w, padding="same", activation="relu"))
    layer = fc.Conv2d(w)
    assert np.array_equal(called(layer, x), layer(x))
    print(sum(edges.stats.cache_hits.values()), sum(called.stats.cache_hits.values()))
"""


def test_cache_of_the_user(tmp_path):
    script = tmp_path / "cached.py"
    script.write_text(CACHED)
    said = [succeed(script, NUMBA_CACHE_DIR=str(tmp_path / "cache")).split() for _ in range(2)]
    assert said == [["0", "0"], ["1", "1"]]


@pytest.fixture(scope="module")
def loops_cache(tmp_path_factory):
    """The folder in which jitted_loops.py has compiled its functions: that takes ten times as long as they run."""
    folder = str(tmp_path_factory.mktemp("loops"))
    variables = {"NUMBA_CACHE_DIR": folder, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "3"}
    assert succeed(SCRIPTS / "jitted_loops.py", **variables) == "0\n"
    return folder


@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
def test_in_the_users_loops(layer, loops_cache):
    if find_spec(f"numba.np.ufunc.{layer if layer == 'workqueue' else layer + 'pool'}") is None:
        pytest.skip(f"this Numba has no {layer}")
    variables = {"NUMBA_CACHE_DIR": loops_cache, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "3"}
    done = python(SCRIPTS / "jitted_loops.py", **variables)
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} does not load")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_loop_whose_threads_are_the_first_to_call(loops_cache):
    """Numba's workqueue runs no part of a loop in the thread that called it, the only one that Python knows."""
    variables = {"NUMBA_CACHE_DIR": loops_cache, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    assert succeed(SCRIPTS / "jitted_loops.py", "loop", **variables) == "1\n"


def test_after_a_fork():
    succeed(SCRIPTS / "jitted_fork.py")


def test_import_registers_and_compiles_nothing():
    program = (
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as seen:\n"
        "    import fastconv\n"
        "assert not seen.buffer"
    )
    succeed("-c", program)
