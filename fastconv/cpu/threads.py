"""A team of threads that shares the items of one kernel call.

The helpers are Python threads that live inside compiled code without the GIL. A caller divides its items among the seats of
a board, one contiguous part a seat; whoever comes claims items by an atomic exchange, first from the own part, then from the
others'. The caller claims too, and waits only for items that a helper has already claimed: a helper that sleeps, was lost in
a fork or has not started costs speed, never the answer. A second caller, or a nested one, finds the board busy and runs its
items itself. Items write apart from each other and do not raise, so the bits are the same for any number of threads.

A kernel here is the address of a C function `void(int64 item, int64 seat, int64 job)`, a job the address of whatever that
kernel reads. The seat says which of the call's threads runs the item: its scratch is that thread's alone while it does.
"""

from __future__ import annotations

import atexit
import ctypes
import operator
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import prange, types
from numba.core.compiler_lock import global_compiler_lock

from fastconv.cpu.atomics import (
    add,
    call,
    change,
    give_lock,
    give_way,
    load,
    pause,
    stay_on,
    store,
    swap,
    take_lock,
    this_core,
    this_thread,
)
from fastconv.cpu.compiled import compiled, in_parallel

# That a core could do while it moves a byte, 150 a nanosecond and 50 bytes: a depthwise layer, and packing, move many.
OPERATIONS_A_BYTE = 3
# A call's estimated floating-point operations; one core of the machine where this was measured does 150 a nanosecond.
WORTH_SHARING = 0.4e6  # 3 us of work: less is over before a helper that spins would have taken half of it
WORTH_WAKING = 8_000_000  # 50 us of work: waking a sleeping helper costs its waker 8 us, and the helper comes later still
WORTH_WAKING_FOR_MORE = 32_000_000  # of smaller calls since the last was woken: once awake it helps all that follow within 35 us

LINUX = sys.platform == "linux"
MOST_SEATS = 1024  # of a board, whatever the environment says
MOST_CORES = 1024  # of an affinity mask; cores beyond are left alone
SPINS = 1500  # pauses without an item before a helper sleeps: 35 us on Zen 5
WAKES = 2  # sleepers that one thread wakes: those wake two more each, so that 64 cost no one 64 times 8 us

# A board in bytes. What is written at different times lies in different pairs of cache lines, for processors fetch pairs.
NOW = 0  # turn << 16 | parts: which job this is, and how many seats share it; 31 bits of turn
PENDING = 128  # items that nobody has finished
KERNEL, JOB, ITEMS = 256, 264, 272  # what to run; stays while PENDING is not 0
BUSY = 384  # 1 while a caller has the board
UNHELPED = 392  # operations of calls that have woken nobody, since one last did
STOP, PRESENT, CORES = 512, 520, 528  # 1 at the end; seats that have a thread; the mask of the cores we may use
SEATS, SEAT = 768, 256  # where the seats begin, and how far apart they lie
TICKET = 0  # of a seat: turn << 32 | items of its part not claimed yet
ASLEEP, LOCK, WAKER = 8, 16, 24  # 1 while its helper sleeps; on what; the core of the thread that woke it
MASK = 64  # room for a mask of cores


