"""model=auto over a real connection: the choice, what is said of it, and when models are loaded."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from app.inference.models import LOAD_AGAIN_S
from app.inference.startup import default_cards, preloaded_cards
from superres.client import Client
from superres.codecs import decode
from superres.errors import ModelMissing
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard, write_card
from superres.models.registry import DEFAULT_MODELS, all_cards, read_cards
from superres.resample import degrade, upsample
from tests.commands import superres
from tests.engines import BlurEngine
from tests.integration.test_callers import gauge
from tests.integration.test_errors import assert_problem
from tests.pictures import WIDE_PROFILE, encoded, plain
from tests.serving import link_models, wait_until

Serve = Callable[..., AbstractContextManager[httpx.Client]]
NEEDED = ("edsr-lite-compressed-x3", "edsr-lite-photo-x3", "edsr-lite-sharpened-x3", "edsr-lite-x3")
NAMES = (*NEEDED, "edsr-lite-x2", "srcnn-x3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_models(tmp_path_factory.mktemp("models"), *NAMES)


_cards = cache(read_cards)


class CountingEngines(dict[str, BlurEngine]):
    """Engines that note when they are loaded; the first time, srcnn's fails if it is to.

    While ``go`` is not set, each load waits.
    """

    def __init__(self, folder: Path, *, failing: bool = False) -> None:
        super().__init__((card.name, BlurEngine(card.geometry)) for card in _cards(folder))
        self.begun: list[str] = []
        self.loaded: list[str] = []
        self.failing = failing
        self.go = threading.Event()
        self.go.set()

    def __getitem__(self, name: str) -> BlurEngine:
        self.begun.append(name)
        self.go.wait(100)
        if self.failing and name == "srcnn-x3":
            self.failing = False
            raise OSError("no such device today")
        self.loaded.append(name)
        return super().__getitem__(name)


@pytest.fixture
def auto(serve: Serve, folder: Path) -> Iterator[httpx.Client]:
    with serve(CountingEngines(folder), models=folder, default_model="auto") as client:
        yield client


def test_a_compressed_copy_is_compared_with_the_model_that_its_file_calls_for(auto: httpx.Client):
    clean = auto.get("/compare?model=auto").json()
    assert (clean["model"], clean["notes"]) == ("edsr-lite-x3", "")
    first = auto.get("/compare?model=auto&jpeg=40")
    report = first.json()
    assert report["model"] == "edsr-lite-compressed-x3"
    assert report["notes"] == "chosen for a JPEG of quality 40"
    assert report["bicubic"]["psnr_y"] < clean["bicubic"]["psnr_y"]
    named = auto.get(f"/compare?model={report['model']}&jpeg=40").json()
    assert named == report | {"notes": ""}
    tag = {"If-None-Match": first.headers["etag"]}
    assert auto.get("/compare?model=auto&jpeg=40", headers=tag).status_code == 304
    assert auto.get("/compare?model=auto&jpeg=41", headers=tag).status_code == 200
    assert_problem(auto.get("/compare?jpeg=0"), 422, "bad-parameter", "jpeg")


def art() -> np.ndarray:
    pattern = np.random.default_rng(0).integers(0, 2, (24, 24, 1))
    return (np.kron(pattern, np.ones((3, 3, 1))) * [200, 90, 30]).astype(np.uint8)


def files(coffee: np.ndarray) -> dict[str, tuple[bytes, str, str]]:
    """By kind: a file, the model for it, and what is said."""
    picture = degrade(coffee, (100, 150))
    saved_again = encoded(decode(encoded(picture, "JPEG", quality=40)).rgb)
    return {
        "png": (encoded(picture), "edsr-lite-x3", "chosen for a clean picture"),
        "jpeg": (
            encoded(picture, "JPEG", quality=50),
            "edsr-lite-compressed-x3",
            "chosen for a JPEG of quality 50",
        ),
        "saved again": (
            saved_again,
            "edsr-lite-compressed-x3",
            "chosen for a picture with the blocks of a JPEG",
        ),
        "pixel art": (
            encoded(art()),
            "bicubic",
            "chosen for a picture of few colours, as pixel art",
        ),
    }


def test_each_kind_of_file_gets_its_model_and_a_reason(auto: httpx.Client, coffee):
    for content, model, reason in files(coffee).values():
        answer = auto.post("/enhance", content=content)
        assert answer.headers["x-model"].partition("@")[0] == model
        told = "" if model == "bicubic" else "; provenance in XMP"
        assert answer.headers["x-notes"] == reason + told
        by_name = auto.post("/enhance", params={"model": model}, content=content)
        assert by_name.content == answer.content
        assert "chosen" not in by_name.headers.get("x-notes", "")
        dry = auto.post("/enhance?dry_run=true", content=content).json()
        assert (dry["model"], dry["notes"]) == (model, reason)
        named = auto.post(f"/enhance?dry_run=true&model={model}", content=content).json()
        assert named["notes"] == ""
        for figure in ("tiles", "peak_bytes", "output_width"):
            assert dry[figure] == named[figure]


def test_a_job_and_the_client_tell_the_choice_too(auto: httpx.Client, coffee):
    content, model, reason = files(coffee)["jpeg"]
    job = auto.post("/enhance", content=content, headers={"Prefer": "respond-async"}).json()
    path = f"/jobs/{job['id']}"
    wait_until(lambda: auto.get(path).json()["state"] == "done")
    headers = auto.get(f"{path}/result").headers
    assert headers["x-model"].startswith(f"{model}@")
    told = f"{reason}; provenance in XMP"
    assert headers["x-notes"] == told
    larger = Client(http=auto).enhance(content)
    assert (larger.model.partition("@")[0], larger.notes) == (model, told)


def test_the_proof_of_auto_is_of_the_model_that_was_chosen(auto: httpx.Client, coffee):
    content, model, reason = files(coffee)["jpeg"]
    answer = auto.post("/enhance?proof=true", content=content)
    named = auto.post(f"/enhance?proof=true&model={model}", content=content)
    assert answer.headers["x-proof-gain-db"] == named.headers["x-proof-gain-db"]
    assert float(answer.headers["x-proof-gain-db"]) < 0  # the fakes only blur
    fallen = auto.post("/enhance?fallback=auto", content=content)
    assert fallen.headers["x-model"] == f"bicubic@{BICUBIC.short_hash}"
    assert fallen.headers["x-notes"] == f"{reason}; bicubic, as fallback=auto asks"
    assert decode(fallen.content).size == (300, 450)


def test_pixel_art_comes_back_as_bicubic_makes_it(auto: httpx.Client):
    answer = auto.post("/enhance?scale=2", content=encoded(art()))
    assert np.array_equal(decode(answer.content).rgb, upsample(art(), (144, 144)))


def test_a_dry_run_without_memory_says_that_it_cannot_tell(serve: Serve, folder: Path):
    """Decoding takes more than the pixels of the picture, which are 1 MB."""
    content = encoded(np.zeros((500, 700, 3), np.uint8))
    total, left = 60_000_000, 10_000_000
    settings = {"models": folder, "max_memory_bytes": total, "max_body_bytes": total}
    dry_run = "/enhance?dry_run=true&scale=1"
    engines = CountingEngines(folder)
    with serve(engines, default_model="auto", **settings) as client, ThreadPoolExecutor(1) as pool:
        release = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield bytes(total - left)
            release.wait(100)

        other = pool.submit(client.post, "/enhance", content=slowly())
        wait_until(lambda: gauge(client, "superres_reserved_bytes") == total - left)
        dry = client.post(dry_run, content=content).json()
        release.set()
        assert other.result().status_code == 415
        assert not dry["accepted"]
        assert dry["notes"].startswith("the choice needs the decoded picture")
        assert client.post(dry_run, content=content).json()["notes"].startswith("chosen for")


def test_only_what_the_default_needs_at_x3_is_loaded_at_the_start(
    serve: Serve, folder: Path, coffee
):
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="auto") as client:
        ready = {model["name"] for model in client.get("/readyz").json()["models"]}
        assert ready == {*NEEDED, "bicubic"}
        assert {model["name"] for model in client.get("/models").json()["models"]} == {
            *NAMES,
            "bicubic",
        }
        for path in ("/enhance?model=srcnn", "/compare?model=srcnn-x3"):
            assert client.post(path, content=encoded(art())).status_code == 200
        assert engines.loaded.count("srcnn-x3") == 1
        assert 'model="srcnn-x3"' in client.get("/metrics").text.split("superres_engine_info")[-1]
        assert len(client.get("/readyz").json()["models"]) == 6
        answer = client.post("/enhance?scale=2", content=encoded(degrade(coffee, (100, 150))))
        assert answer.headers["x-model"].startswith("edsr-lite-x2@")
        assert engines.loaded.count("edsr-lite-x2") == 1


def test_the_default_can_be_another_model(serve: Serve, folder: Path, coffee):
    content, *_ = files(coffee)["jpeg"]
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="srcnn") as client:
        assert engines.loaded == ["srcnn-x3"]
        answer = client.post("/enhance", content=content)
        assert answer.headers["x-model"].startswith("srcnn-x3@")
        assert 'data-chosen="srcnn"' in client.get("/").text
        chosen = client.post("/enhance?model=auto", content=content)
        assert chosen.headers["x-model"].startswith("edsr-lite-compressed-x3@")
    with pytest.raises(ModelMissing, match="no model or family 'magic'"):
        serve(engines, models=folder, default_model="magic").__enter__()


def test_the_default_of_a_folder_without_the_families_of_auto_is_its_first_family(tmp_path: Path):
    cards = all_cards(link_models(tmp_path, "srcnn-x2", "srcnn-x4", "edsr-nano-x3"))
    assert [card.name for card in default_cards("auto", cards)] == ["edsr-nano-x3", "bicubic"]
    assert [card.name for card in default_cards("srcnn", cards)] == ["srcnn-x4"]  # the next scale
    assert [card.name for card in default_cards("srcnn-x2", cards)] == ["srcnn-x2"]


def test_models_can_be_preloaded(serve: Serve, folder: Path):
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="bicubic", preload="srcnn") as client:
        wait_until(lambda: engines.loaded == ["srcnn-x3"])
        assert client.get("/readyz").status_code == 200
    assert {card.name for card in preloaded_cards("auto", all_cards(folder))} == {
        *NEEDED,
        "edsr-lite-x2",
        "bicubic",
    }
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="auto", preload="auto"):
        wait_until(lambda: {*engines.loaded} == {*NEEDED, "edsr-lite-x2"})
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="auto", preload="all"):
        wait_until(lambda: {*engines.loaded} == {*NAMES})
    with pytest.raises(ModelMissing, match="no model or family 'magic'"):
        serve(engines, models=folder, preload="magic").__enter__()


def test_a_model_that_cannot_be_loaded_is_tried_again_later_and_harms_no_other(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    passed = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed)
    monkeypatch.setattr("app.inference.models.time", clock)
    engines = CountingEngines(folder, failing=True)
    with serve(engines, models=folder, default_model="edsr-lite") as client:
        for _ in range(2):  # the second finds the failure of the first
            answer = client.post("/enhance?model=srcnn", content=plain())
            assert_problem(answer, 500, "engine-failed", "srcnn-x3 cannot be served")
            assert "today" not in answer.text
            assert engines.begun.count("srcnn-x3") == 1
        pass_time(LOAD_AGAIN_S)
        engines.failing = True
        job = client.post(
            "/enhance?model=srcnn", content=plain(), headers={"Prefer": "respond-async"}
        ).json()
        wait_until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "failed")
        assert client.post("/enhance", content=plain()).status_code == 200
        pass_time(LOAD_AGAIN_S)
        assert client.post("/enhance?model=srcnn", content=plain()).status_code == 200


def test_a_request_waits_for_the_model_that_it_is_the_first_to_use(serve: Serve, folder: Path):
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="edsr-lite") as client:
        engines.go.clear()
        answers: list[int] = []

        def ask() -> None:
            answers.append(client.post("/enhance?model=srcnn", content=plain()).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert client.post("/enhance", content=plain()).status_code == 200
        engines.go.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200, 200]
        assert engines.loaded.count("srcnn-x3") == 1


def test_a_request_waits_for_a_model_no_longer_than_its_deadline(serve: Serve, folder: Path):
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="edsr-lite") as client:
        engines.go.clear()
        soon = {"X-Deadline-Ms": "300"}
        for path in ("/enhance?model=srcnn", "/enhance?model=srcnn&dry_run=1", "/compare"):
            answer = client.post(path, content=encoded(art()), headers=soon)
            assert_problem(answer, 504, "deadline-exceeded", "it was not begun by then")
        assert "superres_reserved_bytes 0" in client.get("/metrics").text
        engines.go.set()
        # All waited for one load, which went on without them.
        assert client.post("/enhance?model=srcnn", content=plain()).status_code == 200
        assert engines.begun.count("srcnn-x3") == 1


def test_a_removed_job_leaves_the_load_that_it_began_to_the_next(serve: Serve, folder: Path):
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="edsr-lite") as client:
        engines.go.clear()
        order = {"content": plain(), "headers": {"Prefer": "respond-async"}}
        job = client.post("/enhance?model=srcnn", **order).json()
        wait_until(lambda: "srcnn-x3" in engines.begun)
        assert client.delete(f"/jobs/{job['id']}").status_code == 204
        job = client.post("/enhance?model=srcnn", **order).json()
        engines.go.set()
        wait_until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "done")
        assert engines.begun.count("srcnn-x3") == 1


def test_a_dry_run_chooses_as_the_enhancement_does_where_colours_are_converted(
    auto: httpx.Client, coffee
):
    """The conversion makes noise larger, so that some pictures get another model by it."""
    chosen: dict[str, list[str]] = {"keep": [], "srgb": []}
    for sigma in (3.3, 3.6, 3.9, 4.2):
        noise = np.random.default_rng(1).normal(0, sigma, (200, 300, 3))
        picture = np.clip(degrade(coffee, (200, 300)) + noise, 0, 255).astype(np.uint8)
        content = encoded(picture, icc_profile=WIDE_PROFILE)
        for icc, models in chosen.items():
            answer = auto.post(f"/enhance?icc={icc}", content=content)
            dry = auto.post(f"/enhance?icc={icc}&dry_run=true", content=content).json()
            models.append(dry["model"])
            assert answer.headers["x-model"].startswith(f"{dry['model']}@")
    assert chosen["keep"] != chosen["srgb"]


def test_time_is_learnt_for_the_model_that_was_chosen(auto: httpx.Client, coffee):
    content, model, _ = files(coffee)["jpeg"]

    def forecast(name: str) -> float:
        query = {"dry_run": True, "model": name}
        return float(auto.post("/enhance", params=query, content=content).json()["seconds_alone"])

    names = (model, "edsr-lite-x3", "edsr-lite-sharpened-x3")
    before = {name: forecast(name) for name in names}
    for _ in range(3):
        auto.post("/enhance", content=content)
    assert {name for name in names if forecast(name) != before[name]} == {model}


def test_a_reload_leaves_unused_models_unloaded(serve: Serve, folder: Path):
    from app.access import make_key

    key, entry = make_key("ops", admin=True)
    engines = CountingEngines(folder)
    with serve(engines, models=folder, default_model="edsr-lite", api_keys=entry) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert client.post("/admin/reload").json()["fresh"] == []
        assert engines.loaded == ["edsr-lite-x3"]


@pytest.mark.slow
def test_a_folder_of_a_model_that_does_not_enlarge_serves_auto(
    serve: Serve, tmp_path: Path, srcnn_card: ModelCard, coffee
):
    geometry = srcnn_card.geometry.model_copy(update={"scale": 1})
    update = {"name": "denoiser", "family": "denoiser", "geometry": geometry, "scores": ()}
    models = tmp_path / "models"
    (models / "denoiser").mkdir(parents=True)
    for folder in ("saved_model", "onnx"):
        (models / "denoiser" / folder).symlink_to(DEFAULT_MODELS / srcnn_card.name / folder)
    write_card(models / "denoiser", srcnn_card.model_copy(update=update))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(coffee[:60, :90], "JPEG", quality=40))
    with serve(CountingEngines(models), models=models, default_model="auto") as client:
        assert client.get("/readyz").status_code == 200
        for query in ("", "scale=1", "scale=1.3", "scale=2", "scale=4&proof=true", "width=200"):
            answer = client.post(f"/enhance?{query}", content=photo.read_bytes())
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-model"].startswith("denoiser@")
            dry = client.post(f"/enhance?dry_run=true&{query}", content=photo.read_bytes()).json()
            assert (dry["model"], dry["notes"]) == ("denoiser", "chosen for a JPEG of quality 40")
        assert Client(http=client, job_pixels=0).enhance(photo, 2).size == (120, 180)
        assert Client(http=client).compare(model="auto", sample="coffee").model == "denoiser"
        assert {one.model for one in Client(http=client).metrics().models} == {
            "denoiser",
            "bicubic",
        }
        assert [one["name"] for one in client.get("/models").json()["models"]] == [
            "denoiser",
            "bicubic",
        ]
    for size in (("--scale", 1), ("--scale", 2.5), ("--width", 200)):
        run = superres(
            "enhance", photo, "-o", tmp_path / "out", "--model", "auto", "--dry-run", *size,
            SUPERRES_MODELS=str(models),
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert "denoiser, chosen for a JPEG of quality 40" in run.stderr
    assert superres("models", SUPERRES_MODELS=str(models)).returncode == 0


def test_the_command_chooses_for_each_picture(folder: Path, tmp_path: Path, coffee):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, (content, _, _) in files(coffee).items():
        (photos / f"{name}.png").write_bytes(content)
    run = superres(
        "enhance", photos, "-o", tmp_path / "out", "--model", "auto", "--dry-run",
        SUPERRES_MODELS=str(folder),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for name, (_, model, reason) in files(coffee).items():
        (line,) = [line for line in run.stderr.splitlines() if f"{name}.png ->" in line]
        assert line.endswith(f": {model}, {reason}")
    art_alone = superres(
        "enhance", photos / "pixel art.png", "-o", tmp_path / "art.png", "--model", "auto",
        SUPERRES_MODELS=str(folder),
    )  # fmt: skip
    assert art_alone.returncode == 0, art_alone.stderr
    larger = decode((tmp_path / "art.png").read_bytes()).rgb
    assert np.array_equal(larger, upsample(art(), (216, 216)))
