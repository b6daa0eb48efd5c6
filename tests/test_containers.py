"""The Dockerfile's commands do what they should, without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.inference.scheduler import THREAD_ENDED, BatchScheduler
from superres.health import why_not_ready
from tests.commands import superres
from tests.engines import BlurEngine
from tests.packages import link_locked_packages
from tests.serving import free_port, wait_until_ready

REPOSITORY = Path(__file__).parents[1]


def instructions(stage: str) -> list[str]:
    """The stage's own lines, continuation lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    body = re.split(rf"^FROM \S+ AS {stage}\n", text, flags=re.MULTILINE)[1]
    return re.split(r"^FROM ", body, flags=re.MULTILINE)[0].splitlines()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "packages",
    [
        pytest.param("linked", marks=pytest.mark.slow),
        pytest.param("downloaded", marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize(
    ("target", "lock", "runtime"),
    [("cpu", "cpu", "tensorflow-cpu"), ("slim", "onnx", "onnxruntime")],
)
def test_an_images_commands_make_a_working_service_from_an_empty_folder(
    tmp_path: Path, packages: str, target: str, lock: str, runtime: str
):
    """COPY and RUN, with /opt and /app moved under an empty folder.

    Those packages of the lock file that are installed here, as they are after `make install`, pip
    finds on PYTHONPATH, and installs the others alone; a soak test has it install all of them.
    """
    app, venv, tools = tmp_path / "app", tmp_path / "venv", tmp_path / "tools"
    app.mkdir()
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    shutil.copy(REPOSITORY / "deploy" / "image" / "install-packages", tools / "bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "packages").mkdir()
    if packages == "linked":
        link_locked_packages(REPOSITORY / "requirements" / f"{lock}.lock", tmp_path / "packages")
    environment = os.environ | {
        "PATH": f"{venv / 'bin'}:{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "packages"),
        "VENV": str(venv),
        "TOOLS": str(tools),
        "SUPERRES_JOBS": str(tmp_path / "jobs"),
        "SUPERRES_RUNTIME": "auto",  # which `make test-onnx` sets for the tests, not for an image
        "COLUMNS": "200",
    }

    def run(command: str) -> str:
        told = subprocess.run(
            ["sh", "-c", command], cwd=app, env=environment, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    for line in instructions(f"{target}-environment") + instructions(target):
        verb, _, rest = line.partition(" ")
        if verb == "COPY" and not re.search("--from=(?!code)", rest):
            *sources, folder = (part for part in rest.split() if not part.startswith("--"))
            for source in (source.removeprefix("/app/") for source in sources):
                to = app / folder / source if folder == "./" else app / folder
                to.parent.mkdir(parents=True, exist_ok=True)
                if (REPOSITORY / source).is_dir():
                    shutil.copytree(REPOSITORY / source, to, dirs_exist_ok=True)
                else:
                    shutil.copy(REPOSITORY / source, to)
        elif verb == "RUN":
            # The generator of the SBOM is not installed here.
            command = re.sub(r"--mount=\S+|&& \S+/cyclonedx-py .*", "", rest)
            command = command.replace("/opt/image", str(REPOSITORY / "deploy" / "image"))
            run(command.replace("/opt/tools", str(tools)))
    assert "srcnn-x3" in run("superres models")
    pip = tools / "bin" / "pip"
    listed = run(f"{pip} --python {venv}/bin/python list --format freeze").replace("_", "-")
    assert f"\n{runtime}==" in listed
    assert ("\nkeras==" in listed) is (target == "cpu")
    assert "nvidia" not in listed
    assert "pytest" not in listed
    one_model = tmp_path / "models"
    one_model.mkdir()
    (one_model / "srcnn-x3").symlink_to(app / "models" / "srcnn-x3")
    port = free_port()
    serving = subprocess.Popen(
        ["superres", "serve", "--port", str(port)],
        cwd=app,
        env=environment | {"SUPERRES_MODELS": str(one_model)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client)
        assert run(f"superres health --url http://127.0.0.1:{port}") == "ready\n"
    finally:
        serving.terminate()
        serving.wait(60)


def test_the_health_check_says_why():
    run = superres("health", "--url", "http://127.0.0.1:9")
    assert run.returncode == 1
    assert "no answer from http://127.0.0.1:9" in run.stderr


def test_the_health_check_passes_where_the_service_is_ready(fake_service: httpx.Client):
    run = superres("health", "--url", fake_service.base_url)
    assert (run.returncode, run.stdout.strip()) == (0, "ready")


@pytest.mark.parametrize("stage", ["cpu", "slim", "gpu"])
def test_the_images_health_check_imports_nothing_that_takes_long(
    fake_service: httpx.Client, stage: str
):
    """It runs every few seconds."""
    (check,) = (line for line in instructions(stage) if line.startswith("HEALTHCHECK "))
    python, *arguments = json.loads(check.partition("CMD ")[2])
    assert python == "python"

    def run(url: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-X", "importtime", *arguments, str(url)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    ready, none = run(fake_service.base_url), run("http://127.0.0.1:9")
    assert ready.returncode == 0
    assert none.returncode == 1
    assert "no answer from http://127.0.0.1:9: " in none.stderr
    imported = set(re.findall(r"\|\s+(\w+)[\w.]*$", ready.stderr, flags=re.MULTILINE))
    assert "http" in imported
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:8000", "no answer from 127.0.0.1:8000: "),
        ("http://[::1", "no answer from http://[::1: "),
        ("http://127.0.0.1:port", "no answer from http://127.0.0.1:port: "),
        ("", "no answer from : "),
    ],
)
def test_an_address_that_is_none_is_told(url: str, reason: str):
    assert str(why_not_ready(url)).startswith(reason)


def test_why_a_service_is_not_ready_is_told(serve, srcnn_card, monkeypatch: pytest.MonkeyPatch):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        assert why_not_ready(str(client.base_url)) is None
        assert "Not Found" in str(why_not_ready(f"{client.base_url}/nowhere/"))
        monkeypatch.setattr(BatchScheduler, "alive", False)
        assert why_not_ready(str(client.base_url)) == THREAD_ENDED
