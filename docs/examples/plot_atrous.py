"""
Atrous: the fields of view of rates
===================================

An atrous (dilated) layer pulls the taps of its window apart: at rate 2 a 3x3 filter looks at every other pixel of a 5x5 field, at
rate 12 of a 25x25 field. It has nine weights for each channel all the same. The gaps need not be filled: fastconv stores no zeros
and multiplies none, so a wide field costs what a narrow one does.
"""

# %%
# One layer
# ---------
# Which pixels does an output see? Those that have a gradient: we ask for the gradient of one output with respect to the image.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import fastconv as fc
from fastconv.bench import best_time

SIZE = 33
ones = np.ones((1, 1, 3, 3), np.float32)


def seen(rates):
    """What the output in the middle sees of an image, through layers of these rates: through how many ways, for each pixel."""
    gradient = np.zeros((1, SIZE, SIZE), np.float32)
    gradient[0, SIZE // 2, SIZE // 2] = 1
    for rate in reversed(rates):
        gradient = fc.grad.conv2d_input(gradient.shape, ones, gradient, padding=rate, dilation=rate)
    return gradient[0]


rates = (1, 2, 6, 12)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for axis, rate in zip(axes, rates, strict=True):
    field = seen([rate])
    axis.imshow(field, cmap="Blues", vmin=-0.2, vmax=1)
    axis.set(xticks=[], yticks=[], title=f"rate {rate}: {np.count_nonzero(field)} of {2 * rate + 1} x {2 * rate + 1} pixels")

# %%
# Layers on top of each other
# ---------------------------
# Three 3x3 layers see 7 x 7 pixels. With rates 1, 2, 4 they see 15 x 15, every pixel of it, with the same 27 weights: each layer
# fills the gaps of the next. With rates 4, 4, 4 they see 25 x 25 and miss most: choose rates that do not share a divisor.

stacks = ((1, 1, 1), (1, 2, 4), (4, 4, 4))
figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), layout="constrained")
for axis, stack in zip(axes, stacks, strict=True):
    field = seen(stack)
    rows = np.flatnonzero(field.any(axis=1))
    side = rows[-1] - rows[0] + 1
    axis.imshow(np.where(field > 0, field, np.nan), cmap="viridis")
    axis.set_facecolor("0.93")
    axis.set(xticks=[], yticks=[], title=f"rates {stack}: {side} x {side}, {np.count_nonzero(field) / side**2:.0%} seen")

# %%
# On a photograph
# ---------------
# The same nine weights at four rates: edges of ever coarser things. The result keeps the size of the image, which is why
# segmentation networks have such layers where others make the picture smaller.

photograph = data.camera()[:400, 60:460].astype(np.float32)[np.newaxis] / 255
bell = np.exp(-0.5 * np.linspace(-2, 2, 9) ** 2)
smooth = (np.outer(bell, bell) / bell.sum() ** 2).astype(np.float32)[np.newaxis, np.newaxis]
soft = fc.conv2d(photograph, smooth, padding="same", padding_mode="reflect")
outline = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)[np.newaxis, np.newaxis] / 8

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for axis, rate in zip(axes, rates, strict=True):
    result = fc.atrous_conv2d(soft, outline, rate=rate, padding=rate, padding_mode="reflect")[0]
    largest = np.quantile(np.abs(result), 0.99)
    axis.imshow(result, cmap="coolwarm", vmin=-largest, vmax=largest)
    axis.set_title(f"rate {rate}")
    axis.set_axis_off()

# %%
# What it costs
# -------------
# Measured while this page was built: a layer of DeepLab's shape at several rates. Taps that fall outside the image for a whole
# strip of outputs are skipped, so on this 33 x 33 image large rates even have less to do.

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 256, 33, 33), np.float32)
weight = rng.standard_normal((256, 256, 3, 3), np.float32)
times = {}
for rate in (1, 2, 4, 8, 12, 18):
    layer = fc.Conv2d(weight, padding=rate, dilation=rate, precision="highest")
    out = layer(x)
    times[rate] = best_time(lambda layer=layer, out=out: layer(x, out), seconds=0.1)
    print(f"rate {rate:2}: {times[rate] / times[1]:.2f} of rate 1's time, kernel {layer.explain(x.shape).kernel}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.bar([str(rate) for rate in times], [seconds / times[1] for seconds in times.values()], color="tab:blue")
axis.axhline(1, color="0.5", linewidth=0.8)
axis.set(xlabel="rate", ylabel="time, over rate 1's", title="256 to 256 channels, 33 x 33, nine weights each")

# sphinx_gallery_thumbnail_number = 3
