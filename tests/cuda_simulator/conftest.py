"""For the CUDA tests: small tiles and blocks, so that a simulated block is a few Python threads.

On a machine with a device run them by themselves, `python -m pytest tests/cuda_simulator`: the kernels, and tiles of the real
size, then run there.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tables of cases
import pytest

from fastconv import cuda

if cuda.is_available():
    from fastconv import plan
    from fastconv.cuda import launch, launchers, table, tiles

    EVERY = {"TILES": table.TILES, "ACROSS": table.ACROSS, "DOWN": table.DOWN, "SLAB": table.SLAB}
    # Two 4-pixel halves of a micro-tile, 8 rows of them: 8 threads. Slices of 4 channels, so that loops run over many of them.
    small = tiles.Tile(64, 8, 4)
    FEW = {"TILES": {80: {"float32": (small,), "float64": (small,)}}, "ACROSS": 4, "DOWN": 2, "SLAB": tiles.Slab(8, 4, 3)}
    if cuda.simulated():
        if hasattr(os, "sched_setaffinity"):  # its threads hand Python's lock to and fro: on two cores that takes twice as long
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        launchers.THREADS, launchers.BLOCKS, launchers.REDUCERS = 8, 2, 4
        launch.gpu = lambda index: launch.Gpu(80, 1)
        for name, value in FEW.items():
            setattr(table, name, value)
    plan.TINY = plan.SMALL = 0  # tiled kernels compute what is small enough for a test too


@pytest.fixture(autouse=True)
def no_tapes():
    """Each test plans anew, with the tables that it sees."""
    if cuda.is_available():
        launch.TAPES.clear()


@pytest.fixture
def real_tiles(monkeypatch):
    """The package's own tiles, with the threads that they ask for."""
    yield from with_tiles(monkeypatch, EVERY)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of which a small layer has many, on a device too, and one multiprocessor."""
    monkeypatch.setattr(launch, "gpu", lambda index: launch.Gpu(80, 1))
    yield from with_tiles(monkeypatch, FEW)


def with_tiles(monkeypatch, tiles):
    for name, value in tiles.items():
        monkeypatch.setattr(table, name, value)
    plan.choose.cache_clear()
    table.implementations.cache_clear()
    yield
    plan.choose.cache_clear()
    table.implementations.cache_clear()
