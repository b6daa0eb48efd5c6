"""POST /enhance over a real connection, with real image files."""

import base64
import hashlib
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.admission import Admission
from superres import Enhancer
from superres.arrays import RgbU8
from superres.client import Client
from superres.codecs import OUTPUT_FORMATS, decode
from superres.evaluation.metrics import psnr, to_y
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS
from tests.engines import BlurEngine, SharpenEngine
from tests.integration.test_callers import Slow
from tests.pictures import WIDE_PROFILE, encoded, saved
from training.evaluate import evaluate


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    """90 high, 120 wide."""
    return encoded(chelsea[60:150, 100:220])


def test_a_picture_comes_back_larger_with_all_that_is_worth_knowing(fake_service, cat):
    answer = fake_service.post("/enhance", files={"file": cat}, headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert decode(answer.content).size == (270, 360)
    assert answer.headers["x-request-id"] == "mine-1"
    assert re.fullmatch(r"srcnn-x3@[0-9a-f]{12}", answer.headers["x-model"])
    assert answer.headers["x-input-size"] == "120x90"
    assert answer.headers["x-output-size"] == "360x270"
    stages = re.findall(r"(\w+);dur=[\d.]+", answer.headers["server-timing"])
    assert stages == ["decode", "queue", "infer", "bicubic", "encode"]
    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
    assert answer.headers["content-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["vary"] == "Accept"


def test_what_is_served_is_what_the_enhancer_makes(service, cat, srcnn_as_served: Enhancer):
    answer = service.post("/enhance", content=cat, params={"scale": 2.5, "format": "png"})
    assert np.array_equal(decode(answer.content).rgb, srcnn_as_served.enhance(decode(cat), 2.5).rgb)


def test_multipart_and_raw_bodies_are_the_same_picture(fake_service, cat):
    answers = [
        fake_service.post("/enhance", files={"file": ("any.txt", cat, "text/plain")}),
        fake_service.post("/enhance", content=cat),
        fake_service.post("/enhance", content=cat, headers={"Content-Type": "image/jpeg"}),
        fake_service.post(
            "/enhance", content=cat, headers={"Content-Type": "application/octet-stream"}
        ),
        fake_service.post("/enhance", content=iter([cat[:100], cat[100:]])),  # chunked
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize(
    ("upload", "accept", "parameter", "media_type"),
    [
        ("PNG", "*/*", None, "image/png"),
        ("JPEG", "*/*", None, "image/jpeg"),
        ("WEBP", None, None, "image/webp"),
        ("BMP", "image/*", None, "image/png"),
        ("PNG", "image/webp, image/png;q=0.5", None, "image/webp"),
        ("PNG", "image/jpeg;q=0.1, */*;q=0.9", None, "image/png"),
        ("JPEG", "image/webp", "tiff", "image/tiff"),
    ],
)
def test_the_format_is_the_parameters_else_accepts_else_the_uploads(
    fake_service, chelsea, upload, accept, parameter, media_type
):
    answer = fake_service.post(
        "/enhance",
        content=encoded(chelsea[:30, :40], upload),
        params={"format": parameter} if parameter else {},
        headers={"Accept": accept} if accept else {},
    )
    assert answer.headers["content-type"] == media_type
    assert f"image/{decode(answer.content).source_format}" == media_type


def test_quality_is_for_the_encoder(fake_service, cat):
    low, high = (
        fake_service.post("/enhance", content=cat, params={"format": "jpeg", "quality": quality})
        for quality in (20, 95)
    )
    assert 3 * len(low.content) < len(high.content)


def test_jpeg_from_alpha_is_flattened_on_white_and_that_is_said(fake_service):
    clear = encoded(np.zeros((20, 20, 4), np.uint8))
    jpeg = fake_service.post("/enhance", content=clear, params={"format": "jpeg"})
    told = "provenance in XMP"
    assert jpeg.headers["x-notes"] == f"converted: alpha flattened on white; {told}"
    assert decode(jpeg.content).rgb.min() == 255
    png = fake_service.post("/enhance", content=clear)
    assert png.headers["x-notes"] == f"kept: alpha; {told}"
    assert decode(png.content).alpha.max() == 0


def test_profile_and_metadata_are_kept_or_not_as_asked(fake_service, cat):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    with Image.open(io.BytesIO(cat)) as image:
        upload = saved(image, "JPEG", exif=exif, icc_profile=WIDE_PROFILE, dpi=(300, 300))
    kept = fake_service.post("/enhance", content=upload)
    notes = "kept: ICC profile, EXIF, DPI; converted: orientation 6 to upright"
    assert kept.headers["x-notes"] == f"{notes}; provenance in XMP"
    assert kept.headers["x-output-size"] == "270x360"
    with Image.open(io.BytesIO(kept.content)) as image:
        assert (image.getexif()[0x010F], image.info["dpi"]) == ("Maker", (300, 300))
    bare = fake_service.post(
        "/enhance", content=upload, params={"icc": "srgb", "metadata": "strip"}
    )
    assert bare.headers["x-notes"] == (
        "kept: DPI; converted: orientation 6 to upright, ICC profile to sRGB; dropped: EXIF"
    )
    assert b"Maker" not in bare.content
    assert decode(bare.content).icc_profile is None


def test_models_are_asked_for_by_family_or_name(client: Client, cat):
    family, name = (client.enhance(cat, model=model) for model in ("srcnn", "srcnn-x3"))
    assert family.content == name.content


def test_eight_callers_at_once_each_get_their_own(service, chelsea: RgbU8):
    """Pictures of several sizes, types and scales, so that batches are shared and not."""
    calls = [
        (
            encoded(np.roll(chelsea, 40 * i, axis=1)[: 60 + 20 * (i // 2), : 150 + 30 * (i % 3)]),
            [3, 3, 2, 4][i % 4],
            ["png", "jpeg"][i % 2],
        )
        for i in range(8)
    ]

    client = Client(http=service)

    def enhance(call) -> bytes:
        picture, scale, output_format = call
        return client.enhance(picture, scale, format=output_format).content

    alone = [enhance(call) for call in calls]
    assert len(set(alone)) == len(calls)
    with ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            assert list(callers.map(enhance, calls)) == alone


def test_an_ensemble_is_what_the_enhancer_makes_named_and_costs_what_it_says(
    service, cat, srcnn_as_served: Enhancer
):
    plain, ensemble = (
        service.post("/enhance", content=cat, params={"ensemble": asked}) for asked in (0, 1)
    )
    assert re.fullmatch(r"srcnn-x3\+ensemble@[0-9a-f]{12}", ensemble.headers["x-model"])
    made = decode(ensemble.content).rgb
    assert not np.array_equal(made, decode(plain.content).rgb)
    assert np.array_equal(made, srcnn_as_served.ensembled().enhance(decode(cat), 3).rgb)
    infer = re.compile(r"infer;dur=([\d.]+)")
    assert float(infer.search(ensemble.headers["server-timing"])[1]) > 0
    dry, alone = (
        service.post("/enhance", content=cat, params={"ensemble": asked, "dry_run": 1}).json()
        for asked in (1, 0)
    )
    assert (dry["model"], alone["model"]) == ("srcnn-x3+ensemble", "srcnn-x3")
    assert dry["seconds_alone"] > 2 * alone["seconds_alone"]
    assert dry["peak_bytes"] > alone["peak_bytes"]


def test_an_ensemble_turns_the_device_eight_times_a_tile_and_its_time_is_told(
    serve, srcnn_card, cat
):
    engine = Slow(srcnn_card, 0.02)
    with serve({srcnn_card.name: engine}) as client:
        answers = [
            client.post("/enhance", content=cat, params={"ensemble": asked, "proof": 1})
            for asked in (False, True)
        ]
        assert engine.calls == 2 * (1 + 8)  # the picture, and its proof
        for answer, views in zip(answers, (1, 8), strict=True):
            stages = re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])
            seconds = {stage: float(spent) / 1000 for stage, spent in stages}
            # A sleep is never shorter than asked for, whatever else the machine does.
            assert seconds["proof"] >= views * 0.02
            assert seconds["infer"] >= views * 0.02
            # Each stage is counted once: together they take no longer than the request.
            assert sum(seconds.values()) <= answer.elapsed.total_seconds()
        compared = client.get("/compare", params={"sample": "rocket", "ensemble": True})
        assert compared.json()["model"] == f"{srcnn_card.name}+ensemble"
        assert 'superres_proof_gain_db_count{model="srcnn-x3+ensemble"} 1.0' in (
            client.get("/metrics").text
        )


class Counting(BlurEngine):
    """Blurs, so that bicubic wins, and counts the pixels that it is given."""

    given = 0

    def predict(self, tiles):
        self.given += tiles.size // 3
        return super().predict(tiles)


@pytest.mark.parametrize(
    ("method", "path", "foreseen"),
    [
        ("POST", "/enhance", True),
        ("POST", "/enhance?proof=1", True),
        ("POST", "/enhance?ensemble=1&scale=1.7", True),
        ("POST", "/enhance?fallback=auto", False),  # the proof favours bicubic
        ("POST", "/compare", True),
    ],
)
def test_what_is_learnt_of_a_request_is_what_the_engine_was_given(
    serve, srcnn_card, cat, monkeypatch, method, path, foreseen
):
    asked, learnt = [], []
    seconds_alone = Admission.seconds_alone
    monkeypatch.setattr(
        Admission,
        "seconds_alone",
        lambda self, workload, pixels: (
            asked.append(pixels) or seconds_alone(self, workload, pixels)
        ),
    )
    monkeypatch.setattr(Admission, "record", lambda self, *about: learnt.append(about))
    engine = Counting(srcnn_card.geometry)
    with serve({srcnn_card.name: engine}) as client:
        assert client.request(method, path, content=cat).status_code == 200
    learnt_of_model = [pixels for key, pixels, _ in learnt if key.model.startswith("srcnn")]
    assert learnt_of_model == [engine.given]  # besides, the first use of bicubic warms it up
    assert (asked[-1] == engine.given) == foreseen


class Paired(BlurEngine):
    """Answers a tile once it has a second one."""

    batch, calls_at_once = 1, 2
    both = threading.Barrier(2)

    def predict(self, tiles):
        self.both.wait(30)
        return super().predict(tiles)


def test_a_device_that_takes_two_tiles_at_once_gets_both_of_a_row(serve, srcnn_card, chelsea):
    with serve({srcnn_card.name: Paired(srcnn_card.geometry)}) as client:
        answer = client.post("/enhance", content=encoded(chelsea[:40, :200]))
        assert answer.status_code == 200, answer.text


def test_set5_served_scores_what_training_says(
    service, srcnn_as_served: Enhancer, benchmarks: Path
):
    """Each of Set5's LR files, as a caller sends it."""
    folder = benchmarks / "Set5" / "x3"
    client = Client(http=service)
    served = []
    for lr in sorted(folder.glob("*_lr.webp")):
        answer = client.enhance(lr, 3, format="png")
        hr = decode(lr.with_name(lr.name.replace("_lr", "_hr")).read_bytes()).rgb
        luma = to_y(hr), to_y(decode(answer.content).rgb)
        served.append(psnr(*luma, data_range=255, shave=3))
    evaluated = [one.model.psnr_y for one in evaluate(srcnn_as_served, folder, 3).pictures]
    assert np.mean(served) == pytest.approx(np.mean(evaluated), abs=0.01)


def test_the_shipped_models_folder_is_served_whatever_the_working_directory(
    serve, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cards = {
        file.parent.name: read_card(file.parent) for file in DEFAULT_MODELS.glob("*/card.json")
    }
    assert len(cards) > 3
    with serve({name: BlurEngine(card.geometry) for name, card in cards.items()}) as client:
        names = [model["name"] for model in client.get("/models").json()["models"]]
    assert names == [*sorted(cards), "bicubic"]


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description rdf:about="" '
    b'dc:source="A cup"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_the_xmp_of_a_result_tells_what_made_it(fake_service, chelsea, output_format):
    """In each format that holds XMP; not of bicubic, nor where metadata is stripped."""
    for xmp in ({}, {"xmp": XMP}):
        upload = encoded(chelsea[:30, :40], "JPEG", **xmp)
        query = {"format": output_format}
        answer = fake_service.post("/enhance", content=upload, params=query)
        made = decode(answer.content).xmp
        assert made.count(b"digitalsourcetype/algorithmicallyEnhanced") == 1
        assert f'"superres {answer.headers["x-model"]}"'.encode() in made
        assert (b"A cup" in made) == bool(xmp)
        assert answer.headers["x-notes"].endswith("provenance in XMP")
        silent = {"model": "bicubic"}, {"metadata": "strip"}
        for more in silent:
            other = fake_service.post("/enhance", content=upload, params=query | more)
            assert b"algorithmicallyEnhanced" not in other.content
            assert "provenance" not in other.headers.get("x-notes", "")


def test_damaged_xmp_is_dropped_and_told_and_a_setting_turns_provenance_off(
    fake_service, serve, srcnn_card, chelsea
):
    upload = encoded(chelsea[:30, :40], "JPEG", xmp=b"<x:xmpmeta>")
    answer = fake_service.post("/enhance", content=upload)
    assert "dropped: damaged XMP" in answer.headers["x-notes"]
    assert b"algorithmicallyEnhanced" in decode(answer.content).xmp
    engines = {srcnn_card.name: SharpenEngine(srcnn_card.geometry)}
    with serve(engines, provenance=False) as client:
        answer = client.post("/enhance", content=upload)
        assert b"algorithmicallyEnhanced" not in answer.content
