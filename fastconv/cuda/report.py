"""What the compiler makes of the kernels, without a driver or a device: `python -m fastconv cuda-report`.

Numba compiles each kernel to PTX, NVIDIA's assembler (ptxas) to machine code, its disassembler (nvdisasm) shows that. So one sees
registers, spills and shared memory, how many threads a multiprocessor then holds, and which share of the instructions of the main
loop, the one with the most multiply-adds, are multiply-adds: what bounds an arithmetic kernel where one instruction is issued
a cycle for each lane (8.6, 8.9, 9.0; 8.0 has an issue slot to spare for each). Nothing of it is a measurement of time.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastconv.plan import choose
from fastconv.problem import DTYPES, SeparableProblem

INSTALL = "python -m pip install 'fastconv[cuda-report]'"
CAPABILITIES = (80, 90)
MULTIPLY_ADDS = ("FFMA", "DFMA")
GRANULE = 256  # registers come to a warp in so many
RESERVED = 1024  # bytes of shared memory that a block costs beyond its own


class Multiprocessor(NamedTuple):
    """What a multiprocessor holds, and does: CUDA C++ Programming Guide, "Technical specifications per compute capability"."""

    registers: int
    shared_bytes: int
    threads: int
    blocks: int
    lanes: int  # float32 multiply-adds a cycle
    issues: int = 128  # lanes to which an instruction is issued a cycle: four warps


MULTIPROCESSORS = {
    80: Multiprocessor(65_536, 164 * 1024, 2048, 32, 64),
    90: Multiprocessor(65_536, 228 * 1024, 2048, 32, 128),
}


class Product(NamedTuple):
    """A device for the estimates, by its data sheet: multiprocessors, their clock at best in GHz, memory in GB/s."""

    capability: int
    multiprocessors: int
    clock: float
    bandwidth: float


PRODUCTS = {"A100": Product(80, 108, 1.41, 1555), "H100": Product(90, 132, 1.98, 3350)}


class Variant(NamedTuple):
    """One kernel to compile: its Python function, the type of its argument, threads and registers of its launch."""

    name: str
    dtype: str
    tile: str
    body: Any
    argument: Any
    threads: int
    registers: int | None


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a variant; `share` is None for a kernel without multiply-adds."""

    name: str
    dtype: str
    tile: str
    capability: int
    threads: int
    registers: int
    spilled: int  # bytes stored and loaded
    stack: int
    shared: int
    occupancy: float
    share: float | None
    instructions: int

    def row(self) -> list[str]:
        """For a table."""
        return [
            self.name, self.dtype, self.tile or "-", f"{self.capability // 10}.{self.capability % 10}", str(self.threads),
            str(self.registers), str(self.spilled), str(self.shared), f"{self.occupancy:.0%}",
            "-" if self.share is None else f"{self.share:.1%}",
        ]  # fmt: skip


SAME_CODE = dict.fromkeys(("tiled_pointwise", "tiled_atrous"), "tiled_standard")  # by another name
HEADS = ["kernel", "dtype", "tile", "cc", "threads", "registers", "spilled", "shared", "occupancy", "FMA share"]


# Which kernels --------------------------------------------------------------------------------------------------------


