"""What is refused: the type of the error, the words of its message, and that `out` was not touched."""

import re

import numpy as np
import pytest

import fastconv as fc

f4 = np.float32


def ones(*shape, dtype=f4):
    return np.ones(shape, dtype)


def huge(*shape):
    """An array that takes four bytes of memory."""
    return np.broadcast_to(f4(0), shape)


def case(words, call, *arguments, error=ValueError, **keywords):
    name = re.sub(r"[^\w.*()<>]+", " ", words)
    return pytest.param(error, words, call, arguments, keywords, id=f"{call.__name__}: {name}")


x, w = ones(1, 4, 8, 8), ones(6, 4, 3, 3)
read_only = ones(1, 6, 6, 6)
read_only.flags.writeable = False
shared = ones(4096)
misaligned = np.frombuffer(bytearray(1 * 6 * 6 * 6 * 4 + 1), np.uint8)[1:].view(f4).reshape(1, 6, 6, 6)


def conv_cases():
    c = fc.conv2d
    # What is no array
    yield case(r"x: got list", c, x.tolist(), w, error=TypeError)
    yield case(r"x: got NoneType", c, None, w, error=TypeError)
    yield case(r"x: got float32", c, f4(1), w, error=TypeError)
    yield case(r"x: got MaskedArray", c, np.ma.array(x), w, error=TypeError)
    yield case(r"weight: got list", c, x, w.tolist(), error=TypeError)
    yield case(r"weight: got MaskedArray", c, x, np.ma.array(w), error=TypeError)
    yield case(r"bias: got list", c, x, w, [1.0] * 6, error=TypeError)
    yield case(r"bias: got int", c, x, w, 0, error=TypeError)
    yield case(r"bias: got MaskedArray", c, x, w, np.ma.array(ones(6)), error=TypeError)
    yield case(r"residual: got list", c, x, w, residual=[1], error=TypeError)
    # dtypes
    yield case(r"x: got dtype int32.*x\.astype\(np\.float32\)", c, x.astype(np.int32), w)
    yield case(r"x: got dtype uint8.*x\.astype\(np\.float32\)", c, x.astype(np.uint8), w)
    yield case(r"x: got dtype bool", c, x.astype(bool), w)
    yield case(r"x: got dtype float16.*x\.astype\(np\.float32\)", c, x.astype(np.float16), w)
    yield case(r"x: got dtype complex64.*real and imaginary", c, x.astype(np.complex64), w)
    yield case(r"x: got dtype object", c, x.astype(object), w)
    yield case(r"x: got dtype void32.*its fields apart", c, x.view([("a", "f4")]), w)
    yield case(r"x: got dtype record32", c, x.view([("a", "f4")]).view(np.recarray), w)
    yield case(r"weight: got dtype float64, expected float32.*weight\.astype\(np\.float32\)", c, x, w.astype(np.float64))
    yield case(r"weight: got dtype float32, expected float64", c, x.astype(np.float64), w)
    yield case(r"bias: got dtype float64, expected float32", c, x, w, np.ones(6))
    yield case(r"residual: got dtype float64, expected float32", c, x, w, residual=np.ones((1, 6, 6, 6)))
    # Shapes
    yield case(r"x: got 2 dimensions \(8, 8\)", c, ones(8, 8), w)
    yield case(r"x: got 5 dimensions", c, ones(1, 1, 4, 8, 8), w)
    yield case(r"x: got 0 dimensions", c, np.array(1, f4), w)
    yield case(r"x: got 4 dimensions", fc.conv1d, x, w)
    yield case(r"x: got 3 dimensions", fc.conv3d, ones(4, 8, 8), ones(6, 4, 3, 3, 3))
    yield case(r"\(N, \*space, C\)", c, ones(8, 8), w, data_format="channels_last")
    yield case(r"weight: got 3 dimensions \(6, 4, 3\), expected 4", c, x, ones(6, 4, 3))
    yield case(r"weight: got 3 channels a filter, expected 4", c, x, ones(6, 3, 3, 3))
    yield case(r"weight: got 4 channels a filter, expected 8", c, x, w, data_format="channels_last")
    yield case(r"weight: got 4 channels a filter, expected 4 channels of x / 2 groups", c, x, w, groups=2)
    yield case(r"groups: got 3, which does not divide the 4 channels", c, x, w, groups=3)
    yield case(r"groups: got 4, which does not divide the 6 filters", c, x, ones(6, 1, 3, 3), groups=4)
    yield case(r"x: got 0 channels", c, ones(1, 0, 8, 8), w)
    yield case(r"x: .*at least 1", c, ones(1, 4, 0, 8), w)
    yield case(r"weight: .*at least 1", c, x, ones(0, 4, 3, 3))
    yield case(r"weight: .*at least 1", c, x, ones(6, 4, 3, 0))
    # Whole numbers
    for name in ("stride", "dilation"):
        for value in (0, -1, (1, 0), [-2, 1]):
            yield case(rf"{name}: got (0|-1|-2), expected at least 1", c, x, w, **{name: value})
        for value in (True, 1.0, "1", None, np.bool_(True), (1, 1.5), (1, False), np.array([1, 1]), {1}):
            yield case(rf"{name}: got .*expected an integer", c, x, w, **{name: value}, error=TypeError)
        for value in ((), (1, 1, 1), [1] * 4):
            yield case(rf"{name}: got {len(value)} numbers", c, x, w, **{name: value})
        yield case(rf"{name}: got \d+, expected at most 2\*\*62", c, x, w, **{name: 2**62 + 1})
    for value in (0, -1):
        yield case(rf"groups: got {value}, expected at least 1", c, x, w, groups=value)
    for value in (True, 1.0, "1", None, (1,)):
        yield case(r"groups: got .*expected an integer", c, x, w, groups=value, error=TypeError)
    # Padding
    for value in (-1, (-1, 0), ((0, -1), 0)):
        yield case(r"padding: got -1, expected at least 0", c, x, w, padding=value)
    for value in (1.0, True, None, (1, 1.5), ((1, 1.5), 1), ("same", 1)):
        yield case(r"padding: got .*expected an integer", c, x, w, padding=value, error=TypeError)
    for value in ("full", "SAME", ""):
        yield case(rf"padding: got '{value}', expected one of valid, same", c, x, w, padding=value)
    for value in ((), (1, 1, 1), ((1, 1),) * 3):
        yield case(rf"padding: got {len(value)} entries", c, x, w, padding=value)
    for value in (((1, 1, 1), 1), ((1,), 1), ((), ())):
        yield case(r"padding: got .*expected a \(before, after\) pair", c, x, w, padding=value)
    yield case(r"padding: got 2 entries", fc.conv1d, ones(4, 8), ones(6, 4, 3), padding=(1, 2))
    yield case(r"padding: .*2\*\*62", c, x, w, padding=2**61)
    # The kernel and the border
    yield case(r"weight: a kernel \(9, 3\).*padded input's \(8, 8\)", c, x, ones(6, 4, 9, 3))
    yield case(r"weight: .*spans \(9, 9\)", c, x, w, dilation=4)
    yield case(r"padded input's \(10, 8\)", c, x, ones(6, 4, 11, 1), padding=(1, 0))
    yield case(r"padding: got 8 in mode 'reflect', expected at most 7", c, x, w, padding=8, padding_mode="reflect")
    yield case(r"padding: got 9 in mode 'circular', expected at most 8", c, x, w, padding=9, padding_mode="circular")
    yield case(
        r"padding: got 9 in mode 'symmetric', expected at most 8",
        c,
        x,
        w,
        padding=(0, (0, 9)),
        padding_mode="symmetric",
    )
    # bias and residual
    for shape in ((5,), (1,), (6, 1, 1), (6, 6), (1, 6, 6, 6), (), (6, 6, 5)):
        yield case(r"bias: got shape", c, x, w, ones(*shape))
    yield case(
        r"bias: got shape \(6, 5, 7\), expected \(6,\) or, a pixel, \(5, 7, 6\)",
        c,
        ones(7, 9, 4),
        w,
        ones(6, 5, 7),
        data_format="channels_last",
    )
    for shape in ((6, 6, 6), (1, 6, 6, 5), (1, 1, 6, 6), (6,)):
        yield case(r"residual: got shape .* expected the result's \(1, 6, 6, 6\)", c, x, w, residual=ones(*shape))
    # Names
    for name in ("padding_mode", "data_format", "algorithm", "precision"):
        yield case(rf"{name}: got 'nonsense', expected one of", c, x, w, **{name: "nonsense"})
        for value in (None, 1, ["auto"]):
            yield case(rf"{name}: got .*expected one of", c, x, w, **{name: value}, error=TypeError)
    yield case(r"data_format: got 'NHWC'", c, x, w, data_format="NHWC")
    yield case(r"activation: got 'nonsense', expected None or one of relu", c, x, w, activation="nonsense")
    yield case(r"activation: got 'identity'", c, x, w, activation="identity")
    yield case(r"activation: got \('relu', 1\), expected 0 numbers", c, x, w, activation=("relu", 1))
    yield case(r"activation: got \('clip', 1\), expected 2 numbers", c, x, w, activation=("clip", 1))
    yield case(r"activation: .*low <= high", c, x, w, activation=("clip", 2, 1))
    yield case(r"activation: .*NaN", c, x, w, activation=("leaky_relu", float("nan")))
    yield case(r"activation: .*that a float holds", c, x, w, activation=("clip", 0, 10**400))
    yield case(r"activation: got '1'.*expected a number", c, x, w, activation=("leaky_relu", "1"), error=TypeError)
    yield case(r"activation: got True", c, x, w, activation=("leaky_relu", True), error=TypeError)
    yield case(r"activation: got", c, x, w, activation=np.tanh, error=TypeError)
    yield case(r"activation: got \(\)", c, x, w, activation=(), error=TypeError)
    # Algorithms that cannot do the problem
    yield case(r"algorithm: 'winograd' cannot", c, x, w, algorithm="winograd", stride=3)
    yield case(r"highest: may be [^;]* off, and precision='highest'", c, x, w, algorithm="winograd", precision="highest")
    yield case(r"algorithm: 'winograd' cannot", c, x, w, algorithm="winograd", stride=(1, 2), dilation=2)
    yield case(r"algorithm: 'winograd' cannot", fc.pointwise_conv2d, x, ones(6, 4), algorithm="winograd")
    yield case(r"algorithm: 'winograd' cannot", fc.conv_transpose2d, x, ones(4, 6, 3, 3), stride=3, algorithm="winograd")
    # Sizes past 2**62
    yield case(r"padding: an array of .*2\*\*62", c, huge(1, 3, 2**30, 2**29), ones(1, 3, 1, 1))
    yield case(r"weight: .*2\*\*62", c, huge(1, 1, 2**20, 2**20), huge(2**21, 1, 1, 1))
    yield case(r"2\*\*62", c, huge(0, 3, 2**30, 2**29), ones(1, 3, 1, 1))
    yield case(r"2\*\*62", fc.conv_transpose2d, huge(1, 1, 2**20, 2**20), ones(1, 1, 1, 1), stride=2**11)
    yield case(r"pointwise_weight: .*2\*\*62", fc.separable_conv2d, huge(1, 1, 2**20, 2**20), ones(1, 1, 1, 1), huge(2**21, 1))


