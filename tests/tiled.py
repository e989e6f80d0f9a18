"""Kernels picked by name, with any register tile: what the plan would choose is beside the point.

The problems come from the tile: sizes around its rows, its lanes and the blocks of channels, every other trait drawn beside
them, so that a few dozen problems meet every pair of traits. The draw is fixed; a failure prints the problem's line.
"""

import ctypes
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from cases import STEEPEST, arrays, call, computed, is_exact, largest, parse

import fastconv as fc
from fastconv.cpu import launch, machine, phases, signals, winograd
from fastconv.cpu.launch import Bound, pack
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import BLOCK
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import Choice, simplified

BY_NAME = {implementation.name: implementation for implementation in IMPLEMENTATIONS}
TILED = [name for name, implementation in BY_NAME.items() if implementation.algorithm != "direct"]
# Where divisions ask for a kernel's tile, and the (rows, vectors) tried beside the chosen one: all are legal at every width.
PICKS = {
    "tiled_standard": ("standard.filters_tile", ((6, 2), (2, 1))),
    "tiled_standard_pixels": ("standard.pixels_tile", ((4, 3), (8, 1))),
    "tiled_pointwise": ("standard.filters_tile", ((6, 2), (2, 1))),
    "tiled_standard_whole": ("standard.filters_tile", ((6, 2), (2, 1))),
    "tiled_transposed_single": ("standard.filters_tile", ((6, 2), (2, 1))),
    "tiled_pointwise_pixels": ("pointwise.pixels_tile", ((4, 3), (8, 1))),
    "strassen_pointwise": ("strassen.best_tile", ((6, 2),)),
    "strassen_pointwise_turned": ("strassen.best_tile", ((6, 2),)),
    **{name: ("winograd.best_tile", ((6, 2),)) for name in winograd.SCHEMES},
    **{f"{name}_fresh": ("winograd.best_tile", ((6, 2),)) for name in winograd.FRESH},
    **{name: ("phases.best_tile", ((6, 2),)) for name in phases.SCHEMES},
    "winograd_signal_6_3": ("signals.best_tile", ((6, 2),)),
    "winograd_signal_4_3_stride_2": ("signals.best_tile", ((6, 2),)),
    "winograd_groups": ("grouped.best_tile", ((4, 3), (8, 1))),
    "winograd_groups_last": ("grouped.best_tile", ((8, 1),)),
    "winograd_columns_4_3": ("columns.best_tile", ((4, 3), (8, 1))),
    "winograd_columns_6_3": ("columns.best_tile", ((4, 3),)),
    "winograd_columns_4_4": ("columns.best_tile", ((4, 3),)),
    "winograd_columns_7_4": ("columns.best_tile", ((4, 3),)),
    "tiled_transposed": ("transposed.best_tile", ((6, 2), (2, 1))),
    "strassen_patches": ("strassen.best_tile", ((6, 2),)),
    "strassen_transposed": ("strassen.best_tile", ((6, 2),)),
    "strassen_transposed_turned": ("strassen.best_tile", ((6, 2),)),
    "tiled_transposed_woven": ("standard.filters_tile", ((6, 2),)),
    "tiled_transposed_blocks": ("blocks.filters_tile", ((6, 2),)),
    "tiled_transposed_blocks_pixels": ("blocks.pixels_tile", ((4, 3),)),
}
# All but those that share another's loops and have only a scheme of their own: what every kernel must keep to is tried with these.
OWN = [name for name in PICKS if name not in ("winograd_1x4", "winograd_phases_2", "winograd_signal_4_3_stride_2")]
SINGLE = ("tiled_standard_whole", "tiled_transposed_single")
WOVEN = ("strassen_transposed", "strassen_transposed_turned", "tiled_transposed_woven")
BY_LINES_OF_LANES = (*winograd.SCHEMES, *(f"{name}_fresh" for name in winograd.FRESH))


def sizes(name, dtype):
    """Of the tiles to try: of float64 one, for each is compiled."""
    return PICKS[name][1][: None if dtype == "float32" else 1]


