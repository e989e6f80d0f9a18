"""The article's claim: what is counted, printed and drawn."""

import io
import sys

import pytest

from fastconv.__main__ import main
from fastconv.bench import Console
from fastconv.bench.article import BLOCKS, Claim, _block, article, standard_of

SMALL = {"4 to 8, 9 x 9": _block(4, 9, 8)}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_formula_of_the_article(name):
    """(k^2 + F) / (k^2 F) of the operations, and of the weights: with the biases nearly so."""
    block = BLOCKS[name]
    claim, k, f = Claim(name, standard_of(block), block, 1.0, 1.0), 9, block.filters
    assert claim.operations == pytest.approx(k * f / (k + f), rel=1e-12)
    assert claim.parameters == pytest.approx(k * f / (k + f), rel=0.05)
    assert claim.speed == 1 and claim.share == pytest.approx((k + f) / (k * f))


def test_the_standard_layer_gives_the_same_shape():
    for block in BLOCKS.values():
        standard = standard_of(block)
        assert standard.out_shape == block.out_shape and standard.kind == "standard"
        assert standard.precision == "highest" and standard.activation == block.pointwise.activation


def test_article(tmp_path):
    file, printed = tmp_path / "claim.png", io.StringIO()
    [claim] = article(threads=1, seconds=0.01, plot=str(file), console=Console(printed), blocks=SMALL)
    assert claim.separable_seconds > 0 and claim.standard_seconds > 0
    assert f"{claim.share:.0%}" in printed.getvalue() and "4 to 8, 9 x 9" in printed.getvalue()
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["fastconv.bench.article"], "BLOCKS", SMALL)  # the package has a function of that name
    assert main(["bench", "--article", "--quick", "--threads", "1"]) == 0
    assert "of the operations' ratio" in capsys.readouterr().out
