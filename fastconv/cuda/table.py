"""The implementations of CUDA, and their tiles for each compute capability; of two that cost the same the first is taken.

Costs are in cycles of the multiply-add units, and come from the machine code that `python -m fastconv cuda-report` shows. Beside
the times of an H100 (docs/gpu.rst) they are right for large batches, and two to four times too small for one small image, of
which a tile's first loads and last stores take most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.cpu.toom import F4, nested
from fastconv.cpu.winograd import error_bound
from fastconv.cuda import atrous, depthwise, launchers, pointwise, separable, standard, transposed
from fastconv.cuda.indices import LINES
from fastconv.cuda.launchers import Gpu
from fastconv.cuda.tiles import Patch, Slab, Tile
from fastconv.cuda.winograd import OUTPUTS, WINDOW
from fastconv.plan import AnyProblem, Choice, Division, Implementation, choose
from fastconv.problem import Problem, SeparableProblem

# Tiles of the implicit matrix product, by compute capability and dtype. A device older than all of these gets the first.
# float32: three blocks of 128 threads share the 65,536 registers of a multiprocessor if a thread has 168 at most. Sums and operands
# take 128 of them, and the other 40 suffice, so that nothing spills. Slices of 16 terms make one barrier in 1,024 multiply-adds a
# thread. The smaller tile is for layers whose large tiles would be too few for all multiprocessors.
# float64: sums alone take 128 registers; slices of 8 terms keep the one under way small.
TILES: dict[int, dict[str, tuple[Tile, ...]]] = {
    80: {
        "float32": (Tile(128, 64, 16, 168), Tile(64, 64, 16, 168)),
        "float64": (Tile(64, 64, 8, 255),),
    },
    90: {
        "float32": (Tile(128, 64, 16, 168), Tile(64, 64, 16, 168)),
        "float64": (Tile(64, 64, 8, 255),),
    },
}
# Windows that tiled_depthwise has code for: those of MobileNet, EfficientNet and ConvNeXt. A warp is a row of 32 columns, so that
# its loads are whole lines. With four rows a thread, 18 numbers are read for the 36 multiply-adds of a 3x3 window. Windows of 7x7
# still fit the registers, except in float64 with stride 2: the 91 numbers that four rows see take 182 registers, the weights 98.
# There a thread computes ROWS_OF_LARGE rows, which see 63.
WINDOWS = ((3, 3), (5, 5), (7, 7))
STRIDES = ((1, 1), (2, 2))
ACROSS, DOWN, ROWS, ROWS_OF_LARGE = 32, 4, 4, 2
SLAB = Slab(8, 32, 16)  # of direct_separable: a warp a filter, so that all its lanes read one weight
INT32 = 2**31 - 2**20  # numbers of an array that 32-bit indices reach, with room for what lies beyond a tile's edge
GRID_ROWS = 65_535  # the most blocks of a grid's second dimension
LANES = 64  # multiply-adds that a multiprocessor of 8.0 does in a cycle
DIRECT, TILED = 46, 1.2  # instructions for each multiply-add of direct_standard, and of the implicit matrix product's main loop
BYTES = 10  # that a multiprocessor's share of the memory moves in a cycle: 1,555 GB/s for 108 of them at 1.41 GHz
# Terms are split among blocks where that takes fewer cycles. Each block gets at least LEAST_SLICES slices, so that what it does
# before and after them stays small, and all blocks take at most MOST_ROUNDS rounds of all multiprocessors. The launch that adds up
# the splits is assumed to take LAUNCH cycles, 2 us.
LEAST_SLICES, MOST_ROUNDS, LAUNCH = 4, 4, 3_000
# tiled_separable adds up a window tap by tap, and each tap waits for the loads of the one before it: cycles that a thread waits, as
# measured on an H100 (256 channels of 28x28 take 216 us; the two parts, one after the other, take 25).
WAITING = 360
RESIDENT = 4  # blocks of tiled_depthwise_weight_gradient that share a multiprocessor: 128 threads of up to 128 registers


def tiles(capability: int, dtype: str) -> tuple[Tile, ...]:
    """Those of the newest capability in the table that is not above this one."""
    known = [c for c in TILES if c <= capability] or [min(TILES)]
    return TILES[max(known)][dtype]


def patch(problem: Any) -> Patch:
    """Of tiled_depthwise."""
    large = problem.dtype == "float64" and problem.kernel == (7, 7) and problem.stride == (2, 2)
    return Patch(problem.kernel, problem.stride, ACROSS, DOWN, ROWS_OF_LARGE if large else ROWS)


def patches(problem: Any) -> int:
    """Of a plane of the result."""
    rows, (height, width) = patch(problem).rows, problem.out_space
    return -(-height // (DOWN * rows)) * -(-width // ACROSS)


# Which problems --------------------------------------------------------------------------------------------------------


def _never(problem: AnyProblem) -> None:
    return None


def _reachable(problem: Any) -> str | None:
    """By 32-bit indices, counting what a border would add."""
    first = problem.depthwise if isinstance(problem, SeparableProblem) else problem
    seen = [n + max(0, before) + max(0, after) for n, (before, after) in zip(first.space, first.pads, strict=True)]
    largest = max(first.batch * first.channels * math.prod(seen), math.prod(problem.out_shape), problem.parameters)
    return f"indexes by 32 bits, and an array has {largest:,} numbers" if largest > INT32 else None


def _dense(problem: Any) -> str | None:
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    phases = math.prod(last.stride) if last.operation == "transposed" else 1
    if phases * last.groups * -(-last.filters // last.groups // 64) > GRID_ROWS:
        return f"has a row of blocks for each group, and here are {phases * last.groups:,}"
    if phases > 1 and sum(transposed.most_taps(last.kernel, transposed.steps_of(last.stride, last.dilation))) > LINES:
        return f"counts {LINES} lines of taps of a phase, this window is {last.kernel}, stride {last.stride}"
    packed = _packed(problem)
    return f"indexes by 32 bits, and packs a factor to {packed:,} numbers" if packed > INT32 else _reachable(problem)


def _parts(problem: Any) -> str | None:
    """Each by its own kernel; asked for a tiled one, the depthwise part must have it, too."""
    return _dense(problem) or (_window(problem.depthwise) if problem.algorithm == "tiled" else None)


def _packed(problem: Any) -> int:
    """Numbers of the factor that is packed, weights or a gradient, if the panels are those of the largest tile."""
    groups, filters, _, terms = product_of(problem)
    phases = math.prod(problem.stride) if problem.kind == "transposed" else 1
    largest = max((tile for known in TILES.values() for tile in known[problem.dtype]), key=lambda tile: tile.filters)
    return phases * groups * _padded(filters, largest.filters) * _padded(terms, largest.terms)  # type: ignore[no-any-return]


def _windows_suit(problem: Any) -> str | None:
    if problem.kernel != (3, 3) or problem.stride != (1, 1) or problem.groups != 1:
        return "computes 3x3 windows of stride 1 without groups"
    needed = transformed(winograd_product(problem))
    return f"indexes by 32 bits, and needs {needed:,} numbers" if needed > INT32 else _reachable(problem)


def winograd_product(problem: Any) -> Any:
    """The product of Winograd's scheme: a pointwise layer of 36 groups, a point each, with a tile a pixel."""
    count = problem.batch * math.prod(-(-size // OUTPUTS) for size in problem.out_space)
    return replace(
        problem, batch=1, space=(count,), kernel=(1,), stride=(1,), pads=((0, 0),), dilation=(1,), groups=WINDOW,
        channels=WINDOW * problem.channels, filters=WINDOW * problem.filters, bias="none", residual=False,
    )  # fmt: skip


def transformed(product: Any) -> int:
    """Numbers of the image and of the result at all points."""
    return product.space[0] * (product.channels + product.filters)  # type: ignore[no-any-return]


def _window(problem: Any) -> str | None:
    if problem.dimensions != 2 or any(d != 1 for d in problem.dilation):
        return "computes planes without dilation"
    if problem.kernel not in WINDOWS or problem.stride not in STRIDES:
        return f"has windows of {WINDOWS} and strides of {STRIDES}, this is {problem.kernel}, stride {problem.stride}"
    if problem.channels != problem.groups:
        return "computes depthwise layers"
    if problem.data_format == "channels_last" and problem.algorithm == "auto":
        return "reads neighbouring columns, and channels last they are not neighbours in memory"
    if problem.batch * problem.filters > GRID_ROWS:
        return f"has a row of blocks for each plane, and here are {problem.batch * problem.filters:,}"
    return _reachable(problem)


# What they cost --------------------------------------------------------------------------------------------------------


def product_of(problem: Any) -> tuple[int, int, int, int]:
    """(groups, filters, pixels, terms) of the matrix product that a problem is; of weights, pixels and terms are exchanged."""
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    pixels, terms = problem.batch * math.prod(problem.out_space), last.channels // last.groups * math.prod(last.kernel)
    if last.operation == "transposed":
        terms = -(-terms // math.prod(last.stride))  # of a phase, on the average
    if last.operation == "weights":
        pixels, terms = terms, pixels
    return last.groups, last.filters // last.groups, pixels, terms


def blocks(problem: Any, tile: Tile) -> int:
    """Of an implicit matrix product whose terms are not split."""
    groups, filters, pixels, _ = product_of(problem)
    return -(-pixels // tile.pixels) * groups * -(-filters // tile.filters)


def slices(problem: Any, tile: Tile, splits: int = 1) -> int:
    """Of its terms, that a block computes."""
    whole = -(-product_of(problem)[3] // tile.terms)
    return -(-whole // splits)


def _padded(n: int, step: int) -> int:
    return -(-n // step) * step


def _tile_cycles(problem: Any, tiling: tuple[Tile, int], multiprocessors: int) -> float:
    """The busiest multiprocessor's: whole tiles, filled or not, of whole slices; and what it takes to add up splits."""
    tile, splits = tiling
    rounds = -(-blocks(problem, tile) * splits // multiprocessors)
    cycles = rounds * tile.filters * tile.pixels * slices(problem, tile, splits) * tile.terms * TILED / LANES
    if splits == 1:
        return cycles
    return cycles + LAUNCH + 2 * splits * _sums(problem) * np.dtype(problem.dtype).itemsize / BYTES / multiprocessors


def _sums(problem: Any) -> int:
    groups, filters, pixels, _ = product_of(problem)
    return groups * filters * pixels


def _splits(problem: Any, tile: Tile, multiprocessors: int) -> Iterator[int]:
    """None, and as many as give every multiprocessor one block, two, ..."""
    most = min(slices(problem, tile) // LEAST_SLICES, INT32 // max(1, _sums(problem)), GRID_ROWS)
    yield 1
    for rounds in range(1, MOST_ROUNDS + 1):
        splits = min(rounds * multiprocessors // max(1, blocks(problem, tile)), most)
        if splits > 1:
            yield splits


def _best_tile(problem: Any, here: Gpu, whole: bool = False) -> tuple[Tile, int]:
    """The tile, and the number of splits, of the fewest cycles; `whole` asks for one."""
    return min(
        ((tile, splits) for tile in tiles(here.capability, problem.dtype)
         for splits in ((1,) if whole else _splits(problem, tile, here.multiprocessors))),
        key=lambda tiling: _tile_cycles(problem, tiling, here.multiprocessors),
    )  # fmt: skip


def _product_cycles(problem: Any, here: Gpu) -> float:
    """Of an implicit matrix product by its best tile."""
    return _tile_cycles(problem, _best_tile(problem, here), here.multiprocessors)


def _winograd_cycles(problem: Any, here: Gpu) -> float:
    """The product's, and the time of what passes through memory on its way, written and read."""
    product = winograd_product(problem)
    moved = 2 * transformed(product) * np.dtype(problem.dtype).itemsize
    best = _best_tile(product, here, whole=True)
    return _tile_cycles(product, best, here.multiprocessors) + moved / BYTES / here.multiprocessors


def _part_cycles(problem: Any, here: Gpu) -> float:
    """Of a depthwise part: what it reads and writes."""
    moved = problem.batch * problem.channels * math.prod(problem.space) + math.prod(problem.out_shape)
    cycles = moved * np.dtype(problem.dtype).itemsize / BYTES / here.multiprocessors
    return cycles if _window(problem) is None else max(cycles, problem.operations / 2 * DIRECT / (here.multiprocessors * LANES))


def _parts_cycles(problem: Any, here: Gpu) -> float:
    """Of a separable layer's parts, one after the other."""
    return _part_cycles(problem.depthwise, here) + LAUNCH + _product_cycles(problem.pointwise, here)


def _windows_cycles(problem: Any, here: Gpu) -> float:
    """Of tiled_separable: the product, or the windows, whichever takes longer."""
    (tile, splits), taps = _best_tile(problem, here), math.prod(problem.depthwise.kernel)
    rounds = -(-blocks(problem, tile) * splits // (RESIDENT * here.multiprocessors))
    windows = rounds * slices(problem, tile, splits) * tile.terms * tile.pixels // tile.threads * taps * WAITING
    return max(windows, _tile_cycles(problem, (tile, splits), here.multiprocessors))


# How a problem is divided --------------------------------------------------------------------------------------------


def _divide_planes(problem: Any, multiprocessors: int) -> Division:
    tile = patch(problem)
    return Division(problem.batch * problem.filters * patches(problem), tile=tile, fields={"shared": tile.shared_numbers})


def _divide_product(problem: Any, here: Gpu, between: int = 0) -> Division:
    """Of an implicit matrix product, whose terms may be split; `between` numbers pass through memory on their way to it."""
    tile, splits = _best_tile(problem, here)
    scratch = between + (splits * _sums(problem) if splits > 1 else 0)
    return Division(
        blocks(problem, tile) * splits, scratch=scratch, tile=tile, fields={"splits": splits, "shared": tile.shared_numbers}
    )


def _divide_gradient(problem: Any, multiprocessors: int) -> Division:
    """As many shares of the patches as fill every multiprocessor, if there are so many."""
    splits = max(1, min(problem.batch * patches(problem), RESIDENT * multiprocessors // problem.filters))
    scratch = splits * problem.filters * math.prod(problem.kernel) if splits > 1 else 0
    tile = patch(problem)
    fields = {"splits": splits, "shared": tile.shared_numbers + math.prod(tile.taps) * tile.threads // 2}
    return Division(problem.filters * splits, scratch=scratch, tile=tile, fields=fields)


def _divide_tiles(problem: Any, here: Gpu) -> Division:
    """Of Winograd's scheme."""
    product = winograd_product(problem)
    tile, _ = _best_tile(product, here, whole=True)
    return Division(blocks(product, tile), scratch=transformed(product), tile=tile, fields={"shared": tile.shared_numbers})


def _divide_outputs(problem: Any, multiprocessors: int) -> Division:
    return Division(-(-math.prod(problem.out_shape) // launchers.THREADS))


def _divide_slabs(problem: Any, multiprocessors: int) -> Division:
    outputs = math.prod(problem.out_shape)
    return Division(-(-outputs // SLAB.threads), tile=SLAB, fields={"shared": SLAB.shared_numbers})


def _divide_weights(problem: Any, multiprocessors: int) -> Division:
    return Division(math.prod(problem.weight_shape), fields={"shared": launchers.REDUCERS})


# The table -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def implementations(here: Gpu) -> tuple[Implementation, ...]:
    """In order, for one sort of device."""

    def choose_part(part: Problem) -> Choice:
        return choose(part, implementations(here), here.multiprocessors)

    def direct(
        kind: str, run: Any, divide: Callable[[Any, int], Division] = _divide_outputs, refuse: Any = _never, name: str = ""
    ) -> Implementation:
        def cycles(problem: Any) -> float:
            return problem.operations / 2 * DIRECT / (here.multiprocessors * LANES)

        return Implementation(name or f"direct_{kind}", "direct", (kind,), run, None, divide, "outputs", refuse, cycles=cycles)

    def tiled(kind: str, run: Any, cycles: Callable[[Any, Gpu], float] = _product_cycles, name: str = "") -> Implementation:
        return Implementation(
            name or f"tiled_{kind}", "tiled", (kind,), run, None, lambda problem, _: _divide_product(problem, here),
            "pixels and filters", _dense, cycles=lambda problem: cycles(problem, here),
        )  # fmt: skip

    return (
        Implementation(
            "winograd_4x4", "winograd", ("standard",), launchers.by_window, None,
            lambda problem, _: _divide_tiles(problem, here), "tiles", _windows_suit,
            cycles=lambda problem: _winograd_cycles(problem, here),
            error=lambda problem: error_bound(nested(F4), problem.channels, problem.dtype),
        ),
        tiled("pointwise", launchers.by_tile(pointwise.tiled_pointwise)),
        Implementation(
            "tiled_depthwise", "tiled", ("depthwise",), launchers.by_patch(depthwise.tiled_depthwise), None, _divide_planes,
            "columns", _window,
        ),
        Implementation(
            "tiled_parts", "tiled", ("separable",), launchers.by_parts(choose_part), None,
            lambda problem, _: _divide_product(problem.pointwise, here, math.prod(problem.depthwise.out_shape)),
            "pixels and filters", _parts, cycles=lambda problem: _parts_cycles(problem, here),
        ),
        tiled("separable", launchers.by_tile(separable.tiled_separable), _windows_cycles),
        tiled("atrous", launchers.by_tile(atrous.tiled_atrous)),
        tiled("standard", launchers.by_tile(standard.tiled_standard)),
        tiled("transposed", launchers.by_phase(transposed.tiled_transposed)),
        Implementation(
            "tiled_depthwise_weight_gradient", "tiled", ("weights",), launchers.by_plane, None, _divide_gradient, "columns",
            _window,
        ),
        tiled("weights", launchers.by_term, name="tiled_weight_gradient"),
        direct("pointwise", launchers.by_output(pointwise.direct_pointwise)),
        direct("depthwise", launchers.by_output(depthwise.direct_depthwise)),
        direct("separable", launchers.by_slab(separable.direct_separable), _divide_slabs, _reachable),
        direct("atrous", launchers.by_output(atrous.direct_atrous)),
        direct("standard", launchers.by_output(standard.direct_standard)),
        direct("transposed", launchers.by_output(transposed.direct_transposed)),
        direct("weights", launchers.by_weight, _divide_weights, name="direct_weight_gradient"),
    )  # fmt: skip
