"""
An autoencoder of photographs
=============================

An autoencoder learns without labels: its encoder presses a picture into a small code, its decoder restores the picture from
the code, and what it is asked for is only that the two look alike. Here both are convolutions of
:class:`fastconv.ConvAutoencoder`, trained on patches of photographs that come with scikit-image and scikit-learn, and looked at
on photographs that it has never seen: beside principal component analysis (PCA) with a code of the same size, beside the same
network before training, and as a filter of noise.

It takes less than three minutes on two cores; PATCHES=200 in the environment makes it a trial of seconds.
"""

# %%
# Photographs, cut into patches
# -----------------------------
#
# Four photographs to learn from, two to look at. A patch has 32 x 32 pixels of grey between 0 and 1.

import os

import matplotlib.pyplot as plt
import numpy as np
from skimage import color, data
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA

import fastconv as fc

SIZE = 32
PATCHES = int(os.environ.get("PATCHES", "1500"))
HELD_OUT = min(PATCHES, 400)
LESSONS = ((3e-3, 25), (1e-3, 15), (3e-4, 10))  # learning rate, epochs: the last steps are small ones

LEARNT = [data.astronaut(), data.chelsea(), load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
UNSEEN = [data.coffee(), data.camera()]
rng = np.random.default_rng(0)


def patches(photographs, count):
    """So many patches from anywhere in the photographs, (count, 1, SIZE, SIZE)."""
    cut = []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        row, column = (rng.integers(length - SIZE) for length in photograph.shape)
        cut.append(photograph[row : row + SIZE, column : column + SIZE])
    return np.stack(cut)[:, np.newaxis]


def grey(photograph):
    """Between 0 and 1, float32."""
    return (color.rgb2gray(photograph) if photograph.ndim == 3 else photograph / 255).astype(np.float32)


learnt, unseen = [grey(photograph) for photograph in LEARNT], [grey(photograph) for photograph in UNSEEN]
train, held_out = patches(learnt, PATCHES), patches(unseen, HELD_OUT)

# %%
# Training
# --------
#
# Three stages, each of which halves the picture: of 32 x 32 pixels remain 4 x 4 places with eight numbers each, 128 numbers for
# 1024. The same seed gives the same network to the last bit, whatever the number of threads.


def fit(x, validation=None):
    """A trained network, and its learning curve."""
    model, curve = fc.ConvAutoencoder(1, (32, 64, 8), kernel_size=4, rng=0), []
    for learning_rate, epochs in LESSONS:
        curve += model.fit(x, epochs, batch_size=16, learning_rate=learning_rate, validation=validation)
    return model, curve


untrained = fc.ConvAutoencoder(1, (32, 64, 8), kernel_size=4, rng=0)
model, curve = fit(train, held_out)
codes = model.encode(held_out)
print(f"{len(curve)} epochs, {model.parameters:,} parameters; a code is {codes.shape[1:]}, {codes[0].size} numbers for {SIZE**2}")

fig, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.semilogy(range(1, len(curve) + 1), [loss.train for loss in curve], label="patches learnt from")
axes.semilogy(range(1, len(curve) + 1), [loss.validation for loss in curve], label="patches of unseen photographs")
axes.set(xlabel="epoch", ylabel="mean squared error", title="Learning curve")
axes.legend()

# %%
# Beside PCA
# ----------
#
# PCA is the best *linear* code of that size for the patches that it has seen, but it has a thousand pixels by themselves to
# learn from 1,500 patches. The network is not linear, and what it knows of one place in the picture it knows of every place: on
# unseen photographs it restores more. (Of many more patches PCA learns more, and the network needs more epochs to stay ahead.)


def psnr(restored, original):
    """Peak signal-to-noise ratio in decibels, for pictures between 0 and 1."""
    return -10 * np.log10(np.mean((restored - original) ** 2))


pca = PCA(codes[0].size, random_state=0).fit(train.reshape(len(train), -1))
by_pca = pca.inverse_transform(pca.transform(held_out.reshape(len(held_out), -1))).reshape(held_out.shape)
restored = model.decode(codes)
quality = {
    "autoencoder": psnr(restored, held_out),
    "PCA, same code size": psnr(by_pca, held_out),
    "untrained network": psnr(untrained.reconstruct(held_out), held_out),
}
for name, decibels in quality.items():
    print(f"{name:20} {decibels:5.1f} dB on unseen photographs")

# %%
# Originals, codes, restorations
# ------------------------------
#
# Patches of unseen photographs with much to see in them. The eight channels of a code, of 4 x 4 numbers each, stand side by
# side in two rows; what they mean is the network's own affair.

shown = np.argsort(held_out.std(axis=(1, 2, 3)))[-60::8][:8]


def mosaic(code):
    """Channels of a code in two rows, with a gap between them."""
    framed = np.pad(code, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return framed.reshape(2, -1, *framed.shape[1:]).swapaxes(1, 2).reshape(2 * framed.shape[1], -1)[:-1, :-1]


def gallery(rows, title):
    """One row of pictures for each name."""
    fig, axes = plt.subplots(len(rows), len(shown), figsize=(9, 1.2 * len(rows) + 0.3), layout="constrained")
    fig.suptitle(title)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            if picture.shape == (SIZE, SIZE):
                ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            else:
                ax.imshow(picture, cmap="coolwarm", vmin=-np.nanmax(np.abs(picture)), vmax=np.nanmax(np.abs(picture)))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")


gallery(
    {
        "original": held_out[shown, 0],
        "code": [mosaic(code) for code in codes[shown]],
        "autoencoder": restored[shown, 0],
        "PCA": by_pca[shown, 0],
    },
    f"{SIZE**2} numbers through {codes[0].size}: autoencoder {quality['autoencoder']:.1f} dB, "
    f"PCA {quality['PCA, same code size']:.1f} dB",
)

# %%
# Without noise
# -------------
#
# Noise finds no room in a small code: a network restores a noisy patch with less noise than went in, though it never saw any
# in training. What it saw in training helps: the second network learns from noisy patches too.


def noisy(x):
    """With normal noise of a tenth of the range."""
    return np.clip(x + 0.1 * rng.standard_normal(x.shape, np.float32), 0, 1)


noised = noisy(held_out)
denoiser, _ = fit(np.concatenate([train[: PATCHES // 2], noisy(train[PATCHES // 2 :])]))
cleaned = denoiser.reconstruct(noised)
print(f"noisy {psnr(noised, held_out):.1f} dB, after the network {psnr(cleaned, held_out):.1f} dB")
gallery(
    {"original": held_out[shown, 0], "noisy": noised[shown, 0], "through the code": cleaned[shown, 0]},
    f"Noisy patches: {psnr(noised, held_out):.1f} dB, through the code {psnr(cleaned, held_out):.1f} dB",
)

# %%
# A whole photograph
# ------------------
#
# Nothing in the network depends on the size of a picture, as long as it can be halved three times.

photograph = unseen[0][: unseen[0].shape[0] // 8 * 8, : unseen[0].shape[1] // 8 * 8]
whole = model.reconstruct(photograph[np.newaxis, np.newaxis])[0, 0]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, picture, title in zip(axes, (photograph, whole), ("original", f"restored, {psnr(whole, photograph):.1f} dB"), strict=True):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title)
    ax.set_axis_off()

plt.show()
