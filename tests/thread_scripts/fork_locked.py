"""A process forks while other threads hold every lock of the package: its child plans, packs and computes all the same."""

import os
import signal
import threading
import warnings
from contextlib import ExitStack

import numpy as np
from numba import njit

import fastconv as fc
from fastconv import layers
from fastconv.cpu import threads
from fastconv.embed import entry


@njit
def called(layer, x, w):
    return layer(x), fc.conv2d(x, w, padding=1)  # their sum would take Numba ten seconds


warnings.simplefilter("ignore")
x, w = np.ones((1, 8, 40, 40), np.float32), np.ones((8, 8, 3, 3), np.float32)
layer = fc.Conv2d(w, padding=1)
want = layer(x)
assert np.array_equal(called(layer, x, w), (want, want))
held, go = threading.Event(), threading.Event()


def hold():
    places = (
        (layers, ("_planning",)),
        (threads, ("_growing", "_spreading", "_saying")),
        (entry, ("_lock", "_installing", "numbering")),
    )
    with ExitStack() as locks:
        for module, names in places:
            for name in names:
                locks.enter_context(getattr(module, name))
        held.set()
        go.wait()


holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    with threads.num_threads(2):
        fresh, narrow = fc.Conv2d(w, padding=1), x[..., :20].copy()
        same = [np.array_equal(one(x), want) for one in (layer, fresh)]
        same += [np.array_equal(called(fresh, narrow, w), [layer(narrow)] * 2)]
    os._exit(0 if all(same) else 1)
status = os.waitpid(child, 0)[1]
go.set()
holder.join()
assert status == 0, status
