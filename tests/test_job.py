"""Every field of a job arrives in compiled code as it was given."""

import math
from ctypes import CFUNCTYPE, c_int64, c_void_p

import numpy as np
import pytest
from numba import njit

from fastconv.cpu import atomics, job
from fastconv.cpu.compiled import address

DTYPES = ["float32", "float64"]
BY_KIND = {
    kind: [name for name, (_, k) in job.FIELDS.items() if k == kind] for kind in ("integer", "three", "number", "input", "pointer")
}


def reader(kind, loads):
    """A kernel that writes every field of a kind to `out`, one after the other, made from text."""
    lines = ["def read(item, seat, job):", "    out = job.out"]
    place = 0
    for name in BY_KIND[kind]:
        for part in loads:
            lines.append(f"    out[{place}] = job.{name}{part}")
            place += 1
    space = {}
    exec("\n".join([*lines, f"    out[{place}] = item", f"    out[{place + 1}] = seat"]), space)
    return njit(nogil=True, error_model="numpy")(space["read"]), place


def ran(kernel, values, dtype, size, item=3, seat=5):
    out = np.zeros(size + 2, dtype)
    words = job.fill({**values, "out": out.ctypes.data})
    assert words.shape == (job.WORDS,)
    code = address(kernel, *job.arguments(dtype))
    CFUNCTYPE(None, c_int64, c_int64, c_void_p)(code)(item, seat, words.ctypes.data)
    assert out[size:].tolist() == [item, seat]
    return out[:size]


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers(dtype):
    kernel, size = reader("integer", [""])
    values = {name: (-1) ** i * (1000 + i) for i, name in enumerate(BY_KIND["integer"])}
    assert ran(kernel, values, dtype, size).tolist() == list(values.values())


def test_threes():
    kernel, size = reader("three", ["[0]", "[1]", "[2]"])
    values = {name: [10 * i + 1, -10 * i - 2, 10 * i + 3] for i, name in enumerate(BY_KIND["three"])}
    assert ran(kernel, values, "float64", size).tolist() == [float(v) for three in values.values() for v in three]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers(dtype):
    kernel, size = reader("number", [""])
    for start in (0.1, -1e30, math.inf, -math.inf):
        values = {name: start + i for i, name in enumerate(BY_KIND["number"])}
        assert ran(kernel, values, dtype, size).tolist() == np.array(list(values.values()), dtype).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs(dtype):
    kernel, size = reader("input", ["[0]", "[2]"])
    arrays = {name: np.arange(3, dtype=dtype) + 10 * i for i, name in enumerate(BY_KIND["input"])}
    found = ran(kernel, {name: a.ctypes.data for name, a in arrays.items()}, dtype, size)
    assert found.tolist() == [a[i] for a in arrays.values() for i in (0, 2)]


def test_fields_that_are_not_given_are_zero():
    for kind, loads in (("integer", [""]), ("number", [""])):
        kernel, size = reader(kind, loads)
        assert not ran(kernel, {}, "float64", size).any()
    assert not job.fill({}).any()


def test_large_integers():
    words = job.fill({"x_image": 2**62, "x_channel": -(2**62)})
    assert sorted(words[words != 0].tolist()) == [-(2**62), 2**62]


def test_layout():
    assert sum(words for words, _ in job.FIELDS.values()) == job.WORDS == job.fill({}).size
    for name, (words, kind) in job.FIELDS.items():
        assert (words == 3) == (kind == "three"), name
    with pytest.raises(KeyError):
        job.fill({"nonsense": 1})


def test_own_copy_leaves_the_original():
    @njit
    def change(words):
        own = job.own_copy(words.ctypes.data)
        first = atomics.load(own)
        atomics.store(own, first + 1)
        last = atomics.load(own + 8 * (job.WORDS - 1))
        return first, atomics.load(own), last, own % 8

    words = np.arange(10, 10 + job.WORDS)
    assert change(words) == (10, 11, 9 + job.WORDS, 0)
    assert words.tolist() == list(range(10, 10 + job.WORDS))
