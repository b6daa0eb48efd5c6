"""What the documents say is so."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from typer.main import get_command

from app.errors import STATUS_AND_TYPE
from app.settings import Settings
from app.web.samples import read_sample
from benchmarks.quality import SHORT_TABLE, quality_page, with_tables
from superres import Enhancer
from superres.arrays import RgbU8
from superres.cli import cli
from superres.codecs import DEFAULT_QUALITY, OUTPUT_FORMATS, in_words
from superres.evaluation.proof import compare
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.schemas import PROBLEM_TYPE, JobReport
from superres.webhooks import sign
from tests.commands import superres
from tests.needs import package, program

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
THREATS = (REPOSITORY / "docs" / "threats.md").read_text()
CURLS = re.findall(r"^(?:\$ )?(curl [^$\n]*)$", README, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, chelsea: RgbU8) -> Path:
    Image.fromarray(chelsea[:120, :160]).save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.parametrize("curl", CURLS)
def test_the_readmes_curl_examples_work(service: httpx.Client, folder: Path, curl: str):
    here = curl.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}")
    assert here != curl
    program("curl")
    run = subprocess.run(["bash", "-c", here], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    wanted = re.search(r"-o (\S+)", curl)
    if wanted:
        with Image.open(folder / wanted.group(1)) as image:
            assert image.width > 160
    elif "scale=9" in curl:
        shown = README.split(f"$ {curl}\n")[1].split(", ...")[0]
        assert run.stdout.startswith(shown)
    else:
        assert run.stdout.startswith("{")
        assert PROBLEM_TYPE not in run.stdout


def test_the_readmes_job_works(service: httpx.Client, folder: Path):
    (script,) = re.findall(r"```sh\n(JOB=.*?)```", README, flags=re.DOTALL)
    here = script.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}")
    program("curl")
    run = subprocess.run(["bash", "-ec", here], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = [line for line in run.stdout.splitlines() if line]
    assert all(line.startswith("data: {") for line in told)
    assert '"state":"done"' in told[-1]
    with Image.open(folder / "larger.jpg") as image:
        assert image.size == (640, 480)
    job = re.search('"id":"(.*?)"', told[0])
    assert job
    assert service.get(f"/jobs/{job[1]}").status_code == 404


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_the_readmes_python_examples_work(
    service: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch, example: str
):
    monkeypatch.chdir(folder)
    exec(example.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}"), {})
    (made,) = folder.glob("larger.*")
    with Image.open(made) as image:
        assert image.size == (480, 360)


def test_the_readmes_receiver_of_callbacks_works():
    (example,) = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    secret = "whsec_" + "c2VjcmV0" * 4
    assert "whsec_..." in example
    scope: dict[str, Any] = {}
    exec(example.replace("whsec_...", secret), scope)
    progress = {"stage": "over", "tiles_done": 1, "tiles": 1}
    of = {"attempts": 1, "created": 1, "started": 2, "ended": 3, "timings": {}}
    job = JobReport(id=uuid4(), state="done", progress=progress, problem=None, result="/x", **of)
    body = job.model_dump_json().encode()
    headers = sign(body, str(job.id), int(time.time()), [secret])
    assert scope["receive"](headers, body) == 204
    assert scope["receive"](headers, body + b" ") == 401


def test_the_tables_of_quality_are_the_cards():
    cards = read_cards(DEFAULT_MODELS)
    assert all(card.scores for card in cards)
    assert (REPOSITORY / "docs" / "quality.md").read_text() == quality_page(cards)
    assert len(SHORT_TABLE.findall(README)) == 2
    assert with_tables(README, cards) == README


def test_the_readmes_first_comparison_is_what_the_command_prints(
    srcnn_in_each_precision: Enhancer,
):
    comparison = compare(srcnn_in_each_precision, read_sample("coffee"), 3)
    claimed = re.search(r"bicubic reaches ([\d.]+) dB and\s+SRCNN ([\d.]+) dB", README)
    assert claimed
    assert float(claimed[1]) == pytest.approx(comparison.bicubic_scores.psnr_y, abs=0.006)
    assert float(claimed[2]) == pytest.approx(comparison.sr_scores.psnr_y, abs=0.02)


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_the_readmes_commands_work(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """All but training's, which the smoke test runs. The first is a process of its own."""
    (folder / "app").symlink_to(REPOSITORY / "app")
    (folder / "photos" / "sub").mkdir(parents=True)
    shutil.copy(folder / "photo.jpg", folder / "photos" / "sub" / "photo.jpg")
    monkeypatch.chdir(folder)
    environment = Path(sys.executable).parent
    commands = re.findall(r"^\.venv/bin/(superres .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 7
    said = ""
    for number, command in enumerate(commands):
        called, *arguments = shlex.split(command)
        if number == 0:
            run = subprocess.run([environment / called, *arguments], capture_output=True, text=True)
        else:
            assert called == "superres"
            run = superres(*arguments)
        assert run.returncode == 0, run.stderr
        said += run.stdout + run.stderr
    assert "gain over bicubic: +" in said
    assert re.search(r"  alice:[0-9a-f]{64}:300/minute\n", said)
    for verdict in ("to be made", "made", "done already"):
        assert re.search(rf"│ {verdict} +│ +1 │", said)
    for made, size in {"larger.png": (480, 360), "larger/sub/photo.jpg": (320, 240)}.items():
        with Image.open(folder / made) as image:
            assert image.size == size


@pytest.mark.slow
def test_the_readmes_benchmark_of_the_proof_works(tmp_path: Path, coffee: RgbU8):
    package("matplotlib")
    for i in range(3):
        hr = tmp_path / "Set14" / "x3" / f"{i}_hr.webp"
        hr.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coffee[100 * i : 100 * i + 180, :240]).save(hr, lossless=True)
    (command,) = re.findall(r"^\.venv/bin/python (benchmarks/proof.py .*)$", README, re.MULTILINE)
    program, *arguments = shlex.split(command.replace("BSD100/x3 ", "").replace("docs/", ""))
    run = subprocess.run(
        [sys.executable, REPOSITORY / program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "agg"},
    )
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"│ Set14(?:-jpeg75)? x[\d.]+ +│ +3 │", run.stdout)) == 6
    assert (tmp_path / "proof.png").exists()


