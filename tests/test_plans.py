"""Work items: together they compute every number of the result, each of them one that no other does."""

from unittest.mock import patch

import cases
import numpy as np
import pytest
import tiled

from fastconv.cpu import machine, plans
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose
from fastconv.problem import SeparableProblem

# Small ones give bands of few rows, even of small images.
CACHES = {"own": machine.caches(), "small": {"L1d": 4096, "L2": 16384, "L3": 65536}}
WAYS = [(threads, caches) for threads in (1, 4) for caches in CACHES]
TEXTS = [text for text in cases.CASES if "n0" not in text]
# Whose items have all filters of a group, or of as many groups as there are lanes.
ALL_FILTERS = ("winograd_groups", "winograd_groups_last", "tiled_transposed_blocks_pixels")
ITEMS = 60  # of a problem at most: each is run into a result of its own


def items_are_apart(name, line, choice, given, rng):
    """Run all items in random order, each into NaN: no number is computed twice, and all are."""
    problem, order = choice.problem, rng.permutation(choice.division.items)
    compute, whole = tiled.item_by_item(choice, given), np.full(choice.problem.out_shape, np.nan, choice.problem.dtype)
    for item in order:
        out = np.full(problem.out_shape, np.nan, problem.dtype)
        compute(item, out)
        written = ~np.isnan(out)
        assert np.isnan(whole[written]).all(), f"{name}: {line}: item {item} computes what another does"
        whole[written] = out[written]
    assert not np.isnan(whole).any(), f"{name}: {line}: {np.isnan(whole).sum()} numbers in none of {order.size} items"
    return whole


@pytest.mark.parametrize("name", tiled.OWN)
def test_items_are_apart(name):
    """For any number of threads and any caches, which divide the work otherwise and change no bit."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    divided = {way: set() for way in WAYS}
    for line in tiled.problems(name, tile, 30, seed=2):
        problem, rng, results = cases.parse(line), np.random.default_rng(0), []
        given = cases.arrays(problem, rng)
        for threads, caches in WAYS:
            with patch.object(machine, "caches", lambda caches=caches: CACHES[caches]):
                choice = tiled.chosen(name, problem, tile, threads)
            division = choice.division
            if division.items <= ITEMS:
                results.append(items_are_apart(name, line, choice, given, rng))
                divided[threads, caches] |= {word for word in ("bands", "chunks") if getattr(division, word) > 1}
        for whole in results[:1]:
            tiled.agree(name, line, given, whole.reshape(problem.out_shape))
        assert all(whole.tobytes() == results[0].tobytes() for whole in results), f"{name}: {line}: other bits"
    fresh = name.endswith("_fresh")  # their bands transform weights anew: filters are cut first, and for threads alone
    in_place = name in ("tiled_pointwise_pixels", *tiled.SINGLE)  # cut for threads alone, too; and a few images sum up in any L1
    for (threads, caches), met in divided.items():
        # For threads their chunks are cut; what patches of few channels sum fits even small caches.
        pairs = name == "strassen_patches" or (name.startswith("strassen") and caches == "own")
        if not (fresh or pairs) and (threads > 1 or (caches == "small" and not in_place)):
            assert "bands" in met, (threads, caches)
        if threads > 1 and name not in ALL_FILTERS:
            assert "chunks" in met, (threads, caches)


@pytest.mark.parametrize("text", TEXTS)
def test_every_choice_is_legal_and_whole(text):
    """What the plan takes accepts the problem, and its items make up the result."""
    problem = cases.parse(text)
    given = cases.arrays(problem, np.random.default_rng(0))
    choice = choose(problem, IMPLEMENTATIONS, 4)
    assert choice.implementation.accepts(choice.problem, "any") is None, text
    if isinstance(problem, SeparableProblem):
        return
    if choice.division.items <= ITEMS:
        items_are_apart(choice.implementation.name, text, choice, given, np.random.default_rng(0))


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("name", tiled.OWN)
def test_sizes(name, threads):
    """Bands and chunks cover rows and filters, none is empty, a chunk is whole panels, scratch keeps to its share of L2."""
    tile = tiled.tile_of(name, "float32", *tiled.PICKS[name][1][0])
    for line in tiled.problems(name, tile, 100, seed=3):
        problem = cases.parse(line)
        d = tiled.chosen(name, problem, tile, threads).division
        filters = (d.seen or problem).filters // problem.groups  # blocks have more of them
        filters //= 2 if name.startswith("strassen") else 1  # pairs
        assert d.chunks * d.chunk >= filters > (d.chunks - 1) * d.chunk, line
        assert d.chunk % d.unit == 0 and d.items % (d.bands * d.chunks) == 0, line
        assert d.band >= 1 and d.tile == tile, line


@pytest.mark.parametrize("text", ["transposed2d,n1c128i14f64k3s2p1o1", "conv2d,n1c16i14f48k5p2"])
def test_a_wide_tile_leaves_work_for_every_thread(text, every_tile):
    division = choose(cases.parse(text), IMPLEMENTATIONS, 2).division
    assert division.items >= 2


ROWS_IN_STRIPS = {
    "tiled_standard": "conv2d,n1c16i3x{}f33k3p1", "tiled_pointwise": "conv2d,n2c16i1x{}f33k1",
    "tiled_transposed_blocks": "transposed2d,n1c16i5x{}f3k3s3x1p1",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS_IN_STRIPS)
def test_a_strip_is_no_longer_than_its_row(name, every_tile):
    for width in range(1, 40):
        problem = cases.parse(ROWS_IN_STRIPS[name].format(width))
        if tiled.BY_NAME[name].refuse(problem) is None:
            assert tiled.BY_NAME[name].divide(problem, 2).tile.short.rows <= width, width


@pytest.mark.parametrize("kernel", ["filters_in_lanes", "pixels_in_lanes"])
def test_scratch_is_bounded(kernel):
    for size in (32, 224, 1024):
        problem = cases.parse(f"conv2d,n1c64i{size}f64k3p1")
        division = getattr(plans.standard, kernel)(problem, 1)
        rows = division.bands == problem.out_space[0]  # a single row may need more than the share
        assert rows or division.scratch <= 1.1 * plans.shares.scratch_numbers("float32")
