"""From photographs to an answer over HTTP, by the commands of the tutorial."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from app.web.samples import SAMPLES, read_sample
from superres.codecs import decode
from tests.documents import blocks, calls
from tests.pictures import encoded
from tests.serving import serve_app, wait_until_ready
from training.cli import cli

TUTORIAL = "docs/tutorials/own-model.md"


@pytest.mark.slow
def test_pictures_are_prepared_learned_from_and_the_model_is_exported_scored_and_served(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def superres_train(*arguments: str) -> str:
        run = CliRunner().invoke(cli, arguments)
        assert run.exit_code == 0, run.output
        return run.stdout

    prepare, fit, export, evaluate = (
        words[1:] for words in calls(TUTORIAL) if words[0] == "superres-train"
    )
    ((_, config),) = blocks("toml")
    small = {"steps": 4, "steps_per_validation": 4, "warmup_steps": 1, "patch_size": 24}
    small |= {"network": '"edsr_2x8"', "optimizer": '"adam"'}
    for key, value in small.items():
        config, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", config, flags=re.MULTILINE)
        assert count
    (tmp_path / "mine.toml").write_text('precision = "float32"\n' + config)
    (tmp_path / "MY_PHOTOS").mkdir()
    for name in SAMPLES:
        whole = read_sample(name)
        for side, part in (("left", whole[:, :-60]), ("right", whole[:, 60:])):
            large = encoded(part.repeat(2, axis=0).repeat(2, axis=1))
            (tmp_path / "MY_PHOTOS" / f"{name}-{side}.png").write_bytes(large)
    superres_train(*prepare)
    superres_train(*fit)
    superres_train(*export, "--models", "models")
    report = superres_train(*evaluate, "--json")
    assert '"dataset": "photos-test-jpeg75"' in report
    with serve_app(
        Settings(models=tmp_path / "models", device="cpu", default_model="auto"), None
    ) as client:
        wait_until_ready(client)
        model, _bicubic = client.get("/metrics", headers={"Accept": "application/json"}).json()[
            "models"
        ]
        assert [one["dataset"] for one in model["scores"]] == ["photos-test", "photos-test-jpeg75"]
        answer = client.post("/enhance", content=encoded(read_sample("coffee")[:100, :100]))
        assert decode(answer.content).size == (300, 300)
        assert answer.headers["x-model"].startswith("mine-x3@")


@pytest.mark.slow
def test_sigterm_is_ctrl_c_before_the_training_begins(tmp_path: Path):
    """The process waits for a manifest, from a pipe."""
    manifest = tmp_path / "manifest.csv"
    os.mkfifo(manifest)
    program = "from training.cli import main; main()"
    arguments = ("prepare", "manifest", str(manifest), "--out", str(tmp_path / "out"))
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with manifest.open("w"):  # once the process has opened it, too
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=100)
    assert (process.returncode, "Traceback" in said) == (130, False)