def tile_of(name, dtype, rows, vectors):
    lanes = machine.lanes(dtype)
    return TileShape(rows, vectors, lanes, lanes if name in (*BY_LINES_OF_LANES, *phases.SCHEMES, *signals.SCHEMES) else 1, dtype)


def asked(name, problem):
    """A problem as the kernel gets it: its algorithm is asked for, or the plan would leave what is tiny to a direct one."""
    return simplified(replace(problem, algorithm=BY_NAME[name].algorithm))


def chosen(name, problem, tile=None, threads=1):
    """A kernel for a problem, with a tile of its own if one is given."""
    task, implementation = asked(name, problem), BY_NAME[name]
    with patch(f"fastconv.cpu.plans.{PICKS[name][0]}", lambda *_: tile) if tile else nullcontext():
        return Choice(task, implementation, implementation.divide(task, threads), task.operation != problem.operation)


def bound(choice, given, weights=None):
    """The kernel with a problem's arrays."""
    weights = weights or pack(choice, [given["weight"]], [given.get("bias")])
    computed["problems"] += 1
    return Bound(choice, given["x"], "residual" in given).with_weights(weights)


def result(choice, given, out=None):
    """What the kernel computes, into memory full of NaN."""
    problem = choice.problem
    out = np.full(problem.out_shape, np.nan, problem.dtype) if out is None else out
    bound(choice, given).compute(given["x"], given.get("residual"), out)
    return out