def other_cases():
    # The other functions
    yield case(r"rate: got 0, expected at least 1", fc.atrous_conv2d, x, w, rate=0)
    yield case(r"rate: got 1\.5", fc.atrous_conv2d, x, w, rate=1.5, error=TypeError)
    yield case(r"weight: .*padded input", fc.atrous_conv2d, x, w, rate=4)
    yield case(r"weight: got shape \(6, 1, 3, 3\), expected \(channels \* multiplier", fc.depthwise_conv2d, x, ones(6, 1, 3, 3))
    yield case(r"weight: got shape \(4, 4, 3, 3\)", fc.depthwise_conv2d, x, ones(4, 4, 3, 3))
    yield case(r"x: got 0 channels", fc.depthwise_conv2d, ones(1, 0, 8, 8), ones(4, 1, 3, 3))
    yield case(r"data_format", fc.depthwise_conv2d, x, ones(4, 1, 3, 3), data_format="nonsense")
    yield case(r"x: got dtype int64", fc.depthwise_conv1d, np.ones((4, 8), np.int64), ones(4, 1, 3))
    yield case(r"weight: got 4 dimensions", fc.depthwise_conv3d, ones(4, 8, 8, 8), ones(4, 1, 3, 3))
    yield case(r"weight: got shape \(6, 4, 3, 3\)", fc.pointwise_conv2d, x, w)
    yield case(r"weight: got shape \(6,\)", fc.pointwise_conv2d, x, ones(6))
    yield case(r"weight: got 5 channels a filter", fc.pointwise_conv2d, x, ones(6, 5))
    yield case(r"weight: got dtype float64", fc.pointwise_conv2d, x, np.ones((6, 4)))
    yield case(r"weight: got list", fc.pointwise_conv2d, x, [[1.0] * 4], error=TypeError)
    yield case(r"stride: got 0", fc.pointwise_conv2d, x, ones(6, 4), stride=0)
    s, d, p = fc.separable_conv2d, ones(4, 1, 3, 3), ones(6, 4)
    yield case(r"x: got list", s, x.tolist(), d, p, error=TypeError)
    yield case(r"depthwise_weight: got NoneType", s, x, None, p, error=TypeError)
    yield case(r"pointwise_weight: got list", s, x, d, p.tolist(), error=TypeError)
    yield case(r"depthwise_bias: got int", s, x, d, p, 1, error=TypeError)
    yield case(r"pointwise_bias: got int", s, x, d, p, None, 1, error=TypeError)
    yield case(r"depthwise_weight: got shape", s, x, ones(6, 1, 3, 3), p)
    yield case(r"depthwise_weight: got dtype float64", s, x, d.astype(float), p)
    yield case(r"depthwise_weight: .*padded input", s, x, ones(4, 1, 9, 9), p)
    yield case(r"pointwise_weight: got 5 channels, expected the 4", s, x, d, ones(6, 5))
    yield case(r"pointwise_weight: got shape", s, x, d, ones(6, 4, 3, 3))
    yield case(r"pointwise_weight: got dtype float64", s, x, d, p.astype(float))
    yield case(r"depthwise_bias: got shape \(6,\)", s, x, d, p, ones(6))
    yield case(r"pointwise_bias: got shape \(4,\)", s, x, d, p, None, ones(4))
    yield case(r"^depthwise_activation: got 'nonsense'", s, x, d, p, depthwise_activation="nonsense")
    yield case(r"activation: got 'nonsense'", s, x, d, p, activation="nonsense")
    yield case(r"residual: got shape", s, x, d, p, residual=ones(1, 4, 6, 6))
    t, tw = fc.conv_transpose2d, ones(4, 6, 3, 3)
    yield case(r"weight: got 6 as its first size, expected the 4 channels", t, x, w)
    yield case(r"groups: got 3, which does not divide", t, x, tw, groups=3)
    yield case(r"padding: got 'same'; .*numbers only", t, x, tw, padding="same")
    yield case(r"padding: got -1", t, x, tw, padding=-1)
    yield case(r"padding: crops the result to \(0, 0\)", t, x, tw, padding=5)
    yield case(r"output_padding: got 1, expected less than the larger of stride 1", t, x, tw, output_padding=1)
    yield case(
        r"output_padding: got 3, expected less than .*stride 2 and dilation 3",
        t,
        x,
        tw,
        stride=2,
        dilation=3,
        output_padding=3,
    )
    yield case(r"output_padding: got -1", t, x, tw, stride=2, output_padding=-1)
    yield case(r"output_padding: got True", t, x, tw, stride=2, output_padding=True, error=TypeError)
    yield case(r"output_padding: got 3 numbers", t, x, tw, stride=2, output_padding=(1, 1, 1))
    yield case(r"output_size: got \(16, 16\), expected sizes from \(17, 17\) to \(18, 18\)", t, x, tw, stride=2, output_size=16)
    yield case(
        r"output_size: got \(17, 19\), expected sizes from \(17, 17\) to \(18, 18\)",
        t,
        x,
        tw,
        stride=2,
        output_size=(17, 19),
    )
    yield case(r"output_size: got 0", t, x, tw, output_size=0)
    yield case(r"output_size: got 4 numbers", t, x, tw, output_size=(1, 6, 10, 10))
    yield case(r"output_size: got 17\.0", t, x, tw, stride=2, output_size=17.0, error=TypeError)
    yield case(r"output_padding: give it or output_size", t, x, tw, stride=2, output_padding=1, output_size=18)
    yield case(r"padding_mode", t, x, tw, padding_mode="zeros", error=TypeError)
    yield case(r"x: got 4 dimensions", fc.conv_transpose1d, x, ones(4, 6, 3))
    yield case(r"weight: got 4 dimensions", fc.conv_transpose3d, ones(1, 4, 8, 8, 8), tw)


