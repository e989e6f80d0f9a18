"""What training does between its convolutions: each is one pass over numbers in memory, and limited by how fast they come.

In NumPy every operation is a pass of its own, with a fresh array for its result. All arrays are flat, of one dtype.
"""

import numpy as np

from fastconv.cpu.compiled import compiled, reassociating
from fastconv.cpu.simd import pointer


@compiled
def rectified_gradient(grad, y):
    """Set grad to 0 where the rectifier's result y is 0, in place: ReLU's gradient."""
    g, result = pointer(grad), pointer(y)
    for i in range(grad.size):
        g[i] = g[i] if result[i] > 0 else 0


@reassociating
def squared_sum(total, a, b, count):
    """Total + the sum of (a[i] - b[i])^2."""
    for i in range(count):
        difference = np.float64(a[i]) - np.float64(b[i])  # float() would keep float32
        total += difference * difference
    return total


@compiled
def squared_error(restored, x):
    """The sum of squared differences, in float64."""
    return squared_sum(0.0, pointer(restored), pointer(x), x.size)


@compiled
def error_gradient(restored, x, out):
    """The gradient of the mean squared difference with respect to `restored`."""
    a, b, gradient, factor = pointer(restored), pointer(x), pointer(out), x.dtype.type(2) / x.dtype.type(x.size)
    for i in range(x.size):
        gradient[i] = (a[i] - b[i]) * factor


@compiled
def adam_step(parameter, gradient, mean, square, decay, rate, whole_square, epsilon):
    """One step of Kingma and Ba's Adam (2015), in place; `rate` and `whole_square` undo that both averages began at zero."""
    p, g, m, s, number = pointer(parameter), pointer(gradient), pointer(mean), pointer(square), parameter.dtype.type
    first, second, small = number(1 - decay[0]), number(1 - decay[1]), number(epsilon)
    step, whole = number(rate), number(whole_square)
    for i in range(parameter.size):
        m[i] += first * (g[i] - m[i])
        s[i] += second * (g[i] * g[i] - s[i])
        p[i] -= step * m[i] / ((s[i] * whole) ** number(0.5) + small)
