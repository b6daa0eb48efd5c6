"""The Dockerfile's commands do what they should, without Docker."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def instructions(stage: str) -> list[str]:
    """The stage's own lines, continuation lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    body = re.split(rf"^FROM \S+ AS {stage}\n", text, flags=re.MULTILINE)[1]
    return re.split(r"^FROM ", body, flags=re.MULTILINE)[0].splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cpu_images_commands_make_a_working_service_from_an_empty_folder(tmp_path: Path):
    """COPY and RUN, with /opt/venv and /app moved under an empty folder."""
    app, venv = tmp_path / "app", tmp_path / "venv"
    app.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    path = f"{venv / 'bin'}:{tmp_path / 'bin'}:{os.environ['PATH']}"
    stages = ("cpu-environment", "cpu-code", "cpu")
    for line in [line for stage in stages for line in instructions(stage)]:
        verb, _, rest = line.partition(" ")
        if verb == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                to = app / target / source if target == "./" else app / target
                to.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
                copy(REPOSITORY / source, to)
        elif verb == "RUN":
            command = rest.replace("/opt/venv", str(venv))
            subprocess.run(
                ["sh", "-c", command], cwd=app, check=True, env=os.environ | {"PATH": path}
            )
    listed = subprocess.run(
        ["superres", "models"],
        cwd=tmp_path,
        env={"PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert "srcnn-x3" in listed.stdout, listed.stderr
    packages = "\n".join(entry.name for entry in venv.glob("lib/python*/site-packages/*"))
    assert "tensorflow_cpu" in packages
    assert "nvidia" not in packages
    assert "pytest" not in packages


def test_the_health_check_says_why(tmp_path: Path):
    superres = Path(sys.executable).with_name("superres")
    run = subprocess.run(
        [superres, "health", "--url", "http://127.0.0.1:9"], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "no answer from http://127.0.0.1:9" in run.stderr


def test_the_health_check_passes_where_the_service_is_ready(fake_service):
    superres = Path(sys.executable).with_name("superres")
    run = subprocess.run(
        [superres, "health", "--url", str(fake_service.base_url)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, "ready")
