"""The reference against the definition number by number, against identities, and against torch."""

import math

import brute
import numpy as np
import pytest

from fastconv import reference

# batch, channels, filters, groups, image, kernel, stride, pads, dilation: each once, and in company
CONVOLUTIONS = [
    (1, 1, 1, 1, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (2, 1, 1, 1, (4, 5), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (1, 2, 3, 1, (4, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    (1, 2, 2, 1, (5, 4), (3, 2), (2, 1), ((1, 1), (0, 0)), (1, 1)),
    (1, 2, 2, 1, (5, 7), (2, 3), (2, 3), ((0, 0), (0, 0)), (1, 1)),
    (1, 1, 2, 1, (4, 4), (2, 2), (3, 3), ((1, 1), (1, 1)), (1, 1)),
    (1, 1, 2, 1, (6, 7), (2, 3), (1, 1), ((0, 0), (0, 0)), (2, 3)),
    (1, 2, 1, 1, (5, 6), (3, 2), (2, 1), ((2, 2), (1, 1)), (2, 3)),
    (1, 1, 1, 1, (3, 4), (2, 2), (1, 1), ((2, 0), (0, 1)), (1, 1)),
    (2, 1, 2, 1, (4, 5), (3, 2), (2, 2), ((0, 3), (1, 2)), (1, 2)),
    (1, 4, 4, 2, (4, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    (2, 4, 2, 2, (4, 5), (2, 2), (2, 2), ((1, 0), (0, 1)), (1, 1)),
    (1, 3, 3, 3, (4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    (1, 3, 6, 3, (5, 4), (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)),
    (1, 6, 3, 3, (3, 4), (2, 3), (1, 2), ((1, 1), (2, 0)), (2, 1)),
    (1, 3, 2, 1, (3, 4), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (1, 3, 2, 1, (5, 4), (1, 1), (2, 2), ((1, 0), (0, 1)), (1, 1)),
    (1, 1, 1, 1, (2, 2), (4, 4), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    (1, 2, 1, 1, (1, 8), (1, 5), (1, 3), ((0, 0), (4, 4)), (1, 1)),
    (1, 1, 1, 1, (2, 3), (2, 2), (1, 1), ((4, 3), (3, 5)), (1, 1)),
]  # fmt: skip

# batch, channels, filters, groups, image, kernel, stride, pads, output padding, dilation
TRANSPOSED = [
    (1, 1, 1, 1, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (0, 0), (1, 1)),
    (2, 2, 3, 1, (3, 4), (3, 3), (1, 1), ((0, 0), (0, 0)), (0, 0), (1, 1)),
    (1, 2, 2, 1, (3, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (0, 0), (1, 1)),
    (1, 1, 2, 1, (3, 2), (3, 3), (2, 2), ((1, 1), (1, 1)), (0, 0), (1, 1)),
    (1, 2, 1, 1, (3, 2), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    (1, 1, 1, 1, (2, 3), (2, 2), (3, 3), ((0, 0), (0, 0)), (2, 1), (1, 1)),  # gaps between the windows
    (1, 1, 1, 1, (2, 3), (1, 1), (2, 3), ((0, 0), (0, 0)), (1, 2), (1, 1)),
    (1, 1, 2, 1, (2, 3), (2, 2), (1, 1), ((0, 0), (0, 0)), (2, 1), (3, 2)),  # output padding of whole strides
    (1, 2, 1, 1, (3, 2), (2, 3), (2, 1), ((1, 0), (0, 2)), (3, 1), (4, 2)),
    (1, 1, 1, 1, (1, 1), (2, 2), (1, 1), ((3, 0), (5, 0)), (1, 2), (2, 3)),  # cropped to output padding alone
    (1, 4, 4, 2, (3, 3), (3, 2), (2, 1), ((1, 1), (0, 1)), (1, 0), (1, 1)),
    (2, 2, 6, 2, (2, 3), (2, 3), (1, 2), ((0, 1), (2, 0)), (0, 1), (2, 1)),
    (1, 3, 3, 3, (3, 3), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    (1, 6, 3, 3, (2, 2), (2, 2), (2, 3), ((0, 1), (1, 0)), (0, 2), (2, 2)),
]  # fmt: skip


def integers(*shape, seed=0):
    """Small whole numbers, whose sums of products are exact in any order."""
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(np.float64)


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def inner(a, b):
    assert a.shape == b.shape
    return float((a * b).sum())


# Against the definition ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_gradients_are_their_definition(case):
    batch, channels, filters, groups, image, kernel, stride, pads, dilation = case
    x, weight = integers(batch, channels, *image), integers(filters, channels // groups, *kernel)
    result = reference.conv2d(x, weight, None, stride, pads, dilation, groups)
    np.testing.assert_array_equal(result, brute.conv2d(x, weight, stride, pads, dilation, groups))
    grad = integers(*result.shape, seed=1)
    to_weight = reference.conv2d_weight(x, weight.shape, grad, stride, pads, dilation, groups)
    np.testing.assert_array_equal(to_weight, brute.conv2d_weight(x, weight.shape, grad, stride, pads, dilation, groups))
    to_x = reference.conv2d_input(x.shape, weight, grad, stride, pads, dilation, groups)
    assert to_x.shape == x.shape
    assert inner(result, grad) == inner(x, to_x) == inner(weight, to_weight)


@pytest.mark.parametrize("case", [case for case in CONVOLUTIONS if math.prod(case[4]) <= 20], ids=str)
def test_input_gradient_is_the_derivative(case):
    """The gradient at each number of x is how much the sum grows when that number grows by one."""
    batch, channels, filters, groups, image, kernel, stride, pads, dilation = case
    weight = integers(filters, channels // groups, *kernel)
    geometry = (stride, pads, dilation, groups)
    nothing = np.zeros((batch, channels, *image))
    grad = integers(*brute.conv2d(nothing, weight, *geometry).shape, seed=1)
    expected = np.zeros_like(nothing)
    for place in np.ndindex(nothing.shape):
        one = nothing.copy()
        one[place] = 1
        expected[place] = inner(reference.conv2d(one, weight, None, *geometry), grad)
    np.testing.assert_array_equal(reference.conv2d_input(nothing.shape, weight, grad, *geometry), expected)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution_and_gradients_are_their_definition(case):
    batch, channels, filters, groups, image, kernel, stride, pads, output_padding, dilation = case
    x, weight = integers(batch, channels, *image), integers(channels, filters // groups, *kernel)
    geometry = (stride, pads, output_padding, groups, dilation)
    result = reference.conv_transpose2d(x, weight, None, *geometry)
    np.testing.assert_array_equal(result, brute.conv_transpose2d(x, weight, stride, pads, output_padding, dilation, groups))
    grad = integers(*result.shape, seed=1)
    to_weight = reference.conv_transpose2d_weight(x, weight.shape, grad, *geometry)
    expected = brute.conv_transpose2d_weight(x, weight.shape, grad, stride, pads, dilation, groups)
    np.testing.assert_array_equal(to_weight, expected)
    to_x = reference.conv_transpose2d_input(x.shape, weight, grad, *geometry)
    assert inner(result, grad) == inner(x, to_x) == inner(weight, to_weight)


def test_transposed_is_the_gradient_of_a_convolution():
    x, weight = integers(2, 4, 7, 8), integers(6, 2, 3, 3)
    grad = integers(*reference.conv2d(x, weight, None, (2, 3), (1, 2), 1, 2).shape)
    expected = reference.conv2d_input(x.shape, weight, grad, (2, 3), (1, 2), 1, 2)
    result = reference.conv_transpose2d(grad, weight, None, (2, 3), (1, 2), groups=2, output_size=(7, 8))
    np.testing.assert_array_equal(result, expected)


# One and three dimensions ----------------------------------------------------------------------------------------------


def test_one_dimension_is_two_with_a_row():
    x, weight, bias = integers(2, 4, 9), integers(6, 2, 3), integers(6)
    result = reference.conv1d(x, weight, bias, 2, ((1, 2),), 2, 2)
    rows = ((0, 0), (1, 2))
    expected = reference.conv2d(x[:, :, None], weight[:, :, None], bias, (1, 2), rows, (1, 2), 2)
    np.testing.assert_array_equal(result, expected[:, :, 0])
    grad = integers(*result.shape)
    np.testing.assert_array_equal(
        reference.conv1d_input(x.shape, weight, grad, 2, ((1, 2),), 2, 2),
        reference.conv2d_input(x[:, :, None].shape, weight[:, :, None], grad[:, :, None], (1, 2), rows, (1, 2), 2)[:, :, 0],
    )  # fmt: skip
    np.testing.assert_array_equal(
        reference.conv1d_weight(x, weight.shape, grad, 2, ((1, 2),), 2, 2),
        brute.conv2d_weight(x[:, :, None], (6, 2, 1, 3), grad[:, :, None], (1, 2), rows, (1, 2), 2)[:, :, 0],
    )


def test_one_dimension_transposed_is_two_with_a_row():
    x, weight = integers(2, 4, 5), integers(4, 3, 3)
    result = reference.conv_transpose1d(x, weight, None, 3, 1, 2, 2, 2)
    expected = brute.conv_transpose2d(x[:, :, None], weight[:, :, None], (1, 3), ((0, 0), (1, 1)), (0, 2), (1, 2), groups=2)
    np.testing.assert_array_equal(result, expected[:, :, 0])


def test_three_dimensions_are_sums_of_two():
    """Slice o of the result is the sum over depth k of the slices o * stride + k * dilation, convolved by slice k."""
    x, weight = integers(2, 4, 7, 5, 6), integers(2, 2, 3, 2, 3)
    result = reference.conv3d(x, weight, None, (2, 1, 2), (1, 0, 1), (2, 1, 1), 2)
    depth = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0)])
    for o in range(result.shape[2]):
        slices = (brute.conv2d(depth[:, :, o * 2 + k * 2], weight[:, :, k], (1, 2), ((0, 0), (1, 1)), (1, 1), 2) for k in range(3))
        np.testing.assert_array_equal(result[:, :, o], sum(slices))
    assert result.shape[2] == 3


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("batched", [True, False])
def test_gradients_are_adjoint(dimensions, data_format, batched):
    last = data_format == "channels_last"
    shape = (*(6, 5, 7)[:dimensions], 4) if last else (4, *(6, 5, 7)[:dimensions])
    x = integers(*(2,) * batched, *shape)
    conv, to_x, to_weight = (getattr(reference, f"conv{dimensions}d{end}") for end in ("", "_input", "_weight"))
    weight = integers(6, 2, *(3, 2, 3)[:dimensions])
    geometry = (2, ((1, 2),) * dimensions, 2, 2)
    result = conv(x, weight, None, *geometry, data_format=data_format)
    grad = integers(*result.shape, seed=1)
    by_x = inner(x, to_x(x.shape, weight, grad, *geometry, data_format=data_format))
    by_weight = inner(weight, to_weight(x, weight.shape, grad, *geometry, data_format=data_format))
    assert inner(result, grad) == by_x == by_weight

    conv, to_x, to_weight = (getattr(reference, f"conv_transpose{dimensions}d{end}") for end in ("", "_input", "_weight"))
    weight = integers(4, 3, *(3, 2, 3)[:dimensions])
    geometry = (2, ((1, 2),) * dimensions, 1, 2, 3)
    result = conv(x, weight, None, *geometry, data_format=data_format)
    grad = integers(*result.shape, seed=1)
    by_x = inner(x, to_x(x.shape, weight, grad, *geometry, data_format=data_format))
    by_weight = inner(weight, to_weight(x, weight.shape, grad, *geometry, data_format=data_format))
    assert inner(result, grad) == by_x == by_weight


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_bias_gradient_sums_over_batch_and_space(name, dimensions):
    gradient = getattr(reference, f"{name}{dimensions}d_bias")
    grad = integers(2, 3, *(4, 5, 6)[:dimensions])
    expected = [grad[:, c].sum() for c in range(3)]
    np.testing.assert_array_equal(gradient(grad), expected)
    np.testing.assert_array_equal(gradient(np.moveaxis(grad, 1, -1), data_format="channels_last"), expected)
    np.testing.assert_array_equal(gradient(grad[1]), [grad[1, c].sum() for c in range(3)])
    assert gradient(grad.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="grad_output"):
        gradient(grad[0, 0])


# Padding ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"),
     ("symmetric", "symmetric")],
)  # fmt: skip
def test_padding_modes_are_numpys(mode, numpy_mode):
    x, weight = integers(2, 2, 5, 6), integers(3, 2, 3, 3)
    padded = np.pad(x, [(0, 0), (0, 0), (2, 1), (3, 4)], numpy_mode)
    expected = brute.conv2d(padded, weight, (2, 1), ((0, 0), (0, 0)), (1, 2), 1)
    result = reference.conv2d(x, weight, None, (2, 1), ((2, 1), (3, 4)), (1, 2), padding_mode=mode)
    np.testing.assert_array_equal(result, expected)
    volume, block = integers(1, 2, 4, 3, 5), integers(3, 2, 2, 2, 2)
    padded = np.pad(volume, [(0, 0), (0, 0), (1, 2), (2, 0), (0, 1)], numpy_mode)
    result = reference.conv3d(volume, block, padding=((1, 2), (2, 0), (0, 1)), padding_mode=mode)
    np.testing.assert_array_equal(result, reference.conv3d(padded, block))


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)])
def test_same_padding(size, kernel, stride, dilation):
    x, weight = integers(1, 1, size), integers(1, 1, kernel)
    total = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    for name, pad in (
        ("same", (total // 2, total - total // 2)),
        ("same_lower", (total - total // 2, total // 2)),
    ):
        result = reference.conv1d(x, weight, None, stride, name, dilation)
        assert result.shape == (1, 1, math.ceil(size / stride))
        rows = brute.conv2d(x[:, :, None], weight[:, :, None], (1, stride), ((0, 0), pad), (1, dilation), 1)
        np.testing.assert_array_equal(result, rows[:, :, 0])
        grad = integers(*result.shape)
        to_x = reference.conv1d_input(x.shape, weight, grad, stride, name, dilation)
        to_weight = reference.conv1d_weight(x, weight.shape, grad, stride, name, dilation)
        assert inner(result, grad) == inner(x, to_x) == inner(weight, to_weight)


def test_valid_padding_is_none():
    x, weight = integers(1, 2, 5, 6), integers(3, 2, 2, 3)
    np.testing.assert_array_equal(reference.conv2d(x, weight, padding="valid"), reference.conv2d(x, weight))


# What happens to a sum ------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    None: lambda v: v,
    "relu": lambda v: max(v, 0),
    "relu6": lambda v: min(max(v, 0), 6),
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    ("leaky_relu", 0.25): lambda v: v if v > 0 else 0.25 * v,
    ("clip", -1.5, 2): lambda v: min(max(v, -1.5), 2),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "hardswish": lambda v: 0 if v <= -3 else v if v >= 3 else v * (v + 3) / 6,
    "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(activation):
    values = np.append(np.linspace(-9, 9, 73), np.nan).reshape(1, 1, -1)
    result = reference.conv1d(values, np.ones((1, 1, 1)), activation=activation)
    expected = [ACTIVATIONS[activation](float(v)) for v in values[0, 0, :-1]]
    np.testing.assert_allclose(result[0, 0, :-1], expected, rtol=1e-14, atol=1e-15)
    assert np.isnan(result[0, 0, -1])


def test_bias_and_residual_come_before_the_activation():
    x, weight, bias = integers(2, 2, 4, 5), integers(3, 2, 3, 3), integers(3)
    plain = brute.conv2d(x, weight, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    residual, bias_map = integers(*plain.shape), integers(*plain.shape[1:])
    result = reference.conv2d(x, weight, bias, residual=residual, activation="relu")
    np.testing.assert_array_equal(result, np.maximum(plain + bias[:, None, None] + residual, 0))
    result = reference.conv2d(x, weight, bias_map, residual=residual, activation=("clip", -3, 20))
    np.testing.assert_array_equal(result, np.clip(plain + bias_map + residual, -3, 20))
    result = reference.conv2d(x[0], weight, bias_map, residual=residual[0])
    np.testing.assert_array_equal(result, plain[0] + bias_map + residual[0])
    last = reference.conv2d(
        np.moveaxis(x, 1, -1), weight, np.moveaxis(bias_map, 0, -1), residual=np.moveaxis(residual, 1, -1),
        data_format="channels_last",
    )  # fmt: skip
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), plain + bias_map + residual)


# Layouts and shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("name", ["conv", "conv_transpose", "depthwise_conv"])
def test_channels_last_and_unbatched(name, dimensions):
    function = getattr(reference, f"{name}{dimensions}d")
    x = integers(2, 4, *(5, 6, 4)[:dimensions])
    weight = integers(*{"conv": (6, 4), "conv_transpose": (4, 6), "depthwise_conv": (8, 1)}[name], *(3,) * dimensions)
    options = {"stride": 2, "padding": 1, "activation": "relu"}
    expected = function(x, weight, **options)
    last = function(np.moveaxis(x, 1, -1), weight, data_format="channels_last", **options)
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), expected)
    np.testing.assert_array_equal(function(x[1], weight, **options), expected[1])
    single = function(np.moveaxis(x[1], 0, -1), weight, data_format="channels_last", **options)
    np.testing.assert_array_equal(single, last[1])
    assert expected.flags.c_contiguous and last.flags.c_contiguous and single.flags.c_contiguous


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_no_images(data_format):
    last = data_format == "channels_last"
    x, weight, back = np.zeros((0, 5, 6, 4) if last else (0, 4, 5, 6)), integers(6, 2, 3, 3), integers(4, 3, 3, 3)
    for mode in ("zeros", "reflect", "replicate", "circular", "symmetric"):
        result = reference.conv2d(x, weight, None, 1, 1, 1, 2, padding_mode=mode, activation="gelu", data_format=data_format)
        assert result.shape == ((0, 5, 6, 6) if last else (0, 6, 5, 6))
    to_weight = reference.conv2d_weight(x, weight.shape, result, 1, 1, 1, 2, data_format=data_format)
    np.testing.assert_array_equal(to_weight, np.zeros(weight.shape))
    assert reference.conv2d_input(x.shape, weight, result, 1, 1, 1, 2, data_format=data_format).shape == x.shape
    np.testing.assert_array_equal(reference.conv2d_bias(result, data_format=data_format), np.zeros(6))
    result = reference.conv_transpose2d(x, back, None, 2, 1, 1, 2, data_format=data_format)
    assert result.shape == ((0, 10, 12, 6) if last else (0, 6, 10, 12))
    to_weight = reference.conv_transpose2d_weight(x, back.shape, result, 2, 1, 1, 2, data_format=data_format)
    np.testing.assert_array_equal(to_weight, np.zeros(back.shape))


def test_rounds_once_to_the_dtype_of_x():
    x, weight = real(2, 3, 6, 7).astype(np.float32), real(4, 3, 3, 3).astype(np.float32)
    result = reference.conv2d(x, weight, activation="silu")
    exact = reference.conv2d(x.astype(np.float64), weight.astype(np.float64), activation="silu")
    assert result.dtype == np.float32 and exact.dtype == np.float64
    np.testing.assert_array_equal(result, exact.astype(np.float32))
    swapped = reference.conv2d(x.astype(">f4"), weight, activation="silu")
    assert swapped.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(swapped, result)


def test_out_is_filled_and_returned():
    x, weight = integers(2, 2, 4, 5).astype(np.float32), integers(3, 2, 3, 3).astype(np.float32)
    out = np.full((2, 3, 2, 3), np.nan, np.float32)
    assert reference.conv2d(x, weight, out=out) is out
    np.testing.assert_array_equal(out, reference.conv2d(x, weight))
    with pytest.raises(ValueError, match="out"):
        reference.conv2d(x, weight, out=out[0])


def test_algorithm_and_precision_mean_nothing():
    x, weight = real(1, 2, 8, 8), real(3, 2, 3, 3)
    expected = reference.conv2d(x, weight)
    for algorithm in ("auto", "direct", "tiled", "winograd"):
        result = reference.conv2d(x, weight, algorithm=algorithm, precision="highest")
        np.testing.assert_array_equal(result, expected)


@pytest.mark.filterwarnings("error")
def test_nan_and_infinity_stay_under_their_windows():
    x, weight = np.ones((1, 1, 7, 7), np.float32), np.ones((1, 1, 3, 3), np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        x[0, 0, 0, 0] = bad
        result = reference.conv2d(x, weight, padding=1)
        np.testing.assert_array_equal(result[0, 0, :2, :2], np.full((2, 2), bad))
        assert np.isfinite(result[0, 0, 2:]).all() and np.isfinite(result[0, 0, :, 2:]).all()
    x[0, 0, 0, 0] = np.inf
    assert np.isnan(reference.conv2d(x, weight * 0)[0, 0, 0, 0])
    huge = np.full((1, 1, 3), 3e38, np.float32)
    assert reference.conv1d(huge, np.ones((1, 1, 2), np.float32))[0, 0, 0] == np.inf
    assert reference.conv1d(-huge, np.ones((1, 1, 2), np.float32), activation="sigmoid")[0, 0, 0] == 0


def test_errors_are_the_builders():
    x, weight = integers(1, 2, 4, 4), integers(3, 2, 3, 3)
    with pytest.raises(ValueError, match="stride"):
        reference.conv2d(x, weight, stride=0)
    with pytest.raises(TypeError, match="dilation"):
        reference.conv2d(x, weight, dilation=1.0)
    with pytest.raises(ValueError, match="algorithm"):
        reference.conv2d(x, weight, algorithm="fft")
    with pytest.raises(ValueError, match="grad_output"):
        reference.conv2d_input(x.shape, weight, integers(1, 3, 3, 2))
    with pytest.raises(ValueError, match="output_size"):
        reference.conv_transpose2d(integers(1, 3, 4, 4), weight, stride=2, output_size=(8, 8))


# Relatives of the convolution -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_depthwise_is_a_group_a_channel(dimensions):
    x, weight, bias = (
        integers(2, 3, *(5, 6, 4)[:dimensions]),
        integers(6, 1, *(3, 2, 3)[:dimensions]),
        integers(6),
    )
    depthwise, conv = (getattr(reference, f"{name}{dimensions}d") for name in ("depthwise_conv", "conv"))
    result = depthwise(x, weight, bias, 2, 1, 1)
    np.testing.assert_array_equal(result, conv(x, weight, bias, 2, 1, 1, 3))
    for channel, m in np.ndindex(3, 2):
        f = channel * 2 + m
        alone = conv(x[:, channel : channel + 1], weight[f : f + 1], bias[f : f + 1], 2, 1, 1)
        np.testing.assert_array_equal(result[:, f : f + 1], alone)


def test_pointwise_is_a_matrix_a_pixel():
    x, weight, bias = integers(2, 3, 4, 5), integers(6, 3), integers(6)
    expected = np.einsum("fc,nchw->nfhw", weight, x[:, :, ::2, ::2]) + bias[:, None, None]
    np.testing.assert_array_equal(reference.pointwise_conv2d(x, weight, bias, 2), expected)
    np.testing.assert_array_equal(reference.pointwise_conv2d(x, weight[:, :, None, None], bias, 2), expected)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_separable_is_depthwise_then_pointwise(data_format):
    x = integers(2, 4, 5, 6) if data_format == "channels_first" else integers(2, 5, 6, 4)
    depthwise, pointwise, between, bias = integers(8, 1, 3, 3), integers(5, 8), integers(8), integers(5)
    options = {"padding_mode": "reflect", "data_format": data_format}
    middle = reference.depthwise_conv2d(x, depthwise, between, (2, 1), 1, 1, activation="relu", **options)
    expected = reference.pointwise_conv2d(middle, pointwise, bias, data_format=data_format)
    residual = integers(*expected.shape)
    for matrix in (pointwise, pointwise[:, :, None, None]):
        result = reference.separable_conv2d(
            x, depthwise, matrix, between, bias, (2, 1), 1, depthwise_activation="relu", activation="relu6",
            residual=residual, **options,
        )  # fmt: skip
        np.testing.assert_array_equal(result, np.clip(expected + residual, 0, 6))
        single = reference.separable_conv2d(
            x[1], depthwise, matrix, between, bias, (2, 1), 1, depthwise_activation="relu", **options
        )
        np.testing.assert_array_equal(single, expected[1])


def test_atrous_is_dilated():
    x, weight = integers(1, 4, 9, 8), integers(2, 2, 3, 3)
    expected = brute.conv2d(x, weight, (2, 2), ((1, 1), (1, 1)), (3, 3), 2)
    np.testing.assert_array_equal(reference.atrous_conv2d(x, weight, None, 3, 1, 2, 2), expected)
    by_two = brute.conv2d(x, weight, (1, 1), ((0, 0), (0, 0)), (2, 2), 2)
    np.testing.assert_array_equal(reference.atrous_conv2d(x, weight, groups=2), by_two)


# Against torch ----------------------------------------------------------------------------------------------------------


def is_torchs(name, x, weight, bias, geometry):
    """A function and its gradients."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    expected = getattr(torch.nn.functional, name)(*tensors, *geometry)
    result = getattr(reference, name)(x, weight, bias, *geometry)
    np.testing.assert_allclose(result, expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    grad = real(*result.shape, seed=1)
    expected.backward(torch.tensor(grad))
    gradients = (
        getattr(reference, f"{name}_input")(x.shape, weight, grad, *geometry),
        getattr(reference, f"{name}_weight")(x, weight.shape, grad, *geometry),
        getattr(reference, f"{name}_bias")(grad),
    )
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("geometry", [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 4), (3, 1, 2, 2)])  # stride, padding, dilation, groups
def test_convolution_is_torchs(dimensions, geometry):
    x, weight = real(2, 4, *(9, 8, 7)[:dimensions]), real(8, 4 // geometry[-1], *(3, 2, 3)[:dimensions])
    is_torchs(f"conv{dimensions}d", x, weight, real(8), geometry)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "groups", "dilation"),
    [(1, 0, 0, 1, 1), (2, 1, 1, 2, 1), (3, 2, 2, 4, 2), (1, 1, 1, 2, 2)],
)
def test_transposed_convolution_is_torchs(dimensions, stride, padding, output_padding, groups, dilation):
    x, weight = real(2, 4, *(5, 4, 3)[:dimensions]), real(4, 2, *(3, 2, 3)[:dimensions])
    geometry = stride, padding, output_padding, groups, dilation
    is_torchs(f"conv_transpose{dimensions}d", x, weight, real(2 * groups), geometry)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu"])
def test_activations_are_torchs(name):
    torch = pytest.importorskip("torch")
    x = 4 * real(1, 1, 200)
    expected = getattr(torch.nn.functional, name)(torch.tensor(x)).numpy()
    result = reference.conv1d(x, np.ones((1, 1, 1)), activation=name)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-15)
