"""What the package believes of its machine is plausible."""

import numpy as np
import pytest

from fastconv.cpu import machine


def test_lanes_and_registers():
    assert machine.lanes() in (4, 8, 16)
    assert machine.lanes("float64") * 2 == machine.lanes("float32") == machine.lanes(np.float32)
    assert machine.registers() in (16, 32)
    if machine.lanes() == 16:
        assert machine.registers() == 32


@pytest.mark.parametrize(
    ("features", "lanes", "registers"),
    [
        ("+avx2,+avx512f,+fma", 16, 32),
        ("+avx2,+fma,-avx512f", 8, 16),
        ("+neon", 4, 32),
        ("", 4, 16),
        ("-avx2,-avx512f", 4, 16),
    ],
)
def test_targets(features, lanes, registers, monkeypatch):
    monkeypatch.setattr(machine, "target_features", lambda: features)
    monkeypatch.delenv("FASTCONV_LANES", raising=False)
    assert machine.target_vector() == (4 * lanes, registers)
    assert machine._vector.__wrapped__() == (4 * lanes, registers)


@pytest.mark.parametrize(
    ("features", "asked", "vector"),
    [
        ("+avx2,+avx512f", "16", (64, 32)),
        ("+avx2,+avx512f", "8", (32, 16)),
        ("+avx2,+avx512f", "4", (16, 16)),
        ("+avx2", "8", (32, 16)),
        ("+neon", "4", (16, 32)),
        ("+avx2", "", (32, 16)),  # as good as none
    ],
)
def test_lanes_can_be_narrowed(features, asked, vector, monkeypatch):
    monkeypatch.setattr(machine, "target_features", lambda: features)
    monkeypatch.setenv("FASTCONV_LANES", asked)
    assert machine._vector.__wrapped__() == vector


@pytest.mark.parametrize(
    ("features", "asked", "expected"),
    [
        ("+avx2", "16", "4 or 8"),
        ("", "8", "4"),
        *(("+avx512f", bad, "4 or 8 or 16") for bad in ("2", "12", "x", "-8", "8.0", " 8")),
    ],
)
def test_other_lanes_are_refused(features, asked, expected, monkeypatch):
    monkeypatch.setattr(machine, "target_features", lambda: features)
    monkeypatch.setenv("FASTCONV_LANES", asked)
    with pytest.raises(ValueError, match=f"FASTCONV_LANES: got '{asked}', expected {expected}: float32 lanes"):
        machine._vector.__wrapped__()


def test_names():
    assert machine.cpu_name().strip()
    assert machine.target_name().strip()


def test_caches():
    caches = machine.caches()
    assert {"L1d", "L2", "L3"} <= set(caches)
    assert 8 * 1024 <= caches["L1d"] <= 1024**2
    assert caches["L1d"] < caches["L2"]
    assert 128 * 1024 <= caches["L2"] <= 1024**3


def test_fma_peak():
    single, double = (machine.fma_peak(dtype, 0.05) for dtype in ("float32", "float64"))
    assert 0.5 < double < single * 1.5
    assert 1 < single < 1000
