"""How long a call takes: the best of many, because everything that disturbs a measurement makes it longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fastconv.bench.chains import Timed
from fastconv.bench.layers import AnyProblem, case
from fastconv.cpu.machine import fma_peak
from fastconv.cpu.threads import get_num_threads

COPY_BYTES = 64 * 1024**2  # a thread: beyond its share of any last-level cache that we know
SAMPLE = 2e-4  # seconds: long beside the clock's own 50 ns, short beside what interrupts a process


def best_time(call: Callable[[], object], seconds: float = 0.5) -> float:
    """The shortest time of one call, in seconds, found in about so many seconds.

    Calls shorter than a sample are timed several at a time. The first call is not counted: it compiles.

    >>> 0 < best_time(lambda: sum(range(100)), seconds=0.01) < 1e-3
    True
    """
    clock = time.perf_counter
    call()
    begin = clock()
    call()
    calls = max(1, int(SAMPLE / max(clock() - begin, 1e-9)))
    best, start = float("inf"), clock()
    while True:
        begin = clock()
        for _ in range(calls):
            call()
        now = clock()
        best = min(best, (now - begin) / calls)
        if now - start >= seconds:
            return best


def memory_bandwidth(threads: int = 1, seconds: float = 0.2) -> float:
    """Bytes read and written a second, in GB/s, by so many threads that copy what no cache holds.

    >>> memory_bandwidth(seconds=0.01) > 0.1
    True
    """
    sources = [np.ones(COPY_BYTES, np.uint8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:
        best = best_time(lambda: list(pool.map(np.copyto, targets, sources)), seconds)
    return 2 * threads * COPY_BYTES / best / 1e9


@dataclass(frozen=True)
class Measurement:
    """How long a problem took, and what that means beside the machine's peak."""

    name: str
    problem: Timed
    seconds: float
    threads: int
    peak: float  # GFLOP/s of all these threads

    @property
    def gflops(self) -> float:
        """Billions of operations a second."""
        return self.problem.operations / self.seconds / 1e9

    @property
    def share(self) -> float:
        """Of the multiply-add peak."""
        return self.gflops / self.peak

    @property
    def bandwidth(self) -> float:
        """Least memory traffic a second, in GB/s."""
        return self.problem.bytes / self.seconds / 1e9


def measure(name: str, problem: AnyProblem, seconds: float = 0.5, peak: float | None = None) -> Measurement:
    """Time a problem on random numbers, at the present number of threads.

    Parameters
    ----------
    name : str
        What the measurement is called.
    problem : Problem or SeparableProblem
        What is timed.
    seconds : float
        For how long.
    peak : float, optional
        GFLOP/s of one core; measured if not given.
    """
    threads = get_num_threads()
    one_core = fma_peak(problem.dtype) if peak is None else peak
    return Measurement(name, problem, best_time(case(problem), seconds), threads, one_core * threads)
