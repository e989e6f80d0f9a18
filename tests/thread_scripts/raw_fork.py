"""Forks that Python's hooks do not see: the child keeps the parent's board, whose helpers do not exist."""

import ctypes
import os
import signal
import sys

from common import check

check()
libc, codes = ctypes.PyDLL(None), []
for _ in range(10):
    process = libc.fork()
    if not process:
        signal.alarm(20)
        for _ in range(100):
            check()
        os._exit(0)
    codes.append(os.waitpid(process, 0)[1])
sys.exit(f"children ended with {sorted(set(codes))}" if any(codes) else 0)