def variants(capability: int) -> Iterator[Variant]:
    """Every kernel, once, with the tiles of a capability, a bias per channel and a ReLU."""
    from fastconv.cuda import depthwise, gradients, launchers, packing, pointwise, separable, standard, table, transposed, winograd
    from fastconv.cuda.indices import finisher, inner_finisher, pixel_place, term_place, weight_at

    finish, inner = finisher("channel", False, "clip"), inner_finisher("channel", "clip")

    def variant(
        name: str, dtype: str, kernel: Any, threads: int, wide: bool = True, tile: Any = "", argument: Any = None
    ) -> Variant:
        return Variant(
            name, dtype, str(tile), kernel.py_func, argument or job_type(dtype, wide), threads, getattr(tile, "registers", None)
        )

    for dtype in DTYPES:
        for tile in table.tiles(capability, dtype):
            kernel = standard.tiled_standard(dtype, finish, tile)
            yield variant("tiled_standard", dtype, kernel, tile.threads, False, tile)
            kernel = transposed.tiled_transposed(dtype, finish, tile)
            yield variant("tiled_transposed", dtype, kernel, tile.threads, False, tile)
            kernel = separable.tiled_separable(dtype, finish, inner, tile)
            yield variant("tiled_separable", dtype, kernel, tile.threads, False, tile)
            kernel = gradients.tiled_weight_gradient(dtype, tile)
            yield variant("tiled_weight_gradient", dtype, kernel, tile.threads, False, tile)
        for taps in table.WINDOWS:
            for stride in table.STRIDES:
                patch = table.patch(SimpleNamespace(kernel=taps, stride=stride, dtype=dtype))
                kernel = depthwise.tiled_depthwise(dtype, finish, patch)
                yield variant("tiled_depthwise", dtype, kernel, patch.threads, False, patch)
                kernel = gradients.tiled_depthwise_weight_gradient(dtype, patch)
                yield variant("tiled_depthwise_weight_gradient", dtype, kernel, patch.threads, False, patch)
        big = table.tiles(capability, dtype)[0]
        for kernel in (
            winograd.winograd_windows(dtype), winograd.winograd_tiles(dtype, finish), winograd.winograd_filters(dtype, big),
        ):  # fmt: skip
            yield variant(kernel.py_func.__name__, dtype, kernel, launchers.THREADS // 4, False)
        for kernel in (
            standard.direct_standard(dtype, finish), pointwise.direct_pointwise(dtype, finish),
            depthwise.direct_depthwise(dtype, finish), transposed.direct_transposed(dtype, finish),
            gradients.direct_slope("clip"), gradients.direct_map_gradient, standard.add_splits(dtype, finish),
            packing.gradient_panels(dtype, big),
        ):  # fmt: skip
            yield variant(kernel.py_func.__name__, dtype, kernel, launchers.THREADS)
        for what, where in (("filters", weight_at), ("filters of phases", transposed.phase_weight)):
            yield variant(f"panels of {what}", dtype, packing.filter_panels(dtype, big, where), launchers.THREADS)
        for what, where in (("terms", term_place), ("terms of phases", transposed.phase_term), ("pixels", pixel_place)):
            yield variant(f"places of {what}", dtype, packing.places(where, big.terms), launchers.THREADS, False)
        slab = separable.direct_separable(dtype, finish, inner, table.SLAB)
        yield variant("direct_separable", dtype, slab, table.SLAB.threads, False, table.SLAB)
        yield variant("copy", dtype, packing.copy, launchers.THREADS, argument=copy_type(dtype))
        reducers = launchers.REDUCERS
        yield variant("direct_weight_gradient", dtype, gradients.direct_weight_gradient(dtype, reducers), reducers)
        yield variant("direct_bias_gradient", dtype, gradients.direct_bias_gradient(reducers), reducers)


def job_type(dtype: str, wide: bool) -> Any:
    """Numba's type of a job: int64 for direct kernels, int32 for tiled ones."""
    from numba import types

    from fastconv.cuda.indices import FLOATS
    from fastconv.cuda.job import ARRAYS, NUMBERS, THREES, Job

    number, integer = FLOATS[dtype], types.int64 if wide else types.int32
    kinds: dict[str, Any] = dict.fromkeys(ARRAYS, types.Array(number, 1, "C")) | dict.fromkeys(NUMBERS, number)
    kinds |= dict.fromkeys(THREES, types.UniTuple(integer, 3))
    kinds["terms"] = types.Array(types.int64, 1, "C")
    return types.NamedTuple([kinds.get(name, integer) for name in Job._fields], Job)


def copy_type(dtype: str) -> Any:
    """Numba's type of what `copy` is told."""
    from numba import types

    from fastconv.cuda.indices import FLOATS
    from fastconv.cuda.packing import Copy

    row, five = types.Array(FLOATS[dtype], 1, "C"), types.UniTuple(types.int64, 5)
    return types.NamedTuple([row, row, five, types.int64, five, five, five, types.int64], Copy)


# Compiling ------------------------------------------------------------------------------------------------------------


def tool(name: str) -> str | None:
    """The path of one of NVIDIA's tools: from its wheel, CUDA_HOME, or the search path."""
    wheels = [hit for folder in sys.path for hit in Path(folder or ".").glob(f"nvidia/*/bin/{name}")]
    home = os.environ.get("CUDA_HOME")
    return str(wheels[0]) if wheels else (shutil.which(name, path=f"{home}/bin") if home else None) or shutil.which(name)


def missing() -> str | None:
    """Why kernels cannot be compiled here, None if they can."""
    absent = [name for name in ("ptxas", "nvdisasm") if tool(name) is None]
    if importlib.util.find_spec("numba_cuda") is None:
        absent.insert(0, "numba-cuda")
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else None


def ptx_of(variant: Variant, capability: int) -> str:
    """By Numba, which asks for the current device as soon as a kernel calls a function: one is stood in for it."""
    from numba import types
    from numba.cuda import dispatcher

    from fastconv.cuda.device import cuda

    pair = divmod(capability, 10)
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=pair)  # type: ignore[attr-defined]
    ptx, _ = cuda.compile(variant.body, types.void(variant.argument), cc=pair, device=False, abi="numba", output="ptx")
    return str(ptx)


