"""Fused separable kernels against the reference, exact on whole numbers: forms, bands, left-over pixels and filters."""

import cases
import numpy as np
import pytest

import fastconv as fc
from fastconv.cpu import machine, packing
from fastconv.cpu.launch import Bound, pack
from fastconv.cpu.plans import separable as plans
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import most_threads
from fastconv.plan import ERRORS, Choice, choose, refusals
from fastconv.problem import Problem

LANES = machine.lanes("float32")


pytestmark = pytest.mark.usefixtures("tiled_however_small")


def separable(first, filters, inner="", outer="", every=""):
    """The text of a separable layer, from that of its windows."""
    one = Problem.parse(first)
    space = "x".join(map(str, one.out_space))
    return f"{first}{inner}{every}+conv2d,n{one.batch}c{one.filters}i{space}f{filters}k1{outer}{every}"


def chosen(text, threads=1):
    return choose(cases.parse(text), IMPLEMENTATIONS, threads)


def check(text):
    problem = cases.parse(text)
    given = cases.arrays(problem, np.random.default_rng(0))
    got = cases.call(fc, problem, given)
    cases.same_numbers(got, cases.call(fc.reference, problem, given))
    return got


FORMS = [
    ("conv2d,n1c16i14f16k3p1g16", 32),
    ("conv2d,n1c64i14f64k3p1g64", 128),
    ("conv2d,n2c17i9x21f17k3s2p1g17", 19),
    ("conv2d,n1c8i40x112f8k3p0:1x1:0g8", 16),  # rows of three pairs of vectors and one more
    ("conv2d,n1c3i7x83f3k5s2p2g3", 9),
    ("conv2d,n1c5i8x41f5k5p2g5", 7),
    ("conv2d,n1c1i1f1k3p1g1", 1),
    ("conv2d,n1c4i12f8k5s2p2g4", 8),  # a multiplier
    ("conv2d,n1c3i8x9f3k4s3p1g3", 5),  # windows without code of their own
]
EVERY = ("", ",channels_last")


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize(("first", "filters"), FORMS)
def test_exact(first, filters, every):
    text = separable(first, filters, ",bias,relu", ",bias,relu6", every)
    assert chosen(text).implementation.algorithm == "tiled"
    check(text)


@pytest.mark.parametrize("every", EVERY)
def test_float64(every):
    check(separable("conv2d,n1c5i9x17f5k3p1g5", 9, ",bias,relu", ",bias", f",float64{every}"))


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("inner", [",pixelbias", ",bias,leaky_relu:0.25"])
@pytest.mark.parametrize("outer", [",pixelbias,residual,relu", ",bias,residual"])
def test_epilogues(inner, outer, every):
    for first, filters in (FORMS[0], FORMS[3], FORMS[-1]):
        check(separable(first, filters, inner, outer, every))


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize(("first", "filters"), [FORMS[1], FORMS[2], FORMS[3]])
def test_same_bits_for_any_number_of_threads(first, filters, every):
    text, results = separable(first, filters, ",relu", ",residual", every), []
    for count in range(1, min(3, most_threads()) + 1):
        with fc.num_threads(count):
            results.append(check(text))
    for result in results[1:]:
        cases.same_bits(result, results[0])


def by_kernel(name, text, threads=1, draw=cases.whole_numbers):
    """What a kernel computes, whichever the plan would take; the problem and its arrays."""
    problem, [implementation] = cases.parse(text), [i for i in IMPLEMENTATIONS if i.name == name]
    assert implementation.refuse(problem) is None
    given, out = cases.arrays(problem, np.random.default_rng(0), draw), np.full(problem.out_shape, np.nan, problem.dtype)
    choice = Choice(problem, implementation, implementation.divide(problem, threads))
    weights, biases = ([given.get(f"{part}_{what}") for part in ("depthwise", "pointwise")] for what in ("weight", "bias"))
    bound = Bound(choice, given["x"], "residual" in given).with_weights(pack(choice, weights, biases))
    with fc.num_threads(min(threads, most_threads())):
        bound.compute(given["x"], given.get("residual"), out)
    return out, problem, given, choice.division


KERNELS = "tiled_separable", "tiled_separable_pixels", "tiled_separable_turned", "tiled_separable_pixels_turned"


@pytest.mark.parametrize("kernel", KERNELS)
def test_either_kernel_computes_any_form(kernel, monkeypatch):
    """And leaves alone what keeps the scratch of two threads apart."""
    for first, filters in FORMS[1:6]:
        rooms = []
        monkeypatch.setattr(packing, "scratch", lambda size, rooms=rooms: room_of(size, rooms))
        got, problem, given, division = by_kernel(kernel, separable(first, filters, ",bias,relu", ",bias,residual"))
        cases.same_numbers(got, cases.call(fc.reference, problem, given))
        assert np.isnan(rooms[-1][division.scratch - plans.APART * division.fields["pitch"] :]).all(), first


