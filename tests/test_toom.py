"""Toom and Cook's schemes: their identity in exact fractions, the transforms as compiled, the bounds of the error."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest
from numba import njit

from fastconv import plan
from fastconv.cpu import job, toom
from fastconv.cpu.compiled import address
from fastconv.cpu.simd import TileShape
from fastconv.cpu.toom import error_bound, worst_error

SCHEMES = {
    name: getattr(toom, name)
    for name in (
        "F2",
        "F4",
        "F5",
        "F6",
        "F2_5",
        "F4_5",
        "F4_2",
        "F4_4",
        "F7_4",
        "F2_3_2",
        "F4_3_2",
        "F4_5_2",
        "F8_3_UP",
        "F8_4_UP",
        "W3_4",
        "W4_4_2",
    )
}
CHANNELS = [1, 2, 3, 8, 17, 64, 300, 2048]


@pytest.mark.parametrize("name", SCHEMES)
def test_identity(name):
    """A' (G w * B' d) is the correlation: each output's coefficient of each product of a tap and a number is 1 or 0, exactly."""
    scheme = SCHEMES[name]
    for i, row in enumerate(scheme.a):
        for t in range(scheme.taps):
            for s in range(scheme.numbers):
                coefficient = sum(a * g[t] * b[s] for a, g, b in zip(row, scheme.g, scheme.b, strict=True))
                window = i if scheme.transposed or isinstance(scheme, toom.OfWeights) else i * scheme.stride
                met = scheme.place(t, s - scheme.overlap) == window
                what = f"{name}: output {i}, tap {t}, number {s}"
                assert isinstance(coefficient, Fraction) and coefficient == met, what


@pytest.mark.parametrize("name", SCHEMES)
def test_shapes(name):
    """As many products as the phases' polynomials have coefficients; no point is there twice."""
    counts = {"F2": 4, "F4": 6, "F5": 7, "F6": 8, "F2_5": 6, "F4_5": 8, "F4_2": 5, "F4_4": 7, "F7_4": 10, "F2_3_2": 5, "F4_3_2": 9}
    scheme, count = (
        SCHEMES[name],
        (counts | {"F4_5_2": 11, "F8_3_UP": 9, "F8_4_UP": 10, "W3_4": 6, "W3_4_2": 9, "W4_4_2": 10, "W5_4": 8, "W5_4_2": 11})[name],
    )
    numbers = 5 if scheme.transposed else count
    assert (scheme.count, scheme.numbers) == (count, numbers) and len(set(scheme.points)) == len(scheme.points), name
    for matrix, shape in ((scheme.a, (scheme.outputs, count)), (scheme.g, (count, scheme.taps)), (scheme.b, (count, numbers))):
        assert np.shape(matrix) == shape, name


@pytest.mark.parametrize("name", SCHEMES)
def test_what_kernels_rely_on(name):
    """Rows of G behind `matrices` are as the last of them; the last point serves the last output alone, or the last tap."""
    scheme = SCHEMES[name]
    assert scheme.matrices == {"F2_3_2": 4, "F4_3_2": 6, "F8_3_UP": 6}.get(name, scheme.count), name
    assert all(row == scheme.g[min(k, scheme.matrices - 1)] for k, row in enumerate(scheme.g)), name
    last = scheme.g[-1] if isinstance(scheme, toom.OfWeights) else [row[-1] for row in scheme.a]
    assert last == [0] * (len(last) - 1) + [1], name


EDGES = [name for name in SCHEMES if SCHEMES[name].edge]


@pytest.mark.parametrize("name", EDGES)
def test_identity_at_an_edge(name):
    """Two outputs fewer are exact by the same G, two products fewer of each phase that has points, and lose no more."""
    scheme, edge = SCHEMES[name], SCHEMES[name].edge
    left_out = {k for k, row in enumerate(edge.b) if not any(row)}
    assert edge.g == scheme.g and len(left_out) == 2 * sum(phase.taps > 1 for phase in scheme.phases), name
    assert not any(row[k] for row in edge.a for k in left_out), name
    for i, row in enumerate(edge.a[:-2]):
        for t in range(scheme.taps):
            for s in range(scheme.numbers):
                coefficient = sum(a * g[t] * b[s] for a, g, b in zip(row, edge.g, edge.b, strict=True))
                assert coefficient == (s == i * scheme.stride + t), f"{name}: output {i}, tap {t}, number {s}"
    assert toom.amplification(edge) < toom.amplification(scheme), name
    assert worst_error([edge], 16, "float32") < worst_error([scheme], 16, "float32"), name


def test_edges():
    """Of more than two outputs; transposed schemes have none."""
    assert EDGES == ["F4", "F5", "F6", "F4_5", "F4_2", "F4_4", "F7_4", "F4_3_2", "F4_5_2"]