def gradient_cases():
    g, y = fc.grad, ones(1, 6, 6, 6)
    yield case(r"input_size: got 5 of type int", g.conv2d_input, 5, w, y, error=TypeError)
    yield case(r"input_size: got 8\.0", g.conv2d_input, (1, 4, 8, 8.0), w, y, error=TypeError)
    yield case(r"input_size: got -1", g.conv2d_input, (1, 4, 8, -1), w, y)
    yield case(r"input_size: got 2 dimensions", g.conv2d_input, (8, 8), w, y)
    yield case(r"weight: got list", g.conv2d_input, x.shape, w.tolist(), y, error=TypeError)
    yield case(r"grad_output: got list", g.conv2d_input, x.shape, w, y.tolist(), error=TypeError)
    yield case(r"grad_output: got MaskedArray", g.conv2d_input, x.shape, w, np.ma.array(y), error=TypeError)
    yield case(
        r"grad_output: got shape \(1, 6, 6, 6\), expected the result's \(1, 6, 8, 8\)",
        g.conv2d_input,
        x.shape,
        w,
        y,
        padding=1,
    )
    yield case(r"grad_output: got dtype float64", g.conv2d_input, x.shape, w, y.astype(float))
    yield case(r"weight: got dtype int32", g.conv2d_input, x.shape, w.astype(np.int32), y)
    yield case(r"weight: got 4 channels a filter", g.conv2d_input, (1, 5, 8, 8), w, y)
    yield case(r"stride: got 0", g.conv2d_input, x.shape, w, y, stride=0)
    yield case(r"data_format", g.conv2d_input, x.shape, w, y, data_format="nonsense")
    yield case(r"padding_mode", g.conv2d_input, x.shape, w, y, padding_mode="reflect", error=TypeError)
    yield case(r"2\*\*62", g.conv2d_input, (1, 4, 2**40, 2**40), w, y)
    yield case(r"x: got list", g.conv2d_weight, x.tolist(), w.shape, y, error=TypeError)
    yield case(r"weight_size: got 3 of type int", g.conv2d_weight, x, 3, y, error=TypeError)
    yield case(r"weight_size: .*at least 1", g.conv2d_weight, x, (6, 4, 0, 3), y)
    yield case(r"weight_size: .*padded input", g.conv2d_weight, x, (6, 4, 9, 9), y)
    yield case(r"grad_output: got shape", g.conv2d_weight, x, w.shape, ones(1, 6, 6, 7))
    yield case(r"grad_output: got dtype float64", g.conv2d_weight, x, w.shape, y.astype(float))
    yield case(r"x: got dtype float16", g.conv2d_weight, x.astype(np.float16), w.shape, y)
    yield case(r"grad_output: got 2 dimensions", g.conv2d_bias, ones(6, 6))
    yield case(r"grad_output: got list", g.conv2d_bias, [1.0], error=TypeError)
    yield case(r"grad_output: got dtype int32", g.conv2d_bias, y.astype(np.int32))
    yield case(r"data_format", g.conv2d_bias, y, data_format="nonsense")
    yield case(r"grad_output: got shape", g.conv_transpose2d_input, x.shape, ones(4, 6, 3, 3), y)
    yield case(r"padding: got 'same'", g.conv_transpose2d_input, x.shape, ones(4, 6, 3, 3), y, padding="same")
    yield case(r"output_padding: got 2", g.conv_transpose2d_weight, x, (4, 6, 3, 3), y, stride=2, output_padding=2)
    yield case(r"weight_size: got 5 as its first size", g.conv_transpose2d_weight, x, (5, 6, 3, 3), y)