def compiled(variant: Variant, capability: int) -> Compiled:
    """Compile a variant, and count."""
    ptxas, nvdisasm = tool("ptxas"), tool("nvdisasm")
    assert ptxas and nvdisasm
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx_of(variant, capability))
        limit = [f"-maxrregcount={variant.registers}"] if variant.registers else []
        said = _run(ptxas, *limit, "-v", "-O3", f"-arch=sm_{capability}", str(source), "-o", str(binary))
        code = instructions_of(_run(nvdisasm, "-c", str(binary)))

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said)))

    registers, shared = number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
    return Compiled(
        variant.name, variant.dtype, variant.tile, capability, variant.threads, registers,
        number(r"(\d+) bytes spill"), number(r"(\d+) bytes stack"), shared,
        occupancy(capability, variant.threads, registers, shared), share_of(code), len(code.names),
    )  # fmt: skip


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{Path(command[0]).name}: {done.stderr.strip()}")
    return done.stdout + done.stderr


def occupancy(capability: int, threads: int, registers: int, shared: int) -> float:
    """Threads that a multiprocessor holds, as a share of the most that it could.

    >>> occupancy(80, threads=128, registers=168, shared=24_576)
    0.1875
    """
    most = MULTIPROCESSORS[capability]
    warps = -(-threads // 32)
    a_warp = -(-registers * 32 // GRANULE) * GRANULE
    blocks = min(
        most.registers // a_warp // warps, most.shared_bytes // (shared + RESERVED), most.threads // (warps * 32), most.blocks
    )
    return blocks * warps * 32 / most.threads


# Machine code ----------------------------------------------------------------------------------------------------------

INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)\s*([^;]*);")
LABEL = re.compile(r"^\s*(\.L_\w+):")
TARGET = re.compile(r"`\((\.L_\w+)\)")


class Code(NamedTuple):
    """Names of the instructions in order, and loops: (first, last) of each backward branch."""

    names: list[str]
    loops: list[tuple[int, int]]


def instructions_of(text: str) -> Code:
    r"""What nvdisasm prints, read.

    >>> text = ".L_x_1: \n /*0010*/ FFMA R1, R2, R3, R1 ;\n /*0020*/ @!P0 BRA `(.L_x_1) ;"
    >>> instructions_of(text)
    Code(names=['FFMA', 'BRA'], loops=[(0, 1)])
    """
    names: list[str] = []
    loops, labels = [], {}
    for line in text.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(names)
        elif found := INSTRUCTION.match(line):
            target = TARGET.search(found[2]) if found[1].startswith("BRA") else None
            if target and target[1] in labels and labels[target[1]] < len(names):
                loops.append((labels[target[1]], len(names)))
            names.append(found[1])
    return Code(names, loops)


def share_of(code: Code) -> float | None:
    """Multiply-adds among the instructions of the main loop, the innermost one with the most, or of a kernel that has no loop."""

    def count(loop: tuple[int, int]) -> int:
        return sum(name.split(".")[0] in MULTIPLY_ADDS for name in code.names[loop[0] : loop[1] + 1])

    def innermost(loop: tuple[int, int]) -> bool:
        inside = [o for o in code.loops if o != loop and loop[0] <= o[0] and o[1] <= loop[1]]
        return not any(2 * count(o) > count(loop) for o in inside)

    loops = [loop for loop in code.loops if innermost(loop) and count(loop)]
    if not loops:
        loops = [(0, len(code.names) - 1)]  # all unrolled
    main = max(loops, key=count)
    return count(main) / (main[1] - main[0] + 1) or None


# Reporting ------------------------------------------------------------------------------------------------------------


def _one(job: tuple[int, int]) -> Compiled:
    capability, index = job
    return compiled(list(variants(capability))[index], capability)


def gather(capabilities: Sequence[int] = CAPABILITIES, names: Sequence[str] = ()) -> list[Compiled]:
    """Compile every kernel whose name begins so, on all CPUs of this process.

    Raises
    ------
    ImportError
        If a compiler is missing, with what to install.
    """
    reason = missing()
    if reason:
        raise ImportError(reason)
    jobs = [
        (capability, index)
        for capability in capabilities
        for index, variant in enumerate(variants(capability))
        if not names or variant.name.startswith(tuple(names))
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_one, jobs))


