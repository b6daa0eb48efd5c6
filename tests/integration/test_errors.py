"""Each error of the contract, provoked over a real connection."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.access import make_key
from app.drain import serve as serve_until_the_end
from app.main import create_app
from app.settings import Settings
from superres.codecs import INPUT_FORMATS
from superres.errors import EngineError, ModelMismatch
from superres.models.card import ModelCard, write_card
from superres.models.registry import DEFAULT_MODELS
from tests.engines import BlurEngine
from tests.pictures import animated, bomb, chunk, plain
from tests.raw_files import exif_chunk
from tests.serving import free_port, link_models, wait_until, wait_until_ready


def assert_problem(answer, status: int, slug: str, says: str) -> None:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["type"] == f"urn:superres:problem:{slug}"
    assert says in problem["detail"]


@pytest.mark.parametrize(
    ("content", "status", "slug", "says"),
    [
        (b"", 422, "unreadable-image", "empty: 0 bytes"),
        (b"hello, world", 415, "unsupported-format", ", ".join(INPUT_FORMATS)),
        (plain()[:50], 422, "unreadable-image", "cannot be decoded"),
        (
            animated("GIF"),
            422,
            "animated-image",
            "one frame is accepted; this GIF has more than one",
        ),
        (bomb(), 422, "image-too-large", "at most 64,000,000 input pixels"),
    ],
)
@pytest.mark.parametrize("path", ["/enhance", "/compare"])
def test_a_body_that_is_no_picture_for_us(fake_service, path, content, status, slug, says):
    assert_problem(fake_service.post(path, content=content), status, slug, says)


@pytest.mark.parametrize(
    ("query", "slug", "says"),
    [
        ("scale=0.5", "bad-parameter", "scale: input should be greater than or equal to 1, not"),
        ("scale=4.5", "bad-parameter", "scale: input should be less than or equal to 4, not '4.5'"),
        ("scale=nan", "bad-parameter", "scale: "),
        ("scale=big", "bad-parameter", "not 'big'"),
        ("quality=0", "bad-parameter", "quality: input should be greater than or equal to 1"),
        ("format=gif", "bad-parameter", "'avif', 'jxl' or 'tiff', not 'gif'"),
        ("scael=2", "bad-parameter", "unknown parameter 'scael'"),
        (
            "model=esrgan",
            "unknown-model",
            "no model or family 'esrgan': there are bicubic, srcnn, srcnn-x2",
        ),
    ],
)
def test_a_parameter_that_is_not_allowed(fake_service, query, slug, says):
    assert_problem(fake_service.post(f"/enhance?{query}", content=plain()), 422, slug, says)


def test_comparing_needs_a_picture_large_enough_to_score(fake_service):
    answer = fake_service.post("/compare", content=plain(40, 16))
    assert_problem(answer, 422, "bad-parameter", "at least 17 px a side; the picture has 39x15")


@pytest.mark.parametrize(
    ("request_parts", "says"),
    [
        ({"files": {"picture": plain()}}, "fields sent: picture"),
        ({"data": {"file": "text"}, "files": {"x": b""}}, "fields sent: file, x"),
        ({"files": [("file", plain()), ("file", plain())]}, "Too many files"),
        (
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
            "Missing boundary",
        ),
    ],
)
def test_a_malformed_form(fake_service, request_parts, says):
    answer = fake_service.post("/enhance", **request_parts)
    assert_problem(answer, 400, "malformed-request", says)


def test_a_body_of_another_media_type(fake_service):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl --data-binary says
    answer = fake_service.post("/enhance", content=plain(), headers=headers)
    assert_problem(answer, 415, "unsupported-format", "Content-Type is 'application/x-www-form")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/enhance"), ("GET", "/compare"), ("GET", "/metrics")]
)
def test_an_answer_that_the_caller_does_not_accept(fake_service, method, path):
    content = plain() if method == "POST" else None
    answer = fake_service.request(method, path, content=content, headers={"Accept": "video/mp4"})
    assert_problem(answer, 406, "not-acceptable", "Accept is 'video/mp4'")


def test_unknown_paths_and_methods(fake_service):
    assert_problem(fake_service.get("/nothing"), 404, "not-found", "GET /nothing")
    answer = fake_service.put("/enhance")
    assert_problem(answer, 405, "method-not-allowed", "PUT /enhance")
    assert answer.headers["allow"] == "POST"


def test_too_many_bytes_declared_or_not(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, max_body_bytes=1000) as client:
        for content in (bytes(1001), iter([bytes(600)] * 2)):
            answer = client.post("/enhance", content=content)
            assert_problem(answer, 413, "body-too-large", "at most 1,000 bytes; this one has")
        answer = client.post("/enhance", files={"file": bytes(1000)})
        assert_problem(answer, 413, "body-too-large", "at most 1,000 bytes")


def test_a_refusal_reaches_those_who_send_the_whole_body_first(serve, srcnn_card: ModelCard):
    """As proxies do, for which it is an error if the service closes before it has taken all."""
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}, max_body_bytes=1_000) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=60) as connection:
            head = f"Host: localhost\r\nConnection: close\r\nContent-Length: {32 * 2**20}\r\n\r\n"
            connection.sendall(b"POST /enhance HTTP/1.1\r\n" + head.encode())
            for _ in range(32):
                connection.sendall(bytes(2**20))
            answer = connection.recv(2**16).decode()
        assert answer.startswith("HTTP/1.1 413 ")
        assert "at most 1,000 bytes" in answer
        assert client.post("/enhance", content=plain()).status_code == 200


def test_too_many_pixels_in_and_out_are_told_apart(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, max_input_pixels=200, max_output_pixels=1000) as client:
        answer = client.post("/enhance", content=plain(21, 10))
        assert_problem(answer, 422, "image-too-large", "200 input pixels are accepted; this")
        answer = client.post("/enhance", content=plain(20, 10))
        assert_problem(answer, 422, "image-too-large", "1,000 output pixels are made; 20x10")


def test_the_limit_on_output_pixels_is_for_the_upright_picture(serve, srcnn_card: ModelCard):
    """Also where EXIF tells behind the pixels that it is turned."""
    data = plain(20, 10)
    turned = data[:-12] + chunk(*exif_chunk(6)) + data[-12:]
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}, max_output_pixels=500) as client:
        assert client.post("/enhance", content=data, params={"width": 20}).status_code == 200
        for dry_run in (False, True):
            query = {"width": 20, "dry_run": dry_run}
            answer = client.post("/enhance", content=turned, params=query)
            assert_problem(answer, 422, "image-too-large", "10x20 to width 20 would have 800")
        first = turned[: turned.index(b"eXIf")]
        report = client.post("/enhance", content=first, params={"width": 20, "dry_run": True})
        assert (report.json()["input_width"], report.json()["input_height"]) == (20, 10)


class Stuck(BlurEngine):
    """A device that does not come back until it is let go."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card.geometry)
        self.go = threading.Event()
        self.calls = 0

    def predict(self, tiles):
        self.calls += 1
        self.go.wait(100)  # less than a test may take
        return super().predict(tiles)