def thread_cases():
    most = 10**6
    for value in (0, -1, most):
        yield case(rf"num_threads: got {value}, expected 1 to", fc.set_num_threads, value)
        yield case(rf"num_threads: got {value}, expected 1 to", enter_num_threads, value)
    for value in (True, 1.0, "1", None):
        yield case(r"num_threads: got .*expected an integer", fc.set_num_threads, value, error=TypeError)
        yield case(r"num_threads: got .*expected an integer", enter_num_threads, value, error=TypeError)
    yield case(r"threading: got 'nonsense', expected one of team, numba", fc.set_threading, "nonsense")
    yield case(r"threading: got None", fc.set_threading, None, error=TypeError)


def enter_num_threads(n):
    with fc.num_threads(n):
        pass


FORWARD = [*conv_cases(), *other_cases()]


@pytest.mark.parametrize(("error", "words", "call", "arguments", "keywords"), FORWARD)
def test_forward(error, words, call, arguments, keywords):
    copies = [a.copy() if isinstance(a, np.ndarray) and 0 < a.size < 1e6 else None for a in arguments]
    shape = {fc.conv_transpose2d: (1, 6, 10, 10), fc.pointwise_conv2d: (1, 6, 8, 8)}.get(call, (1, 6, 6, 6))
    out = np.full(shape, 7, f4)
    with pytest.raises(error, match=words):
        call(*arguments, **keywords, out=out)
    assert (out == 7).all()
    with pytest.raises(error, match=words):
        call(*arguments, **keywords)
    for argument, copy in zip(arguments, copies, strict=True):
        assert copy is None or (argument == copy).all()


