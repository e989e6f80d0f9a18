"""
Convolutions inside jitted functions
====================================

Everything in fastconv can be called inside ``@numba.njit``: no Python runs between one call and the next, and the kernels are
those that Python calls. Two programs below live wholly inside one jitted function each: a pipeline of filters on a
drawing, and a reaction-diffusion equation of some thousand time steps.
"""

import matplotlib.pyplot as plt
import numpy as np
from numba import njit

import fastconv as fc

# %%
# A pipeline of filters
# ---------------------
# Smooth, take the gradient, thin the edges to where the gradient has a maximum. The first two are convolutions; the loop over
# pixels after them is plain code of our own.


@njit
def outlines(image, smooth, slopes):
    """Edges of a (1, height, width) image, one pixel wide."""
    soft = fc.conv2d(image, smooth, padding="same", padding_mode="replicate")
    gradient = fc.conv2d(soft, slopes, padding="same", padding_mode="replicate")
    strength = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2)
    thin = np.zeros_like(strength)
    for i in range(1, strength.shape[0] - 1):
        for j in range(1, strength.shape[1] - 1):
            across, down = gradient[0, i, j], gradient[1, i, j]
            a, b = (0, 1) if abs(across) > abs(down) else (1, 0)
            if strength[i, j] >= strength[i - a, j - b] and strength[i, j] > strength[i + a, j + b]:
                thin[i, j] = strength[i, j]
    return thin


y, x = np.mgrid[-1:1:240j, -1:1:320j]
drawing = (np.hypot(x, y) < 0.7) + 0.5 * (np.abs(x + y) < 0.2) - 0.3 * (np.hypot(x - 0.3, y + 0.3) < 0.25)
image = drawing[np.newaxis].astype(np.float32)
bell = np.exp(-(np.arange(-3, 4) ** 2) / 4.5)
smooth = (np.outer(bell, bell) / bell.sum() ** 2).astype(np.float32).reshape(1, 1, 7, 7)
sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
slopes = np.stack([sobel, sobel.T])[:, np.newaxis]
edges = outlines(image, smooth, slopes)

# %%
# A time loop
# -----------
# The equations of Gray and Scott let two chemicals diffuse and react. A step is one depthwise convolution, the Laplace
# operator on both of them over a torus, and a loop over pixels. ``out=`` lets every step write into the same memory.


@njit
def react(state, laplace, steps, feed, kill):
    """The concentrations after so many steps of time."""
    spread = np.empty_like(state)
    for _ in range(steps):
        fc.depthwise_conv2d(state, laplace, padding=1, padding_mode="circular", out=spread)
        for i in range(state.shape[1]):
            for j in range(state.shape[2]):
                u, v = state[0, i, j], state[1, i, j]
                reaction = u * v * v
                state[0, i, j] = u + 0.16 * spread[0, i, j] - reaction + feed * (1 - u)
                state[1, i, j] = v + 0.08 * spread[1, i, j] + reaction - (feed + kill) * v
    return state


state = np.zeros((2, 128, 128), np.float32)
state[0] = 1
state[:, 54:74, 54:74] = np.array([0.5, 0.25], np.float32)[:, np.newaxis, np.newaxis]
laplace = np.broadcast_to(np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32), (2, 1, 3, 3)).copy()
state = react(state, laplace, 4000, np.float32(0.035), np.float32(0.06))

# %%
# What the two programs made:

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
titles = ("the drawing", "its outlines", "Gray and Scott, 4000 steps")
for axis, picture, title in zip(axes, (image[0], edges, state[1]), titles, strict=True):
    axis.imshow(picture)
    axis.set_title(title)
    axis.axis("off")

# %%
# How it works
# ------------
# The jitted function writes down what it calls (arguments, shapes, strides) and hands that to one function of the package, by an
# address that is read when the code runs. There the call's plan is looked up, which takes about 0.3 us; a kind of call that was
# never seen goes to Python once, where it is checked and planned as ever. So a function compiled with ``cache=True`` holds no
# kernel that could go stale, wrong values raise the same errors as from Python, and wrong types are Numba's TypingError.
#
# In a function of ``parallel=True`` each call runs on the thread that makes it, and the function runs without the GIL. If the
# loop reaches the convolution through *another* jitted function, give the one with the loop ``nogil=True``: :doc:`/embedding`
# says why. Numba loses exceptions that are raised in parallel loops, so check arguments before them; one that is raised elsewhere
# in jitted code leaves references behind, as Numba documents.
