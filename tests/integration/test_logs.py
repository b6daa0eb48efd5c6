"""What the log says of a request, and what it never says."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from app.logs import make_handler
from tests.engines import BlurEngine
from tests.pictures import encoded, saved
from tests.serving import link_models, serve_process, wait_until
from tests.structures import tiff

SECRET = b"a-secret-in-the-picture"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The service's JSON lines."""
    stream = io.StringIO()
    logger = logging.getLogger("superres")
    handler, level = make_handler("json", stream), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_every_line_of_a_request_has_its_id_and_the_last_its_outcome(serve, srcnn_card, log):
    class Broken(BlurEngine):
        def predict(self, tiles):
            raise RuntimeError("the device fell over")

    picture = encoded(np.zeros((8, 8, 3), np.uint8))
    with serve({srcnn_card.name: Broken(srcnn_card.geometry)}) as client:
        log.truncate(0)
        log.seek(0)
        headers = {"X-Request-ID": "mine-7", "Authorization": "Bearer a-secret-key"}
        failed = client.post("/enhance?model=srcnn", content=picture + SECRET, headers=headers)
        assert failed.status_code == 500
        client.post("/enhance", content=SECRET, headers={"X-Request-ID": "mine-8"})
        client.get("/nowhere/a-secret-path?key=a-secret-query")
        client.get("/healthz")
        engine, reason, outcome, refused, unmatched = lines(log)
    assert (engine["event"], engine["requests"]) == ("the engine failed", ["mine-7"])
    assert "RuntimeError: the device fell over" in engine["exception"]
    assert {line["request_id"] for line in (reason, outcome)} == {"mine-7"}
    assert reason["level"] == "error"
    told = ("request", "POST", "/enhance", 500)
    assert tuple(outcome[key] for key in ("event", "method", "route", "status")) == told
    assert 0 < outcome["seconds"] < 60
    assert (refused["request_id"], refused["status"]) == ("mine-8", 415)
    assert (unmatched["route"], unmatched["status"]) == ("unmatched", 404)
    assert "secret" not in log.getvalue()


def test_what_decoders_say_of_a_picture_is_not_in_the_log(serve, srcnn_card, log):
    """They warn, and log on their own; a job that fails is told with the kind of its error."""
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff" + SECRET
    warned = saved(Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    logged = tiff({277: (4, (6,)), 258: (3, (8,) * 6)})
    logger, handler = logging.getLogger(), make_handler("json", log)
    logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with (
            warnings.catch_warnings(),
            serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client,
        ):
            warnings.simplefilter("always")
            assert client.post("/enhance", content=warned).status_code == 200
            assert client.post("/enhance", content=logged).status_code == 422
            damaged = saved(Image.effect_noise((99, 99), 50), "PNG")[:5000]
            job = client.post(
                "/enhance", content=damaged, headers={"Prefer": "respond-async"}
            ).json()
            wait_until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "failed")
            logging.getLogger("tifffile").error("a tag of the picture")
            logging.getLogger("superres").info("the end")
    finally:
        logging.captureWarnings(False)
        logger.removeHandler(handler)
    told = log.getvalue()
    assert "the job failed: BadImage" in told
    assert "the end" in told
    for text in ("cannot be decoded", "truncated", "a tag of the picture", "EXIF"):
        assert text not in told


def test_for_people_it_is_a_line_with_the_same(serve, srcnn_card, log):
    stream = io.StringIO()
    handler = make_handler("console", stream)
    logging.getLogger("superres").addHandler(handler)
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        client.get("/models", headers={"X-Request-ID": "mine-9"})
    logging.getLogger("superres").removeHandler(handler)
    (line,) = [line for line in stream.getvalue().splitlines() if "mine-9" in line]
    for part in ("request ", "method=GET", "request_id=mine-9", "route=/models", "status=200"):
        assert part in line
    assert "\x1b" not in line  # colours are for terminals


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_services_log_is_json_uvicorns_lines_too(tmp_path):
    file = tmp_path / "log"
    settings = {"models": link_models(tmp_path / "models", "srcnn-x3"), "precision": "bfloat16"}
    with serve_process(log=file, log_format="json", device="cpu", **settings) as (client, _):
        client.get("/models", headers={"X-Request-ID": "mine-10"})
    told = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line["event"] for line in told]
    assert any(event.startswith("Uvicorn running on") for event in events)
    assert any(event.startswith("ready after") for event in events)
    (request,) = [line for line in told if line.get("request_id") == "mine-10"]
    assert (request["route"], request["status"]) == ("/models", 200)
    assert all(line["timestamp"] and line["level"] for line in told)
