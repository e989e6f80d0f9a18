"""What the scripts and test_threads.py share: kernels that notice an item run twice, not at all, or on a wrong seat."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from fastconv.cpu import threads
from fastconv.cpu.atomics import add, load, pause, store, swap
from fastconv.cpu.threads import serve

COUNTS, FLAGS, SEATS, FAILURES, PAUSES, RAN = range(0, 48, 8)  # the words of a job


@numba.cfunc("void(int64, int64, int64)")
def note(item, seat, job):
    """Count the item; a failure if the seat is out of bounds or two threads sit on it."""
    if seat < 0 or seat >= load(job + SEATS) or swap(load(job + FLAGS) + 8 * seat, 1):
        add(job + FAILURES, 1)
        return
    add(load(job + COUNTS) + 8 * item, 1)
    add(load(job + RAN) + 8 * seat, 1)
    for _ in range(load(job + PAUSES)):
        pause()
    store(load(job + FLAGS) + 8 * seat, 0)


@numba.cfunc("void(int64, int64, int64)")
def nested(item, seat, job):
    """Share a job of one's own for every item: `job` holds the board, the kernel, how many items, then the jobs."""
    serve(load(job), load(job + 8), load(job + 24 + 8 * item), load(job + 16), 3, threads.WORTH_WAKING)


def address(array):
    """Where an array lies; `array.ctypes` would import something, which fails while the interpreter ends."""
    return array.__array_interface__["data"][0]


class Job:
    """A job for `note`, and what became of it."""

    def __init__(self, items, seats, pauses=0):
        self.counts = np.zeros(items + 1, np.int64)
        self.flags, self.ran = np.zeros((2, seats), np.int64)
        counts, flags, ran = map(address, (self.counts, self.flags, self.ran))
        self.words = np.array([counts, flags, seats, 0, pauses, ran], np.int64)
        self.address, self.items = address(self.words), items

    def assert_done(self, times=1):
        assert self.words[FAILURES // 8] == 0, "a seat out of bounds, or two threads on one"
        assert (self.counts[:-1] == times).all(), f"items that did not run {times} times each"
        assert self.counts[-1] == 0


def check(items=64, pauses=20, work=1e9):
    """One call, with everything that must hold after it; gives how many items each seat ran."""
    job = Job(items, threads.seats(), pauses)
    threads.run(note.address, job.address, items, work, len(job.flags))
    job.assert_done()
    return job.ran


def check_in_threads(count=8, calls=200):
    """`count` Python threads that call at once, each with its own limits."""

    def go(own):
        for number in range(calls):
            with threads.num_threads(1 + (own + number) % threads.most_threads()):
                check(items=(own + number) % 70)

    with ThreadPoolExecutor(count) as callers:
        list(callers.map(go, range(count)))  # raises what one of them raised
