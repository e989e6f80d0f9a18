"""Orders of weights against explicit indexing, borders against np.pad, alignment, and what needs a copy."""

import weakref

import cases
import numpy as np
import pytest
import tiled

from fastconv.cpu import launch, machine, packing
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose
from fastconv.problem import Problem

LANES = machine.lanes("float32")
DTYPES = ["float32", "float64"]


def numbers(*shape, dtype="float32"):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def aligned(array):
    return array.ctypes.data % 64 == 0 and array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 3), (2, 3, 4, 5)])
def test_aligned_empty(shape, dtype):
    arrays = [packing.aligned_empty(shape, dtype) for _ in range(20)]
    for array in arrays:
        assert array.shape == shape
        assert array.dtype == dtype
        assert aligned(array) or not array.size
        assert array.flags.writeable
        array[...] = 1
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)


def test_aligned_copy():
    x = numbers(3, 4)
    for array in (x, x.T, x[::-1, ::2], x.astype(">f4"), np.asfortranarray(x)):
        copy = packing.aligned_copy(array)
        assert aligned(copy)
        assert not np.shares_memory(copy, array)
        assert (copy == array).all()
        assert copy.dtype == np.float32


def misaligned():
    return np.frombuffer(bytearray(12 * 4 + 1), np.uint8)[1:].view(np.float32).reshape(3, 4)


def a_fraction_apart():
    records = np.zeros(12, np.dtype([("a", "f4"), ("b", "u1"), ("c", "u1")]))  # 6 bytes from one number to the next
    return records["a"]


def test_readable_copies_only_what_it_must():
    x = numbers(3, 4)
    for array in (x, x.T, x[::-1, ::2], np.broadcast_to(x, (2, 3, 4)), x[:, :0]):
        assert packing.readable(array) is array
    for array in (x.astype(">f4"), misaligned(), a_fraction_apart()):
        copy = packing.readable(array)
        assert aligned(copy)
        assert (copy == array).all()


def test_contiguous_copies_only_what_it_must():
    x = numbers(3, 4)
    assert packing.contiguous(x) is x
    for array in (x.T, x[:, ::2], x.astype(">f4"), misaligned()):
        copy = packing.contiguous(array)
        assert aligned(copy)
        assert (copy == array).all()


@pytest.mark.parametrize("mode", packing.PAD_MODES)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_bordered(mode, data_format):
    x = numbers(2, 3, 4, 5)
    pads = ((1, 2), (0, 3))
    widths = [(0, 0), *pads, (0, 0)] if data_format == "channels_last" else [(0, 0), (0, 0), *pads]
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}
    if data_format == "channels_last":
        x = x.transpose(0, 2, 3, 1)
    expected = np.pad(x, widths, mode=names[mode])
    bordered = packing.bordered(x, pads, mode, data_format)
    assert bordered.dtype == np.float32
    np.testing.assert_array_equal(bordered, expected)


