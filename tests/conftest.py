"""For all tests: one fixed way to draw examples, and how many problems the package has computed."""

import cases
import pytest
from hypothesis import settings

from fastconv import functional, plan

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")


def pytest_terminal_summary(terminalreporter):
    if cases.computed["problems"]:
        listed, computed = len(cases.CASES), cases.computed["problems"]
        terminalreporter.write_line(f"{computed} problems computed here; {listed} in the table of cases")


@pytest.fixture
def tiled_however_small(monkeypatch):
    """Tiled kernels compute what is small enough for a test too, where the plan would take a direct one."""

    def forget():
        plan.choose.cache_clear()
        functional._calls.clear()

    monkeypatch.setattr(plan, "TINY", 0)
    forget()
    yield
    forget()
