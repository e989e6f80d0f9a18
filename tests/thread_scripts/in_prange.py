"""Calls from inside the user's own prange, under the layer that NUMBA_THREADING_LAYER names."""

import numpy as np
from common import Job, note, threads
from numba import njit, prange

from fastconv.cpu.threads import serve


@njit(parallel=True)
def users(board, kernel, jobs, items):
    for i in prange(len(jobs)):
        serve(board, kernel, jobs[i], items, 3, threads.WORTH_WAKING)


for _ in range(200):
    jobs = [Job(50, 3) for _ in range(16)]
    users(threads.board(3), note.address, np.array([job.address for job in jobs]), 50)
    for job in jobs:
        job.assert_done()
