"""Every tile of the tables fits the registers, of every kind of machine."""

import pytest

from fastconv.cpu import machine, tiles

pytestmark = pytest.mark.usefixtures("every_tile")
VECTORS = [(64, 32), (32, 16), (16, 32), (16, 16)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("vector", VECTORS)
def test_tiles_fit_the_registers(vector, dtype, monkeypatch):
    monkeypatch.setattr(machine, "_vector", lambda: vector)
    size, registers = vector
    for table in (tiles.filters_in_lanes(dtype), tiles.pixels_in_lanes(dtype)):
        assert len(set(table)) == len(table)
        for tile in table:
            assert tile.rows * tile.vectors + tile.vectors + 1 <= registers, tile
            assert (tile.lanes, tile.dtype, tile.step) == (size // (4 if dtype == "float32" else 8), dtype, 1)
    for tile in tiles.numbers_in_rows(dtype):
        assert tile.rows * tile.vectors + tile.vectors + 1 <= registers, tile
        assert size // (4 if dtype == "float32" else 8) in (tile.lanes, 2 * tile.lanes) and tile.lanes > 1
    for tile in tiles.dots(dtype):
        assert tile.rows * tile.vectors + tile.rows + 1 <= registers, tile
    assert any(tile.short.rows == 1 for tile in tiles.filters_in_lanes(dtype)), "a result of one column has a tile"


def test_few_sums_wait_for_their_latency():
    from fastconv.cpu.simd import TileShape

    assert tiles.update_cycles(TileShape(1, 1, 8), 0) == tiles.SUMS_IN_FLIGHT[machine.registers()]
    assert tiles.update_cycles(TileShape(6, 2, 8), 0) == 12
    assert tiles.update_cycles(TileShape(6, 2, 8), 2) == 13
    assert tiles.update_cycles(TileShape(14, 1, 8), 0) == 15, "a load each"