@dataclass(frozen=True)
class Estimate:
    """The least time that a layer could take: of its arithmetic, by the machine code, and of its memory traffic; no measurement."""

    layer: str
    kernel: str
    product: str
    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory)

    @property
    def limit(self) -> str:
        return "memory" if self.memory > self.arithmetic else "arithmetic"


def estimates(found: Sequence[Compiled]) -> Iterator[Estimate]:
    """For every layer of the benchmarks whose kernel the report has, on each product."""
    from fastconv.bench.layers import LAYERS, MORE_LAYERS
    from fastconv.cuda.launchers import Gpu
    from fastconv.cuda.table import implementations, slices, winograd_product
    from fastconv.cuda.tiles import Tile

    shares = {(c.name, c.dtype, c.tile, c.capability): c.share for c in found if c.share}
    for product, about in PRODUCTS.items():
        here, most = Gpu(about.capability, about.multiprocessors), MULTIPROCESSORS[about.capability]
        for name, problem in (LAYERS | MORE_LAYERS).items():
            meant, implementation, division, _ = choose(problem, implementations(here), about.multiprocessors)
            kernel, multiplied, tile = SAME_CODE.get(implementation.name, implementation.name), problem, division.tile
            if kernel == "winograd_4x4":
                kernel, multiplied = SAME_CODE["tiled_pointwise"], winograd_product(meant)
            elif isinstance(problem, SeparableProblem) and kernel == "tiled_parts":  # of which the second does nearly all
                kernel, multiplied = SAME_CODE["tiled_pointwise"], problem.pointwise
            share = shares.get((kernel, problem.dtype, str(tile or ""), about.capability))
            if share is None:
                continue
            busiest = problem.operations / 2 / about.multiprocessors
            if isinstance(tile, Tile):
                terms = slices(multiplied, tile, division.fields.get("splits", 1)) * tile.terms
                busiest = -(-division.items // about.multiprocessors) * tile.filters * tile.pixels * terms
            rate = min(most.lanes, share * most.issues) * about.clock * 1e9
            moved = problem.bytes + 2 * division.scratch * np.dtype(problem.dtype).itemsize
            yield Estimate(name, implementation.name, product, busiest / rate, moved / (about.bandwidth * 1e9))


def report(capabilities: Sequence[int], names: Sequence[str], *, as_json: bool = False, layers: bool = False) -> None:
    """Print what the compiler makes of the kernels, and with `layers` what the layers of the benchmarks would take at best."""
    from fastconv.bench.report import Console

    found = gather(capabilities, names)
    guessed = list(estimates(found)) if layers else []
    if as_json:
        print(json.dumps({"kernels": [asdict(c) for c in found], "estimates": [asdict(e) | {"estimate": True} for e in guessed]}))
        return
    console = Console()
    console.table("Compiled without a device; bytes spilled and shared, share of the main loop's instructions", HEADS,
                  [c.row() for c in found])  # fmt: skip
    for name, same in SAME_CODE.items():
        console.line(f"{name}: the machine code of {same}")
    if guessed:
        rows = [[e.layer, e.kernel, e.product, f"{e.seconds * 1e6:.1f}", e.limit] for e in guessed]
        console.table("ESTIMATES, not measurements: the least time by data sheet and machine code",
                      ["layer", "kernel", "device", "us", "limit"], rows)  # fmt: skip
