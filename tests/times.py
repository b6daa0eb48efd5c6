"""Pytest plugin that prints seconds of setup, call and teardown by test file, longest first.

Used by ``make test-times``.
"""

from collections import Counter, defaultdict

import pytest

PHASES = ("setup", "call", "teardown")
_seconds: defaultdict[str, Counter[str]] = defaultdict(Counter)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid.partition("::")[0]][report.when] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("seconds by file")
    terminalreporter.line("".join(f"{phase:>10}" for phase in PHASES) + "  file")
    for file, seconds in sorted(_seconds.items(), key=lambda item: -item[1].total()):
        row = "".join(f"{seconds[phase]:>10.1f}" for phase in PHASES)
        terminalreporter.line(f"{row}  {file}")
    total = sum(seconds.total() for seconds in _seconds.values())
    terminalreporter.line(f"{total:>10.1f}  in all")
