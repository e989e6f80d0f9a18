"""Orders of weights against explicit indexing, borders against np.pad, alignment, and what needs a copy."""

import numpy as np
import pytest

from fastconv.cpu import packing

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
    packed = packing.filters_last(w, groups)
    assert packed.shape == (groups, np.prod(kernel), 4, 6 // groups)
    assert aligned(packed)
    for g, tap, c, f in every(packed.shape):
        assert packed[g, tap, c, f] == w[(g * 6 // groups + f, c, *np.unravel_index(tap, kernel))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_filters_last(groups, kernel, dtype):
    w = numbers(4, 3, *kernel, dtype=dtype)  # (channels, filters / groups, *kernel)
    packed = packing.transposed_filters_last(w, groups)
    assert packed.shape == (groups, np.prod(kernel), 4 // groups, 3)
    assert aligned(packed)
    for g, tap, c, f in every(packed.shape):
        assert packed[g, tap, c, f] == w[(g * 4 // groups + c, f, *np.unravel_index(tap, kernel))]


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)])
def test_taps_first(kernel):
    w = numbers(6, 1, *kernel)
    packed = packing.taps_first(w, 3)
    assert packed.shape == (np.prod(kernel), 6)
    assert aligned(packed)
    for tap, f in every(packed.shape):
        assert packed[tap, f] == w[(f, 0, *np.unravel_index(tap, kernel))]


def test_as_they_come():
    w = numbers(6, 4, 3, 3).transpose(0, 1, 3, 2)
    packed = packing.as_they_come(w, 2)
    assert aligned(packed)
    assert (packed == w).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_phases_as_filters(groups):
    """Filter (f, phase) holds every stride-th tap of filter f, the last first."""
    weight = numbers(4, 3, 4, 6)
    got = packing.phases_as_filters(weight, (2, 3), groups)
    assert got.shape == (3 * groups * 6, 4 // groups, 2, 2)
    for g, f, c, a, b in np.ndindex(groups, 3, 4 // groups, 4, 6):
        phase, tap = (a % 2) * 3 + b % 3, (1 - a // 2, 1 - b // 3)
        assert got[((g * 3 + f) * 6 + phase, c, *tap)] == weight[g * (4 // groups) + c, f, a, b]
