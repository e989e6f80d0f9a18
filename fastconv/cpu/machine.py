"""The machine that kernels are compiled for: lanes, registers, caches, and the multiply-add peak, measured.

What the compiler is told (Numba's target, which `NUMBA_CPU_NAME` may change) counts, not what the host could do.
`FASTCONV_LANES`, 4, 8 or 16 float32 lanes and at most the target's, makes the kernels use narrower vectors, with as many
registers as a machine of that width has: so every width can be tested, and timed, on any machine. It is read once a process.
"""

from __future__ import annotations

import os
import platform
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from fastconv.cpu.compiled import compiled
from fastconv.cpu.simd import TileShape, pointer

# The vectors that a target feature brings: bytes of one, and how many registers there are.
VECTORS = (("+avx512f", 64, 32), ("+avx2", 32, 16), ("+neon", 16, 32), ("", 16, 16))
NARROWED = 16  # registers, if FASTCONV_LANES asks for fewer lanes than the target's: as AVX2 and SSE have
DEFAULT_CACHES = {"L1d": 32 * 1024, "L2": 512 * 1024, "L3": 8 * 1024 * 1024}  # the smallest of the machines that we serve
PEAK_STEPS, PEAK_TIMES = 64, 64  # rank-1 updates of a product, 11 KB of operands that stay in L1; products a measurement


def target_features() -> str:
    """What the target has beyond its family's least, as LLVM writes it: +avx2,+fma,...,-avx512f."""
    from numba.core.registry import cpu_target

    return str(cpu_target.target_context.codegen().magic_tuple()[2])


def target_vector() -> tuple[int, int]:
    """Bytes of the target's widest vector, and how many registers there are."""
    features = target_features().split(",")
    return next((size, registers) for feature, size, registers in VECTORS if not feature or feature in features)


@lru_cache(maxsize=1)
def _vector() -> tuple[int, int]:
    """The same of what the kernels use."""
    size, registers = target_vector()
    asked = os.environ.get("FASTCONV_LANES")
    if not asked:
        return size, registers
    sizes = {str(lanes): 4 * lanes for lanes in (4, 8, 16) if 4 * lanes <= size}
    if asked not in sizes:
        raise ValueError(f"FASTCONV_LANES: got {asked!r}, expected {' or '.join(sizes)}: float32 lanes that this target has")
    return sizes[asked], registers if sizes[asked] == size else NARROWED


def lanes(dtype: str = "float32") -> int:
    """Numbers in a vector register."""
    return _vector()[0] // np.dtype(dtype).itemsize


def registers() -> int:
    """Vector registers."""
    return _vector()[1]


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def target_name() -> str:
    """The processor that code is compiled for, as LLVM calls it."""
    from numba.core.registry import cpu_target

    return str(cpu_target.target_context.codegen().magic_tuple()[1])


def adds_beside() -> bool:
    """Whether additions have pipes of their own beside those of multiply-adds: on all Zen cores; Intel's do both in the same."""
    return target_name().startswith("znver")


@lru_cache(maxsize=1)
def caches() -> dict[str, int]:
    """Bytes of the first core's L1d, L2 and L3; a cautious default where the system does not say."""
    found = dict(DEFAULT_CACHES)
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            number = int(size.rstrip("KM")) * {"K": 1024, "M": 1024**2}.get(size[-1], 1)
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            found["L1d" if level == "1" else f"L{level}"] = number
    return found


@compiled
def multiply_add(tile, a, b, out, steps, times):
    """A product of (rows, steps) with (steps, width), again and again: multiply-adds, and loads that hit L1.

    The operands move on at every step, as in a real kernel: LLVM would keep standing ones in registers, and spill the tile.
    """
    acc = tile.zeros()
    for _ in range(times):
        left, right = pointer(a), pointer(b)
        for _ in range(steps):
            acc = acc.rank1(left, right)
            left += tile.rows
            right += tile.width
    acc.store(pointer(out), tile.width)


def fma_peak(dtype: str = "float32", seconds: float = 0.2) -> float:
    """The multiply-add peak of one core, in GFLOP/s: the best of many runs of a register tile that does nothing else."""
    tall = 12 if registers() == 32 else 6  # rows of two vectors: enough sums in flight, and none spilled
    tile = TileShape(tall, 2, lanes(dtype), 1, dtype)
    a, b = np.ones((PEAK_STEPS, tile.rows), dtype), np.ones((PEAK_STEPS, tile.width), dtype)
    out = np.empty((tile.rows, tile.width), dtype)
    multiply_add(tile, a, b, out, PEAK_STEPS, 1)
    best, start = np.inf, time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        multiply_add(tile, a, b, out, PEAK_STEPS, PEAK_TIMES)
        best = min(best, time.perf_counter() - begin)
    return 2 * tile.rows * tile.width * PEAK_STEPS * PEAK_TIMES / best / 1e9