@pytest.mark.parametrize("value", [1.0, True, np.float32(1), (1.0, 1), (True, 1)])
def test_what_equals_a_remembered_stride_is_none(value):
    for legal in (1, (1, 1), np.int64(1)):
        fc.conv2d(x, w, stride=legal)
    with pytest.raises(TypeError, match="stride: got"):
        fc.conv2d(x, w, stride=value)


@pytest.mark.parametrize(("error", "words", "call", "arguments", "keywords"), [*gradient_cases(), *thread_cases()])
def test_gradients_and_threads(error, words, call, arguments, keywords):
    before = fc.get_num_threads(), fc.get_threading()
    with pytest.raises(error, match=words):
        call(*arguments, **keywords)
    assert (fc.get_num_threads(), fc.get_threading()) == before


OUTS = {
    "list": (TypeError, r"out: got list", [1.0]),
    "masked": (TypeError, r"out: got MaskedArray", np.ma.array(ones(1, 6, 6, 6))),
    "shape": (ValueError, r"out: got shape \(6, 6, 6\), expected the result's \(1, 6, 6, 6\)", ones(6, 6, 6)),
    "larger": (ValueError, r"out: got shape", ones(1, 6, 8, 8)),
    "dtype": (ValueError, r"out: got dtype float64, expected float32", np.ones((1, 6, 6, 6))),
    "read-only": (ValueError, r"out: .*writable", read_only),
    "strided": (ValueError, r"out: .*C-contiguous", ones(1, 6, 6, 12)[..., ::2]),
    "reversed": (ValueError, r"out: .*C-contiguous", ones(1, 6, 6, 6)[:, :, ::-1]),
    "fortran": (ValueError, r"out: .*C-contiguous", np.asfortranarray(ones(1, 6, 6, 6))),
    "swapped": (ValueError, r"out: .*native", ones(1, 6, 6, 6).astype(">f4")),
    "misaligned": (ValueError, r"out: .*aligned", misaligned),
}


