"""Toom and Cook's scheme along signals, picked by name: against the reference, within its bound."""

import cases
import numpy as np
import pytest
import tiled

from fastconv import plan
from fastconv.cpu import machine, packing, signals
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.winograd import APART, transformed_filters
from fastconv.plan import choose

NAMES = tuple(signals.SCHEMES)
TILED = [name for name in NAMES if name in tiled.PICKS]
DESIGNED = {
    "winograd_signal_6_3": ["n2c20i100f40k3p1,bias,gelu", "n1c33i77f33k3p8d8,bias,relu,channels_last", "n1c1i2f3k3p3"],
    "winograd_signal_4_2": ["n1c20i203f40k2d16,bias", "n2c34i50f34k2g2,bias,relu,channels_last", "n1c17i2f3k2p0:1"],
    "winograd_signal_4_5": ["n1c20i53f40k5p2,bias", "n1c33i41f33k5p6:3d3,channels_last", "n1c2i3f3k5p2"],
    "winograd_signal_4_3_stride_2": ["n1c20i103f40k3s2p1,bias", "n1c33i60f33k3s2p2d2,residual,relu", "n2c2i3f3k3s2p1"],
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in TILED), (TILED[0], "float64")])
def test_whole_numbers(name, dtype):
    tile = tiled.tile_of(name, dtype, *tiled.PICKS[name][1][0])
    for line in tiled.problems(name, tile, 20):
        tiled.check(name, line, tile, threads=3)


@pytest.mark.parametrize("name", NAMES)
def test_designed(name):
    for line in DESIGNED[name]:
        tiled.check(name, f"conv1d,{line}")


def test_views():
    tiled.check_views(TILED[0], 5)


@pytest.mark.parametrize("name", TILED)
def test_threads_do_not_change_a_bit(name):
    """Long signals are divided, and many filters."""
    stride = signals.SCHEMES[name].across.stride
    for line in (f"n2c20i9000f40k3s{stride}p1", f"n1c70i300f140k3s{stride}p2d2,bias"):
        tiled.check_threads(name, f"conv1d,{line}")


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in NAMES), (NAMES[0], "float64")])  # each is compiled
def test_the_bound(name, dtype):
    """It holds for random numbers, lies below the promise, and falls as channels grow more."""
    scheme = signals.SCHEMES[name]
    bounds = [signals.error_bound(scheme, channels, dtype) for channels in (2, 17, 64, 300, 2048)]
    assert plan.ERRORS["high"] > bounds[0] and bounds == sorted(bounds, reverse=True)
    for channels in (1, 17, 300) if dtype == "float32" else (17,):
        problem, given = tiled.of_normal_numbers(
            f"conv1d,n1c{channels}i130f20k{scheme.across.taps}s{scheme.across.stride}p1,{dtype}"
        )
        x = np.pad(given["x"].astype(np.longdouble), ((0, 0), (0, 0), (1, 1)))
        [stride], [width] = problem.stride, problem.out_space
        taps = (x[:, :, b : b + (width - 1) * stride + 1 : stride] for b in range(scheme.across.taps))
        exact = sum(np.einsum("fc,nci->nfi", given["weight"][:, :, b], tap) for b, tap in enumerate(taps))
        share = (np.abs(tiled.result(tiled.chosen(name, problem), given) - exact) / cases.largest(problem, given)).max()
        assert share <= signals.error_bound(scheme, channels, dtype), f"{problem}: {share:.1e}"


@pytest.mark.parametrize("name", NAMES)
def test_transformed_taps(name):
    """[group][panel][bias, then matrix, channel][filter]: G w."""
    scheme, lanes = signals.SCHEMES[name].across, machine.lanes("float64")
    weight = np.random.default_rng(0).standard_normal((2 * lanes + 1, lanes + 1, scheme.taps))
    u = transformed_filters(packing.by_group(weight, 1), None, 2 * lanes, lanes, signals.SCHEMES[name])
    g = np.array(scheme.g[: scheme.matrices], float)
    numbers = u[0, :, 1:].reshape(2, scheme.matrices, 2 * lanes + APART, 2 * lanes).transpose(1, 2, 0, 3)[:, : lanes + 1]
    exact = np.einsum("pt,fct->pcf", g, weight)
    np.testing.assert_allclose(numbers.reshape(*exact.shape[:2], -1)[..., : 2 * lanes + 1], exact, rtol=1e-13, atol=1e-13)


TAKEN = {
    "conv1d,n1c80i3000f384k3p1,bias,gelu": "winograd_signal_6_3",
    "conv1d,n1c512i1599f512k3s2,bias,gelu": "winograd_signal_4_3_stride_2",
    "conv1d,n1c64i4000f128k2d64,bias": "winograd_signal_4_2",
    "conv1d,n1c256i400f256k5p2": "winograd_signal_4_5",
}


@pytest.mark.parametrize("line", TAKEN)
def test_the_plan_takes_it(line):
    """For the layers of Whisper, wav2vec and WaveNet; never with the highest precision."""
    assert choose(cases.parse(line), IMPLEMENTATIONS, 1, "columns").implementation.name == TAKEN[line]
    assert choose(cases.parse(line + ",highest"), IMPLEMENTATIONS, 1, "columns").implementation.algorithm == "tiled"
