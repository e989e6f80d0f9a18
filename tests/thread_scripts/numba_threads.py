"""set_threading("numba"): the same results, from many threads at once and after a fork; Numba's own number restored."""

import os
import signal
import sys

import numba
from common import check, check_in_threads, threads

threads.set_threading("numba")
assert threads.seats() >= numba.config.NUMBA_NUM_THREADS
numba.set_num_threads(2)
for items in (0, 1, 2, 3, 1000):
    for limit in (1, 2, 3):
        with threads.num_threads(limit):
            assert (check(items)[limit:] == 0).all()
    assert numba.get_num_threads() == 2
assert sum(check(1000, 200) > 0) == 2
check_in_threads(calls=50)
process = os.fork()
if not process:
    signal.alarm(20)
    for _ in range(50):
        check()
    os._exit(0)
sys.exit(os.waitpid(process, 0)[1])