def test_every_option_of_the_command_is_documented_or_says_what_it_does():
    for command in get_command(cli).commands.values():
        assert all(getattr(parameter, "help", None) for parameter in command.params)


def test_the_formats_in_the_readme_are_those_of_the_table():
    text = " ".join(README.split())
    names = ", ".join(f"`{name}`" for name in OUTPUT_FORMATS)
    assert f"`format` ({names}; default" in text
    lossy = in_words("and", lossy=True)
    assert f"`quality` 1 to 100 (default {DEFAULT_QUALITY}) for {lossy}," in text
    assert f"The service reads {in_words('and')}. The bytes decide the format" in text


def test_every_setting_is_documented_with_its_default():
    for name, field in Settings.model_fields.items():
        row = re.search(rf"\| `SUPERRES_{name.upper()}` \| (.*?) \|", README)
        assert row, f"SUPERRES_{name.upper()} is not in the README"
        if name not in ("models", "jobs"):  # folders of the clone
            assert row.group(1).strip("`") == str(field.default)


def test_every_metric_is_documented(service: httpx.Client):
    families = set(re.findall(r"^# TYPE (\w+)", service.get("/metrics").text, flags=re.MULTILINE))
    assert len(families) > 8
    for family in families:
        # Each counter and histogram has a gauge beside it that tells when it was made.
        # What the client library tells of any process is one row.
        if not family.endswith("_created") and not family.startswith("process_"):
            assert f"| `{family}` |" in README


def test_every_error_type_is_documented_with_its_status():
    for status, slug in STATUS_AND_TYPE.values():
        rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", README, flags=re.MULTILINE)
        assert any(str(status) in statuses and f"`{slug}`" in types for statuses, types in rows)


@pytest.mark.parametrize("command", [command.name for command in cli.registered_commands])
def test_every_command_is_documented(command: str):
    assert re.search(rf"\bsuperres {command}\b", README)


def test_every_module_of_the_core_is_in_the_architecture():
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    core = REPOSITORY / "superres"
    for module in core.rglob("[!_]*.py"):
        name = ".".join(module.relative_to(core).with_suffix("").parts)
        assert f"\n| `{name}` | " in text


def test_the_table_of_threats_names_tests_that_there_are():
    rows = [
        line for line in THREATS.splitlines() if line.startswith("| ") and "| asset " not in line
    ]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", THREATS)
    assert len(rows) > 30
    assert len(named) >= THREATS.count("::") > 30
    for file, test in named:
        assert re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(), re.M), (file, test)
    for row in rows:
        assert len(row.split(" |")) == 5, row
