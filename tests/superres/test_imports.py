"""What importing brings in; who may import whom is held by ``lint-imports`` in ``make check``."""

import subprocess
import sys


def test_importing_superres_brings_in_neither_fastapi_nor_tensorflow():
    script = (
        "import sys, superres, superres.evaluation.proof, superres.evaluation.strip;"
        "print([name for name in ('fastapi', 'tensorflow', 'keras') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