@pytest.mark.parametrize(("error", "words", "out"), OUTS.values(), ids=OUTS)
@pytest.mark.parametrize("layer", [False, True], ids=["function", "layer"])
def test_out(error, words, out, layer):
    before = np.array(out)
    with pytest.raises(error, match=words):
        fc.Conv2d(w)(x, out=out) if layer else fc.conv2d(x, w, out=out)
    assert (np.array(out) == before).all()


def part(first, *shape):
    return shared[first : first + int(np.prod(shape))].reshape(shape)


@pytest.mark.parametrize("given", ["x", "x by one number", "weight", "bias", "residual", "x reversed"])
def test_out_overlaps(given):
    out = part(216, 1, 6, 6, 6)
    image, weight, bias, residual = x, w, None, None
    if given == "x":
        image = part(0, 1, 4, 8, 8)
    elif given == "x by one number":
        image = part(216 + 216 - 1, 1, 4, 8, 8)
    elif given == "x reversed":
        image = part(0, 1, 4, 8, 8)[:, :, ::-1]
    elif given == "weight":
        weight = part(1, 6, 4, 3, 3)
    elif given == "bias":
        bias = part(216 + 210, 6)
    else:
        residual = out
    shared[:] = np.arange(shared.size)
    with pytest.raises(ValueError, match="out: shares memory with an input"):
        fc.conv2d(image, weight, bias, residual=residual, out=out)
    assert (shared == np.arange(shared.size)).all()


