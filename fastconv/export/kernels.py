"""Which kernels a library holds, and what its C files are told of them: the tables of `kernels.h`.

Each kind brings its direct kernels, which compute all of its layers, its tiled ones for several tiles, and Winograd's for all of
their schemes. plan.c chooses among them by what a table's row says of each.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from fastconv import epilogue
from fastconv.cpu import columns, job, machine, packing, plans, sheets, tiles, toom, winograd
from fastconv.cpu.plans import costs, shares
from fastconv.cpu.simd import NUMBA_FLOATS, PointerType, TileShape
from fastconv.cpu.toom import Scheme
from fastconv.cpu.windows import LEAST_HALF
from fastconv.plan import ERRORS, MOST_PIXELS, SMALL
from fastconv.problem import DTYPES

KINDS = ("standard", "pointwise", "depthwise", "separable", "transposed")
GRADIENTS = "gradients"  # of weights and biases, a kind of their own; those of images are layers of the kinds above
EXPORTED = (*KINDS, GRADIENTS)
# Taps across of the windows that have code of their own inside a separable layer: each is compiled for each outer tile.
SEPARABLE_WINDOWS = (3,)
# The schemes of Toom and Cook: of two dimensions, the same both ways, and down the columns.
SCHEMES = {name.removeprefix("winograd_"): scheme for name, scheme in winograd.SCHEMES.items() if scheme.down == scheme.across}
COLUMNS = {f"columns_{scheme.outputs}_{scheme.taps}": scheme for scheme in columns.SCHEMES}
MOST_OUTPUTS = max(scheme.outputs for scheme in [*(nested.down for nested in SCHEMES.values()), *COLUMNS.values()])
TABLES = {
    "standard": ("tiled_standard", "tiled_standard_pixels", "multiply", "multiply_columns"),
    "pointwise": ("tiled_pointwise", "tiled_pointwise_pixels"),
    "depthwise": ("tiled_depthwise", "tiled_depthwise_two", "tiled_depthwise_last", "tiled_depthwise_lines"),
    "separable": ("tiled_separable", "tiled_separable_pixels", "tiled_separable_last", "fill_band", "fill_band_last"),
    "transposed": ("tiled_transposed",),
    GRADIENTS: ("tiled_weight_gradient", "tiled_depthwise_weight_gradient", "tiled_depthwise_weight_gradient_last"),
}
# Functions that kernels call by address: they fill the scratch, put sums, or finish rows.
FILLING = {"fill_sheets": "sheets.fill_sheets", "lines_of_lanes": "winograd.lines_of_lanes"}
PUTTING = {"put_rows": "standard.put_rows", "put_turned": "standard.put_turned"}
BANDS = ("fill_band", "sum_band")  # and what computes a separable layer's depthwise part
SHARED = FILLING | PUTTING | {"finish_late": "rows.finish_late", "finish_inner_late": "rows.finish_inner_late"}
# What packs weights: kernels of their own.
PACKING = {"pack_numbers": "packing.pack_numbers", "pack_channels": "packing.pack_channels"}
# Instructions that LLVM uses where the target has them, by the names that C compilers use as well: the library asks the processor
# whether it has them before it runs a kernel.
FEATURES = (
    "avx2", "fma", "bmi", "bmi2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi", "avx512vbmi2",
    "avx512vnni",
)  # fmt: skip


class Kernel(NamedTuple):
    """One kernel of a library: the function `module.name`, for one dtype, tile and scheme.

    >>> Kernel("standard.tiled_standard", "float32", TileShape(14, 2, 16)).symbol
    'tiled_standard_float32_14x2'
    """

    path: str
    dtype: str
    tile: TileShape | None = None
    scheme: str = ""

    @property
    def name(self) -> str:
        """Of the function, and of its table."""
        return "multiply_columns" if self.path == "columns.multiply" else self.path.split(".")[1]

    @property
    def symbol(self) -> str:
        """What the linker knows it by."""
        if self.name in SHARED or self.name in PACKING:
            return f"{self.name}_{self.dtype}"
        sizes = [f"{t.rows}x{t.vectors}" + (f"s{t.step}" if t.step > 1 else "") for t in (self.tile,) if t]
        return "_".join([self.name, self.dtype, *([self.scheme] if self.scheme else []), *sizes])

    @property
    def function(self) -> Any:
        """The compiled function."""
        module, name = self.path.split(".")
        return getattr(importlib.import_module(f"fastconv.cpu.{module}"), name)

    @property
    def types(self) -> tuple[Any, ...]:
        """Of its arguments."""
        item, seat, own = job.arguments(self.dtype, self.tile, (SCHEMES | COLUMNS).get(self.scheme))
        row, image = PointerType(NUMBA_FLOATS[self.dtype]), PointerType(NUMBA_FLOATS[self.dtype], only_read=True)
        if self.name in FILLING:
            return own, row, image, item, item
        if self.name in PUTTING:
            return own, row, *[item] * 6
        if self.name == "multiply":
            return own, row, image, row, *[item] * 5
        if self.name == "multiply_columns":
            return own, row, image, row, item
        return (own, row, item, item, item) if self.name in SHARED or self.name.startswith(BANDS) else (item, seat, own)

    @property
    def row(self) -> str:
        """Of its table: rows, vectors, taps across and step of a window, the code."""
        assert self.tile is not None
        window = self.tile if self.name.startswith(("tiled_depthwise", "fill_band")) else None
        across = 0 if window is None else window.rows if self.name == "tiled_depthwise_weight_gradient_last" else window.vectors
        sizes = (self.tile.rows, self.tile.vectors, across, window.step if window else 0)
        return "{" + ", ".join(map(str, (*sizes, self.symbol))) + "}"


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise a ValueError if there is no such kind."""
    for kind in kinds:
        if kind not in EXPORTED:
            raise ValueError(f"kinds: got {kind!r}, expected some of {', '.join(EXPORTED)}")


