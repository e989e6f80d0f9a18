"""The examples of the documentation run."""

import runpy
from pathlib import Path

import matplotlib
import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    yield
    matplotlib.pyplot.close("all")
    matplotlib.use(backend)


def test_embedded():
    made = runpy.run_path(str(EXAMPLES / "plot_embedded.py"))
    edges, v = made["edges"], made["state"][1]
    assert 500 < np.count_nonzero(edges > 0.05) < 3000
    assert v.max() > 0.2 and v.std() > 0.05  # it spread


@pytest.mark.filterwarnings("ignore")
def test_large_image(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("SIDE", "2048")
    made = runpy.run_path(str(EXAMPLES / "plot_large_image.py"))
    assert made["thumbnail"].shape == (256, 256)
    assert made["mean"] == pytest.approx(made["result"].mean().compute(scheduler="synchronous"), abs=1e-6)


def test_autoencoder(monkeypatch):
    """A trial of few patches: it learns, denoises, and restores a whole photograph."""
    pytest.importorskip("sklearn"), pytest.importorskip("skimage")
    monkeypatch.setenv("PATCHES", "160")
    made = runpy.run_path(str(EXAMPLES / "plot_autoencoder.py"))
    assert made["quality"]["autoencoder"] > made["quality"]["untrained network"] + 5
    assert made["psnr"](made["cleaned"], made["held_out"]) > made["psnr"](made["noised"], made["held_out"]) - 1
    assert made["whole"].shape == made["photograph"].shape
