"""/compare, /metrics, /models, /version, /docs."""

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from app.inference.admission import Admission
from app.web.samples import SAMPLES, read_sample
from superres import Enhancer
from superres.codecs import decode
from superres.evaluation.proof import compare
from superres.models.automatic_scores import all_scores
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, read_cards
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.pictures import encoded


def samples_of(text: str) -> dict[str, dict[frozenset[str], float]]:
    """name -> label values -> value."""
    return {
        sample.name: {
            frozenset(s.labels.values()): s.value for s in family.samples if s.name == sample.name
        }
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_model_beats_bicubic_on_every_shipped_sample(service, sample):
    report = service.get("/compare", params={"sample": sample}).json()
    assert report["gain_db"] > 0.2
    assert report["sr"]["ssim_y"] > report["bicubic"]["ssim_y"]


def test_the_figures_are_those_of_the_proof(service, srcnn_as_served: Enhancer):
    report = service.get("/compare").json()
    expected = compare(srcnn_as_served, read_sample("coffee"), 3)
    assert (report["width"], report["height"]) == (600, 399)
    assert report["bicubic"]["psnr_y"] == pytest.approx(expected.bicubic_scores.psnr_y, abs=1e-5)
    assert report["sr"]["psnr_y"] == pytest.approx(expected.sr_scores.psnr_y, abs=1e-5)


def test_a_comparison_is_also_a_strip_and_a_page(fake_service):
    strip = fake_service.get("/compare", headers={"Accept": "image/png"})
    with Image.open(io.BytesIO(strip.content)) as image:
        assert image.width > 3 * 400
    page = fake_service.get("/compare", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.count("data:image/png;base64,") == 5
    assert "$" not in page.text


def test_an_unchanged_comparison_is_not_sent_again(fake_service):
    first = fake_service.get("/compare", params={"sample": "chelsea"})
    tag = {"If-None-Match": first.headers["etag"]}
    again = fake_service.get("/compare", params={"sample": "chelsea"}, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    other = fake_service.get("/compare", params={"sample": "chelsea", "scale": 2}, headers=tag)
    assert other.status_code == 200


def test_an_unchanged_comparison_tells_nothing_of_the_pace(serve, srcnn_card, monkeypatch):
    recorded: list[str] = []
    monkeypatch.setattr(
        Admission, "record", lambda self, workload, *_: recorded.append(workload.operation)
    )
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as service:
        tag = {"If-None-Match": service.get("/compare").headers["etag"]}
        assert recorded == ["compare"]
        assert service.get("/compare", headers=tag).status_code == 304
        assert recorded == ["compare"]


def test_an_upload_is_compared_as_the_truth(fake_service):
    picture = encoded(read_sample("coffee"))
    uploaded = fake_service.post("/compare", files={"file": picture})
    assert uploaded.json() == fake_service.get("/compare").json()


def test_a_flat_picture_is_perfect_and_json_can_say_so(fake_service):
    picture = encoded(np.zeros((60, 60, 3), np.uint8))
    report = fake_service.post("/compare", content=picture).json()
    assert report["bicubic"]["psnr_y"] == "infinity"


def test_a_method_that_is_perfect_where_the_other_is_not_gains_infinity(fake_service):
    """At a scale that changes no pixel, bicubic gives the picture back."""
    report = fake_service.get("/compare", params={"scale": 1.0001, "sample": "chelsea"}).json()
    assert report["bicubic"]["psnr_y"] == "infinity"
    assert report["gain_db"] == "-infinity"


def test_metrics_count_requests_stages_and_pixels(fake_service, coffee):
    before = samples_of(fake_service.get("/metrics").text)
    picture = encoded(coffee[:20, :30])
    assert fake_service.post("/enhance", content=picture).status_code == 200
    after = samples_of(fake_service.get("/metrics").text)

    def grown(name, *labels):
        key = frozenset(labels)
        return after[name][key] - before.get(name, {}).get(key, 0)

    assert grown("superres_requests_total", "POST", "/enhance", "200") == 1
    assert grown("superres_pixels_total", "input") == 600
    assert grown("superres_pixels_total", "output") == 5400
    for stage in ("decode", "queue", "infer", "bicubic", "encode"):
        assert grown("superres_stage_seconds_count", stage) == 1
    assert after["superres_queue_tiles"][frozenset()] == 0
    assert grown("superres_tiles_total") == 1
    assert after["superres_ready"][frozenset()] == 1
    assert after["superres_max_memory_bytes"][frozenset()] == 4 * 2**30
    assert after["process_resident_memory_bytes"][frozenset()] > 1e7
    assert after["superres_pictures_in_progress"][frozenset()] == 0


def test_metrics_name_the_precision_of_each_model(service, srcnn_card: ModelCard):
    engines = samples_of(service.get("/metrics").text)["superres_engine_info"]
    assert frozenset({srcnn_card.name, srcnn_card.short_hash, PRECISIONS[-1], "cpu:0"}) in engines


def test_metrics_show_the_quality_of_auto(serve, srcnn_card: ModelCard):
    cards = read_cards(DEFAULT_MODELS)
    engines = {card.name: BlurEngine(card.geometry) for card in cards}
    with serve(engines, models=DEFAULT_MODELS) as service:
        psnr = samples_of(service.get("/metrics").text)["superres_model_psnr_db"]
    (jpeg,) = (
        one.scores
        for one in all_scores(cards)
        if (one.name, one.scores.dataset, one.scores.scale) == ("auto", "Set5-jpeg75", 3)
    )
    assert psnr[frozenset({"auto", "Set5-jpeg75-x3", "y"})] == jpeg.model.psnr_y
    assert psnr[frozenset({"auto", "bicubic", "Set5-jpeg75-x3", "y"})] == jpeg.bicubic.psnr_y


def test_metrics_show_each_models_quality_beside_bicubic(fake_service, srcnn_card: ModelCard):
    assert {"Set5", "Set14", "BSD100"} <= {one.dataset for one in srcnn_card.scores}
    psnr = samples_of(fake_service.get("/metrics").text)["superres_model_psnr_db"]
    ssim = samples_of(fake_service.get("/metrics").text)["superres_model_ssim"]
    for one in srcnn_card.scores:
        for channel in ("y", "rgb"):
            labels = (f"{one.dataset}-x{one.scale:g}", channel)
            ours, bicubic = (
                frozenset({srcnn_card.name, method, *labels}) for method in ("srcnn", "bicubic")
            )
            assert psnr[ours] == getattr(one.model, f"psnr_{channel}")
            assert ssim[bicubic] == getattr(one.bicubic, f"ssim_{channel}")
            if not one.dataset.endswith("jpeg75"):
                assert psnr[ours] > psnr[bicubic]
                assert ssim[ours] > ssim[bicubic]
                assert one.wins_psnr_y == one.pictures


def test_the_quality_report_is_also_json(fake_service, srcnn_card: ModelCard):
    report = fake_service.get("/metrics", headers={"Accept": "application/json"}).json()
    scores = {model["model"]: model["scores"] for model in report["models"]}[srcnn_card.name]
    assert {one["dataset"] for one in scores} == {one.dataset for one in srcnn_card.scores}


def test_an_unknown_path_does_not_make_a_label_of_its_own(fake_service):
    fake_service.get("/an-attackers-own-path")
    assert "attackers" not in fake_service.get("/metrics").text


def test_models_tell_how_they_were_trained(fake_service, srcnn_card: ModelCard):
    models = {model["name"]: model for model in fake_service.get("/models").json()["models"]}
    card = models[srcnn_card.name]
    assert card["parameters"] == 36_483
    assert card["hash"] == srcnn_card.short_hash
    assert card["training"]["config"]["name"] == srcnn_card.name
    assert card["geometry"]["halo"] == 7


def test_version_says_what_is_running(fake_service, srcnn_card: ModelCard):
    assert fake_service.get("/version").json()["models"][srcnn_card.name] == srcnn_card.short_hash


def test_errors_are_declared_as_problems_and_nothing_else(fake_service):
    spec = httpx.get(fake_service.base_url.join("/openapi.json")).json()
    contents = [
        response["content"]
        for operations in spec["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]
    assert len(contents) > 20
    assert {tuple(content) for content in contents} == {("application/problem+json",)}


def test_the_docs_load_nothing_from_other_hosts(fake_service):
    with httpx.Client(base_url=fake_service.base_url) as plain:
        page = plain.get("/docs")
        links = [part.split('"')[0] for part in page.text.split('="')[1:]]
        assets = [link for link in links if link.endswith((".js", ".css", ".png"))]
        assert len(assets) >= 3
        assert not any("//" in asset for asset in assets)
        for asset in assets:
            assert plain.get(asset).status_code == 200


@pytest.mark.parametrize("path", ["/", "/compare"])
def test_the_pages_load_nothing_from_other_hosts_and_run_nothing_inline(fake_service, path):
    page = fake_service.get(path, headers={"Accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", page.text)
    links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    local = [link for link in links if not link.startswith("data:")]
    assert len(local) > 8
    with httpx.Client(base_url=fake_service.base_url) as plain:
        for link in local:
            assert "//" not in link
            assert plain.get(link).status_code == 200


def test_a_sample_is_sent_whole_and_as_a_thumbnail(fake_service):
    whole = fake_service.get("/samples/coffee")
    assert np.array_equal(decode(whole.content).rgb, read_sample("coffee"))
    assert decode(fake_service.get("/samples/coffee?thumbnail=true").content).size == (208, 312)
    unknown = fake_service.get("/samples/lena")
    assert unknown.status_code == 422
    assert "'coffee', 'astronaut', 'chelsea' or 'rocket', not 'lena'" in unknown.json()["detail"]


def test_a_large_picture_goes_into_a_page_as_jpeg(fake_service, monkeypatch):
    monkeypatch.setattr("app.web.LARGEST_PNG_PIXELS", 60 * 60)
    for height, image_format in ((60, "png"), (63, "jpeg")):
        picture = encoded(np.zeros((height, 60, 3), np.uint8))
        page = fake_service.post("/compare", content=picture, headers={"Accept": "text/html"})
        assert page.text.count(f"data:image/{image_format};base64,") == 5