def test_a_full_service_says_when_to_come_back_and_serves_the_rest(serve, srcnn_card: ModelCard):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}, max_requests=2) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/enhance", content=plain()) for _ in range(2)]
        wait_until(lambda: "superres_pictures_in_progress 2.0" in client.get("/metrics").text)
        assert client.get("/readyz").status_code == 200
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 503, "busy", "at most 2 pictures and")
        assert int(answer.headers["retry-after"]) >= 1
        engine.go.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert client.post("/enhance", content=plain()).status_code == 200


def test_a_device_that_fails_fails_only_the_request_at_hand(serve, srcnn_card: ModelCard):
    class Flaky(BlurEngine):
        failures = iter([EngineError("out of memory for one 32x32 tile"), RuntimeError("secret")])

        def predict(self, tiles):
            if failure := next(self.failures, None):
                raise failure
            return super().predict(tiles)

    with serve({srcnn_card.name: Flaky(srcnn_card.geometry)}) as client:
        assert_problem(
            client.post("/enhance", content=plain()), 500, "engine-failed", "out of memory"
        )
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 500, "engine-failed", "unforeseen way")
        assert "secret" not in answer.text
        assert client.post("/enhance", content=plain()).status_code == 200


@pytest.fixture
def tampered(tmp_path: Path, srcnn_card: ModelCard) -> Path:
    """A models folder with a copy of the shipped model."""
    shutil.copytree(DEFAULT_MODELS / srcnn_card.name, tmp_path / srcnn_card.name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_a_card_that_lies_ends_the_service(tampered, srcnn_card, tmp_path_factory, caplog):
    folder = tampered / srcnn_card.name
    geometry = srcnn_card.geometry.model_copy(update={"halo": 5})
    write_card(folder, srcnn_card.model_copy(update={"geometry": geometry}))
    jobs = tmp_path_factory.mktemp("jobs")
    name = srcnn_card.name
    app = create_app(Settings(device="cpu", models=tampered, default_model=name, jobs=jobs))
    with pytest.raises(SystemExit) as ended:
        serve_until_the_end(app, app.state.drain, host="127.0.0.1", port=0)
    assert ended.value.code == 1
    assert "the models cannot be served: " in caplog.text
    assert "the card says a halo of 5 px" in caplog.text


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_a_changed_file_is_refused_by_a_reload(serve, tampered, srcnn_card):
    key, entry = make_key("ops", admin=True)
    with serve(models=tampered, api_keys=entry) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        wait_until_ready(client)
        with (tampered / srcnn_card.name / "saved_model" / "saved_model.pb").open("ab") as changed:
            changed.write(b"!")
        refused = client.post("/admin/reload")
        assert_problem(refused, 409, "reload-failed", "the models stay as they are: srcnn-x3: ")
        assert client.post("/enhance", content=plain()).status_code == 200


def test_a_changed_file_stops_the_service_before_it_listens(serve, tampered, srcnn_card):
    with (tampered / srcnn_card.name / "saved_model" / "saved_model.pb").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelMismatch, match=r"saved_model\.pb has SHA-256"), serve(models=tampered):
        pass


@pytest.mark.slow
def test_the_command_listens_before_tensorflow_is_loaded_and_serves_once_it_is_ready(tmp_path):
    """`superres serve`, as a process of its own."""
    port = free_port()
    models = link_models(tmp_path / "models", "srcnn-x3")
    settings = {"MODELS": models, "JOBS": tmp_path / "jobs", "LOG_FORMAT": "json"}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("superres"), "serve", "--port", str(port)],
            stdout=log,
            cwd=tmp_path,
            env=os.environ | {f"SUPERRES_{name}": str(value) for name, value in settings.items()},
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=False) as client:
            wait_until_ready(client)
            assert client.get("/healthz").status_code == 200
            picture = client.post("/enhance", content=plain())
        with Image.open(io.BytesIO(picture.content)) as image:
            assert np.asarray(image).shape == (30, 60, 3)
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode in (0, -signal.SIGTERM)
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    listening, ready = (
        next(i for i, event in enumerate(events) if event.startswith(start))
        for start in ("Uvicorn running on", "ready after")
    )
    assert listening < ready
