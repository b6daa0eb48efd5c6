"""What the log says of a request, and what it never says."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from app.logs import DECODERS, configure, make_handler
from superres.codecs import decode
from superres.errors import BadImage
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.hostile import mutated
from tests.integration.test_jobs import order, wait
from tests.pictures import encoded
from tests.serving import link_models, serve_process

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


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the service would write to stdout, of every logger, and of warnings."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in DECODERS}
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr("sys.stdout", stream)
        configure("json")
        yield stream
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_no_decoder_says_anything_of_a_picture_in_the_log(configured: io.StringIO):
    """Their warnings quote the tags of damaged pictures."""
    warnings.warn("this line is there", stacklevel=1)
    refused = 0
    for number in range(500):
        with suppress(BadImage):
            decode(mutated(number), max_pixels=10**6)
            refused -= 1
        refused += 1
    assert refused > 100
    assert len(lines(configured)) == 1
    assert "this line is there" in configured.getvalue()


def test_why_the_picture_of_a_job_cannot_be_read_is_for_its_caller_alone(serve, srcnn_card, log):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    damaged = encoded(noise)[:9000]
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        failed = wait(client, order(client, damaged))
    assert failed["state"] == "failed"
    assert failed["problem"]["detail"].startswith("the picture cannot be decoded: ")
    (line,) = [line for line in lines(log) if "job" in str(line["event"])]
    assert line["event"] == "the job failed: BadImage"


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
    settings = {"models": link_models(tmp_path / "models", "srcnn-x3"), "precision": PRECISIONS[-1]}
    with serve_process(log=file, log_format="json", device="cpu", **settings) as (client, _):
        client.get("/models", headers={"X-Request-ID": "mine-10"})
    told = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line["event"] for line in told]
    assert any(event.startswith("Uvicorn running on") for event in events)
    assert any(event.startswith("ready after") for event in events)
    (request,) = [line for line in told if line.get("request_id") == "mine-10"]
    assert (request["route"], request["status"]) == ("/models", 200)
    assert all(line["timestamp"] and line["level"] for line in told)
