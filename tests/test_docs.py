"""What the pages of docs/ say is so, and their snippets work."""

import json
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

from app.web.samples import read_sample
from docsite.reference import COMMANDS
from superres import Enhancer
from superres.arrays import RgbU8
from superres.codecs import DEFAULT_QUALITY, OUTPUT_FORMATS, in_words
from superres.evaluation.proof import compare
from superres.schemas import PROBLEM_TYPE, JobReport
from superres.webhooks import sign
from tests.commands import superres
from tests.documents import PAGES, REPOSITORY, at, blocks, calls, commands, photo_folder
from tests.needs import package, program
from training.config import TrainingConfig, load_config

CURLS = [
    curl
    for page, text in PAGES.items()
    for curl in re.findall(r"^(?:\$ )?(curl .*)$", text, flags=re.MULTILINE)
    if page != "README.md"  # tests/test_readme.py runs it
    if "$JOB" not in curl
]
"""Commands that stand alone; those with $JOB are one script."""
NOT_RUN = (
    *("cd ", "docker ", "export ", "for part ", "make ", "mine/bin/", "python3 -m "),
    *("JOB=", "$", "curl "),  # see CURLS, and the test of the job
)
"""Beginnings of commands in ``sh`` blocks that no test runs, or that other tests run."""


@pytest.fixture
def folder(tmp_path: Path, chelsea: RgbU8) -> Path:
    return photo_folder(tmp_path, chelsea)


