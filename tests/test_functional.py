"""Every function against the reference: to the last bit where the sums are exact, within a derived bound where not."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
from cases import CASES, arrays, bare, call, depth, parse, parts, rounded, same_bits, same_result
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv as fc

EACH_KERNEL = [
    f"{text}{last}"
    for text in (
        "conv2d,n2c9i6x17f5k3s2x1p1:2x0:1,bias,residual",
        "conv2d,n2c9i9x17f5k3p2d2,bias,residual",
        "conv2d,n2c9i6x17f18k3p1g9,bias,residual",
        "conv2d,n2c9i6x17f5k1,bias,residual",
        "transposed2d,n2c9i4x9f5k3s2p1,bias,residual",
    )
    for last in ("", ",channels_last", ",reflect", ",float64,pixelbias")
    if not (text.startswith("transposed") and last == ",reflect")
] + [
    "conv2d,n1c9i6x17f9k3p1g9,bias+conv2d,n1c9i6x17f5k1,bias,residual",
    "conv2d,n1c9i6x17f9k3p1g9,bias,channels_last+conv2d,n1c9i6x17f5k1,bias,residual,channels_last",
    "conv1d,n2c3i33f4k3p1,bias",
    "conv3d,n1c3i4x5x9f4k3p1,bias",
]


def made(text, seed=0, **keywords):
    problem = parse(text)
    return problem, arrays(problem, np.random.default_rng(seed), **keywords)


@pytest.mark.parametrize("text", CASES)
def test_case_equals_the_reference(text):
    problem, given_ = made(text)
    before = {name: array.copy() for name, array in given_.items()}
    got, want = call(fc, problem, given_, precision="highest"), call(fc.reference, problem, given_)
    assert got.flags.c_contiguous and got.flags.writeable
    assert got.size == 0 or got.ctypes.data % 64 == 0
    if rounded(problem):
        within_a_few_ulp(problem, given_, got, want)
    else:
        same_bits(got, want)
    for name, array in before.items():
        same_bits(given_[name], array)


def within_a_few_ulp(problem, given_, got, want):
    """An activation of an exact sum v, in eps = 2 units in the last place.

    exp, tanh and erf are good to 4 ulp (SVML's promise; libm's are better), and at most three operations of half an ulp
    follow, one more is the reference's own rounding: 8 eps of the result is twice that. gelu's 1 + erf cancels where v
    is negative, so that its error is relative to v, not to the result. Where exp overflows, from ln(max) on, sigmoid is
    0 instead of at most 1 / max < tiny, and silu 0 instead of v times that.
    """
    info = np.finfo(problem.dtype)
    v = np.abs(call(fc.reference, bare(problem), given_).astype(np.float64))
    size = v if parts(problem)[-1].activation.name == "gelu" else np.abs(want)
    assert got.dtype == want.dtype and got.shape == want.shape
    assert (np.abs(got - want.astype(np.float64)) <= 8 * info.eps * size + info.tiny * np.maximum(v, 1)).all()


@pytest.mark.parametrize("text", CASES)
def test_random_numbers_stay_within_the_bound(text):
    """|error| <= gamma_n conv(|x|, |w|), gamma_n = n u / (1 - n u), whatever the order (Higham 2002, section 3.1)."""
    problem = bare(parse(text))
    given_ = arrays(problem, np.random.default_rng(1), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
    got = call(fc, problem, given_, precision="highest").astype(np.float64)
    want = call(fc.reference, problem, given_).astype(np.float64)
    scale = call(fc.reference, problem, {name: np.abs(a) for name, a in given_.items()}).astype(np.float64)
    u = np.finfo(problem.dtype if isinstance(problem, fc.Problem) else parts(problem)[0].dtype).eps / 2
    n = depth(problem) + 2  # the reference rounds once, and once more its scale
    if parts(problem)[0].dtype == "float64":
        n *= 2  # then the reference's sums round as well
    assert (np.abs(got - want) <= n * u / (1 - n * u) * scale).all()


@pytest.mark.parametrize("inner", ["sigmoid", "tanh", "silu", "hardswish", "gelu", "leaky_relu"])
@pytest.mark.parametrize("last", ["", ",channels_last"])
def test_separable_is_pointwise_of_depthwise(inner, last):
    problem, given_ = made(f"conv2d,n2c9i7x17f18k3p1g9,bias,{inner}{last}+conv2d,n2c18i7x17f5k1,bias,relu{last}")
    form = {"data_format": problem.data_format}
    got = call(fc, problem, given_)
    x, depthwise, b, pointwise, c = given_.values()
    between = fc.depthwise_conv2d(x, depthwise, b, padding=1, activation=inner, **form)
    want = fc.reference.pointwise_conv2d(between, pointwise, c, activation="relu", **form)
    scale = fc.reference.pointwise_conv2d(np.abs(between), np.abs(pointwise), np.abs(c), **form)
    assert (np.abs(got - want) <= 21 * np.finfo("f4").eps * scale).all()


# Views ---------------------------------------------------------------------------------------------------------------


def strided(a):
    room = np.full([2 * size + 1 for size in a.shape], 99, a.dtype)
    view = room[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def reversed_(a):
    return np.ascontiguousarray(a[(slice(None, None, -1),) * a.ndim])[(slice(None, None, -1),) * a.ndim]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def misaligned(a):
    room = bytearray(a.nbytes + 1)
    view = np.frombuffer(room, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def fraction_apart(a):
    """In records of an odd number of bytes."""
    records = np.zeros(a.shape, [("a", a.dtype), ("b", "i1")])
    records["a"] = a
    return records["a"]


VIEWS = {
    "strided": strided,
    "reversed": reversed_,
    "read-only": read_only,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "Fortran": np.asfortranarray,
    "last axis second": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a,
    "second axis last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 1)), 1, -1) if a.ndim > 1 else a,
    "misaligned": misaligned,
    "fraction apart": fraction_apart,
    "subclass": lambda a: a.view(type("Other", (np.ndarray,), {})),
}


@pytest.mark.parametrize("text", EACH_KERNEL)
@pytest.mark.parametrize("view", VIEWS)
def test_views_give_the_same_bits(text, view):
    problem, given_ = made(text)
    want = call(fc, problem, given_)
    for seen in ([name] for name in given_), [given_]:
        for names in seen:
            viewed = {name: VIEWS[view](a) if name in names else a for name, a in given_.items()}
            got = call(fc, problem, viewed)
            same_result(problem, given_, np.asarray(got), want, viewed["x"])
            for name, a in given_.items():
                np.testing.assert_array_equal(viewed[name], a)


def test_arrays_that_differ_in_alignment_alone():
    """A copy of the one has other strides than the other."""
    rng = np.random.default_rng(0)
    x, above = (rng.integers(-4, 5, (2, 9, 6, 17)).astype("f4").transpose(0, 2, 3, 1) for _ in "xy")
    w = rng.integers(-4, 5, (9, 9, 3, 3)).astype("f4")
    last = {"padding": 1, "data_format": "channels_last"}
    layer, depthwise = fc.Conv2d(w, **last), w[:, :1]
    turned = [misaligned(a.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1) for a in (x, above)]
    for function in (
        lambda x, above: fc.conv2d(x, w, **last),
        lambda x, above: layer(x),
        lambda x, above: fc.separable_conv2d(x, depthwise, w[:, :, 0, 0].copy(), **last),
        lambda x, above: fc.grad.conv2d_input(x.shape, w, above, **last),
        lambda x, above: fc.grad.conv2d_weight(x, w.shape, above, **last),
    ):
        want = function(np.ascontiguousarray(x), np.ascontiguousarray(above))
        for pair in (turned, (x, above), turned):
            same_bits(function(*pair), want)


def test_broadcast_image():
    x = np.broadcast_to(np.float32(2), (2, 3, 6, 17))
    w = np.ones((4, 3, 3, 3), "f4")
    same_bits(fc.conv2d(x, w, padding=1), fc.reference.conv2d(x, w, padding=1))


@pytest.mark.parametrize("text", EACH_KERNEL)
def test_unbatched(text):
    problem, given_ = made(text)
    whole = call(fc, problem, given_)
    single = {name: a[0] if name in ("x", "residual") else a for name, a in given_.items()}
    got = call(fc, problem, single)
    same_result(problem, single, got, whole[0], given_["x"])
    same_result(problem, single, got, call(fc.reference, problem, single))


@pytest.mark.parametrize("text", EACH_KERNEL)
def test_out(text):
    problem, given_ = made(text)
    want = call(fc, problem, given_)
    out = np.full_like(want, np.nan)
    assert call(fc, problem, given_, out=out) is out
    same_bits(out, want)
    unbatched = np.full_like(want[0], np.nan)
    single = {name: a[0] if name in ("x", "residual") else a for name, a in given_.items()}
    assert call(fc, problem, single, out=unbatched) is unbatched
    same_result(problem, single, unbatched, want[0], given_["x"])
    shifted = np.full(want.size + 1, np.nan, want.dtype)[1:].reshape(want.shape)  # of no great alignment
    same_bits(call(fc, problem, given_, out=shifted), want)


# NaN and infinity ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("text", EACH_KERNEL)
def test_nan_and_infinity_propagate(text, value):
    problem, given_ = made(text + ",direct" if "+" not in text else text)
    rng = np.random.default_rng(2)
    for name, among in (("x", 40), ("residual", 40), ("bias", 2)):
        if name in given_:
            flat = given_[name].reshape(-1)
            flat[rng.choice(flat.size, max(1, flat.size // among), replace=False)] = value
    np.testing.assert_array_equal(call(fc, problem, given_), call(fc.reference, problem, given_))


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu"])
def test_nan_passes_every_activation(name):
    x = np.array([[[np.nan, 1]]], "f4")
    got = fc.conv1d(x, np.ones((1, 1, 1), "f4"), activation=name)
    assert np.isnan(got[0, 0, 0]) and not np.isnan(got[0, 0, 1])


# A second oracle -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cases.torch is None, reason="torch is not installed")
@pytest.mark.parametrize("text", [t for t in CASES if "+" not in t and "symmetric" not in t and "n0" not in t])
def test_torch_agrees(text):
    from torch.nn import functional as F

    problem = bare(parse(text))
    given_ = arrays(problem, np.random.default_rng(3))
    last, d = problem.data_format == "channels_last", problem.dimensions

    def tensor(a):
        return cases.torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, -1 - d) if last else a).astype("f8"))

    x, w = tensor(given_["x"]), cases.torch.from_numpy(given_["weight"].astype("f8"))
    if problem.operation == "transposed":
        sizes = problem.stride, 0, problem.output_padding, problem.groups, problem.dilation
        full = getattr(F, f"conv_transpose{d}d")(x, w, None, *sizes)
        crop = [slice(b, size - a) for (b, a), size in zip(problem.pads, full.shape[2:])]
        result = full[(..., *crop)]
    else:
        mode = {"zeros": "constant"}.get(problem.padding_mode, problem.padding_mode)
        if any(map(any, problem.pads)):
            x = F.pad(x, [p for pad in problem.pads[::-1] for p in pad], mode)
        result = getattr(F, f"conv{d}d")(x, w, None, problem.stride, 0, problem.dilation, problem.groups)
    result = np.moveaxis(result.numpy(), 1, -1) if last else result.numpy()
    if problem.bias == "pixel":
        result = result + given_["bias"]
    elif problem.bias == "channel":
        result = result + (given_["bias"] if last else given_["bias"].reshape(-1, *(1,) * d))
    result = result + given_.get("residual", 0)
    same_result(problem, given_, call(fc, problem, given_) + 0, result.astype(problem.dtype) + 0)  # + 0: zeros of one sign


# Threads -------------------------------------------------------------------------------------------------------------

LARGE = [
    "conv2d,n1c16i70x65f24k3p1,bias,relu",
    "conv2d,n1c16i70x65f24k3p1,channels_last",
    "conv2d,n2c40i33x31f40k3p1g40",
    "conv2d,n2c40i33x31f40k3p1g40,channels_last",
    "conv2d,n1c64i40x40f33k1",
    "transposed2d,n1c16i33x31f9k3s2p1",
    "conv2d,n1c17i70x65f17k3p1g17+conv2d,n1c17i70x65f9k1",
    "conv2d,n1c17i70x65f17k3p1g17,channels_last+conv2d,n1c17i70x65f9k1,channels_last",
]


def digest():
    """Of the results of random numbers, and of their gradients: any other order of additions would change it."""
    bits = hashlib.sha256()
    for text in LARGE + EACH_KERNEL:
        problem = parse(text)
        given_ = arrays(problem, np.random.default_rng(1), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))
        bits.update(call(fc, problem, given_).tobytes())
    x, g = np.random.default_rng(2).standard_normal((2, 2, 16, 33, 31)).astype("f4")
    bits.update(fc.grad.conv2d_weight(x, (16, 16, 3, 3), g, padding=1).tobytes())
    bits.update(fc.grad.conv2d_bias(g).tobytes())
    return bits.hexdigest()


def test_threads_do_not_change_a_bit():
    with fc.num_threads(1):
        want = digest()
    # Two helpers on any machine, even of one core; Numba's threads as well, which a process cannot get rid of again.
    script = (
        "import conftest, fastconv as fc, test_functional as t\n"
        "for threading in 'team', 'numba':\n"
        "    fc.set_threading(threading)\n"
        "    for n in 1, 2, 3:\n"
        "        fc.set_num_threads(n)\n"
        "        print(t.digest())\n"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"FASTCONV_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "3", "PYTHONPATH": paths}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [want] * 6


# Whatever else -------------------------------------------------------------------------------------------------------


@st.composite
def problems(draw):
    """A random problem's text."""
    d = draw(st.integers(1, 3))
    most = {1: 40, 2: 12, 3: 6}[d]
    groups, per, each = draw(st.integers(1, 3)), draw(st.integers(1, 10)), draw(st.integers(1, 10))
    if draw(st.booleans()):
        groups, per, each = groups * per, 1, draw(st.integers(1, 2))

    def sizes(low, high):
        return [draw(st.integers(low, high)) for _ in range(d)]

    space, kernel, stride, dilation = sizes(1, most), sizes(1, 4), sizes(1, 3), sizes(1, 3)
    before, after = sizes(0, 3), sizes(0, 3)
    operation = draw(st.sampled_from(["conv", "conv", "transposed"]))
    extra = [draw(st.integers(0, max(s, t) - 1)) for s, t in zip(stride, dilation)]
    mode = "zeros"
    if operation == "conv":
        extra = [0] * d
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular", "symmetric"]))
    words = [f"{operation}{d}d", ""]
    text = {
        "i": space, "f": [groups * each], "k": kernel, "s": stride,
        "p": [f"{b}:{a}" for b, a in zip(before, after)], "d": dilation, "g": [groups], "o": extra,
    }  # fmt: skip
    words[1] = f"n{draw(st.integers(0, 2))}c{groups * per}" + "".join(
        letter + "x".join(map(str, values)) for letter, values in text.items()
    )
    words += draw(st.sampled_from([[], ["bias"], ["pixelbias"]])) + draw(st.sampled_from([[], ["residual"]]))
    words += draw(st.sampled_from([[], ["relu"], ["clip:-3.0:5.0"], ["leaky_relu:0.25"]])) + [mode]
    words += draw(st.sampled_from([[], ["channels_last"]])) + draw(st.sampled_from([[], ["float64"]]))
    return ",".join(words)


@given(problems(), st.integers(0, 3))
def test_any_problem_equals_the_reference(text, seed):
    try:
        problem = parse(text)
    except ValueError:  # a kernel larger than the image, a border larger than what it shows
        assume(False)
    given_ = arrays(problem, np.random.default_rng(seed))
    same_bits(call(fc, problem, given_, precision="highest"), call(fc.reference, problem, given_))


def test_an_image_of_other_bytes_is_copied_in_the_order_that_its_kernel_reads():
    """Of channels-last form, but with columns side by side; Strassen's algorithm reads these alone."""
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-2, 3, shape).astype(np.float32) for shape in ((1, 128, 16, 33), (128, 128)))
    want = fc.reference.pointwise_conv2d(x, weight)
    misaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    misaligned[...] = x
    for image in (x, x.astype(x.dtype.newbyteorder()), misaligned):
        got = fc.pointwise_conv2d(np.moveaxis(image, 1, -1), weight, data_format="channels_last")
        np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, atol=1e-3)
