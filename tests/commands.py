"""The ``superres`` command, as a user types it."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from superres.cli import main

INSTALLED = Path(sys.executable).with_name("superres")
"""The command as a program of its own; it takes seconds to start TensorFlow again."""


def superres(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, in 200 columns.

    Args:
        arguments: after ``superres``.
        environment: variables besides.
    """
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        redirect_stdout(io.StringIO()) as stdout,
        redirect_stderr(io.StringIO()) as stderr,
    ):
        monkeypatch.setattr(sys, "argv", ["superres", *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
        for name, value in ({"COLUMNS": "200"} | environment).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as exited:
            main()
    status = exited.value.code
    return subprocess.CompletedProcess(arguments, status, stdout.getvalue(), stderr.getvalue())