def test_out_beside_an_input_is_no_overlap():
    shared[:] = 1
    out = part(216, 1, 6, 6, 6)
    assert fc.conv2d(part(432, 1, 4, 8, 8), w, out=out) is out
    assert (out == 36).all()


@pytest.mark.parametrize("layer", [False, True], ids=["function", "layer"])
@pytest.mark.parametrize("size", [8, 56])  # alone in this thread, or not
def test_out_among_the_images_is_no_overlap(layer, size):
    memory = np.ones((3, 4, 2 * size, 2 * size), np.float32)
    image, out = memory[::2, :, ::2, ::-2], memory[1].reshape(-1)[: 2 * 6 * (size - 2) ** 2].reshape(2, 6, size - 2, size - 2)
    assert np.may_share_memory(image, out)
    exact = {"algorithm": "tiled"}
    assert (fc.Conv2d(w, **exact)(image, out) if layer else fc.conv2d(image, w, out=out, **exact)) is out
    assert (out == 36).all() and (image == 1).all()
    with pytest.raises(ValueError, match="out: shares memory with an input"):
        first = memory[0].reshape(-1)[: out.size].reshape(out.shape)
        fc.Conv2d(w)(image, first) if layer else fc.conv2d(image, w, out=first)
    assert (image == 1).all()


def test_separable_out_overlaps_its_weights():
    shared[:] = 1
    with pytest.raises(ValueError, match="out: shares memory"):
        fc.separable_conv2d(x, ones(4, 1, 3, 3), part(0, 6, 4), out=part(0, 1, 6, 6, 6))
    assert (shared == 1).all()


