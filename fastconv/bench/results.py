"""What `fastconv bench --json FILE` writes: one JSON object that says all that a table leaves out.

Times are seconds, speeds GFLOP/s (a multiplication and an addition are two operations), sizes bytes; what was not measured is
null or not there. `FORMAT` changes whenever a name's meaning does.

    format       1
    date         when, "2026-11-24"
    command      what to type to measure it again, "fastconv bench --peers --threads 1"
    threads      how many a call could use
    machine      processor, system, compiled_for (the target's name), cpus (those that the process may use), vector_bits,
                 registers (vector ones), caches {"L1d": bytes, ...}, peak_gflops {"float32": of one core, measured, ...},
                 copy_gbytes_per_second (of all threads, measured)
    versions     {"python": "3.13.1", "fastconv": ..., "numpy": ..., "numba": ..., "llvmlite": ..., each peer's packages}
    missing      {peer: how to install it}, of the peers that were asked for
    rows         one object for each layer, problem or chain, in order:
        layer, problem, kind        a name or the problem's text; the problem's text; "standard", ..., or "chain"
        dtype, operations, bytes    bytes: of every array, moved once
        kernel                      which one computed it; null for a chain
        seconds, gflops, share_of_peak, gbytes_per_second     the best call; share_of_peak: of all threads' peak
        peers                       {peer: {"seconds", "gflops"}}, measured in turn with fastconv
        refused                     {peer: why it has no time}
        best_peer_over_fastconv     the best peer's time over fastconv's; above 1: fastconv is ahead
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastconv
from fastconv.bench.chains import Chain
from fastconv.bench.compare import Comparison
from fastconv.bench.peers import Peer
from fastconv.bench.timing import Measurement, memory_bandwidth
from fastconv.cpu import machine
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import most_threads
from fastconv.plan import choose

FORMAT = 1


def everything(measured: Sequence[Measurement], peers: Sequence[Peer] = (), command: str = "") -> dict[str, Any]:
    """All of it, as the object that is written.

    Parameters
    ----------
    measured : sequence of Measurement
        At one number of threads.
    peers : sequence of Peer
        Those that were asked for.
    command : str
        What to type to measure it again.
    """
    threads = measured[0].threads
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "threads": threads,
        "machine": {
            "processor": machine.cpu_name(),
            "system": f"{platform.system()} {platform.machine()}",
            "compiled_for": machine.target_name(),
            "cpus": most_threads(),
            "vector_bits": 32 * machine.lanes(),
            "registers": machine.registers(),
            "caches": machine.caches(),
            "peak_gflops": {m.problem.dtype: m.peak / threads for m in measured},
            "copy_gbytes_per_second": memory_bandwidth(threads),
        },
        "versions": versions(peers),
        "missing": {peer.name: advice for peer in peers if (advice := peer.missing())},
        "rows": [row(m) for m in measured],
    }


def versions(peers: Sequence[Peer] = ()) -> dict[str, str]:
    """Of everything that takes part.

    >>> list(versions())
    ['python', 'fastconv', 'numpy', 'numba', 'llvmlite']
    """
    packages = dict.fromkeys(package for peer in peers if not peer.missing() for package in peer.packages)
    named = ("numpy", "numba", "llvmlite", *packages)
    own = {"python": platform.python_version(), "fastconv": fastconv.__version__}
    return own | {name: importlib.metadata.version(name) for name in named}


def row(m: Measurement) -> dict[str, Any]:
    """One measurement."""
    said: dict[str, Any] = {
        "layer": m.name,
        "problem": str(m.problem),
        "kind": m.problem.kind,
        "dtype": m.problem.dtype,
        "operations": m.problem.operations,
        "bytes": m.problem.bytes,
        "kernel": None if isinstance(m.problem, Chain) else choose(m.problem, IMPLEMENTATIONS, m.threads).implementation.name,
        "seconds": m.seconds,
        "gflops": m.gflops,
        "share_of_peak": m.share,
        "gbytes_per_second": m.bandwidth,
    }
    if isinstance(m, Comparison):
        said["peers"] = {name: {"seconds": seconds, "gflops": m.gflops_of(name)} for name, seconds in m.peers.items()}
        said["refused"] = m.refused
        said["best_peer_over_fastconv"] = m.ratio if m.peers else None
    return said


def check_place(file: str | Path | None) -> None:
    """Say that a file cannot be there now, not when everything has been timed."""
    if file is not None and str(file) != "-" and not Path(file).absolute().parent.is_dir():
        raise FileNotFoundError(f"{file}: there is no such folder")
    if file is not None and Path(file).is_dir():
        raise IsADirectoryError(f"{file}: is a folder, expected a file")


def check_picture(file: str | Path | None) -> None:
    """The same of a picture, which must end as one that Matplotlib can write."""
    check_place(file)
    if file is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        known = FigureCanvasBase.get_supported_filetypes()
        if Path(file).suffix.lower().removeprefix(".") not in known:
            raise ValueError(f"{file}: expected the name of a picture that ends in .png, or in one of {', '.join(sorted(known))}")


def write(file: str, said: dict[str, Any]) -> None:
    """Write results into a file; "-" is the standard output."""
    text = json.dumps(said, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text)
