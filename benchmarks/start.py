"""What a process pays once: importing the package, and the first call, whose kernels are compiled or read from the disk."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .common import called

IMPORTS = 5  # of each, in turn; the best counts

# A layer of each kind, and what its first call does.
LAYERS = ("resnet_3x3_56", "pw_14_512", "dw_112_32", "sep_14_512", "atrous_r2_28_256", "up_28_64_32", "gradw_28_128")
LARGE = ("resnet_3x3_56", "pw_7_1024", "dw_112_32", "sep_112_32_64", "vgg16_224_64", "gradw_28_128")
FIRST_CALL = """
import runpy, sys, time
common = runpy.run_path(sys.argv[1])
common["set_threads"](1)
begin = time.perf_counter()
common["called"](sys.argv[2])
print(time.perf_counter() - begin)
"""
# The same on a CUDA device, which is there already.
FIRST_CALL_ON_DEVICE = """
import runpy, sys, time
common = runpy.run_path(sys.argv[1])
from fastconv.bench.device import device_case, there
import numpy as np
there(np.zeros(1, np.float32))
begin = time.perf_counter()
device_case(common["find"](sys.argv[2])[1])()
print(time.perf_counter() - begin)
"""
IMPORT = """
import time
begin = time.perf_counter()
import {}
print(time.perf_counter() - begin)
"""


def seconds(code, *arguments, cache=None):
    """What a new process prints that runs the code."""
    environment = None if cache is None else os.environ | {"FASTCONV_CACHE_DIR": cache}
    command = [sys.executable, "-c", code, *arguments]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def first_call(name, cache=None, code=FIRST_CALL):
    """Of a layer, in seconds: made, packed, its kernels compiled or read, and called; with a cache in another folder if given."""
    return seconds(code, str(Path(__file__).with_name("common.py")), name, cache=cache)


class FirstCall:
    params, param_names = [LAYERS, ("compiled", "read")], ("layer", "kernels")
    code = FIRST_CALL

    def track_first_call(self, name, kernels):
        with tempfile.TemporaryDirectory() as folder:
            compiled = first_call(name, folder, self.code)
            return compiled if kernels == "compiled" else first_call(name, folder, self.code)

    track_first_call.unit = "s"


class Import:
    def timeraw_import(self):
        return "import fastconv"

    def track_import_over_numba(self):
        times = [[seconds(IMPORT.format(name)) for name in ("fastconv", "numba")] for _ in range(IMPORTS)]
        ours, numba = map(min, zip(*times, strict=True))
        return round(ours / numba, 4)

    track_import_over_numba.unit = "x Numba's time"


class Memory:
    """The most that a process ever held which calls a layer: Python and Numba, the kernels, weights, images and scratch."""

    params, param_names = LARGE, ("layer",)

    def setup(self, name):
        first_call(name)  # in another process, so that here no compiler runs: it would hold more than any layer

    def peakmem_call(self, name):
        called(name)
