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
    monkeypatch.setattr(machine, "_target_features", lambda: features)
    machine._vector.cache_clear()
    try:
        assert (machine.lanes(), machine.registers()) == (lanes, registers)
    finally:
        machine._vector.cache_clear()


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
