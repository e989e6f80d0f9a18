"""40 forks through Python, half of them while another thread has a job under way; each child has a child and a grandchild."""

import os
import signal
import sys
import threading

from common import check, threads

check()
stop = False


def busy():
    while not stop:
        check()


def child(depth=0):
    for _ in range(50):
        check()
    if depth < 2:
        process = os.fork()
        if not process:
            child(depth + 1)
        assert os.waitpid(process, 0)[1] == 0
    os._exit(0 if threads._team._threads[0].is_alive() else 3)  # the child has helpers of its own


codes = []
caller = threading.Thread(target=busy)
for under_way in (False, True):
    if under_way:
        caller.start()
    for _ in range(20):
        process = os.fork()
        if not process:
            signal.alarm(20)
            try:
                child()
            except AssertionError as error:
                print(repr(error), flush=True)
            finally:
                os._exit(4)
        codes.append(os.waitpid(process, 0)[1])
stop = True
caller.join()
sys.exit(f"children ended with {sorted(set(codes))}" if any(codes) else 0)
