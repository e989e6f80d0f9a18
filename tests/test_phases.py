"""Atrous layers whose phases are few pixels between zeros, picked by name: to the last bit, and within the bound."""

import cases
import numpy as np
import pytest
import tiled

import fastconv as fc
from fastconv import plan
from fastconv.cpu import phases
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose

NAMES = tuple(phases.SCHEMES)
TYPED = [*((name, "float32") for name in NAMES), (NAMES[0], "float64")]  # each is compiled
LINES = {
    "winograd_phases_3": ["n2c20i33f40k3p12d12,bias", "n1c40i9x8f33k3p3d3,bias", "n1c6i5x36f10k3p2x12d2x12g2"],
    "winograd_phases_2": ["n2c20i33f40k3p24d24,bias", "n1c40i9x8f33k3p8x4d8x4,bias", "n1c6i3x36f10k3p2x19d2x19g2"],
}


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_whole_numbers(name, dtype):
    """Coefficients are 1, halves and quarters: not a bit is lost."""
    tile = tiled.tile_of(name, dtype, *tiled.PICKS[name][1][0])
    for line in tiled.problems(name, tile, 25):
        tiled.check(name, line, tile, threads=3)


def test_views():
    tiled.check_views(NAMES[0], 5)


@pytest.mark.parametrize("name", NAMES)
def test_threads_and_bands_do_not_change_a_bit(name, monkeypatch):
    for line in LINES[name]:
        (problem, given), bits = tiled.of_normal_numbers(f"conv2d,{line}"), set()
        for threads, share in ((1, 0.5), (2, 0.5), (3, 0.001), (1, 0.0)):
            monkeypatch.setattr("fastconv.cpu.plans.phases.PHASES_SHARE", share)
            with fc.num_threads(min(threads, fc.get_num_threads())):
                bits.add(tiled.result(tiled.chosen(name, problem, None, threads), given).tobytes())
        assert len(bits) == 1, line


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_the_bound(name, dtype):
    """It holds for random numbers, lies below the promise, falls as channels grow more, and the worst case lies above it."""
    bounds = [phases.error_bound(phases.SCHEMES[name], channels, dtype) for channels in (2, 17, 64, 300, 2048)]
    assert plan.ERRORS["high"] > bounds[0] and bounds == sorted(bounds, reverse=True)
    assert phases.worst_error(phases.SCHEMES[name], 17, dtype) > bounds[1]
    for channels in (1, 17, 300) if dtype == "float32" else (1, 17):
        rate = {"winograd_phases_3": 5, "winograd_phases_2": 8}[name]
        problem, given = tiled.of_normal_numbers(f"conv2d,n1c{channels}i14f20k3p{rate}d{rate},{dtype}")
        got, wide = tiled.result(tiled.chosen(name, problem), given), np.float64 if dtype == "float32" else np.longdouble
        x = np.pad(given["x"].astype(wide), ((0, 0), (0, 0), (rate, rate), (rate, rate)))
        taps = [(a, b) for a in range(3) for b in range(3)]
        exact = sum(
            np.einsum("fc,ncij->nfij", given["weight"][:, :, a, b].astype(wide), x[:, :, a * rate :, b * rate :][:, :, :14, :14])
            for a, b in taps
        )
        share = (np.abs(got - exact) / cases.largest(problem, given)).max()
        assert share <= phases.error_bound(phases.SCHEMES[name], channels, dtype), f"{problem}: {share:.1e}"


@pytest.mark.parametrize(
    ("name", "line"),
    [("winograd_phases_3", "conv2d,n1c256i33f256k3p12d12,bias,relu"), ("winograd_phases_2", "conv2d,n1c512i33f256k3p24d24,bias")],
)
def test_the_plan_takes_it(name, line):
    """For the layers of DeepLab; never with the highest precision."""
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1, "columns").implementation.name == name
    assert choose(cases.parse(line + ",highest"), IMPLEMENTATIONS, 1, "columns").implementation.algorithm == "tiled"


REFUSED = {
    "conv2d,n1c16i33f16k3p11d12": "zeros",
    "conv2d,n1c16i33f16k3s2p12d12": "stride 1",
    "conv2d,n1c16i33f16k5p24d12": "3x3",
    "conv2d,n1c16i37f16k3p12d12": "phases of 3 pixels",
    "conv2d,n1c16i24f16k3p12d12": "phases of 3 pixels",
    "conv2d,n1c16i33x24f16k3p12d12": "24 of rate 12",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line):
    assert REFUSED[line] in tiled.BY_NAME[NAMES[0]].refuse(cases.parse(line))
