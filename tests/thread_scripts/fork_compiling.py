"""Forks while another thread compiles: the child must be able to compile too."""

import os
import signal
import sys
import threading

import numba
from common import check

stop, codes = False, []


def compile_something():
    assert numba.njit(lambda x: x + 1)(1) == 2


def busy():
    while not stop:
        compile_something()


check()
compiler = threading.Thread(target=busy)
compiler.start()
for _ in range(5):
    process = os.fork()
    if not process:
        signal.alarm(20)
        compile_something()
        check()
        os._exit(0)
    codes.append(os.waitpid(process, 0)[1])
stop = True
compiler.join()
sys.exit(f"children ended with {sorted(set(codes))}" if any(codes) else 0)