# What all this looks like from jitted code (embed/), which cannot ask Python: `words`, kept up to date by `tell` from its
# first call on.
LIMIT = 0  # of the process
TEAM, ASKED = 8, 16  # the board, and the seats asked for; 0 where Numba's threads share the work
MORE_SEATS = 24  # that Numba's threads need scratch for
SAYING = 32  # Python threads that are inside `num_threads`; then, for so many, (thread, limit) each
SAYINGS = 40
words = np.zeros(SAYINGS // 8 + 2 * MOST_SEATS, np.int64)


# Compiled: the caller and the helpers --------------------------------------------------------------------------------


@compiled
def help_with(board: int, own: int, now: int) -> int:
    """Run items of the own part, then what is left of the others'; gives how many. Never waits.

    All depends on one word, `now`, read once: a ticket is claimed only while it shows the turn of that word. Until the
    claimed item is finished the job cannot end, so what was read of it after `now` and before the claim is its own. If the
    job had ended, or another begun with fewer parts, then no ticket of this turn would be left to claim.
    """
    turn, parts = now >> 16, now & 0xFFFF
    kernel, job, items = load(board + KERNEL), load(board + JOB), load(board + ITEMS)
    helped = 0
    if own >= parts:  # not invited: the caller has scratch for fewer seats
        return helped
    for part in range(own, own + parts):
        part -= parts if part >= parts else 0
        seat, end, done = board + SEATS + SEAT * part, items * (part + 1) // parts, 0
        ticket = load(seat + TICKET)
        while ticket >> 32 == turn and ticket & 0xFFFFFFFF:
            if change(seat + TICKET, ticket, ticket - 1):
                call(kernel, end - (ticket & 0xFFFFFFFF), own, job)
                done += 1
            ticket = load(seat + TICKET)
        if done:
            add(board + PENDING, -done)
            helped += done
    return helped


@compiled
def wake(board: int, parts: int, most: int) -> None:
    """Wake sleeping helpers among the first `parts` seats, at most so many."""
    for own in range(1, parts):
        seat = board + SEATS + SEAT * own
        if load(seat + ASLEEP) and swap(seat + ASLEEP, 0):  # by the swap this thread alone is its waker
            if LINUX:
                store(seat + WAKER, this_core())
            give_lock(load(seat + LOCK))
            most -= 1
            if most <= 0:
                return


@compiled
def leave_core(board: int, seat: int) -> None:
    """Move away from the waker's core.

    Linux likes to wake a thread where its waker runs, though other cores are idle; both halves of the work then run one
    after the other (57 of 60 calls after a pause, on the machine where this was measured).
    """
    core = load(seat + WAKER)
    if 0 <= core < MOST_CORES and this_core() == core:
        for word in range(MOST_CORES // 64):
            cores = load(board + CORES + 8 * word)
            if word == core >> 6:
                cores &= ~(1 << (core & 63))
            store(seat + MASK + 8 * word, cores)
        stay_on(0, MOST_CORES // 8, seat + MASK)  # refused if that leaves no core, and then we stay


@compiled
def helper(board: int, own: int) -> None:
    """A helper's life: help, spin, sleep."""
    seat = board + SEATS + SEAT * own
    seen, spins = -1, 0
    while not load(board + STOP):
        now = load(board + NOW)
        if now != seen:
            seen = now
            if help_with(board, own, now):
                spins = 0  # jobs that leave it no item do not keep a helper from sleeping
        elif spins < SPINS:
            pause()
            spins += 1
        else:
            spins = 0
            store(seat + ASLEEP, 1)
            # A caller publishes, then looks who sleeps; we say so, then look again: one of us sees the other.
            if (load(board + NOW) != now or load(board + STOP)) and swap(seat + ASLEEP, 0):
                continue
            take_lock(load(seat + LOCK), 1)
            if LINUX:
                leave_core(board, seat)
            wake(board, load(board + NOW) & 0xFFFF, WAKES)


@compiled
def serve(board: int, kernel: int, job: int, items: int, parts: int, work: int) -> None:
    """kernel(item, seat, job) for every item, on at most `parts` seats of the board (0: none, all items run here).

    `work` is in operations. Helpers that sleep are woken by a call that is large itself, or the latest of many small ones: a
    network's depthwise layers are small, and follow each other, and by size alone two threads took as long for them as one. Small
    calls far apart pay for a helper in vain once in WORTH_WAKING_FOR_MORE, 4 % of their time.
    """
    parts = min(parts, items)
    if board:
        parts = min(parts, load(board + PRESENT))
    if board == 0 or parts < 2 or load(board + BUSY) or swap(board + BUSY, 1):
        for item in range(items):
            call(kernel, item, 0, job)
        return
    store(board + KERNEL, kernel)
    store(board + JOB, job)
    store(board + ITEMS, items)
    store(board + PENDING, items)
    turn = ((load(board + NOW) >> 16) + 1) & 0x7FFFFFFF
    for part in range(parts):
        own_items = items * (part + 1) // parts - items * part // parts
        store(board + SEATS + SEAT * part + TICKET, turn << 32 | own_items)
    store(board + NOW, turn << 16 | parts)  # from here on the helpers come
    unhelped = load(board + UNHELPED) + work
    if work >= WORTH_WAKING or unhelped >= WORTH_WAKING_FOR_MORE:
        unhelped = 0
        wake(board, parts, WAKES)
    store(board + UNHELPED, unhelped)
    help_with(board, 0, turn << 16 | parts)
    waited = 0
    while load(board + PENDING):
        pause()
        waited += 1
        if waited > SPINS:  # a helper has lost its core: maybe it may have ours
            give_way()
    store(board + BUSY, 0)


@compiled
def limit_here(words: int) -> int:
    """`get_num_threads` for this thread, from the address of `words`."""
    if load(words + SAYING):
        own = this_thread()
        for place in range(words + SAYINGS, words + SAYINGS + 16 * MOST_SEATS, 16):
            if load(place) == own:
                return load(place + 8)
    return load(words + LIMIT)


@in_parallel
def spread(kernel: int, job: int, items: int) -> None:
    """The same by Numba's own threads."""
    for item in prange(items):
        call(kernel, item, numba.get_thread_id(), job)  # type: ignore[attr-defined]


# Who is on the team --------------------------------------------------------------------------------------------------


class Team:
    """A board, and the threads that have been started to help with what is on it.

    Attributes
    ----------
    board : int
        Its address; 0 while nobody helps.
    asked : int
        How many seats have been asked for: so many have a thread, or the system would not start one.
    """

    def __init__(self) -> None:
        seats = most_threads()
        memory = np.zeros((SEATS + SEAT * seats) // 8 + 16, np.int64)
        self._words = memory[-(memory.ctypes.data // 8) % 16 :]  # from a multiple of 128 bytes on
        self._address = self._words.ctypes.data
        self._threads: list[threading.Thread] = []
        self._ended = False
        self.board, self.asked = 0, 1
        if LINUX:
            ours = np.isin(np.arange(MOST_CORES), list(os.sched_getaffinity(0)))
            self._words[CORES // 8 :][: MOST_CORES // 64] = np.packbits(ours, bitorder="little").view(np.int64)

    def grow(self, seats: int) -> None:
        """Start helpers until that many seats are taken, the caller's included."""
        self.asked = max(self.asked, seats)
        helper.compile((types.int64, types.int64))  # once, in this thread
        api = ctypes.pythonapi
        api.PyThread_allocate_lock.restype = ctypes.c_void_p
        api.PyThread_acquire_lock.argtypes = ctypes.c_void_p, ctypes.c_int
        for own in range(len(self._threads) + 1, seats):
            lock = api.PyThread_allocate_lock()
            if self._ended or not lock:
                return
            api.PyThread_acquire_lock(lock, 1)
            self._words[(SEATS + SEAT * own + LOCK) // 8] = lock
            name = f"fastconv-{own}"
            thread = threading.Thread(target=helper, args=(self._address, own), daemon=True, name=name)
            self._threads.append(thread)  # first: were we interrupted in between, the seat must not be given twice
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending, or a limit of the system: those we have will do
                return
            self._words[PRESENT // 8] = own + 1
            self.board = self._address

    def end(self) -> None:
        """Send the helpers home. The board stays in memory: a daemon thread may be in the middle of a job on it."""
        self._ended, self.board, self.asked = True, 0, MOST_SEATS
        self._words[STOP // 8] = 1
        if self._threads:
            wake(self._address, len(self._threads) + 1, len(self._threads))
        for thread in list(self._threads):
            if thread.is_alive():
                thread.join()


_team: Team | None = None
_growing = threading.Lock()
_spreading = threading.Lock()
_saying = threading.Lock()
_forked = False


def board(seats: int) -> int:
    """The address of the team's board, with that many seats taken if possible; 0 if there is nobody to help."""
    global _team
    team = _team
    # Nobody waits for the lock: whoever comes while the team is being made runs alone, and a signal handler cannot hang.
    if (team is None or team.asked < seats) and _growing.acquire(blocking=False):
        try:
            if _team is None:
                _team = Team()
            _team.grow(seats)
            tell()
        finally:
            _growing.release()
        team = _team
    return team.board if team is not None else 0


def run(kernel: int, job: int, items: int, work: float, most_seats: int = MOST_SEATS) -> None:
    """kernel(item, seat, job) for every item below `items`, each exactly once, on as many threads as the work is worth.

    Parameters
    ----------
    kernel : int
        Address of a C function void(int64 item, int64 seat, int64 job).
    job : int
        What the kernel gets: the address of an array that the caller keeps until this returns.
    items : int
        How many.
    work : float
        Estimated floating-point operations of all items together.
    most_seats : int
        The caller has scratch for so many: what `seats()` said. Another thread may have raised the limit meanwhile.
    """
    parts = min(get_num_threads(), most_seats, items)
    if parts < 2 or work < WORTH_SHARING:
        serve(0, kernel, job, items, 1, 0)
    elif _threading == "team" or _forked:
        serve(board(parts), kernel, job, items, parts, int(work))
    elif most_seats < _numba_config.NUMBA_NUM_THREADS or not _spreading.acquire(blocking=False):
        serve(0, kernel, job, items, 1, 0)  # Numba's workqueue aborts the process if two threads enter it
    else:
        users = None
        try:
            users = numba.get_num_threads()
            numba.set_num_threads(min(parts, users))  # of this Python thread only
            spread(kernel, job, items)
        finally:
            if users is not None:
                numba.set_num_threads(users)
            _spreading.release()


def seats() -> int:
    """For how many seats a call made now needs scratch."""
    if _threading == "numba" and not _forked:
        return max(get_num_threads(), int(_numba_config.NUMBA_NUM_THREADS))
    return get_num_threads()


# How many threads ----------------------------------------------------------------------------------------------------


class _Local(threading.local):
    """What one Python thread has said."""

    limit = 0  # here and below 0 means: nothing said


_local = _Local()
_limit = 0  # of the process
_threading = "team"
_numba_config: Any = numba.config  # which makes its names as it reads the environment


def get_num_threads() -> int:
    """How many threads a call made now, in this Python thread, may use at most.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.get_num_threads() >= 1
    True
    """
    return _local.limit or _limit or default_threads()


def set_num_threads(n: int) -> None:
    """Let calls use at most n threads, in every Python thread that is not inside `num_threads`.

    Parameters
    ----------
    n : int
        1 to the CPUs that this process may use (or to what FASTCONV_NUM_THREADS says, if that is more).

    Examples
    --------
    >>> import fastconv as fc
    >>> before = fc.get_num_threads()
    >>> fc.set_num_threads(1)
    >>> fc.get_num_threads()
    1
    >>> fc.set_num_threads(before)
    """
    global _limit
    _limit = _checked(n)
    tell()


def num_threads(n: int) -> Any:
    """A context in which the calls of this Python thread use at most n threads.

    >>> with num_threads(1):
    ...     get_num_threads()
    1
    """
    return _limited(_checked(n))


@contextmanager
def _limited(n: int) -> Iterator[None]:
    before, _local.limit = _local.limit, n
    _say(n)
    try:
        yield
    finally:
        _local.limit = before
        _say(before)


def _say(n: int) -> None:
    """Let jitted code know what this thread has said: in the entry that it has, or in a free one."""
    own = threading.get_ident()
    with _saying:
        entries = words[SAYINGS // 8 :].reshape(-1, 2)
        places = np.flatnonzero(entries[:, 0] == own) if own in entries[:, 0] else np.flatnonzero(entries[:, 0] == 0)
        if len(places):  # else more threads say something than anybody has: the limit of the process holds
            entries[places[0]] = (own if n else 0), n
            words[SAYING // 8] = np.count_nonzero(entries[:, 0])


def tell() -> None:
    """Bring `words` up to date: whoever lets jitted code read them calls this once, and every change calls it again."""
    ours = _team is not None and (_threading == "team" or _forked)
    words[LIMIT // 8] = _limit or default_threads()
    words[ASKED // 8] = _team.asked if ours and _team is not None else 0
    words[TEAM // 8] = _team.board if ours and _team is not None else 0
    words[MORE_SEATS // 8] = seats() if _threading == "numba" else 0


def get_threading() -> str:
    """Whose threads share the work: "team" or "numba".

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.get_threading()
    'team'
    """
    return _threading


def set_threading(threading: str) -> None:
    """Choose whose threads share the work, in the whole process.

    Parameters
    ----------
    threading : {"team", "numba"}
        The package's own, or those of Numba's parallel target, with its guarantees: calls made at the same time, or after a
        fork, are ours again, but a program that is inside a prange of its own should stay with "team".

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.set_threading("numba")
    >>> fc.get_threading()
    'numba'
    >>> fc.set_threading("team")
    """
    global _threading
    if not isinstance(threading, str):
        kind = type(threading).__name__
        raise TypeError(f"threading: got {threading!r} of type {kind}, expected one of team, numba")
    if threading not in ("team", "numba"):
        raise ValueError(f"threading: got {threading!r}, expected one of team, numba")
    _threading = threading
    tell()


def _checked(n: object) -> int:
    """A number of threads, or an error that says what was expected."""
    try:
        if isinstance(n, (bool, np.bool_)):
            raise TypeError
        count = operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"num_threads: got {n!r} of type {type(n).__name__}, expected an integer") from None
    if not 1 <= count <= most_threads():
        raise ValueError(f"num_threads: got {count}, expected 1 to {most_threads()}")
    return count


@lru_cache(maxsize=1)
def default_threads() -> int:
    """FASTCONV_NUM_THREADS or NUMBA_NUM_THREADS if that is a positive number, else the CPUs this process may use."""
    for name in ("FASTCONV_NUM_THREADS", "NUMBA_NUM_THREADS"):
        text = os.environ.get(name, "").strip()
        if text.isdecimal() and int(text):
            return min(int(text), MOST_SEATS)
    return min(_available_cpus(), MOST_SEATS)


@lru_cache(maxsize=1)
def most_threads() -> int:
    """The largest number of threads that may be asked for."""
    return max(default_threads(), min(_available_cpus(), MOST_SEATS))


def _available_cpus() -> int:
    """The CPUs of this process's affinity, less a container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cpus, _cgroup_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))))


def _cgroup_quota(membership: Path, mounted: Path) -> float:
    """How many CPUs' time the process and the groups around it may use; infinite without a limit."""
    quota = float("inf")
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return quota
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / "cpu" if controllers else mounted  # version 1 has one tree for each controller
        inside = root / group.lstrip("/")
        for folder in (inside, *inside.parents):  # up to the root: a container sees its own group there
            if not folder.is_relative_to(root):
                break
            for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
                try:
                    limit, period = " ".join((folder / file).read_text() for file in files).split()
                    if float(limit) > 0 and float(period) > 0:  # -1 is version 1's way to say "no limit"
                        quota = min(quota, float(limit) / float(period))
                except (OSError, ValueError):  # no such file, or "max": no limit here
                    continue
    return quota


# Forks and the end ---------------------------------------------------------------------------------------------------


def _in_child() -> None:
    """The helpers stayed behind, and so did whoever held a lock: the next call engages new helpers."""
    global _team, _growing, _spreading, _saying, _forked
    global_compiler_lock.release()  # type: ignore[no-untyped-call]
    _team, _growing, _spreading, _saying = None, threading.Lock(), threading.Lock(), threading.Lock()
    _forked = True  # GNU OpenMP kills a child that enters a region, so here the team takes the place of Numba's threads
    tell()


@atexit.register
def _end() -> None:
    _growing.acquire(blocking=False)  # and never released: nobody is engaged any more
    if _team is not None:
        _team.end()
        tell()


if hasattr(os, "register_at_fork"):
    # Numba's lock is held while a process forks: a child that inherited it locked by another thread could never compile.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_in_child,
    )
