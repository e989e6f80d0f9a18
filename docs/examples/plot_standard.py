"""
What a 3x3 layer sees
=====================

A standard convolution layer slides a small window over an image. Under the window it multiplies number by number with the
weights of a filter, sums over *all* channels, adds a bias, and cuts off what is negative:

.. math:: y_f = \\mathrm{relu}\\Bigl(\\sum_c w_{f,c} * x_c + b_f\\Bigr)

Each filter makes one channel of the result. Here they are filters that one can read, on a photograph.
"""

# %%
# One window
# ----------
# A photograph of 128 x 128 pixels and three channels, numbers between 0 and 1: fastconv takes channels first, (3, 128, 128), or
# channels last. A filter for this layer is 3 x 3 weights for each of the three channels, 27 numbers.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from skimage import data, transform

import fastconv as fc

photograph = transform.resize(data.astronaut()[:400, 40:440], (128, 128), anti_aliasing=True).astype(np.float32)
x = np.ascontiguousarray(photograph.transpose(2, 0, 1))

vertical = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 4
luminance = np.array([0.299, 0.587, 0.114], np.float32)
edge = luminance[:, np.newaxis, np.newaxis] * vertical  # the brightness to the right, less that to the left

i, j = 27, 66  # one output: its window begins there
window = x[:, i : i + 3, j : j + 3]
print(f"sum of {window.size} products: {np.sum(window * edge):.4f}")
print(f"fastconv's output ({i}, {j}):    {fc.conv2d(x, edge[np.newaxis])[0, i, j]:.4f}")

# %%
# The sum over the window is one number of the result; the same filter, moved a pixel at a time, makes all the others. A 3x3
# window fits 126 times into 128 pixels, so the result has (126, 126) numbers: ``padding="same"`` would draw a border of zeros
# around the image and keep the size.

result = fc.conv2d(x, edge[np.newaxis])[0]
print(f"image {x.shape}, one filter {edge.shape}, result {result.shape}")

figure, (image, close, shown) = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained", width_ratios=(1, 0.8, 1))
image.imshow(photograph)
image.add_patch(Rectangle((j - 4.5, i - 4.5), 11, 11, fill=False, edgecolor="tab:red", linewidth=1.5))
image.set_title("the image, (3, 128, 128)")
close.imshow(photograph[i - 4 : i + 7, j - 4 : j + 7], extent=(j - 4.5, j + 6.5, i + 6.5, i - 4.5))
close.add_patch(Rectangle((j - 0.5, i - 0.5), 3, 3, fill=False, edgecolor="tab:red", linewidth=2))
for a in range(3):
    for b in range(3):
        number = close.text(j + b, i + a, f"{4 * vertical[a, b]:.0f}", ha="center", va="center", color="white", fontsize=10)
        number.set_path_effects([withStroke(linewidth=2, foreground="black")])
close.set_title("one window, and a filter's weights (x 4)", fontsize=9)
shown.imshow(result, cmap="coolwarm", vmin=-0.6, vmax=0.6)
shown.add_patch(Rectangle((j - 4.5, i - 4.5), 11, 11, fill=False, edgecolor="black", linewidth=1.5))
shown.set_title(f"the result, {result.shape}")
for axis in (image, close, shown):
    axis.set_axis_off()

# %%
# Many filters
# ------------
# A layer has many filters, and one call computes them all. The bias and the rectifier ("relu") are part of the same pass: the sums
# never leave the registers without them.

filters = {
    "vertical edges": vertical,
    "horizontal edges": vertical.T,
    "outlines": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32) / 4,
    "blur": np.full((3, 3), 1 / 9, np.float32),
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32),
}
weight = np.stack([luminance[:, np.newaxis, np.newaxis] * kernel for kernel in filters.values()])
colour = np.zeros((1, 3, 3, 3), np.float32)
colour[0, :, 1, 1] = 1, -0.5, -0.5  # looks at one pixel, but at its three channels: red without green and blue
weight = np.concatenate([weight, colour])
bias = np.array([0, 0, 0, 0, 0, -0.05], np.float32)
features = fc.conv2d(x, weight, bias, padding="same", padding_mode="replicate", activation="relu")
print(f"{len(weight)} filters: {features.shape}")

figure, axes = plt.subplots(2, 3, figsize=(10, 7), layout="constrained")
for axis, name, feature in zip(axes.flat, (*filters, "red things"), features, strict=True):
    axis.imshow(feature, cmap="gray", vmin=0, vmax=np.quantile(feature, 0.99))
    axis.set_title(name)
    axis.set_axis_off()

# %%
# A bias for every pixel
# ----------------------
# The bias is one number a filter, or a map with one number for each output pixel, (126, 126) here. A map makes the same filter
# count more in some places than in others: below, an edge has to be the stronger to be seen the nearer it is to the rim.

y, u = np.mgrid[-1:1:126j, -1:1:126j]
bias_map = (-0.15 * np.hypot(y, u)).astype(np.float32)[np.newaxis]
plain = fc.conv2d(x, edge[np.newaxis], activation="relu")[0]
mapped = fc.conv2d(x, edge[np.newaxis], bias_map, activation="relu")[0]

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
white = plain.max()  # of both results, so that they can be compared
axes[0].imshow(plain, cmap="gray", vmin=0, vmax=white)
axes[0].set_title("without")
axes[1].imshow(bias_map[0], cmap="gray", vmin=bias_map.min(), vmax=0)
axes[1].set_title(f"the bias map: 0 to {bias_map.min():.2f} in the corners")
axes[2].imshow(mapped, cmap="gray", vmin=0, vmax=white)
axes[2].set_title("with the bias map")
for axis in axes:
    axis.set_axis_off()

# %%
# What it costs
# -------------
# Every output of every filter is a sum over the window and the channels. That makes many operations, and it is these that the
# other kinds of layers save. ``fastconv.Problem`` counts them.

for size in (3, 5, 7):
    problem = fc.Problem.parse(f"conv2d,n1c3i128f32k{size}")
    print(f"{size}x{size}, 32 filters: {problem.parameters:6,} parameters, {problem.operations / 1e6:6.1f} million operations")

# sphinx_gallery_thumbnail_number = 2
