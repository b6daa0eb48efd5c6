"""Things that tests need and the project does not install: programs, benchmark pictures."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

SHARED_DATA = Path(
    os.environ.get("SUPERRES_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)
"""Where the data of `shared_data` is looked for; ``none`` says that it is not to be."""


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


def shared_data(path: str) -> Path:
    """A file or folder of pictures or weights that this project does not contain."""
    if str(SHARED_DATA) == "none":
        pytest.skip(f"SUPERRES_TEST_DATA is none: {path} is left out on purpose")
    if not (SHARED_DATA / path).exists():
        unavailable(f"there is no {SHARED_DATA / path}; set SUPERRES_TEST_DATA")
    return SHARED_DATA / path


def benchmark_pictures() -> Path:
    """Folder of Set5, Set14 and BSD100."""
    return shared_data("benchmarks")


def package(name: str) -> None:
    """A package that not every environment has; without it, see `unavailable`.

    That of `make test-onnx` is without those of TensorFlow and training on purpose.
    """
    if find_spec(name) is not None:
        return
    if os.environ.get("SUPERRES_RUNTIME") == "onnxruntime" and name != "onnxruntime":
        pytest.skip(f"SUPERRES_RUNTIME is onnxruntime: {name} is left out on purpose")
    unavailable(f"{name} is not installed")
