"""The demo, at a small setting, and its parts."""

import io
import sys

import numpy as np
import pytest

for needed in ("matplotlib", "PIL", "skimage"):
    pytest.importorskip(needed)

from fastconv import demo
from fastconv.bench import Console
from fastconv.bench.article import BLOCKS

SYSTEMS = ["standard", "pointwise", "depthwise", "separable", "atrous", "autoencoder"]

FEW = dict(list(BLOCKS.items())[:1])  # the standard layer of the last block has 38 MB of weights


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The systems, what was printed, and the figure's path."""
    path, printed = tmp_path_factory.mktemp("demo") / "figure.png", io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["fastconv.bench.article"], "BLOCKS", FEW)
        systems = demo.demo(out=path, seconds=0.05, console=Console(printed))
    return {system.title: system for system in systems}, printed.getvalue(), path


def test_the_table_has_the_six_systems(shown):
    systems, printed, _ = shown
    assert list(systems) == SYSTEMS
    table = printed.split("\n\n")[0].splitlines()
    assert list(dict.fromkeys(line.split()[0] for line in table[3:])) == SYSTEMS


def test_the_figure_is_a_picture(shown):
    from PIL import Image

    with Image.open(shown[2]) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_articles_shapes(shown):
    systems = shown[0]
    three, five = systems["standard"].rows
    assert (three.x_shape, three.out_shape[:2]) == ((128, 128, 3), (126, 126))
    assert (five.x_shape, five.out_shape[:2]) == ((128, 128, 3), (124, 124))
    [row] = systems["pointwise"].rows
    assert (row.x_shape, row.out_shape) == ((28, 28, 192), (28, 28, 32))
    [row] = systems["depthwise"].rows
    assert row.x_shape == row.out_shape


def test_results_are_the_references(shown):
    for system in shown[0].values():
        for row in system.rows:
            assert row.error < 1e-4, row.name


def test_the_articles_ratios(shown):
    one, two = shown[0]["separable"].rows
    assert two.operations / one.operations == pytest.approx((9 + 64) / (9 * 64))
    rates = shown[0]["atrous"].rows
    assert len({(row.out_shape, row.parameters, row.operations) for row in rates}) == 1
    assert "3 x 3, 5 x 5, 9 x 9" in shown[0]["atrous"].notes[0]


def test_the_articles_claim(shown):
    _, table, sentence, *_ = shown[1].split("\n\n")[1:]
    assert table.splitlines()[-1].startswith("32 to 64, 112 x 112") and "7.89" in table
    assert sentence.startswith("article: blocks of MobileNet save 87% to 87% of the operations")


def test_separable_comes_near_standard(shown):
    panels = dict(shown[0]["separable"].panels)
    whole, parts = panels["standard, filter 1"], panels["separable, filter 1"]
    assert np.linalg.norm(whole - parts) < 0.2 * np.linalg.norm(whole)


def test_a_picture_of_ones_own(tmp_path):
    from PIL import Image

    Image.new("L", (90, 50), 128).save(tmp_path / "grey.png")
    photo = demo.photograph(tmp_path / "grey.png", 64)
    assert (photo.shape, photo.dtype) == ((64, 64, 3), np.float32)
    np.testing.assert_allclose(photo, 128 / 255, atol=1e-5)


def test_patches_put_together_again():
    picture = np.random.default_rng(0).random((64, 96, 3), np.float32)
    patches = np.stack(list(demo._tiles(picture)))
    assert patches.shape == (6, 3, 32, 32)
    np.testing.assert_array_equal(demo._joined(patches, 3), picture)


def test_no_training_patch_shows_the_middle():
    photo = np.zeros((128, 128, 3), np.float32)
    photo[32:96, 32:96] = 1
    assert not demo._patches_outside_the_middle(photo, 50).any()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"skimage: python -m pip install 'fastconv\[demo\]'"):
        demo.demo()
