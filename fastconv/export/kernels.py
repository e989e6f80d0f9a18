"""Which kernels a library holds, and what its C files are told of them: the tables of `kernels.h`.

A kind brings its direct kernels, which compute all of its layers, and its tiled ones with a choice of tiles; the standard kind also
Winograd's F(4x4). What a table's row says of a kernel, plan.c chooses by.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastconv import epilogue
from fastconv.cpu import divisions, job, machine, packing, sheets, tiles, winograd
from fastconv.cpu.simd import NUMBA_FLOATS, PointerType, TileShape
from fastconv.cpu.toom import F4, nested
from fastconv.cpu.windows import LEAST_HALF
from fastconv.plan import SMALL
from fastconv.problem import DTYPES

KINDS = ("standard", "pointwise", "depthwise", "separable", "transposed")
# Taps across of the windows that have code of their own inside a separable layer: each is compiled for each outer tile.
SEPARABLE_WINDOWS = (3,)
TABLES = {
    "standard": ("tiled_standard", "tiled_standard_pixels", "winograd", "multiply"),
    "pointwise": ("tiled_pointwise", "tiled_pointwise_pixels"),
    "depthwise": ("tiled_depthwise", "tiled_depthwise_two", "tiled_depthwise_last"),
    "separable": ("tiled_separable", "tiled_separable_pixels", "tiled_separable_last"),
    "transposed": ("tiled_transposed",),
}
# What kernels call by address: it fills the scratch, or finishes rows.
FILLING = {"fill_sheets": "sheets.fill_sheets", "lines_of_lanes": "winograd.lines_of_lanes"}
PUTTING = {"put_rows": "standard.put_rows"}
SHARED = FILLING | PUTTING | {"finish_late": "rows.finish_late", "finish_inner_late": "rows.finish_inner_late"}
# What LLVM uses where the target has it, by the names that C compilers have for it too: a processor is asked before it runs that.
FEATURES = (
    "avx2", "fma", "bmi", "bmi2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi", "avx512vbmi2",
    "avx512vnni",
)  # fmt: skip


class Kernel(NamedTuple):
    """One kernel of a library: the function `module.name`, for one dtype, tile, and window of a separable layer.

    >>> Kernel("standard.tiled_standard", "float32", TileShape(14, 2, 16)).symbol
    'tiled_standard_float32_14x2'
    """

    path: str
    dtype: str
    tile: TileShape | None = None
    window: TileShape | None = None

    @property
    def name(self) -> str:
        """Of the function, and of its table."""
        return self.path.split(".")[1]

    @property
    def symbol(self) -> str:
        """What the linker knows it by."""
        sizes = [f"{t.rows}x{t.vectors}" + (f"s{t.step}" if t.step > 1 else "") for t in (self.tile, self.window) if t]
        return "_".join([self.name, self.dtype, *(sizes if self.name not in SHARED else ())])

    @property
    def function(self) -> Any:
        """The compiled function."""
        module, name = self.path.split(".")
        return getattr(importlib.import_module(f"fastconv.cpu.{module}"), name)

    @property
    def types(self) -> tuple[Any, ...]:
        """Of its arguments."""
        scheme = nested(F4) if self.name == "winograd" else None
        item, seat, own = job.arguments(self.dtype, self.tile, scheme, self.window)
        row, image = PointerType(NUMBA_FLOATS[self.dtype]), PointerType(NUMBA_FLOATS[self.dtype], only_read=True)
        if self.name in FILLING:
            return own, row, image, item, item
        if self.name in PUTTING:
            return own, row, *[item] * 6
        if self.name == "multiply":
            return own, row, image, row, *[item] * 7
        return (own, row, item, item, item) if self.name in SHARED else (item, seat, own)

    @property
    def row(self) -> str:
        """Of its table: rows, vectors, taps across and step of a window, the code."""
        assert self.tile is not None
        window = self.window or (self.tile if self.name.startswith("tiled_depthwise") else None)
        sizes = (self.tile.rows, self.tile.vectors, window.vectors if window else 0, window.step if window else 0)
        return "{" + ", ".join(map(str, (*sizes, self.symbol))) + "}"


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise a ValueError if there is no such kind."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds: got {kind!r}, expected some of {', '.join(KINDS)}")


def kernels(kinds: Sequence[str]) -> list[Kernel]:
    """Every kernel of a library of these kinds."""
    parts = [[_shared(dtype), *(_of(kind, dtype) for kind in KINDS if kind in kinds)] for dtype in DTYPES]
    return [kernel for part in parts for some in part for kernel in some]


def _shared(dtype: str) -> Iterator[Kernel]:
    lanes = machine.lanes(dtype)
    square = TileShape(lanes, 1, lanes, 1, dtype)
    for name, path in SHARED.items():
        yield Kernel(path, dtype, square if name in FILLING | PUTTING else None)


def _of(kind: str, dtype: str) -> Iterator[Kernel]:
    lanes, in_lanes, in_pixels = machine.lanes(dtype), tiles.phases_in_lanes(dtype), tiles.pixels_in_lanes(dtype)
    for last in ("", "_last"):
        yield Kernel(f"{kind}.direct_{kind}{last}", dtype)
    if kind == "depthwise":
        names = ["tiled_depthwise", "tiled_depthwise_last", *(["tiled_depthwise_two"] if lanes // 2 >= LEAST_HALF else [])]
        for name in names:
            yield from (Kernel(f"depthwise.{name}", dtype, window) for window in tiles.windows(dtype))
    elif kind == "separable":
        square = [window for window in tiles.windows(dtype) if window.rows in SEPARABLE_WINDOWS]
        for name, choice in (("", in_lanes), ("_pixels", in_pixels), ("_last", in_lanes)):
            tile = max(choice, key=lambda tile: (tile.rows * tile.vectors, tile.rows))
            yield from (Kernel(f"separable.tiled_separable{name}", dtype, tile, window) for window in (None, *square))
    else:
        yield from (Kernel(f"{kind}.tiled_{kind}", dtype, tile) for tile in in_lanes)
        if kind == "standard":
            products = [tile for tile in tiles.winograd_products(dtype) if tile.rows % 2 == 0]
            yield from (Kernel("winograd.winograd", dtype, tile) for tile in tiles.one_vector(dtype))
            yield from (Kernel("winograd.multiply", dtype, tile) for tile in products)
        if kind != "transposed":
            yield from (Kernel(f"{kind}.tiled_{kind}_pixels", dtype, tile) for tile in in_pixels)


# What C is told -------------------------------------------------------------------------------------------------------


def header(held: Sequence[Kernel], caches: dict[str, int]) -> str:
    """kernels.h: a job's layout, the sizes by which plan.c decides, the kernels."""
    needed = [name for name in FEATURES if f"+{name}" in machine.target_features().split(",")]
    supported = " && ".join(f'__builtin_cpu_supports("{name}")' for name in needed) or "1"
    numbers = {
        "LANES": machine.lanes(), "L1": caches["L1d"], "L2": caches["L2"], "BLOCK": packing.BLOCK, "LINE": sheets.LINE,
        "RUN": divisions.RUN, "ITEM_OPERATIONS": divisions.ITEM_OPERATIONS, "ITEMS_A_PART": divisions.ITEMS_A_THREAD,
        "SUMS_IN_FLIGHT": tiles.SUMS_IN_FLIGHT, "COPY": divisions.COPY, "TURN": divisions.TURN,
        "DEPTHWISE_UPDATES": divisions.DEPTHWISE_UPDATES, "FROM_L2": divisions.STREAM[0], "FROM_L3": divisions.STREAM[1],
        "FROM_MEMORY": divisions.STREAM[2], "L3": caches["L3"], "WINOGRAD_POINTS": F4.count, "WINOGRAD_LEAST": SMALL,
        "WINOGRAD_APART": winograd.APART,
        "WINOGRAD_GATHER": divisions.TRANSFORMS[nested(F4)][0], "WINOGRAD_SCATTER": divisions.TRANSFORMS[nested(F4)][1],
    }  # fmt: skip
    lines = [
        "/* Written by `fastconv export`: the kernels that are in this library. */",
        "#include <stdint.h>",
        "",
        *(f"#define {name} {value}" for name, value in numbers.items()),
        f"#define PROCESSOR_SUITS ({supported})",
        "",
        _enumeration("", [f"JOB_{name.upper()} = {place}" for name, place in job.PLACES.items()] + [f"JOB_WORDS = {job.WORDS}"]),
        _enumeration("", [f"{name.upper()} = {code}" for name, code in epilogue.CODES.items()]),
        _enumeration("kind ", [kind.upper() for kind in KINDS] + ["KIND_COUNT"]),
        "",
        "typedef void kernel(int64_t item, int64_t seat, const int64_t *job);",
        "typedef void row_code(const int64_t *job, void *row, int64_t count, int64_t image, int64_t place);",
        "typedef void fill_code(const int64_t *job, void *sheets, const void *image, int64_t plane, int64_t line);",
        "typedef void put_code("
        "const int64_t *job, void *sums, int64_t step, int64_t n, int64_t first, int64_t width, int64_t pixel, int64_t count);",
        "struct tile {",
        "    int64_t rows, vectors, window, step; /* `window`, `step`: taps across of a window with code of its own, or 0 */",
        "    kernel *code; /* of multiply only the address is taken: it has arguments of its own */",
        "};",
        "",
    ]
    for kernel in held:
        kind = _kind(kernel.name)
        lines.append(f"extern {kind} {kernel.symbol};")
    symbols = {kernel.symbol for kernel in held}
    for name in SHARED:
        lines.append(f"static {_kind(name)} *const {name}[] = {{{', '.join(f'{name}_{dtype}' for dtype in DTYPES)}}};")
    taps = ", ".join("{" + ", ".join(map(str, map(float, row))) + "}" for row in F4.g)
    lines.append(f"static const double winograd_g[{F4.count}][{F4.taps}] = {{{taps}}};")
    lines.append("static kernel *const direct[KIND_COUNT][2][2] = {")
    for kind in KINDS:
        names = [[f"direct_{kind}{last}_{dtype}" for last in ("", "_last")] for dtype in DTYPES]
        if names[0][0] in symbols:
            lines.append(f"    [{kind.upper()}] = {{{', '.join('{' + ', '.join(pair) + '}' for pair in names)}}},")
    lines.append("};")
    for table in (table for tables in TABLES.values() for table in tables):
        rows = [[kernel.row for kernel in held if kernel.name == table and kernel.dtype == dtype] for dtype in DTYPES]
        most = max(map(len, rows)) + 1
        lines.append(f"static const struct tile {table}[2][{most}] = {{")
        lines += [f"    {{{', '.join([*entries, '{0}'])}}}," for entries in rows]
        lines.append("};")
    return "\n".join(lines) + "\n"


def _kind(name: str) -> str:
    """The C type of a kernel's function."""
    return "fill_code" if name in FILLING else "put_code" if name in PUTTING else "row_code" if name in SHARED else "kernel"


def _enumeration(name: str, members: Sequence[str]) -> str:
    return f"enum {name}{{{', '.join(members)}}};"


def caches_of(cpu: str) -> dict[str, int]:
    """Those of this machine, if the library is for it; else the smallest that we serve."""
    return machine.caches() if cpu == "native" else dict(machine.DEFAULT_CACHES)
