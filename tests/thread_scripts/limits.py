"""The number of threads that a process may use, by its affinity."""

import os

import fastconv as fc

os.environ.pop("FASTCONV_NUM_THREADS", None)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert fc.get_num_threads() == 1
