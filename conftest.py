"""Examples of docstrings that need a package which is only an extra are skipped where it is missing."""

import importlib.util
import os

import pytest

# Before NumPy is imported: the reference's products are small, and the threads that OpenBLAS wakes for each of them spin on cores
# that other workers need. A kernel's test problems took three to four times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

OPTIONAL = ("dask", "onnx", "torch")


def pytest_collection_modifyitems(items):
    for item in items:
        said = "".join(example.source for example in getattr(getattr(item, "dtest", None), "examples", ()))
        missing = [name for name in OPTIONAL if f"import {name}" in said and not importlib.util.find_spec(name)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"the example needs {', '.join(missing)}"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbouring tests go to one worker, which compiles what they share once; dealt out in turn, two workers would at a time."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
