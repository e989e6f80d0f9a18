"""
Depthwise separable: parameters, operations, time
=================================================

A depthwise layer that looks around, then a pointwise one that mixes: together nearly what a standard layer does, with a small part
of its parameters and operations. For windows of :math:`k \\times k` and :math:`F` filters the part is

.. math:: \\frac{k^2 C + C F}{k^2 C F} = \\frac{1}{F} + \\frac{1}{k^2}

in both counts. Two questions remain: how near is "nearly", and does the time follow the operations?
"""

# %%
# How near
# --------
# Take a standard layer of 5x5 windows with 24 filters that look for edges of several directions and sizes, each with some noise
# in its weights, and ask for the best separable layer in its place. For each channel :math:`c` the filters' windows are a matrix
# of :math:`F \times k^2` numbers. A depthwise filter with its pointwise weights is a matrix of rank one, so the best choice is
# the first pair of its singular value decomposition; with a *multiplier* :math:`M`, the first :math:`M` pairs.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import fastconv as fc
from fastconv.bench.article import measured

photograph = data.astronaut().astype(np.float32) / 255
x = np.ascontiguousarray(photograph.transpose(2, 0, 1))[np.newaxis]

y, u = np.mgrid[-2:3, -2:3].astype(np.float32)
rng = np.random.default_rng(0)
filters = []
for angle in np.linspace(0, np.pi, 12, endpoint=False):
    along = u * np.cos(angle) + y * np.sin(angle)
    for width in (0.8, 1.6):
        edge = along * np.exp(-(u**2 + y**2) / (2 * width**2))
        filters.append(edge / np.abs(edge).sum())
mixture = rng.uniform(0.2, 1, (24, 3, 1, 1))
weight = (mixture * np.stack(filters)[:, np.newaxis] + 0.002 * rng.standard_normal((24, 3, 5, 5))).astype(np.float32)


def separated(weight, multiplier):
    """The separable layer nearest to a standard one: depthwise and pointwise weights."""
    count, channels, *window = weight.shape
    depthwise, pointwise = [], []
    for c in range(channels):
        left, values, right = np.linalg.svd(weight[:, c].reshape(count, -1), full_matrices=False)
        depthwise.append(right[:multiplier].reshape(multiplier, 1, *window))
        pointwise.append(left[:, :multiplier] * values[:multiplier])
    return np.concatenate(depthwise), np.concatenate(pointwise, axis=1)


standard = fc.conv2d(x, weight, padding=2)
results = {}
for multiplier in (1, 2, 4, 24):
    depthwise, pointwise = separated(weight, multiplier)
    results[multiplier] = fc.separable_conv2d(x, depthwise, pointwise, padding=2)
    error = np.linalg.norm(results[multiplier] - standard) / np.linalg.norm(standard)
    parameters = depthwise.size + pointwise.size
    print(f"multiplier {multiplier}: {parameters:5,} weights for {weight.size:,}, {error:8.2%} off")

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
shown = 5
for axis, picture, title in zip(
    axes, (standard, results[1], results[2], results[4]), ("standard", "multiplier 1", "multiplier 2", "multiplier 4"), strict=True
):
    axis.imshow(picture[0, shown], cmap="coolwarm", vmin=-0.4, vmax=0.4)
    axis.set_title(title)
    axis.set_axis_off()

# %%
# A network that is trained with separable layers need not imitate a standard one: it learns the windows that suit.
#
# What it saves
# -------------
# The blocks of MobileNet, each beside the standard layer that it stands for: parameters and operations by the formula, the time
# measured here while this page was built, both fastconv's own kernels with the same rounding.

claims = measured(seconds=0.2)
for claim in claims:
    print(
        f"{claim.name:22} {claim.parameters:5.1f} x fewer parameters, {claim.operations:4.1f} x fewer operations, "
        f"{claim.speed:4.1f} x faster"
    )

places = np.arange(len(claims))
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
axis.bar(places - 0.27, [claim.parameters for claim in claims], 0.26, label="parameters")
axis.bar(places, [claim.operations for claim in claims], 0.26, label="operations")
axis.bar(places + 0.27, [claim.speed for claim in claims], 0.26, label="time: how many times as fast")
axis.axhline(9, color="0.6", linewidth=0.8)
axis.text(-0.5, 9.1, "k² = 9", color="0.4", fontsize=8)
axis.set_xticks(places, [claim.name.replace(", ", "\n") for claim in claims], fontsize=8)
axis.set_ylabel("standard layer over separable block")
figure.legend(loc="outside upper center", ncols=3, frameon=False)

# %%
# One pass
# --------
# fastconv computes the pair in one pass: a band of rows of the depthwise result is made, stays in the cache, and is taken from
# there by the pointwise product. ``explain`` counts the traffic that this saves; :doc:`/kernels/separable` draws it.

x = rng.standard_normal((1, 128, 56, 56), np.float32)
depthwise, pointwise = rng.standard_normal((128, 1, 3, 3), np.float32), rng.standard_normal((128, 128), np.float32)
print(fc.explain(fc.separable_conv2d, x, depthwise, pointwise, padding=1, depthwise_activation="relu", activation="relu"))

# sphinx_gallery_thumbnail_number = 2
