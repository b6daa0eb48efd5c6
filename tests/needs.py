"""Things that tests need and the project does not install: programs, benchmark pictures."""

import os
import shutil
from pathlib import Path

import pytest

SHARED_DATA = Path(
    os.environ.get("SUPERRES_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)
"""Where the benchmark pictures are looked for; ``none`` says that they are not to be."""


def unavailable(reason: str) -> None:
    """Skip the test, or in CI fail it: a skip there would go unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; in CI this is an error", pytrace=False)
    pytest.skip(reason)


def program(*names: str) -> str:
    """Path of the first of these programs that is installed; without any, see `unavailable`."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        unavailable(f"{' or '.join(names)} is not installed")
    return str(found)


def benchmark_pictures() -> Path:
    """Folder of Set5, Set14 and BSD100, which this project does not contain."""
    if str(SHARED_DATA) == "none":
        pytest.skip("SUPERRES_TEST_DATA is none: the benchmark pictures are left out on purpose")
    folder = SHARED_DATA / "benchmarks"
    if not folder.is_dir():
        unavailable(f"no benchmark pictures in {folder}; set SUPERRES_TEST_DATA")
    return folder
