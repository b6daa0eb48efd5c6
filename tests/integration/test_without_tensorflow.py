"""The service's own tests on ONNX Runtime, where TensorFlow and Keras cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import package

REPOSITORY = Path(__file__).parents[2]
HIDDEN = ("tensorflow", "keras")
FILES = (
    "tests/integration/test_enhance.py",
    "tests/integration/test_proof.py",
    "tests/integration/test_status.py",
    "tests/superres/test_cli.py",
    "tests/superres/test_runtimes.py",
)
"""A representative part; `make test-onnx` runs all."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_service_passes_its_tests_without_tensorflow(tmp_path: Path):
    package("onnxruntime")
    package("tensorflow")
    for name in HIDDEN:
        (tmp_path / name).mkdir()
        hiding = f"raise ModuleNotFoundError('{name} is hidden')"
        (tmp_path / name / "__init__.py").write_text(hiding)
    kept = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    paths = (str(tmp_path), str(REPOSITORY), kept.get("PYTHONPATH", ""))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        cwd=REPOSITORY,
        env=kept | {"PYTHONPATH": ":".join(paths), "SUPERRES_RUNTIME": "onnxruntime"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert " passed" in run.stdout
