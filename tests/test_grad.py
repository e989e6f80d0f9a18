"""Gradients: against the reference, against what defines them, and the traps that others fell into."""

import cases
import numpy as np
import pytest
from cases import arrays, bare, call, error, parse, same_bits, same_numbers, whole_numbers

import fastconv as fc
from fastconv import reference

TEXTS = [
    text
    for text in cases.WIDTHS + cases.CHANNELS + cases.STANDARD + cases.ATROUS + cases.DEPTHWISE + cases.POINTWISE
    + cases.TRANSPOSED
    if "residual" not in text
]  # fmt: skip
SMALL = [
    "conv2d,n2c4i5x6f6k3x2s2x1p1:0x0:2d1x2g2,float64",
    "conv2d,n2c4i5x6f6k3x2s2x1p1:0x0:2d1x2g2,float64,channels_last",
    "conv2d,n1c3i5x6f6k2p1g3,float64",
    "conv1d,n2c2i9f3k3s2p1,float64",
    "conv3d,n1c2i3x4x3f2k2p1,float64",
    "transposed2d,n2c4i3x4f6k3x2s2x3p1:0x0:1d1x2g2o1x2,float64",
    "transposed2d,n2c4i3x4f6k3x2s2x3p1:0x0:1d1x2g2o1x2,float64,channels_last",
    "transposed1d,n1c3i5f2k4s3p1o2,float64",
    "transposed3d,n1c2i2x3x2f2k2s2o1,float64",
]


def keywords(problem):
    sizes = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    if problem.operation == "transposed":
        sizes["output_padding"] = problem.output_padding
    return sizes | {"data_format": problem.data_format}


def gradients(module, problem, x, w, g):
    """With respect to x, the weight and a bias."""
    name = f"{'conv_transpose' if problem.operation == 'transposed' else 'conv'}{problem.dimensions}d"
    if not module.__name__.endswith("reference"):
        cases.computed["problems"] += 1
    return (
        getattr(module, f"{name}_input")(x.shape, w, g, **keywords(problem)),
        getattr(module, f"{name}_weight")(x, w.shape, g, **keywords(problem)),
        getattr(module, f"{name}_bias")(g, data_format=problem.data_format),
    )


def made(text, seed=0):
    problem = bare(parse(text))
    rng = np.random.default_rng(seed)
    given = arrays(problem, rng)
    return problem, given["x"], given["weight"], whole_numbers(rng, problem.out_shape, problem.dtype)


def input_error(problem, x, w, g):
    """How far off each number of the gradient with respect to x may be: it may be computed by winograd_4x4."""
    name = f"{'conv_transpose' if problem.operation == 'transposed' else 'conv'}{problem.dimensions}d_input"
    task = fc.explain(getattr(fc.grad, name), x.shape, w, g, **keywords(problem)).problem
    return error(task, {"x": g, "weight": w})


@pytest.mark.parametrize("text", TEXTS)
def test_gradients_equal_the_reference(text):
    problem, x, w, g = made(text)
    got, want = gradients(fc.grad, problem, x, w, g), gradients(reference, problem, x, w, g)
    for a, b, off in zip(got, want, (input_error(problem, x, w, g), 0, 0)):
        if np.any(off):
            assert a.dtype == b.dtype and (np.abs(a - b) <= off).all()
        else:
            same_numbers(a, b)
        assert a.flags.c_contiguous and a.flags.writeable and (a.size == 0 or a.ctypes.data % 64 == 0)
    if problem.batch == 0:
        assert not got[1].any() and not got[2].any()


