"""The command line: `python -m fastconv`, also installed as `fastconv`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

import fastconv

# The choices of `bench`, said again here because fastconv.bench is worth importing only when it runs.
TABLES = ("tuned", "more", "other", "survey")
CHAINS = ("resnet18", "mobilenet_v1", "mobilenet_v2")
CAPABILITIES = (80, 90)
KINDS = ("standard", "pointwise", "depthwise", "separable", "atrous", "transposed", "weights")
EXPORTED = ("standard", "pointwise", "depthwise", "separable", "transposed", "gradients")  # likewise of `export`
WITHOUT = {  # which options of `bench` a mode of it has no use for
    "tune": ("chain", "json", "peers", "plot"),
    "device": ("threads", "quick", "json", "peers", "plot"),
    "article": ("layer", "table", "kind", "chain", "json", "peers"),
    "list": ("threads", "quick", "chain", "json", "peers", "plot"),
}
CPUS = ("native", "x86-64-v3", "x86-64-v4")


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    top = argparse.ArgumentParser(prog="fastconv", description="Hand-written convolution kernels for NumPy arrays.")
    top.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, does: str, more: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}. {more}")

    demo = command(
        "demo", "run six kinds of layers on a photograph and draw what they do",
        "It prints sizes, operations, times and errors, and takes a minute or two.",
    )  # fmt: skip
    demo.add_argument("--image", metavar="FILE", help="a picture of your own (default: one that comes with scikit-image)")
    demo.add_argument("--out", metavar="FILE.png", default="demo.png", help="where the figure goes (default: %(default)s)")
    demo.add_argument("--seconds", type=_positive, default=8.0, help="about how long to train (default: %(default)s)")

    command("info", "say what this installation has to work with", "Versions, vectors, caches, threads, CUDA.")

    bench = command(
        "bench", "time layers and compare them with the processor's peak",
        "Without a layer, those of two tables, which takes some minutes. Pin it for steady times: taskset -c 1 fastconv bench.",
    )  # fmt: skip
    bench.add_argument("layer", nargs="*", help="a name, a pattern such as 'pw_*', or a problem: conv2d,n1c64i56f64k3p1,bias,relu")
    bench.add_argument("--threads", type=int, metavar="N", help="threads a call may use (default: all)")
    bench.add_argument("--seconds", type=_positive, default=0.5, metavar="S", help="for each layer (default: %(default)s)")
    bench.add_argument("--quick", action="store_true", help="time each layer for a moment only")
    bench.add_argument("--json", metavar="FILE", help="write machine, versions and all results as JSON; - prints it, and no table")
    bench.add_argument("--peers", action="store_true", help="measure other libraries in turn with each layer")
    bench.add_argument("--plot", metavar="FILE.png", help="draw a roofline, and bars beside the peers")
    bench.add_argument("--table", choices=TABLES, help="whose layers, if none are named (default: tuned and more)")
    bench.add_argument("--kind", choices=KINDS, help="only layers of this kind")
    bench.add_argument("--chain", choices=CHAINS, action="append", default=[], help="time all convolutions of a network in order")
    mode = bench.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="name the layers and their problems, and time nothing")
    mode.add_argument("--tune", action="store_true", help="time every algorithm of each layer; prints, and changes nothing")
    mode.add_argument("--device", action="store_true", help="time the layers on a CUDA device, beside cuDNN")
    mode.add_argument("--article", action="store_true", help="time separable blocks beside the standard layers they replace")

    compiling = command(
        "compile", "compile every kernel now, so that no first call has to wait",
        "Some three minutes on two cores. What is on disk already is not compiled again.",
    )  # fmt: skip
    compiling.add_argument("kernel", nargs="*", help="only kernels whose names begin like this, such as tiled_pointwise")
    compiling.add_argument("--list", action="store_true", help="name the variants, and compile nothing")

    exporting = command(
        "export", "write the kernels as a C library: shared object, header and pkg-config file",
        "It needs a C compiler; programs that use the library need neither Python nor Numba.",
    )  # fmt: skip
    exporting.add_argument("--out", required=True, metavar="DIR", help="where lib and include go")
    exporting.add_argument("--kinds", nargs="+", choices=EXPORTED, default=EXPORTED, help="kinds of layers (default: all)")
    exporting.add_argument(
        "--cpu", choices=CPUS, default="native", help="this processor, or a level of them (default: %(default)s)"
    )

    cuda = command(
        "cuda-report", "compile the CUDA kernels without a device, and count registers and instructions",
        "It needs the packages of the extra cuda-report, and takes some minutes.",
    )  # fmt: skip
    cuda.add_argument("kernel", nargs="*", help="only kernels whose names begin like this, such as tiled_pointwise")
    cuda.add_argument(
        "--capability", type=int, action="append", choices=CAPABILITIES, help="of a device; 80 for 8.0 (default: all)"
    )
    cuda.add_argument("--json", action="store_true", help="print JSON instead of a table")
    cuda.add_argument("--layers", action="store_true", help="estimate the least time of each layer of the benchmarks, too")
    return top


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a positive number")
    return value


def _bench(given: argparse.Namespace) -> None:
    from fastconv import bench

    for mode, others in WITHOUT.items():
        for other in others:
            if getattr(given, mode) and getattr(given, other):
                raise ValueError(f"{other}: means nothing to --{mode}")
    if given.list:
        for name, problem in bench.selected(given.layer, given.table, given.kind):
            print(f"{name:<20} {problem}")
        return
    if given.tune:
        found = bench.selected(given.layer, given.table, given.kind)
        bench.tune(found, threads=given.threads, seconds=bench.QUICK if given.quick else given.seconds)
        return
    if given.device:
        from fastconv.bench.device import bench_device

        bench_device([] if given.chain and not given.layer else bench.selected(given.layer, given.table, given.kind), given.chain)
        return
    if given.article:
        bench.article(threads=given.threads, seconds=bench.QUICK if given.quick else given.seconds, plot=given.plot)
        return
    bench.bench(
        given.layer, table=given.table, kind=given.kind, chains=given.chain, peers=bench.PEERS if given.peers else (),
        threads=given.threads, seconds=given.seconds, quick=given.quick, plot=given.plot, json=given.json, command=given.typed,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it worked, 1 if it said why not."""
    given = parser().parse_args(arguments)
    given.typed = shlex.join(["fastconv", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        if given.command == "compile":
            from fastconv.ahead import compile_all, variants

            wanted = variants(given.kernel)
            if given.list:
                print("\n".join(map(str, wanted)))
            else:
                compile_all(wanted, print)
        elif given.command == "demo":
            from fastconv.demo import demo

            demo(given.image, given.out, seconds=given.seconds)
        elif given.command == "info":
            from fastconv.info import gather

            for name, value in gather():
                print(f"{name:<13} {value}")
        elif given.command == "export":
            from fastconv.export import export

            export(given.out, given.kinds, given.cpu)
        elif given.command == "cuda-report":
            from fastconv.cuda.report import report

            report(given.capability or CAPABILITIES, given.kernel, as_json=given.json, layers=given.layers)
        else:
            _bench(given)
    except (ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        print(f"fastconv {given.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