LAYERS = {
    "weight": (lambda: fc.Conv2d(w.tolist()), TypeError, r"weight: got list"),
    "masked": (lambda: fc.Conv2d(np.ma.array(w)), TypeError, r"weight: got MaskedArray"),
    "bias": (lambda: fc.Conv2d(w, [1.0] * 6), TypeError, r"bias: got list"),
    "separable": (lambda: fc.SeparableConv2d(ones(4, 1, 3, 3), None), TypeError, r"pointwise_weight: got NoneType"),
    "x": (lambda: fc.Conv2d(w)(x.tolist()), TypeError, r"x: got list"),
    "x dtype": (lambda: fc.Conv2d(w)(x.astype(np.int32)), ValueError, r"x: got dtype int32"),
    "mixed": (lambda: fc.Conv2d(w)(x.astype(float)), ValueError, r"weight: got dtype float32, expected float64"),
    "channels": (lambda: fc.Conv2d(w)(ones(1, 5, 8, 8)), ValueError, r"weight: got 4 channels"),
    "ndim": (lambda: fc.Conv1d(ones(6, 4, 3))(x), ValueError, r"x: got 4 dimensions"),
    "stride": (lambda: fc.Conv2d(w, stride=0)(x), ValueError, r"stride: got 0"),
    "residual": (lambda: fc.Conv2d(w)(x, residual=[1]), TypeError, r"residual: got list"),
    "residual shape": (lambda: fc.Conv2d(w)(x, residual=x), ValueError, r"residual: got shape"),
    "residual overlaps": (lambda: fc.Conv2d(w)(x, shared[:216].reshape(1, 6, 6, 6), residual=shared[:216].reshape(1, 6, 6, 6)),
                          ValueError, r"out: shares memory"),
    "algorithm": (lambda: fc.PointwiseConv2d(ones(6, 4), algorithm="winograd")(x), ValueError, r"algorithm: 'winograd' cannot"),
    "depthwise": (lambda: fc.DepthwiseConv2d(ones(6, 1, 3, 3))(x), ValueError, r"weight: got shape"),
    "pointwise": (lambda: fc.PointwiseConv2d(w)(x), ValueError, r"weight: got shape"),
    "output_size": (lambda: fc.ConvTranspose2d(ones(4, 6, 3, 3), stride=2)(x, output_size=16), ValueError, r"from \(17, 17\) to"),
    "grad_output": (lambda: fc.Conv2d(w).backward(x, x), ValueError, r"grad_output: got shape"),
    "grad list": (lambda: fc.Conv2d(w).backward(x, [1]), TypeError, r"grad_output: got list"),
    "mode": (lambda: fc.Conv2d(w, padding=1, padding_mode="reflect").backward(x, ones(1, 6, 8, 8)), ValueError, r"padding_mode: "),
    "prepare": (lambda: fc.Conv2d(w).prepare((1, 5, 8, 8)), ValueError, r"weight: got 4 channels"),
    "explain": (lambda: fc.Conv2d(w).explain((8, 8)), ValueError, r"x: got 2 dimensions"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), LAYERS.values(), ids=LAYERS)
def test_layers(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_layer_attributes_are_read_only():
    layer = fc.Conv2d(w, stride=2)
    for name in ("weight", "bias", "stride"):
        with pytest.raises(AttributeError, match=f"{name} of a layer is read-only"):
            setattr(layer, name, None)
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0] = 0
    with pytest.raises(AttributeError, match="no attribute 'weights'"):
        layer.weights  # noqa: B018


def test_a_layer_checks_output_size_every_time():
    layer, image = fc.ConvTranspose2d(ones(1, 1, 3, 3), stride=2), ones(1, 4, 4)
    assert layer(image, output_size=10).shape == (1, 10, 10)
    with pytest.raises(TypeError, match=r"output_size: got 10\.0"):
        layer(image, output_size=10.0)