@pytest.mark.parametrize("text", TEXTS)
def test_gradients_are_adjoint(text):
    """The sum of conv(x, w) * g is linear in x and in w: each gradient times its argument gives that sum."""
    problem, x, w, g = made(text, seed=1)
    out = call(fc, problem, {"x": x, "weight": w}, precision="highest")
    grad_x, grad_w, grad_b = gradients(fc.grad, problem, x, w, g)
    total = np.vdot(out.astype("f8"), g)
    assert np.abs(np.vdot(x.astype("f8"), grad_x) - total) <= (np.abs(x) * input_error(problem, x, w, g)).sum()
    assert np.vdot(w.astype("f8"), grad_w) == total
    axes = [axis for axis in range(g.ndim) if axis != (1 if problem.data_format == "channels_first" else g.ndim - 1)]
    np.testing.assert_array_equal(grad_b, g.sum(tuple(axes)))


@pytest.mark.parametrize("text", SMALL)
def test_finite_differences(text):
    """Of a linear function they are exact, with a step of 1."""
    problem, x, w, g = made(text)

    def loss(x, w):
        return (call(fc, problem, {"x": x, "weight": w}) * g).sum()

    grad_x, grad_w, _ = gradients(fc.grad, problem, x, w, g)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += 1
        assert loss(moved, w) - loss(x, w) == grad_x[index]
    for index in np.ndindex(w.shape):
        moved = w.copy()
        moved[index] += 1
        assert loss(x, moved) - loss(x, w) == grad_w[index]


@pytest.mark.parametrize("text", SMALL)
def test_views_and_unbatched(text):
    problem, x, w, g = made(text)
    want = gradients(fc.grad, problem, x, w, g)
    flip = (slice(None, None, -1),)
    others = [np.ascontiguousarray(a[flip * a.ndim])[flip * a.ndim] for a in (x, w, g)]
    swapped = [a.astype(">f8") for a in (x, w, g)]
    fortran = [np.asfortranarray(a) for a in (x, w, g)]
    for views in (others, swapped, fortran):
        for a, b in zip(gradients(fc.grad, problem, *views), want):
            same_bits(a, b)
    for a, b in zip(gradients(fc.grad, problem, x[0], w, g[0]), gradients(reference, problem, x[:1], w, g[:1])):
        same_numbers(a, b[0] if b.ndim == x.ndim and b.shape == x[:1].shape else b)


@pytest.mark.parametrize("text", ["conv2d,n2c9i33x31f17k3p1", "conv2d,n2c9i33x31f17k3p1,channels_last"])
def test_random_numbers_stay_within_the_bound(text):
    """|error| <= gamma_n times the gradient of absolute values; a weight meets batch x pixels numbers."""
    problem = parse(text)
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(s).astype("f4") for s in (problem.x_shape, problem.weight_shape, problem.out_shape))
    got, want = gradients(fc.grad, problem, x, w, g), gradients(reference, problem, x, w, g)
    scale = gradients(reference, problem, *map(np.abs, (x, w, g)))
    pixels = problem.batch * 33 * 31
    for a, b, s, n in zip(got, want, scale, (9 * 17, pixels, pixels)):
        nu = (n + 2) * np.finfo("f4").eps / 2
        assert (np.abs(a.astype("f8") - b) <= nu / (1 - nu) * s).all()


# The traps -----------------------------------------------------------------------------------------------------------


def test_weight_gradient_of_groups():
    """torch.nn.grad once gave a weight gradient of the wrong shape, or of mixed groups."""
    rng = np.random.default_rng(0)
    x, g = whole_numbers(rng, (2, 6, 7, 8), "f4"), whole_numbers(rng, (2, 9, 7, 8), "f4")
    got = fc.grad.conv2d_weight(x, (9, 2, 3, 3), g, padding=1, groups=3)
    assert got.shape == (9, 2, 3, 3)
    for group in range(3):
        its_x, its_g = x[:, 2 * group : 2 * group + 2], g[:, 3 * group : 3 * group + 3]
        same_bits(got[3 * group : 3 * group + 3], fc.grad.conv2d_weight(its_x, (3, 2, 3, 3), its_g, padding=1))


