"""Two lengths for one test, and the pytest plugin by which `make soak` writes docs/soak.md.

A test that is worth repeating at length is written once and parametrised: ``slow(...)`` gives its
short form, part of `make test-slow`, and ``soak(...)`` its full one. What it measures it tells
by ``record_property``.
"""

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "soak.md"

_reports: list[pytest.TestReport] = []


def slow(*values: object, **options: Any) -> Any:
    """Parameters of a test's short form."""
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.timeout(400)], **options)


def soak(*values: object, **options: Any) -> Any:
    """Parameters of a test's full form."""
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(3600)], **options)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _reports.append(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _reports and not session.config.option.collectonly:
        RESULTS.write_text(page(_reports, time.strftime("%Y-%m-%d"), _commit(), _machine()))


def page(reports: list[pytest.TestReport], date: str, commit: str, machine: str) -> str:
    """docs/soak.md: a row a test, with what it measured."""
    lines = [
        "# Last results of the soak tests\n",
        "`make soak` writes this page; the tests are those of `make test-slow` at full length.\n",
        f"Run on {date} at commit {commit}, on {machine}.\n",
        "| Test | Result | Seconds | Measured |",
        "|---|---|---:|---|",
    ]
    for report in reports:
        file, _, name = report.nodeid.partition("::")
        what = f"{Path(file).stem}: {name.replace('_', ' ').removeprefix('test ')}"
        measured = "; ".join(f"{key} {value}" for key, value in report.user_properties)
        lines.append(f"| {what} | {report.outcome} | {report.duration:.0f} | {measured} |")
    return "\n".join(lines) + "\n"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def _machine() -> str:
    import psutil

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0].partition(": ")[2] if names else name
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {psutil.cpu_count()} cores, {memory:.0f} GiB"
