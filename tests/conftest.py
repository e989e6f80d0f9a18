"""For all tests and the processes that they start in this folder: one fixed way to draw examples, and a count of problems."""

import cases
import pytest
from hypothesis import settings

from fastconv import cuda, functional, plan
from fastconv.ahead import collect_rarely
from fastconv.cpu import tiles

collect_ignore = [] if cuda.is_available() else ["cuda_simulator"]  # test_cuda.py runs it in a process of its own
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")
collect_rarely()  # half of the tests' time is Numba's


def pytest_terminal_summary(terminalreporter):
    if cases.computed["problems"]:
        listed, computed = len(cases.CASES), cases.computed["problems"]
        terminalreporter.write_line(f"{computed} problems computed here; {listed} in the table of cases")


# Each tile of each kernel and dtype is compiled, for a second or two: all tests share a few, those that tiled.py picks. On any
# machine they fit the registers. `every_tile` is for tests of the tables, and of what the plan makes of them.
FEW = {
    "FILTERS_IN_LANES": {2: (6,), 1: (2,)},
    "PIXELS_IN_LANES": ((4, 3), (8, 1)),
    "NUMBERS_IN_ROWS": ((6, 2), (9, 1)),
    "DOTS": ((3, 4),),
    "WINOGRAD_PRODUCTS": {2: (6,)},
}
EVERY = {name: getattr(tiles, name) for name in FEW}
for name, few in FEW.items():
    setattr(tiles, name, dict.fromkeys(EVERY[name], few))


def forget():
    """What was planned before."""
    plan.choose.cache_clear()
    functional._calls.clear()


@pytest.fixture
def every_tile(monkeypatch):
    """The package's own tables of tiles."""
    for name, table in EVERY.items():
        monkeypatch.setattr(tiles, name, table)
    forget()
    yield
    forget()


@pytest.fixture
def tiled_however_small(monkeypatch):
    """Tiled kernels compute what is small enough for a test too, where the plan would take a direct one."""
    monkeypatch.setattr(plan, "TINY", 0)
    forget()
    yield
    forget()