def kernels(kinds: Sequence[str]) -> list[Kernel]:
    """Every kernel of a library of these kinds."""
    parts = [[_shared(dtype), *(_of(kind, dtype) for kind in EXPORTED if kind in kinds)] for dtype in DTYPES]
    return list(dict.fromkeys(kernel for part in parts for some in part for kernel in some))


def _shared(dtype: str) -> Iterator[Kernel]:
    lanes = machine.lanes(dtype)
    square = TileShape(lanes, 1, lanes, 1, dtype)
    for name, path in (SHARED | PACKING).items():
        yield Kernel(path, dtype, square if name in FILLING | PUTTING | PACKING else None)


def _of(kind: str, dtype: str) -> Iterator[Kernel]:
    lanes, in_lanes, in_pixels = machine.lanes(dtype), tiles.phases_in_lanes(dtype), tiles.pixels_in_lanes(dtype)
    if kind == GRADIENTS:
        yield from _gradients(dtype)
        return
    for last in ("", "_last"):
        yield Kernel(f"{kind}.direct_{kind}{last}", dtype)
    if kind == "depthwise":
        for name in ["tiled_depthwise", *(["tiled_depthwise_two"] if lanes // 2 >= LEAST_HALF else [])]:
            yield from (Kernel(f"depthwise.{name}", dtype, window) for window in tiles.windows(dtype))
        yield from (Kernel("depthwise.tiled_depthwise_last", dtype, window) for window in tiles.windows_of_channels(dtype))
        yield from (Kernel("lines.tiled_depthwise_lines", dtype, tile) for tile in tiles.lines_in_vectors(dtype))
    elif kind == "separable":
        square = [window for window in tiles.windows(dtype) if window.rows in SEPARABLE_WINDOWS]
        for name, choice in (("", in_lanes), ("_pixels", in_pixels), ("_last", in_lanes)):
            tile = max(choice, key=lambda tile: (tile.rows * tile.vectors, tile.rows))
            yield Kernel(f"separable.tiled_separable{name}", dtype, tile)
        for last in ("", "_last"):
            yield Kernel(f"separable.sum_band{last}", dtype)
            yield from (Kernel(f"separable.fill_band{last}", dtype, window) for window in square)
    else:
        yield from (Kernel(f"{kind}.tiled_{kind}", dtype, tile) for tile in in_lanes)
        if kind == "standard":
            yield from _columns(dtype)
        if kind != "pointwise":
            yield from _winograd(dtype, transposed=kind == "transposed")
        if kind != "transposed":
            yield from (Kernel(f"{kind}.tiled_{kind}_pixels", dtype, tile) for tile in in_pixels)


def _gradients(dtype: str) -> Iterator[Kernel]:
    whole = machine.lanes(dtype)
    yield from (Kernel(f"gradients.direct_{what}_gradient", dtype) for what in ("weight", "bias"))
    for name, choice in (
        ("tiled_weight_gradient", tiles.numbers_in_rows(dtype)),
        ("tiled_depthwise_weight_gradient", plans.gradients.tiles_of_windows(dtype)),
        ("tiled_depthwise_weight_gradient_last", plans.gradients.tiles_of_windows_last(dtype)),
    ):
        yield from (Kernel(f"gradients.{name}", dtype, tile) for tile in choice if tile.lanes == whole)


def _winograd(dtype: str, transposed: bool) -> Iterator[Kernel]:
    square, [one] = TileShape(machine.lanes(dtype), 1, machine.lanes(dtype), 1, dtype), tiles.one_vector(dtype)
    for name, scheme in SCHEMES.items():
        if scheme.transposed == transposed:
            yield Kernel("winograd.winograd", dtype, one, scheme=name)
            yield Kernel("winograd.transform_filters", dtype, square, scheme=name)
    yield from (Kernel("winograd.multiply", dtype, tile) for tile in tiles.winograd_products(dtype))


def _columns(dtype: str) -> Iterator[Kernel]:
    square, [one] = TileShape(machine.lanes(dtype), 1, machine.lanes(dtype), 1, dtype), tiles.one_vector(dtype)
    for name in COLUMNS:
        yield Kernel("columns.winograd_columns", dtype, one, scheme=name)
        yield Kernel("columns.transform_columns", dtype, square, scheme=name)
    yield from (Kernel("columns.multiply", dtype, tile) for tile in tiles.pixels_in_lanes(dtype))


DECLARATIONS = """\
typedef void kernel(int64_t item, int64_t seat, const int64_t *job);
typedef void row_code(const int64_t *job, void *row, int64_t count, int64_t image, int64_t place);
typedef void fill_code(const int64_t *job, void *sheets, const void *image, int64_t plane, int64_t line);
typedef void put_code(
    const int64_t *job, void *sums, int64_t step, int64_t n, int64_t first, int64_t width, int64_t pixel, int64_t count);
struct tile {
    int64_t rows, vectors, window, step; /* `window`, `step`: taps across of a window with code of its own, or 0 */
    kernel *code; /* of products only the address is taken: they have arguments of their own */
};
struct scheme { /* fastconv/cpu/toom.py */
    int64_t outputs, taps, stride, transposed, advance, overlap, numbers, count, matrices;
    double gather, scatter, amplification;
    int64_t spared[MOST_OUTPUTS]; /* products that an edge does without, by the outputs that are wanted of it */
    kernel *code[2], *transform[2];
};
"""


# What C is told -------------------------------------------------------------------------------------------------------


def header(held: Sequence[Kernel], caches: dict[str, int]) -> str:
    """kernels.h: a job's layout, the sizes by which plan.c decides, the kernels."""
    needed = [name for name in FEATURES if f"+{name}" in machine.target_features().split(",")]
    supported = " && ".join(f'__builtin_cpu_supports("{name}")' for name in needed) or "1"
    lines = [
        "/* Written by `fastconv export`: the kernels that are in this library. */",
        "#include <stdint.h>",
        "",
        *(f"#define {name} {value}" for name, value in _sizes(caches).items()),
        f"#define PROCESSOR_SUITS ({supported})",
        "",
        _enumeration("", [f"JOB_{name.upper()} = {place}" for name, place in job.PLACES.items()] + [f"JOB_WORDS = {job.WORDS}"]),
        _enumeration("", [f"{name.upper()} = {code}" for name, code in epilogue.CODES.items()]),
        _enumeration("kind ", [kind.upper() for kind in KINDS] + ["KIND_COUNT"]),
        "",
        DECLARATIONS,
        *(f"extern {_kind(kernel.name)} {kernel.symbol};" for kernel in held),
        *(_by_dtype(name) for name in (*SHARED, *PACKING)),
        f"static const double turn_sums[] = {{{', '.join(str(costs.TURN_SUMS[dtype]) for dtype in DTYPES)}}};",
        f"static const double roundings[] = {{{', '.join(str(toom.ROUNDINGS[dtype]) for dtype in DTYPES)}}};",
        *_schemes(held),
        *_direct({kernel.symbol for kernel in held}),
        *_tiles(held),
    ]
    return "\n".join(lines) + "\n"


def _sizes(caches: dict[str, int]) -> dict[str, Any]:
    """By which plan.c decides."""
    return {
        "LANES": machine.lanes(), "L1": caches["L1d"], "L2": caches["L2"], "BLOCK": packing.BLOCK, "LINE": sheets.LINE,
        "RUN": plans.standard.RUN, "ITEM_OPERATIONS": shares.ITEM_OPERATIONS, "ITEMS_A_PART": shares.ITEMS_A_THREAD,
        "SUMS_IN_FLIGHT": tiles.SUMS_IN_FLIGHT[machine.registers()], "COPY": costs.COPY, "TURN": costs.TURN,
        "WHOLE": costs.WHOLE, "PIECE": costs.PIECE,
        "DEPTHWISE_UPDATES": plans.separable.DEPTHWISE_UPDATES,
        "STREAM": f"{{{', '.join(map(str, costs.STREAM))}}}", "EIGHTH": costs.EIGHTH,
        "SEPARABLE_APART": plans.separable.APART,
        "L3": caches["L3"], "WINOGRAD_LEAST": SMALL, "WINOGRAD_APART": winograd.APART,
        "WINOGRAD_SHARED": plans.winograd.SHARED, "WINOGRAD_MUCH": plans.winograd.MUCH, "WINOGRAD_WAITING": plans.winograd.WAITING,
        "WINOGRAD_ERROR": ERRORS["high"], "PIXELS": plans.gradients.BAND_PIXELS,
        "PIXELS_OF_ONE_TAP": plans.gradients.PIXELS_OF_ONE_TAP, "MOST_PIXELS": MOST_PIXELS, "CONFIDENCE": toom.CONFIDENCE,
        "TAPS_OF_TWO": plans.depthwise.TAPS_OF_TWO, "LEAST_ITEMS": plans.depthwise.LEAST_ITEMS,
        "TOGETHER": plans.depthwise.TOGETHER, "LINES_SHARE": plans.depthwise.LINES_SHARE,
        "LEAST_TURNED": tiles.LEAST_TURNED, "WRITTEN_AT_ONCE": plans.columns.WRITTEN_AT_ONCE, "MOST_OUTPUTS": MOST_OUTPUTS,
    }  # fmt: skip


def _by_dtype(name: str, symbols: Collection[str] | None = None) -> str:
    """A function for each dtype; 0 for those that are not among `symbols`, if they are given."""
    codes = [f"{name}_{dtype}" for dtype in DTYPES]
    there = (code if symbols is None or code in symbols else "0" for code in codes)
    return f"static {_kind(name)} *const {name}[] = {{{', '.join(there)}}};"


def _schemes(held: Sequence[Kernel]) -> Iterator[str]:
    for name, schemes, code, transform in (
        ("schemes", {label: scheme.down for label, scheme in SCHEMES.items()}, "winograd", "transform_filters"),
        ("column_schemes", COLUMNS, "winograd_columns", "transform_columns"),
    ):
        known = [_scheme_row(held, label, scheme, code, transform) for label, scheme in schemes.items()]
        yield f"static const struct scheme {name}[] = {{"
        yield from (f"    {row}," for row in [*filter(None, known), "{0}"])
        yield "};"


def _direct(symbols: Collection[str]) -> Iterator[str]:
    """The kernels without tiles."""
    yield "static kernel *const direct[KIND_COUNT][2][2] = {"
    for kind in KINDS:
        names = [[f"direct_{kind}{last}_{dtype}" for last in ("", "_last")] for dtype in DTYPES]
        if names[0][0] in symbols:
            yield f"    [{kind.upper()}] = {{{', '.join('{' + ', '.join(pair) + '}' for pair in names)}}},"
    yield "};"
    for name in ("direct_weight_gradient", "direct_bias_gradient", "sum_band", "sum_band_last"):
        yield _by_dtype(name, symbols)


def _tiles(held: Sequence[Kernel]) -> Iterator[str]:
    """The tables of tiles, and the kernel of each."""
    for table in (table for tables in TABLES.values() for table in tables):
        rows = [[kernel.row for kernel in held if kernel.name == table and kernel.dtype == dtype] for dtype in DTYPES]
        yield f"static const struct tile {table}[2][{max(map(len, rows)) + 1}] = {{"
        yield from (f"    {{{', '.join([*entries, '{0}'])}}}," for entries in rows)
        yield "};"


def _kind(name: str) -> str:
    """The C type of a kernel's function."""
    return "fill_code" if name in FILLING else "put_code" if name in PUTTING else "row_code" if name in SHARED else "kernel"


def _scheme_row(held: Sequence[Kernel], label: str, scheme: Scheme, kernel: str, transform: str) -> str:
    """Of a table of schemes: nothing if its kernels are not there."""
    own = [k for k in held if k.scheme == label]
    if not own:
        return ""
    code, packs = ([k.symbol for k in own if k.name == name] for name in (kernel, transform))
    transforms = plans.winograd.TRANSFORMS.get(toom.nested(scheme), (0.0, 0.0))
    sizes = (
        scheme.outputs, scheme.taps, scheme.stride, int(scheme.transposed), scheme.advance, scheme.overlap, scheme.numbers,
        scheme.count, scheme.matrices, *transforms, toom.amplification(scheme),
    )  # fmt: skip
    lists = (map(str, scheme.spared), code, packs)
    return "{" + ", ".join([*map(str, sizes), *("{" + ", ".join(each) + "}" for each in lists)]) + "}"


def _enumeration(name: str, members: Sequence[str]) -> str:
    return f"enum {name}{{{', '.join(members)}}};"


def caches_of(cpu: str) -> dict[str, int]:
    """Those of this machine, if the library is for it; else the smallest that we serve."""
    return machine.caches() if cpu == "native" else dict(machine.DEFAULT_CACHES)