@pytest.mark.parametrize("curl", CURLS)
def test_the_curl_examples_work(
    service: httpx.Client, folder: Path, curl: str, monkeypatch: pytest.MonkeyPatch
):
    program("curl")
    monkeypatch.setenv("SUPERRES_KEY", "sr-of-nobody")  # which a service without keys ignores
    run = subprocess.run(
        ["bash", "-c", at(service, curl)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    wanted = re.search(r"-o (\S+)", curl)
    if wanted:
        with Image.open(folder / wanted.group(1)) as image:
            assert image.width > 160
    elif "scale=9" in curl:
        (page,) = (text for text in PAGES.values() if f"$ {curl}\n" in text)
        shown = page.split(f"$ {curl}\n")[1].split(", ...")[0]
        assert run.stdout.startswith(shown)
    else:
        assert run.stdout.startswith("{")
        assert PROBLEM_TYPE not in run.stdout


def test_the_job_works(service: httpx.Client, folder: Path):
    ((_, script),) = (block for block in blocks("sh") if block[1].startswith("JOB="))
    program("curl")
    run = subprocess.run(
        ["bash", "-ec", at(service, script)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    told = [line for line in run.stdout.splitlines() if line]
    assert all(line.startswith("data: {") for line in told)
    assert '"state":"done"' in told[-1]
    with Image.open(folder / "larger.jpg") as image:
        assert image.size == (640, 480)
    job = re.search('"id":"(.*?)"', told[0])
    assert job
    assert service.get(f"/jobs/{job[1]}").status_code == 404


@pytest.mark.parametrize("example", [code for _, code in blocks("python")])
def test_the_python_examples_work(
    service: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch, example: str
):
    monkeypatch.chdir(folder)
    exec(example.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}"), {})
    (made,) = folder.glob("larger.*")
    with Image.open(made) as image:
        assert image.size == (480, 360)


def test_the_receiver_of_callbacks_works():
    ((_, example),) = blocks("py")
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


@pytest.mark.slow
def test_the_javascript_examples_work_in_node(fake_service: httpx.Client, folder: Path):
    """The functions of the page, its script for Node.js, and a job."""
    once, script, job = (code for _, code in blocks("js"))
    use_job = """
const seen = [];
const picture = await openAsBlob("photo.jpg");
const made = await enlargeAsJob(picture, (...progress) => seen.push(progress));
await writeFile("job.jpg", made.stream());
console.log(JSON.stringify(seen.at(-1)));
"""
    imports = [line for line in script.splitlines() if line.startswith("import ")]
    rest = script.replace("\n".join(imports), "")
    parts = [*imports, at(fake_service, once), rest, job, use_job]
    (folder / "all.mjs").write_text("\n".join(parts))
    run = subprocess.run(
        [program("node"), "all.mjs"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    model, progress = run.stdout.split()
    assert re.fullmatch(r"srcnn-x3@[0-9a-f]{12}", model)
    done, tiles = json.loads(progress)
    assert done == tiles > 0
    for made, size in {"larger.webp": (480, 360), "job.jpg": (640, 480)}.items():
        with Image.open(folder / made) as image:
            assert image.size == size


def test_the_figures_of_the_service_are_those_of_the_benchmark():
    rows = json.loads((REPOSITORY / "benchmarks" / "results.json").read_text())["rows"]
    ratios = {(row["section"], row["name"]): f"{row['ratio']:.2f}" for row in rows}
    text = PAGES["docs/explanation/performance.md"].split("![time relative")[0]
    told = {
        "JPEG to JPEG": [("jpeg", "4 MP"), ("jpeg", "16 MP")],
        "PNG to PNG": [("png", "4 MP"), ("png", "16 MP")],
        "256x256 to 768x768, JPEG": [("callers", "256x256 to 768x768, 1")],
        "throughput of 32 callers": [("crowd", "throughput, 32 callers over 2")],
        "throughput of 8 callers": [("handlers", "handler")],
        "... over that of LitServe": [("handlers", "litserve")],
        "the bare network over OpenVINO": [
            ("runtimes", "OpenVINO, bfloat16"),
            ("runtimes", "ONNX Runtime, float32"),
            ("runtimes", "keras.Model.predict, float32"),
        ],
    }
    for beginning, names in told.items():
        (figures,) = re.findall(rf"^\| {re.escape(beginning)}.* \| (.*?) \|$", text, re.MULTILINE)
        assert figures.startswith(", ".join(ratios[name] for name in names)), beginning


def test_the_first_comparison_is_what_the_command_prints(srcnn_in_each_precision: Enhancer):
    comparison = compare(srcnn_in_each_precision, read_sample("coffee"), 3)
    text = PAGES["docs/tutorials/first-picture.md"]
    claimed = re.search(r"bicubic reaches ([\d.]+) dB and\s+SRCNN ([\d.]+) dB", text)
    assert claimed
    assert float(claimed[1]) == pytest.approx(comparison.bicubic_scores.psnr_y, abs=0.006)
    assert float(claimed[2]) == pytest.approx(comparison.sr_scores.psnr_y, abs=0.02)


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_the_commands_work(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """All but training's, which the smoke test runs. The first is a process of its own."""
    (folder / "photos" / "sub").mkdir(parents=True)
    shutil.copy(folder / "photo.jpg", folder / "photos" / "sub" / "photo.jpg")
    monkeypatch.chdir(folder)
    environment = Path(sys.executable).parent
    found = [
        call
        for _, call in commands()
        # One needs a shell, and one never ends.
        if call.startswith(".venv/bin/superres ") and not re.search(" < | --watch ", call)
    ]
    assert len(found) == 7
    said = ""
    for number, command in enumerate(found):
        called, *arguments = shlex.split(command.removeprefix(".venv/bin/"))
        if number == 0:
            run = subprocess.run([environment / called, *arguments], capture_output=True, text=True)
        else:
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


def test_every_command_is_run_by_a_test_or_known_not_to_be():
    programs = tuple(f"{path}{name} " for name in COMMANDS for path in ("", ".venv/bin/"))
    for page, command in commands():
        if script := re.match(r"\.venv/bin/python (benchmarks/\S+\.py) ", command):
            assert (REPOSITORY / script[1]).exists(), (page, command)
        else:
            assert command.startswith((*programs, *NOT_RUN)), (page, command)


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_every_command_of_ours_has_the_arguments_that_it_is_called_with(
    words: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SUPERRES_TRAINING_DATA", "DATA")  # as one of the pages exports it
    command: Any = get_command(COMMANDS[words[0]])
    arguments = words[1:]
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(command.name, list(arguments))


def test_the_config_of_the_tutorial_is_one(tmp_path: Path):
    ((_, config),) = blocks("toml")
    (tmp_path / "mine.toml").write_text(config)
    assert isinstance(load_config(str(tmp_path / "mine.toml")), TrainingConfig)


@pytest.mark.slow
def test_the_benchmark_of_the_proof_works(tmp_path: Path, coffee: RgbU8):
    package("matplotlib")
    for i in range(3):
        hr = tmp_path / "Set14" / "x3" / f"{i}_hr.webp"
        hr.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coffee[100 * i : 100 * i + 180, :240]).save(hr, lossless=True)
    (command,) = (call for _, call in commands() if "benchmarks/proof.py" in call)
    _, script, *arguments = shlex.split(command.replace("BSD100/x3 ", "").replace("docs/", ""))
    run = subprocess.run(
        [sys.executable, REPOSITORY / script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "agg"},
    )
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"│ Set14(?:-jpeg75)? x[\d.]+ +│ +3 │", run.stdout)) == 6
    assert (tmp_path / "proof.png").exists()


def test_the_formats_in_the_pages_are_those_of_the_table():
    text = " ".join(PAGES["docs/reference/files.md"].split())
    names = [f"`{name}`" for name in OUTPUT_FORMATS]
    written = f"{', '.join(names[:-1])} and {names[-1]}"
    assert f"The service and the command read {in_words('and')}, and write {written}." in text
    lossy = in_words("and", lossy=True)
    assert f"`quality` is 1 to 100 (default {DEFAULT_QUALITY}) for {lossy}." in text


def test_every_module_of_the_core_is_in_the_architecture():
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    core = REPOSITORY / "superres"
    for module in core.rglob("[!_]*.py"):
        name = ".".join(module.relative_to(core).with_suffix("").parts)
        assert f"\n| `{name}` | " in text


def test_the_table_of_threats_names_tests_that_there_are():
    threats = PAGES["docs/threats.md"]
    rows = [
        line for line in threats.splitlines() if line.startswith("| ") and "| asset " not in line
    ]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", threats)
    assert len(rows) > 30
    assert len(named) >= threats.count("::") > 30
    for file, test in named:
        assert re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(), re.M), (file, test)
    for row in rows:
        assert len(row.split(" |")) == 5, row
