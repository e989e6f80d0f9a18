"""The passes of training beside its convolutions: against NumPy, and a step of training beside torch's."""

import importlib.util

import numpy as np
import pytest

from fastconv.bench import training as bench
from fastconv.cpu import training

rng = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 15, 16, 1003])
def test_rectified_gradient(count):
    grad, y = (rng.standard_normal(count).astype("f4") for _ in range(2))
    y[:: count // 3 + 1] = 0
    want = np.where(y > 0, grad, 0)
    training.rectified_gradient(grad, y)
    np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("count", [1, 15, 16, 1003])
def test_errors(count):
    restored, x = (rng.standard_normal(count).astype("f4") for _ in range(2))
    out, difference = np.full_like(x, np.nan), restored.astype("f8") - x
    assert training.squared_error(restored, x) == pytest.approx(float((difference**2).sum()), rel=1e-12)
    training.error_gradient(restored, x, out)
    np.testing.assert_allclose(out, 2 * difference / count, rtol=1e-6, atol=1e-7 / count)


def test_adam():
    """As Kingma and Ba write it, in float64."""
    p, g = (rng.standard_normal(37).astype("f4") for _ in range(2))
    m, v = np.zeros_like(p), np.zeros_like(p)
    want, mean, square = p.astype("f8"), 0.0, 0.0
    for step in range(1, 6):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g.astype("f8") ** 2
        want -= 0.01 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        training.adam_step(p, g, m, v, (0.9, 0.999), 0.01 / (1 - 0.9**step), 1 / (1 - 0.999**step), 1e-8)
    np.testing.assert_allclose(p, want, rtol=1e-4, atol=1e-6)


def test_a_step_learns():
    step = bench.ours(bench.STEPS["grey_16"])
    assert step() > step() > 0


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", bench.STEPS)
def test_torch_has_the_same_network(name):
    """As many parameters, and a result of the pictures' shape, or its loss would not be that of a picture."""
    step = bench.STEPS[name]
    small = bench.Step(step.channels, (2, step.x_shape[1], 8, 8), step.separable)
    assert float(bench.theirs(small)()) > 0
    assert bench.ratio_to_torch(small, seconds=0.01, threads=1) > 0
