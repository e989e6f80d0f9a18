"""For all tests: one fixed way to draw examples, and how many problems the package has computed."""

import cases
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")


def pytest_terminal_summary(terminalreporter):
    if cases.computed["problems"]:
        listed, computed = len(cases.CASES), cases.computed["problems"]
        terminalreporter.write_line(f"{computed} problems computed here; {listed} in the table of cases")