def room_of(size, rooms):
    rooms.append(np.full(size // 4, np.nan, np.float32))
    return rooms[-1], rooms[-1].ctypes.data


# By Strassen's algorithm ----------------------------------------------------------------------------------------------------

PAIRED = [  # even and odd numbers of rows and pixels, parts of panels, several images, windows without code of their own
    ("conv2d,n1c34i14f34k3p1g34", 70),
    ("conv2d,n2c18i7f18k3p1g18", 64),
    ("conv2d,n1c8i9x21f16k5s2p2g8", 66),
    ("conv2d,n1c6i20x160f6k4s2p1g6,pixelbias", 32),
]


@pytest.mark.parametrize("outer", [",bias,relu", ",pixelbias,residual,hardswish"])
@pytest.mark.parametrize("most", [10**6, 2000])
def test_pairs_of_rows(most, outer, monkeypatch):
    """Of a whole image, or band by band, the last one smaller."""
    monkeypatch.setattr(plans, "scratch_numbers", lambda dtype: most)
    forms = [("strassen_separable", *form, "") for form in PAIRED]
    forms += [("strassen_separable_turned", *form, every) for form in PAIRED[:2] for every in EVERY]
    for name, first, filters, every in forms:
        got, problem, given, division = by_kernel(name, separable(first, filters, ",relu", outer, every))
        assert (division.bands > 1) == (most == 2000 and problem.out_space[0] % 2 == 0)
        cases.same_numbers(got, cases.call(fc.reference, problem, given))


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def test_pairs_keep_their_promise_and_their_bits_for_any_number_of_threads(monkeypatch):
    """Whatever the bands: who is whose partner depends on the image alone."""
    text, met = separable("conv2d,n1c64i28x14f64k3p1g64", 192, ",bias,relu", ",bias"), []
    for threads, most in ((1, 10**6), (1, 10**4), (2, 10**6), (8, 10**4)):
        monkeypatch.setattr(plans, "scratch_numbers", lambda dtype, most=most: most)
        got, problem, given, division = by_kernel("strassen_separable", text, threads, normal)
        met.append((division.bands, division.chunks, got.tobytes()))
    assert len(set(met)) == len(met) - 1 and len({bits for *_, bits in met}) == 1
    between = fc.reference.depthwise_conv2d(given["x"], given["depthwise_weight"], given["depthwise_bias"], 1, 1, activation="relu")
    scale = fc.reference.pointwise_conv2d(between, np.abs(given["pointwise_weight"]), np.abs(given["pointwise_bias"]))
    assert (np.abs(got - cases.call(fc.reference, problem, given)) <= ERRORS["high"] * scale).all()


def test_the_plan_takes_pairs_for_many_channels_and_never_at_highest_precision():
    deep = "conv2d,n1c512i14f512k3p1g512"
    lines = separable(deep, 512), separable("conv2d,n1c32i112f32k3p1g32", 64), separable(deep, 512, every=",highest")
    names = [chosen(line).implementation.name for line in lines]
    assert names == ["strassen_separable", "tiled_separable_pixels", "tiled_separable"]
    turned = [choose(cases.parse(line), IMPLEMENTATIONS, 1, "channels").implementation.name for line in lines]
    assert turned == [f"{name}_turned" for name in names]
    assert "precision='highest' allows" in dict(refusals(cases.parse(lines[-1]), IMPLEMENTATIONS))[names[0]]
    assert "has none" in plans.unpaired(cases.parse(separable("conv2d,n1c512i99f512k3p1g512", 512)))


def test_a_map_of_biases_is_not_added_to_what_is_turned():
    """It lies as channels-first results do; images whose channels are neighbours have rows of another order in the scratch."""
    problem = cases.parse(separable("conv2d,n2c18i9x11f18k3p1g18", 20, ",pixelbias,relu"))
    given = cases.arrays(problem, np.random.default_rng(0))
    want = cases.call(fc.reference, problem, given)
    given["x"] = np.ascontiguousarray(given["x"].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    cases.same_numbers(cases.call(fc, problem, given), want)


def test_direct_can_be_asked_for():
    for every, name in (("", "direct_separable"), (",channels_last", "direct_separable_last")):
        assert chosen(separable(*FORMS[0], every=f"{every},direct")).implementation.name == name


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_bands_and_chunks_cover_everything(threads, every):
    for first, filters in FORMS:
        problem = cases.parse(separable(first, filters, every=every))
        division = chosen(separable(first, filters, every=every), threads).division
        rows = problem.out_space[0]
        assert division.bands * division.band >= rows > (division.bands - 1) * division.band
        assert division.chunks * division.chunk >= filters > (division.chunks - 1) * division.chunk
        assert division.items == problem.batch * division.bands * division.chunks


def test_layer():
    rng = np.random.default_rng(0)
    x, w, v = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 6, 15, 33), (6, 1, 3, 3), (10, 6)))
    layer = fc.SeparableConv2d(w, v, stride=2, padding=1, depthwise_activation="relu")
    want = fc.reference.separable_conv2d(x, w, v, stride=2, padding=1, depthwise_activation="relu")
    for image in (x, np.moveaxis(np.moveaxis(x, 1, 3).copy(), 3, 1), x[..., ::-1].copy()[..., ::-1]):
        cases.same_numbers(layer(image), want)