def test_dilation_is_not_ignored():
    """A kernel with gaps is a larger one with zeros, whose gradient is kept at the taps."""
    rng = np.random.default_rng(0)
    x, w, g = (whole_numbers(rng, shape, "f4") for shape in ((2, 3, 11, 12), (4, 3, 3, 3), (2, 4, 7, 8)))
    wide = np.zeros((4, 3, 5, 5), "f4")
    wide[:, :, ::2, ::2] = w
    same_bits(fc.grad.conv2d_input(x.shape, w, g, dilation=2), fc.grad.conv2d_input(x.shape, wide, g))
    dilated = fc.grad.conv2d_weight(x, w.shape, g, dilation=2)
    same_bits(dilated, np.ascontiguousarray(fc.grad.conv2d_weight(x, wide.shape, g)[:, :, ::2, ::2]))


@pytest.mark.parametrize("form", ["channels_first", "channels_last"])
def test_empty_batch_gives_zeros_not_garbage(form):
    x, g = ((0, 3, 8, 8), (0, 4, 8, 8)) if form == "channels_first" else ((0, 8, 8, 3), (0, 8, 8, 4))
    x, g = np.empty(x, "f4"), np.empty(g, "f4")
    same_bits(fc.grad.conv2d_weight(x, (4, 3, 3, 3), g, padding=1, data_format=form), np.zeros((4, 3, 3, 3), "f4"))
    same_bits(fc.grad.conv2d_bias(g, data_format=form), np.zeros(4, "f4"))
    assert fc.grad.conv2d_input(x.shape, np.ones((4, 3, 3, 3), "f4"), g, padding=1, data_format=form).shape == x.shape


def test_rows_that_no_window_reaches_have_gradient_zero():
    x, w, g = np.ones((1, 1, 8, 8), "f4"), np.ones((1, 1, 2, 2), "f4"), np.ones((1, 1, 3, 3), "f4")
    got = fc.grad.conv2d_input(x.shape, w, g, stride=3)
    assert not got[:, :, 2::3].any() and not got[:, :, :, 2::3].any() and got.sum() == 36


def test_padding_by_name_pads_as_forward_did():
    rng = np.random.default_rng(0)
    x, w = whole_numbers(rng, (1, 2, 8, 9), "f4"), whole_numbers(rng, (3, 2, 4, 3), "f4")
    for padding in ("same", "same_lower", "valid"):
        g = whole_numbers(rng, fc.conv2d(x, w, stride=2, padding=padding).shape, "f4")
        arguments = {"stride": 2, "padding": padding}
        same_numbers(fc.grad.conv2d_input(x.shape, w, g, **arguments), reference.conv2d_input(x.shape, w, g, **arguments))
        same_numbers(fc.grad.conv2d_weight(x, w.shape, g, **arguments), reference.conv2d_weight(x, w.shape, g, **arguments))


@pytest.mark.skipif(cases.torch is None, reason="torch is not installed")
@pytest.mark.parametrize("text", SMALL)
def test_torch_agrees(text):
    from torch.nn import functional as F

    problem, x, w, g = made(text)
    last, d = problem.data_format == "channels_last", problem.dimensions

    def tensor(a):
        return cases.torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1) if last else a)).requires_grad_()

    tx, tw, tg = tensor(x), cases.torch.from_numpy(w).requires_grad_(), tensor(g)
    if problem.operation == "transposed":
        sizes = problem.stride, 0, problem.output_padding, problem.groups, problem.dilation
        full = getattr(F, f"conv_transpose{d}d")(tx, tw, None, *sizes)
        result = full[(..., *(slice(b, size - a) for (b, a), size in zip(problem.pads, full.shape[2:])))]
    else:
        padded = F.pad(tx, [p for pad in problem.pads[::-1] for p in pad])
        result = getattr(F, f"conv{d}d")(padded, tw, None, problem.stride, 0, problem.dilation, problem.groups)
    (result * tg.detach()).sum().backward()
    grad_x, grad_w, _ = gradients(fc.grad, problem, x, w, g)
    want = tx.grad.numpy()
    np.testing.assert_array_equal(grad_x, np.moveaxis(want, 1, -1) if last else want)
    np.testing.assert_array_equal(grad_w, tw.grad.numpy())
