"""Layers that are one product of matrices for a batch together: exact on whole numbers, in every order in memory."""

from dataclasses import replace

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.grad import weight_gradient
from fastconv.plan import choose

WHOLE, SINGLE = NAMES = tiled.SINGLE


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in NAMES for dtype in ("float32", "float64")])
def test_whole_numbers(name, dtype):
    for size in tiled.sizes(name, dtype):
        tile = tiled.tile_of(name, dtype, *size)
        for line in tiled.problems(name, tile, 80):
            for threads in (1, 3):
                tiled.check(name, line, tile, threads)


@pytest.mark.parametrize("name", NAMES)
def test_views(name):
    tiled.check_views(name, 15)


TAKEN = [
    (WHOLE, "conv1d,n2c300i1f70k1"), (WHOLE, "conv2d,n32c300i1f70k1"), (WHOLE, "conv3d,n7c300i1f70k1s2"),
    (WHOLE, "conv2d,n9c40i4f60k4"), (WHOLE, "conv2d,n1c40i4x6f60k4x6"), (WHOLE, "conv1d,n3c40i16f60k16s4"),
    (SINGLE, "transposed2d,n9c40i1f60k4"), (SINGLE, "transposed2d,n9c40i1f60k4s2"), (SINGLE, "transposed1d,n3c40i1f60k16s4"),
]  # fmt: skip


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("ending", ["", ",bias,residual,hardswish", ",bias,relu,channels_last"])
def test_the_plan_takes_them(ending):
    for name, line in TAKEN:
        assert choose(cases.parse(line + ending), IMPLEMENTATIONS, 1).implementation.name == name, line
        for threads in (1, 3):
            tiled.check(name, line + ending, threads=threads)


@pytest.mark.parametrize(
    "line", ["conv2d,n1c300i1f70k1", "conv2d,n9c300i1f70k1,pixelbias", "conv2d,n9c300i2f70k1", "conv2d,n9c300i4f70k3",
             "conv2d,n9c300i4f70k4g2", "conv2d,n9c300i4f70k4p1", "transposed2d,n9c30i2f70k4", "transposed2d,n9c30i1f70k4p1",
             "transposed2d,n9c30i1f70k4s2o1", "transposed2d,n9c30i1f70k4d2", "conv2d,n9c30i1f70k5p2"]
)  # fmt: skip
def test_it_leaves_others(line):
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1).implementation.name not in NAMES


@pytest.mark.usefixtures("every_tile")
@pytest.mark.parametrize("exchanged", [False, True])
def test_gradients_of_their_weights(exchanged):
    """Of more channels than filters and the reverse, one of which has image and gradient exchanged; and of transposed layers."""
    few, many = (40, 130)[:: -1 if exchanged else 1]
    for line in (
        f"conv2d,n9c{few}i1f{many}k1",
        f"conv2d,n2c{few}i3x4f{many}k3x4",
        f"conv1d,n60c{few}i2f{many}k2,float64",
        f"transposed2d,n9c{few}i1f{many}k4s2",
        f"conv2d,n9c{few}i1f{many}k1,channels_last",
    ):
        problem = cases.parse(line)
        rng = np.random.default_rng(0)
        x, grad = (rng.integers(-4, 5, shape).astype(problem.dtype) for shape in (problem.x_shape, problem.out_shape))
        task = (problem.adjoint() if problem.operation == "transposed" else problem).weights()
        assert choose(task, IMPLEMENTATIONS, 1, "columns").implementation.name == "tiled_weight_gradient_whole", line
        for threads in (1, 2):
            with fc.num_threads(min(threads, fc.get_num_threads())):
                got = weight_gradient(problem, x, grad)
                np.testing.assert_array_equal(got, weight_gradient(replace(problem, algorithm="direct"), x, grad), line)


def test_a_border_around_a_single_pixel():
    """A transposed layer of stride 1 is a convolution of a border: its taps run backwards."""
    given = cases.arrays(problem := cases.parse("conv2d,n5c30i1f40k3x4p2x3,bias"), np.random.default_rng(0))
    choice = choose(problem, IMPLEMENTATIONS, 1)
    assert choice.implementation.name == SINGLE
    tiled.agree(SINGLE, str(problem), given, tiled.result(choice, given).reshape(problem.out_shape))