def every(shape):
    return np.ndindex(*shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_filters_last(groups, kernel, dtype):
    w = numbers(6, 4, *kernel, dtype=dtype)
    packed = packing.filters_last(packing.by_group(w, groups))
    assert packed.shape == (groups, np.prod(kernel), 4, 6 // groups)
    assert aligned(packed)
    for g, tap, c, f in every(packed.shape):
        assert packed[g, tap, c, f] == w[(g * 6 // groups + f, c, *np.unravel_index(tap, kernel))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_filters_last_of_a_transposed_convolution(groups, kernel, dtype):
    w = numbers(4, 3, *kernel, dtype=dtype)  # (channels, filters / groups, *kernel)
    packed = packing.filters_last(packing.exchanged(w, groups))
    assert packed.shape == (groups, np.prod(kernel), 4 // groups, 3)
    assert aligned(packed)
    for g, tap, c, f in every(packed.shape):
        assert packed[g, tap, c, f] == w[(g * 4 // groups + c, f, *np.unravel_index(tap, kernel))]


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)])
def test_taps_first(kernel):
    w = numbers(6, 1, *kernel)
    packed = packing.taps_first(packing.by_group(w, 3))
    assert packed.shape == (np.prod(kernel), 6)
    assert aligned(packed)
    for tap, f in every(packed.shape):
        assert packed[tap, f] == w[(f, 0, *np.unravel_index(tap, kernel))]


@pytest.mark.parametrize("text", ["conv2d,n1c8i5f6k3g2", "transposed2d,n1c6i5f8k3s2g2"])
def test_as_they_come(text):
    problem = Problem.parse(text).directly()
    w = np.swapaxes(numbers(*problem.weight_shape), 2, 3)
    for weight, as_it_is in ((w, False), (packing.aligned_copy(w), True)):
        ((packed, _),) = launch.pack(choose(problem, IMPLEMENTATIONS, 1), [weight], [None])
        assert packed.flags.c_contiguous
        assert (packed == w).all()
        assert (packed is weight) == as_it_is


VIEWS = {
    "of a convolution": lambda w, groups: packing.by_group(w, groups),
    "of a transposed one": packing.exchanged,
    "mirrored": packing.mirrored,
    "in any order": lambda w, groups: packing.by_group(np.asfortranarray(w), groups),
    "byte-swapped": lambda w, groups: packing.by_group(w.astype(w.dtype.newbyteorder()), groups),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("unit", [1, 2, 4, 6, 8, LANES, 2 * LANES])
def test_panels(unit, view):
    """[group][panel][bias, then number][filter], of more or fewer filters than a panel has, for any number of threads."""
    for groups, filters, channels, kernel in ((1, 2 * unit + 1, 35, (3, 3)), (3, 5, 2, (2, 3)), (2, LANES, LANES + 1, (1,))):
        shape = (filters, channels) if view not in ("of a transposed one", "mirrored") else (channels, filters)
        weight = VIEWS[view](numbers(groups * shape[0], shape[1], *kernel), groups)
        bias = numbers(groups * filters)
        rows, lanes = packing.row_panels(weight, bias, unit), packing.lane_panels(weight, None, unit)
        assert aligned(rows) and rows.shape == lanes.shape == (groups, -(-filters // unit), 1 + channels * np.prod(kernel), unit)
        in_turn, blocked = (a.swapaxes(2, 3).reshape(groups, -1, rows.shape[2]) for a in (rows, lanes))
        assert not in_turn[:, filters:].any() and not blocked[:, filters:].any() and not blocked[:, :, 0].any()
        np.testing.assert_array_equal(in_turn[:, :filters, 0].ravel(), bias)
        np.testing.assert_array_equal(in_turn[:, :filters, 1:], weight.reshape(groups, filters, -1))
        by_tap = weight.reshape(groups, filters, channels, -1).swapaxes(2, 3)
        blocks = [by_tap[..., c : c + packing.BLOCK].reshape(groups, filters, -1) for c in range(0, channels, packing.BLOCK)]
        np.testing.assert_array_equal(blocked[:, :filters, 1:], np.concatenate(blocks, axis=2))


def test_what_is_recycled_comes_again():
    first = packing.recycled_empty((100, 1000), "f4")
    place = first.ctypes.data
    assert aligned(first) and packing.recycled_empty((100, 1000), "f4").ctypes.data != place
    packing.recycle(first)
    assert packing.recycled_empty((99, 1000), "f4").ctypes.data == place


def test_nothing_else_is_recycled():
    room = np.zeros(2**19, np.uint8)
    theirs = room[:400_000].view("f4")
    for array in (None, theirs, np.zeros(100_000, "f4")):
        packing.recycle(array)
    assert not np.shares_memory(packing.recycled_empty((100_000,), "f4"), theirs)


def test_scratch_is_held_while_a_kernel_runs(monkeypatch):
    """What is too large to be kept between calls belongs to nobody but the call."""
    problem, rooms, held = cases.parse("conv2d,n1c2i6x9f3k3p1"), [], []
    given = cases.arrays(problem, np.random.default_rng(0))
    call = tiled.bound(tiled.chosen("tiled_standard_pixels", problem), given)

    def scratch(size):
        array = np.empty(size, np.uint8)
        rooms.append(weakref.ref(array))
        return array, array.ctypes.data

    monkeypatch.setattr(packing, "scratch", scratch)
    monkeypatch.setattr(call, "_run_alone", lambda *words: held.append(rooms[-1]() is not None) or True)
    call.compute(given["x"], None, np.empty(problem.out_shape, problem.dtype))
    assert held == [True]
