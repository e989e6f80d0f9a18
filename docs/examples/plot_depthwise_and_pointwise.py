"""
Depthwise and pointwise, side by side
=====================================

A standard layer does two things at once: it looks around, and it mixes channels. The two can be had alone.

- A *depthwise* layer looks around: every channel has a filter of its own, and no channels mix.
- A *pointwise* (1x1) layer mixes: every pixel of the result is a weighted sum of that pixel's channels, and sees no neighbours.
"""

# %%
# On a photograph
# ---------------
# The same photograph through both. The depthwise layer blurs red strongly, green a little and blue not at all: each channel
# goes its own way. The pointwise layer has two filters of three weights each: one makes the brightness, the other what is more
# red than blue.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import fastconv as fc

photograph = data.coffee()[:384, 100:484].astype(np.float32) / 255
x = np.ascontiguousarray(photograph.transpose(2, 0, 1))


def bell(width, size=25):
    """A blur of so many pixels; of none, the pixel itself."""
    if width == 0:
        return np.pad(np.ones((1, 1), np.float32), size // 2)
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / width) ** 2)
    return (np.outer(line, line) / line.sum() ** 2).astype(np.float32)


depthwise = np.stack([bell(width) for width in (5, 1.5, 0)])[:, np.newaxis]  # (channels, 1, 25, 25)
pointwise = np.array([[0.299, 0.587, 0.114], [1, 0, -1]], np.float32)  # (filters, channels)
looked = fc.depthwise_conv2d(x, depthwise, padding="same", padding_mode="replicate")
mixed = fc.pointwise_conv2d(x, pointwise)
print(f"depthwise: {x.shape} to {looked.shape}, {depthwise.size} weights")
print(f"pointwise: {x.shape} to {mixed.shape}, {pointwise.size} weights")

figure, axes = plt.subplots(3, 4, figsize=(10, 7.6), layout="constrained")
for axis in axes.flat:
    axis.set_axis_off()
for c, (name, cmap) in enumerate((("red", "Reds_r"), ("green", "Greens_r"), ("blue", "Blues_r"))):
    axes[c, 0].imshow(x[c], cmap=cmap, vmin=0, vmax=1)
    axes[c, 0].set_title(f"{name}, channel {c}")
    axes[c, 1].imshow(looked[c], cmap=cmap, vmin=0, vmax=1)
    axes[c, 1].set_title(f"depthwise: {('strong blur', 'slight blur', 'no blur')[c]}")
for f, title in enumerate(("pointwise: brightness", "pointwise: red less blue")):
    axes[f, 2].imshow(mixed[f], cmap="gray" if f == 0 else "coolwarm", vmin=0 if f == 0 else -0.6, vmax=1 if f == 0 else 0.6)
    axes[f, 2].set_title(title)
axes[0, 3].imshow(photograph)
axes[0, 3].set_title("the photograph")
axes[1, 3].imshow(np.clip(looked.transpose(1, 2, 0), 0, 1))
axes[1, 3].set_title("the depthwise result")

# %%
# Fewer channels
# --------------
# A pointwise layer is how networks change their number of channels. With 192 channels of 28 x 28 pixels and 32 filters a sixth
# of the channels is left, and whatever comes next has a sixth of the work.

rng = np.random.default_rng(0)
wide = rng.standard_normal((1, 192, 28, 28), np.float32)
squeeze = rng.standard_normal((32, 192), np.float32)
print(f"{wide.shape} to {fc.pointwise_conv2d(wide, squeeze).shape}")

after = {name: fc.Problem.parse(f"conv2d,n1c{channels}i28f64k5p2") for name, channels in (("straight", 192), ("squeezed", 32))}
first = fc.Problem.parse("conv2d,n1c192i28f32k1")
print(f"a 5x5 layer of 64 filters on 192 channels:  {after['straight'].operations / 1e6:6.1f} million operations")
print(f"squeezed to 32 channels first, all together: {(first.operations + after['squeezed'].operations) / 1e6:5.1f} million")

# %%
# What either reads and computes
# ------------------------------
# Both are cheap, and for opposite reasons they are hard to make fast. A depthwise layer does two operations for each tap and
# number: so few that reading and writing the image is most of the work. A pointwise layer does two operations for each channel
# and filter: so many that the processor's multiply-adds are what it waits for, as in a product of matrices, which it is.
# :doc:`/speed` says more.

for name, text in {
    "standard 3x3": "conv2d,n1c128i28f128k3p1",
    "depthwise 3x3": "conv2d,n1c128i28f128k3p1g128",
    "pointwise": "conv2d,n1c128i28f128k1",
}.items():
    problem = fc.Problem.parse(text)
    intensity = problem.operations / problem.bytes
    print(f"{name:14} {problem.parameters:8,} parameters {problem.operations / 1e6:7.1f} MFLOP {intensity:6.1f} operations a byte")
