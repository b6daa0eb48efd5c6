"""The walls between the rooms."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_app_and_training_stand_on_superres_and_never_meet():
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert linted.returncode == 0, linted.stdout


def test_importing_superres_brings_in_neither_fastapi_nor_tensorflow():
    script = (
        "import sys, superres, superres.proof, superres.strip;"
        "print([name for name in ('fastapi', 'tensorflow', 'keras') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