@pytest.mark.parametrize("name", SCHEMES)
def test_what_edges_do_without(name):
    """Products that serve none of the outputs that are wanted; of one phase as many are left as a filter of its own would take."""
    scheme = SCHEMES[name]
    assert len(scheme.spared) == scheme.outputs and scheme.spared[0] == 0, name
    for wanted in range(1, scheme.outputs):
        used = [k for k in range(scheme.count) if not scheme.spared[wanted] >> k & 1]
        assert used == [k for k in range(scheme.count) if any(row[k] for row in scheme.at_edge(wanted).a[:wanted])], name
        if scheme.stride == 1 and (wanted == scheme.outputs - 1 or (scheme.edge and wanted >= scheme.outputs - 3)):
            assert len(used) == wanted + scheme.taps - 1, name


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_identity_between_zeros(outputs):
    """Of an enclosed scheme number s meets tap t in output s - t + 1; no coefficient of B' and A' but 1, 0 and -1."""
    scheme = toom.Enclosed(outputs)
    assert scheme.count == len(scheme.g) == len(scheme.b) == 2 * outputs - 1 and scheme.matrices == scheme.count
    assert {abs(number) for row in scheme.a + scheme.b for number in row} <= {0, 1}
    for i, row in enumerate(scheme.a):
        for t in range(scheme.taps):
            for s in range(scheme.numbers):
                coefficient = sum(a * g[t] * b[s] for a, g, b in zip(row, scheme.g, scheme.b, strict=True))
                assert coefficient == (s == i + t - 1), f"{outputs}: output {i}, tap {t}, number {s}"


def test_any_distinct_points_will_do():
    scheme = toom.Scheme(3, 2, tuple(map(Fraction, ("0", "5/7", "-3"))))
    a, g, b = (np.array(matrix, object) for matrix in (scheme.a, scheme.g, scheme.b))
    d, w = np.array([Fraction(k, 3) for k in (2, -5, 7, 1)]), np.array([Fraction(k, 11) for k in (4, -9)])
    assert (a @ ((g @ w) * (b @ d))).tolist() == [w[0] * d[i] + w[1] * d[i + 1] for i in range(3)]


# In compiled code -----------------------------------------------------------------------------------------------------


@njit
def transform(item, seat, job):
    """Item 0 takes vectors to the points, item 1 from them; items 2 and 3 those of a tile at an edge."""
    tile, scheme = job.tile, job.scheme
    if item == 0:
        scheme.to_points(tile, job.x, tile.lanes, job.out, tile.lanes)
    elif item == 2:
        scheme.to_points_of(job.edge[2], tile, job.x, tile.lanes, job.out, tile.lanes)
    else:
        values = scheme.from_points(tile, job.x, tile.lanes)
        if item == 3:
            values = scheme.from_points_of(job.edge[2], tile, job.x, tile.lanes)
        for k in range(scheme.outputs):
            values[k].store(job.out + k * tile.lanes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("name", [name for name in SCHEMES if name[0] != "W" or name == "W3_4_2"])  # one for all of weights
def test_transforms_are_the_matrices(name, lanes, dtype):
    """Of one number after the other, each in a lane of its own: the coefficients themselves."""
    scheme = SCHEMES[name]
    code = address(transform, *job.arguments(dtype, TileShape(1, 1, lanes, 1, dtype), scheme))
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(code)
    least = max(1, scheme.outputs - 2)
    edge, ways = (
        scheme.at_edge(least),
        [(0, 0, scheme.b), (1, 0, scheme.a), (2, scheme.outputs, scheme.b), (3, scheme.outputs, scheme.a)],
    )
    for item, wanted, exact in [*ways, (2, least, edge.b), (3, least, edge.a)]:
        matrix = np.array(exact, float)
        for first in range(0, matrix.shape[1], lanes):
            given = np.eye(matrix.shape[1], lanes, -first, dtype)
            out = np.zeros((len(matrix), lanes), dtype) if wanted else np.full((len(matrix), lanes), np.nan, dtype)
            words = job.fill({"x": given.ctypes.data, "out": out.ctypes.data, "edge": (0, 0, wanted)})
            call(item, 0, words.ctypes.data)
            part, want = matrix[:, first : first + lanes], np.zeros_like(out, float)
            want[:, : part.shape[1]] = part
            np.testing.assert_allclose(out, want, rtol=8 * np.finfo(dtype).eps, atol=0, err_msg=f"{name} of {lanes} {dtype}")


# Bounds: the kernels are held against them in test_winograd.py and test_columns.py --------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("name", SCHEMES)
def test_bounds(name, dimensions, dtype):
    """They fall as channels grow more, the worst case lies above, a second dimension costs, and so does a wider scheme."""
    scheme = SCHEMES[name]
    terms = scheme.taps**dimensions
    bounds = [error_bound([scheme] * dimensions, channels, channels * terms, dtype) for channels in CHANNELS]
    assert bounds == sorted(bounds, reverse=True), name
    assert all(worst_error([scheme] * dimensions, channels, dtype) > bound for channels, bound in zip(CHANNELS, bounds)), name
    assert error_bound([scheme], 16, 16 * terms, dtype) < error_bound([scheme] * 2, 16, 16 * terms, dtype), name
    if dtype == "float64":
        assert max(bounds) < plan.ERRORS["high"] / 1e6, name


def test_wider_schemes_are_less_exact():
    for narrow, wide in (("F2", "F4"), ("F4_4", "F7_4")):
        near, far = (error_bound([SCHEMES[name]], 16, 16 * 4, "float32") for name in (narrow, wide))
        assert near < far, f"{narrow} and {wide}"