def item_by_item(choice, given):
    """A function that computes one item into an array."""
    ready, problem = bound(choice, given), choice.problem
    image = ready._prepared(given["x"])
    code = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(ready._code)
    scratch = np.full(ready._scratch // image.itemsize + 1, np.nan, problem.dtype)

    def compute(item, out):
        words = ready._words.copy()
        if "residual" in given:
            words[launch.RESIDUAL] = given["residual"].ctypes.data
        words[launch.X], words[launch.OUT], words[launch.SCRATCH] = image.ctypes.data, out.ctypes.data, scratch.ctypes.data
        scratch[...] = np.nan  # what an item reads of it, it must have written
        code(item, 0, words.ctypes.data)

    return compute


# Problems around a tile's sizes -----------------------------------------------------------------------------------------


def around(*sizes):
    """The sizes, one less and one more, and a prime a little above two of the largest."""
    near = {size + step for size in sizes for step in (-1, 0, 1)} | {2 * max(sizes) + 1}
    return sorted(size for size in near if size > 0)


ENDINGS = [
    "", "bias", "bias,relu", "pixelbias", "residual,bias,relu6", "bias,clip:-3.0:5.0", "residual",
    "pixelbias,residual,leaky_relu:0.25", "bias,hardswish",
]  # fmt: skip
# Windows and strides of Toom and Cook's schemes, by the taps of a phase of rows.
COLUMN_WINDOWS = {
    3: (("3", "1"), ("3", "1"), ("5", "2"), ("6x3", "2"), ("9x3", "3"), ("7x5", "3x2"), ("3x5", "1x2"), ("3x1", "1x3")),
    4: (("4", "1"), ("7", "2"), ("7", "2"), ("8x3", "2x1"), ("10x3", "3"), ("4x1", "1x4"), ("4x2", "1")),
}


def drawn(rng, traits):
    """One value of each trait, as text."""
    return {name: values[rng.integers(len(values))] for name, values in traits.items()}


def traits_of(name, tile):
    """What the problems of a kernel are drawn from: around the edges of its tile, and what else it has cases for."""
    pointwise, pixels, columns = "pointwise" in name, name.endswith("pixels"), name.startswith("winograd_columns")
    operation = "transposed" if "transposed" in name else "conv"
    widths = around(tile.width if pixels or columns else tile.rows, tile.lanes) + [31]
    traits = {
        "n": (1, 1, 2, 3), "g": (1, 1, 1, 2, 3), "c": around(tile.lanes, BLOCK) + [1, 2, 3],
        "f": around(tile.rows) if pixels or columns else around(tile.lanes, tile.width), "w": widths, "h": (1, 2, 3, 5, 9),
        "k": ("3", "3", "1x2", "5x3", "2", "7x1", "4x5"), "s": ("1", "1", "2", "1x2", "2x1", "3", "2x3"),
        "p": ("0", "1", "1:0x2:1", "0:2x0:1", "4x7", "2"), "d": ("1", "1", "1", "2", "1x3", "3x2"), "end": ENDINGS,
        "format": ("",) if pixels and name != "tiled_standard_pixels" else ("", "channels_last"), "dimensions": (1, 2, 2, 2, 3),
        "o": ("",),
    }  # fmt: skip
    if columns:
        windows, heights = COLUMN_WINDOWS[BY_NAME[name].scheme.taps], (1, 4, 7, 9, 17, 30)
        traits |= {"window": windows, "dimensions": (2,), "h": heights, "d": ("1", "1", "1x2", "1x3"), "c": (1, 2, 3, 5)}
    if operation == "transposed":
        traits |= {"s": ("2", "1x2", "2x1", "3", "2x3", "4"), "o": ("", "o1", "o1x0", "o2x1"), "w": widths[:6], "h": (1, 2, 5)}
    if name.startswith("tiled_transposed_blocks"):
        traits |= {"s": ("2", "3x8", "5", "2x17"), "c": (1, 2, 17), "f": (1, 3, 5), "d": ("1",)}
        traits |= {"dimensions": (2,) if pixels else (1, 2, 2)}
    if name in WOVEN:
        traits |= {"k": ("2", "2", "1x2", "3x2"), "p": ("0",), "d": ("1",), "g": (1,), "o": ("",)}
        traits |= {"format": ("channels_last",) if "turned" in name else ("",) if "strassen" in name else ("", "channels_last")}
        traits |= {"w": (3, 5, 16, 17, 31), "h": (3, 5, 9), "f": around(tile.lanes // 2, tile.width // 2)}
        traits |= {"c": (2, tile.lanes, 34), "f": (tile.lanes, 34)} if "strassen" in name else {}
    if name in BY_LINES_OF_LANES:
        taps, stride, window = BY_NAME[name].scheme.taps, BY_NAME[name].scheme.stride, "{}x{}".format(*BY_NAME[name].scheme.window)
        traits |= {"k": (window, f"2x{window}"), "s": (f"{stride}", f"2x{stride}x{stride}"), "dimensions": (2, 2, 3)}
        heights, widths = (1, 3, 4, 7, 13), (1, 2, 4, 5, 9, 15, 16, 17, 33)
        traits |= {"h": heights if taps < 5 else (5, 7, 13), "w": widths if taps < 5 else widths[3:]}  # bounds want whole windows
        traits |= {"o": ("", "o1", "o1x0")} if operation == "transposed" else {}
    if name in phases.SCHEMES:
        traits |= {"k": ("3",), "s": ("1",), "d": ("2", "3x2", "5", "4x6", "12x7"), "dimensions": (2,), "c": around(tile.lanes)}
        traits |= {"h": range(3, 37), "w": range(3, 37)}
    if name in signals.SCHEMES:
        along = signals.SCHEMES[name].across
        traits |= {"k": (f"{along.taps}",), "s": (f"{along.stride}",), "d": ("1", "2", "7"), "dimensions": (1,)}
        traits |= {"p": ("0", "1", "0:3", "9"), "w": (1, 3, 8, 17, 31, 65, 130), "c": around(tile.lanes)}
    if name.startswith("winograd_groups"):
        traits |= {"k": ("3",), "s": ("1",), "d": ("1",), "dimensions": (2,), "format": ("",), "g": around(tile.lanes)}
        traits |= {"c": (1, 2, 3, 5), "f": around(tile.rows), "h": (1, 3, 4, 7, 13), "w": (1, 2, 4, 5, 9, 15, 16, 17, 33)}
    if name == "winograd_groups_last":  # squares of quarters, halves and all of the lanes
        traits |= {"c": (1, 3, 4, 8, 16, 18), "f": (3, 4, 8, 16), "format": ("channels_last",), "w": (1, 4, 5, 9, 17)}
    if pointwise:
        traits |= {"k": ("1",), "p": ("0",), "d": ("1",), "s": ("1",), "g": (1,)}
    if name in SINGLE:
        traits |= {"n": around(tile.rows), "w": (1,), "h": (1,), "d": ("1",), "g": (1,), "p": ("0",), "o": ("",), "s": ("1", "2")}
    if name == "tiled_standard_whole":
        traits |= {"k": ("1", "2x1", "2x3", "2x5")}
    if name == "tiled_transposed_single":
        traits |= {"dimensions": (1, 2, 2), "k": ("1", "2", "3x2", "4"), "f": around(tile.lanes)}
    if name.startswith("strassen_pointwise"):  # even numbers of both, and pixels for strips of the largest tile
        traits |= {"c": (2, tile.lanes, 34), "f": tuple(2 * f for f in around(tile.lanes, tile.width) if f >= tile.lanes)}
        traits |= {"w": (9, 13, 31, 47), "h": (3, 5, 9), "format": ("channels_last",) if name.endswith("turned") else ("",)}
    if name == "strassen_patches":
        windows = (("2", "2"), ("1", "2"), ("2x3", "2x3"), ("4", "5"), ("3x2", "4x2"))
        traits |= {"window": windows, "p": ("0",), "d": ("1",), "g": (1,), "dimensions": (1, 2, 2), "format": ("", "channels_last")}
        traits |= {"c": (2, 6, tile.lanes), "f": (2 * tile.lanes, 2 * tile.lanes + 2, 70), "w": (47, 61, 80), "h": (5, 9, 12)}
    return traits


def problems(name, tile, count, seed=0):
    """Lines of `count` problems that a kernel can compute with the tile."""
    rng, lines, traits = np.random.default_rng(seed), [], traits_of(name, tile)
    operation = "transposed" if "transposed" in name else "conv"
    while len(lines) < count:
        t = drawn(rng, traits)
        d = t["dimensions"]
        if "window" in t:
            t["k"], t["s"] = t["window"]
        if name in phases.SCHEMES:
            t["p"] = t["d"]
        if name in WOVEN:
            t["s"] = t["k"]
        if name == "tiled_standard_whole":  # 2x3 means 3 of a signal, 2x2x3 of a volume
            t["h"], t["w"] = _per_dimension(t["k"], 2).split("x") if "x" in t["k"] else (1, 1)
            d = min(d, 2) if t["k"] == "1" else d
        space = {1: "{w}", 2: "{h}x{w}", 3: "2x{h}x{w}"}[d].format_map(t)
        sizes = {letter: _per_dimension(t[letter], d) for letter in "kspd"}
        extra = "" if "x" in t["o"] and d != 2 else t["o"]
        head = f"{operation}{d}d,n{t['n']}c{t['c'] * t['g']}i{space}f{t['f'] * t['g']}"
        geometry = head + "k{k}s{s}p{p}d{d}".format_map(sizes) + f"g{t['g']}{extra}"
        line = ",".join(word for word in (geometry, t["format"], t["end"], tile.dtype) if word)
        if _fits(name, tile, line):
            lines.append(line)
    return lines


def _per_dimension(text, dimensions):
    """The last of the sizes that are written, or one for all."""
    sizes = text.split("x")
    return "x".join((sizes[0], *sizes)[-dimensions:]) if len(sizes) > 1 else text


def _fits(name, tile, line):
    try:
        problem = asked(name, parse(line))
    except ValueError:  # a kernel larger than its image
        return False
    kinds = ("standard", "atrous") if name.startswith("winograd_columns") else BY_NAME[name].kinds  # columns may be dilated
    if problem.kind not in kinds or BY_NAME[name].refuse(problem):
        return False
    if name == "tiled_transposed_blocks":
        problem = problem.in_blocks()
    if name in WOVEN:
        problem = problem.in_blocks().flat()
    if name in SINGLE:
        return problem.batch >= tile.short.rows
    width = problem.out_space[-1] // (problem.stride[-1] if name == "tiled_transposed" else 1)
    strips = "tiled_standard", "tiled_pointwise", "tiled_transposed", "tiled_transposed_blocks", "tiled_transposed_woven"
    least = {"tiled_pointwise_pixels": tile.width} | dict.fromkeys(strips, tile.short.rows)
    return width >= least.get(name, 1)


def first_fitting(name, line):
    """Of the tiles tried, in float32."""
    tiles = (tile_of(name, "float32", *size) for size in sizes(name, "float32"))
    return next(tile for tile in tiles if _fits(name, tile, line))


# What they must compute ---------------------------------------------------------------------------------------------------


def check(name, line, tile=None, threads=1, view=None, special=None):
    """One problem against the reference; some numbers of the image may be special."""
    problem = parse(line)
    given = arrays(problem, np.random.default_rng(0))
    if special:
        flat = given["x"].reshape(-1)
        flat[:: flat.size // 5 + 1] = special
    seen = given | {"x": view(given["x"])} if view else given
    choice = chosen(name, problem, tile, threads)
    agree(name, line, given, result(choice, seen).reshape(problem.out_shape))


def agree(name, line, given, got):
    """To the last bit; within its bound, if the kernel has one and is not exact all the same."""
    problem = parse(line)
    with np.errstate(invalid="ignore"):
        want = call(fc.reference, problem, given)
    rounds = not is_exact(BY_NAME[name])
    off = STEEPEST * BY_NAME[name].error(asked(name, problem)) * largest(problem, given) if rounds else 0.0
    assert got.dtype == want.dtype and got.shape == want.shape, f"{name}: {line}"
    with np.errstate(invalid="ignore"):
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got.astype(np.float64) - want) <= off)
    wrong = ~same
    assert not wrong.any(), f"{name}: {line}: {wrong.sum()} of {wrong.size} numbers, the first at {np.argwhere(wrong)[0]}"


def of_normal_numbers(line):
    """A problem, and arrays that are not whole numbers."""
    problem = parse(line)
    return problem, arrays(problem, np.random.default_rng(0), draw=lambda rng, *a: rng.standard_normal(a[0]).astype(a[1]))


def check_threads(name, line, tile=None):
    """Neither threads nor how the problem is divided for them change a bit."""
    (problem, given), bits = of_normal_numbers(line), set()
    for threads in (1, 2, 3, 8):
        with fc.num_threads(min(threads, fc.get_num_threads())):
            bits.add(result(chosen(name, problem, tile, threads), given).tobytes())
    assert len(bits) == 1, f"{name}: {line}"


# Images that lie in memory in every way ---------------------------------------------------------------------------------


def _apart(a):
    room = np.full([2 * size + 1 for size in a.shape], np.nan, a.dtype)
    view = room[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def _backwards(a):
    flip = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[flip])[flip]


def _part(a):
    return np.pad(a, [(0, 1)] * a.ndim, constant_values=np.nan)[tuple(slice(size) for size in a.shape)]


VIEWS = {
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "channels first": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 1)), 1, -1),
    "apart": _apart,
    "backwards": _backwards,
    "Fortran": np.asfortranarray,
    "part of a larger image": _part,
}


def check_special(name, special, count=60):
    """NaN or infinity reach the outputs whose windows see them, and no others."""
    tile = tile_of(name, "float32", *PICKS[name][1][0])
    for line in problems(name, tile, count, seed=6):
        check(name, line, tile, special=special)


def check_views(name, count):
    """Some problems by a kernel's first tile, the image in each of these ways."""
    tile = tile_of(name, "float32", *PICKS[name][1][0])
    for line in problems(name, tile, count, seed=5):
        for view in VIEWS.values():
            check(name, line, tile, view=view)
