"""fastconv beside its peers: the same numbers, checked to give the same result, timed in turn in one process.

Everybody allocates the result anew on each call and pays for the call. Whoever measures pins the process to as many cores as
it has threads (`taskset -c 1 fastconv bench --peers --threads 1`), so that a scheduler's choices favour nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from fastconv.bench.chains import Timed, filled
from fastconv.bench.layers import Segment, step
from fastconv.bench.peers import PEERS, Call, Peer, one_after_another
from fastconv.bench.timing import Measurement, best_time
from fastconv.cpu.machine import fma_peak
from fastconv.cpu.threads import get_num_threads, num_threads

ROUNDS = 5  # of turns: noise that lasts as long as a turn then spoils one of five for everybody alike
PAUSE = 0.01  # seconds before a turn: the worker threads of OpenMP and ONNX Runtime spin for some milliseconds after a call
TOLERANCE = 1e-4  # of the result's largest number: float32 sums of a few thousand products, in whatever order


def best_in_turn(calls: Mapping[str, Callable[[], object]], seconds: float = 0.5) -> dict[str, float]:
    """The shortest time of each call, each measured for about so many seconds, taking turns.

    >>> sorted(best_in_turn({"sum": lambda: sum(range(100)), "pass": lambda: None}, seconds=0.01))
    ['pass', 'sum']
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            time.sleep(PAUSE)
            best[name] = min(best[name], best_time(call, seconds / ROUNDS))
    return best


@dataclass(frozen=True)
class Comparison(Measurement):
    """fastconv's time beside those of its peers, in seconds; `refused`: why the others have none."""

    peers: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The best peer's time over fastconv's: above 1 where fastconv is ahead; NaN without a peer."""
        return min(self.peers.values(), default=float("nan")) / self.seconds

    def gflops_of(self, peer: str) -> float:
        """A peer's billions of operations a second."""
        return self.problem.operations / self.peers[peer] / 1e9


def compare(
    problem: Timed, seconds: float = 0.5, threads: int | None = None, peers: Sequence[Peer] = PEERS, *,
    name: str | None = None, peak: float | None = None,
) -> Comparison:  # fmt: skip
    """Time a problem in fastconv and in its peers, each for so many seconds, after checking that their results agree.

    Parameters
    ----------
    problem : Problem, SeparableProblem or Chain
        What is timed.
    seconds : float
        How long each is timed.
    threads : int, optional
        How many threads each may use; as `fastconv.get_num_threads` says if not given.
    peers : sequence of Peer
        Whom to ask; those that are not installed or cannot compute the problem are in the result's `refused`.
    name : str, optional
        What the comparison is called; the problem's text if not given.
    peak : float, optional
        GFLOP/s of one core; measured if not given.

    Raises
    ------
    ArithmeticError
        If a peer's result is not fastconv's.

    Examples
    --------
    >>> from fastconv import Problem
    >>> problem = Problem.parse("conv2d,n1c4i8f4k3,relu")
    >>> compare(problem, seconds=0.01, peers=()).refused
    {}
    """
    refused = {peer.name: reason for peer in peers if (reason := peer.missing() or peer.refuses(problem))}
    segments = filled(problem)
    with num_threads(get_num_threads() if threads is None else threads), ExitStack() as modes:
        used = get_num_threads()
        calls = {"fastconv": ours(segments)}
        for peer in peers:
            if peer.name not in refused:
                modes.enter_context(peer.mode())
                calls[peer.name] = peer.build(segments, used)
        _check(calls, problem)
        times = best_in_turn(calls, seconds)
    one_core = fma_peak(problem.dtype) if peak is None else peak
    return Comparison(name or str(problem), problem, times.pop("fastconv"), used, one_core * used, times, refused)


def ours(segments: Sequence[Segment]) -> Call:
    """Calls of layers, each of which allocates its result; of one gradient with respect to weights, the function's."""
    return one_after_another([(s.x, [step(convolutions) for convolutions in s.layers]) for s in segments])


def _check(calls: Mapping[str, Call], problem: Timed) -> None:
    """Nobody times a wrong problem."""
    expected = calls["fastconv"]()
    for name, call in calls.items():
        for result, right in zip(call(), expected, strict=True):
            difference, largest = np.abs(np.asarray(result) - right).max(), np.abs(right).max()
            if not difference <= TOLERANCE * largest:
                raise ArithmeticError(f"{name}: differs from fastconv by {difference:.1e}, of at most {largest:.1e}, on {problem}")
