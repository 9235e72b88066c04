# SPDX-License-Identifier: BSD-3-Clause
"""How much a test tried: cases, moments, files. The end of a run shows these counts."""

import pytest


@pytest.fixture
def tried(record_property):
    """``tried(1000, "damaged files")``: the test's line at the end of the run."""
    return lambda n, what: record_property("tried", f"{n:,} {what}")


def pytest_terminal_summary(terminalreporter):
    lines = [
        f"{value}  ({report.nodeid.partition('::')[2]})"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "tried" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("faults looked for")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
