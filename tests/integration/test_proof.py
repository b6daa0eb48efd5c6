"""proof and fallback of POST /enhance: what the model gains on the caller's own picture."""

import numpy as np
import pytest
from imagecodecs import jpeg8_encode

from superres import Enhancer
from superres.codecs import decode
from superres.codecs.jpeg import jpeg_settings
from superres.evaluation.proof import estimate
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.resample import upsample
from tests.engines import BlurEngine, SharpenEngine
from tests.integration.test_status import samples_of
from tests.pictures import encoded, plain


@pytest.fixture
def blurring(serve, srcnn_card: ModelCard):
    """A service whose model only blurs: bicubic is better on every photograph."""
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        yield client


def test_a_proof_tells_the_gain_on_the_callers_own_picture(
    service, srcnn_as_served: Enhancer, chelsea
):
    picture = chelsea[60:180, 100:260]
    answer = service.post("/enhance?scale=2.5&proof=true", content=encoded(picture))
    expected = estimate(srcnn_as_served, picture, 2.5)
    told = [answer.headers[f"x-proof-{name}-db"] for name in ("gain", "bicubic", "model")]
    figures = [expected.gain_db, expected.bicubic_psnr_y, expected.sr_psnr_y]
    assert [float(one) for one in told] == pytest.approx(figures, abs=0.006)
    assert "proof;dur=" in answer.headers["server-timing"]
    without = service.post("/enhance?scale=2.5", content=encoded(picture))
    assert without.content == answer.content
    assert "x-proof-gain-db" not in without.headers


def test_of_a_jpeg_the_proof_is_of_a_jpeg(fake_service, srcnn_card: ModelCard, chelsea):
    upload = encoded(chelsea, "JPEG", quality=60)
    answer = fake_service.post("/enhance?proof=true", content=upload)
    enhancer = Enhancer(SharpenEngine(srcnn_card.geometry), srcnn_card.geometry)
    expected, otherwise = (
        estimate(enhancer, decode(upload).rgb, 3, jpeg=jpeg).gain_db
        for jpeg in (jpeg_settings(upload), None)
    )
    assert float(answer.headers["x-proof-gain-db"]) == pytest.approx(expected, abs=0.006)
    assert abs(expected - otherwise) > 0.05


def test_of_a_jpeg_without_loss_the_proof_is_of_the_picture(fake_service, chelsea):
    picture = np.ascontiguousarray(chelsea[:90, :120])
    gains = [
        fake_service.post("/enhance?proof=true", content=upload).headers["x-proof-gain-db"]
        for upload in (bytes(jpeg8_encode(picture, lossless=True)), encoded(picture))
    ]
    assert gains[0] == gains[1]


def test_colours_that_nobody_sees_change_no_proof_and_no_comparison(fake_service, chelsea):
    samples = np.dstack([chelsea[:90, :120], np.full((90, 120), 255, np.uint8)])
    samples[:, 60:, 3] = 0
    black = samples.copy()
    black[:, 60:, :3] = 0
    answers = [
        fake_service.post("/enhance?proof=true", content=encoded(one)) for one in (samples, black)
    ]
    gains = [answer.headers["x-proof-gain-db"] for answer in answers]
    assert gains[0] == gains[1]
    compared = [fake_service.post("/compare", content=encoded(one)) for one in (samples, black)]
    assert compared[0].json() == compared[1].json()
    samples[..., 3] = 0
    answer = fake_service.post("/enhance?proof=true", content=encoded(samples))
    assert answer.status_code == 200
    assert "no proof: a comparison needs visible pixels" in answer.headers["x-notes"]


def test_fallback_answers_with_bicubic_where_the_proof_favours_it(blurring, chelsea):
    picture = encoded(chelsea[:90, :120])
    answer = blurring.post("/enhance?scale=3&fallback=auto", content=picture)
    assert float(answer.headers["x-proof-gain-db"]) < 0
    assert answer.headers["x-model"] == f"bicubic@{BICUBIC.short_hash}"
    assert answer.headers["x-notes"] == "bicubic, as fallback=auto asks"
    assert np.array_equal(decode(answer.content).rgb, upsample(chelsea[:90, :120], (270, 360)))
    assert blurring.post("/enhance?proof=true", content=picture).headers["x-model"][:7] != "bicubic"


def test_fallback_keeps_a_model_that_is_better(service, chelsea):
    picture = encoded(chelsea[60:150, 100:220])
    answer = service.post("/enhance?fallback=auto", content=picture)
    assert float(answer.headers["x-proof-gain-db"]) > 0
    assert answer.headers["x-model"].startswith("srcnn-x3@")
    assert answer.content == service.post("/enhance", content=picture).content


@pytest.mark.parametrize("query", ["model=bicubic", "fallback=always"])
@pytest.mark.parametrize(("scale", "size"), [(1.5, (135, 180)), (2, (180, 240)), (4, (360, 480))])
def test_bicubic_is_a_model_at_every_scale(fake_service, chelsea, query, scale, size):
    picture = chelsea[60:150, 100:220]
    answer = fake_service.post(f"/enhance?scale={scale}&{query}", content=encoded(picture))
    assert answer.headers["x-model"] == f"bicubic@{BICUBIC.short_hash}"
    assert "x-proof-gain-db" not in answer.headers
    assert np.array_equal(decode(answer.content).rgb, upsample(picture, size))
    dry = fake_service.post(
        f"/enhance?scale={scale}&{query}&dry_run=true", content=encoded(picture)
    )
    assert dry.json()["model"] == "bicubic"


def test_a_picture_too_small_for_a_proof_is_enlarged_all_the_same(fake_service):
    answer = fake_service.post("/enhance?fallback=auto", content=plain(20, 10))
    assert answer.status_code == 200
    assert "x-proof-gain-db" not in answer.headers
    assert "no proof: a comparison at scale 3 needs at least 17 px" in answer.headers["x-notes"]


@pytest.mark.parametrize("query", ["proof=true", "fallback=auto"])
def test_a_scale_too_small_for_a_proof_is_refused(fake_service, query):
    answer = fake_service.post(f"/enhance?scale=1.4&{query}", content=plain())
    assert answer.status_code == 422
    assert answer.json()["detail"] == "a proof needs a scale of 1.5 to 4, not 1.4"


def test_operators_see_the_gains_of_all_proofs(blurring, srcnn_card: ModelCard, chelsea):
    flat = encoded(np.zeros((40, 40, 3), np.uint8))  # both are perfect: a gain of 0
    for picture in (encoded(chelsea[60:150, 100:220]), flat):
        assert blurring.post("/enhance?proof=true", content=picture).status_code == 200
    metrics = samples_of(blurring.get("/metrics").text)
    assert metrics["superres_proof_gain_db_count"][frozenset({srcnn_card.name})] == 2
    assert metrics["superres_proof_gain_db_bucket"][frozenset({srcnn_card.name, "-0.25"})] == 1
