"""
Transposed: pictures that grow
==============================

A decoder, of an autoencoder or of a segmentation network, needs layers that make pictures larger. A transposed convolution is a
convolution's gradient with respect to its input: every pixel spreads a scaled copy of the window over the result, `stride` pixels
from where its neighbour does.
"""

# %%
# One pixel, four pixels
# ----------------------
# With stride 2 the copies of neighbours overlap, and their sums are the result. Written so it needs no zeros between the pixels:
# fastconv asks for every output which taps reach it, and :doc:`/kernels/transposed` shows the answer.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import fastconv as fc

window = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)[np.newaxis, np.newaxis] / 4  # (channels, filters, 3, 3)
pictures = {"one pixel": np.zeros((1, 4, 4), np.float32), "four pixels": np.zeros((1, 4, 4), np.float32)}
pictures["one pixel"][0, 1, 1] = 1
pictures["four pixels"][0, 1:3, 1:3] = 1

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for (small, large), (name, x) in zip(axes.reshape(2, 2), pictures.items(), strict=True):
    y = fc.conv_transpose2d(x, window, stride=2, padding=1, output_padding=1)
    small.imshow(x[0], cmap="Blues", vmin=0, vmax=1.2)
    small.set_title(f"{name}, {x.shape[1]} x {x.shape[2]}")
    large.imshow(y[0], cmap="Blues", vmin=0, vmax=1.2)
    large.set_title(f"stride 2: {y.shape[1]} x {y.shape[2]}")
    for (i, j), value in np.ndenumerate(y[0]):
        if value:
            large.text(j, i, f"{value:g}", ha="center", va="center", fontsize=6, color="white" if value > 0.7 else "black")
    for axis in (small, large):
        axis.set(xticks=[], yticks=[])

# %%
# This window is linear interpolation: its weights are such that each output's taps sum to one.
#
# Checkerboards
# -------------
# In general they do not. A 3x3 window at stride 2 reaches some outputs with one tap and some with four: with equal weights the
# result is a checkerboard, whatever the picture. A window whose size the stride divides, 4x4, reaches each with four.

photograph = data.camera()[:480:4, 120:360:2][:120, :120].astype(np.float32)[np.newaxis] / 255
even = {size: np.full((1, 1, size, size), 4 / size**2, np.float32) for size in (3, 4)}
grown = {
    "3x3, equal weights": fc.conv_transpose2d(photograph, even[3], stride=2, padding=1, output_padding=1),
    "4x4, equal weights": fc.conv_transpose2d(photograph, even[4], stride=2, padding=1),
    "3x3, interpolation": fc.conv_transpose2d(photograph, window, stride=2, padding=1, output_padding=1),
}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
axes[0].imshow(photograph[0, 20:60, 40:80], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("40 x 40 pixels of it")
for axis, (name, y) in zip(axes[1:], grown.items(), strict=True):
    axis.imshow(y[0, 40:120, 80:160], cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
for axis in axes:
    axis.set_axis_off()

# %%
# There and back
# --------------
# A transposed layer is the other's gradient: the two satisfy
# :math:`\langle \mathrm{conv}(x), y \rangle = \langle x, \mathrm{conv}^\mathsf{T}(y) \rangle`, with the same weight and arguments.
# ``output_size`` picks the size where several are possible.

rng = np.random.default_rng(0)
x, weight = rng.integers(-3, 4, (1, 3, 17, 17)).astype(np.float32), rng.integers(-3, 4, (8, 3, 3, 3)).astype(np.float32)
y = rng.integers(-3, 4, (1, 8, 9, 9)).astype(np.float32)
there = np.vdot(fc.conv2d(x, weight, stride=2, padding=1), y)
back = np.vdot(x, fc.conv_transpose2d(y, weight, stride=2, padding=1, output_size=(17, 17)))
print(f"{there:.0f} = {back:.0f}")

# sphinx_gallery_thumbnail_number = 2
