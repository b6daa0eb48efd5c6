"""The Python client, against a real service."""

import asyncio
import importlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from httpx_retries import Retry

from app.errors import STATUS_AND_TYPE, describe_error
from app.service_errors import CallerGone, JobMissing
from app.web.samples import read_sample
from superres import errors
from superres.client import AsyncClient, Client
from superres.codecs import decode
from superres.models.card import ModelCard
from tests.engines import BlurEngine
from tests.integration.test_errors import Stuck
from tests.pictures import animated, bomb, encoded, plain
from tests.serving import wait_until


def test_importing_it_brings_in_nothing_heavy_and_nothing_of_the_service():
    script = (
        "import sys; from superres.client import Client;"
        "heavy = ('app', 'tensorflow', 'keras', 'fastapi', 'uvicorn', 'sqlalchemy', 'skimage',"
        "    'scipy', 'matplotlib', 'typer');"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_its_former_name_still_works_and_says_so():
    sys.modules.pop("app.client", None)
    with pytest.warns(DeprecationWarning, match=r"app\.client is now superres\.client"):
        former = importlib.import_module("app.client")
    assert (former.Client, former.AsyncClient) == (Client, AsyncClient)


def test_a_picture_is_enhanced_from_bytes_or_from_a_file(client: Client, chelsea, tmp_path: Path):
    file = tmp_path / "cat.jpg"
    file.write_bytes(encoded(chelsea, "JPEG", quality=95))
    answer = client.enhance(file, 2, format="webp", quality=80, proof=True)
    assert answer.media_type == "image/webp"
    assert answer.size == decode(answer.content).size == (600, 902)
    assert answer.model.startswith("srcnn-x2@")
    assert answer.gain_db > 0
    assert client.enhance(file.read_bytes(), 2).gain_db is None
    small = encoded(chelsea[:30, :40])
    assert client.enhance(small, ensemble=True).model.startswith("srcnn-x3+ensemble@")
    answer.save(tmp_path / "larger.webp")
    assert (tmp_path / "larger.webp").read_bytes() == answer.content


def test_comparisons_and_the_models_quality_come_typed(client: Client):
    sample = client.compare(sample="coffee", scale=3)
    assert sample == client.compare(encoded(read_sample("coffee")), 3)
    assert sample.gain_db > 0
    assert {"srcnn-x3", "srcnn-x2"} <= {one.model for one in client.metrics().models}


def test_the_same_calls_are_awaited(fake_service: httpx.Client, client: Client, chelsea):
    picture = encoded(chelsea[:90, :120])

    async def calls():
        async with AsyncClient(str(fake_service.base_url)) as awaited:
            return await asyncio.gather(
                awaited.enhance(picture, proof=True, fallback="auto"),
                awaited.compare(picture, 2),
                awaited.metrics(),
            )

    enhanced, compared, quality = asyncio.run(calls())
    assert enhanced.content == client.enhance(picture).content
    assert compared == client.compare(picture, 2)
    assert quality == client.metrics()


def test_a_large_picture_is_a_job_and_comes_out_the_same(
    fake_service, client: Client, chelsea, monkeypatch
):
    monkeypatch.setattr("superres.client.POLL_S", 0.1)
    picture = encoded(chelsea)
    before = jobs_of(fake_service)
    expected = client.enhance(picture, 2, format="jpeg", proof=True)
    jobs = requests_of(fake_service, "GET", "/jobs/{job_id}/result", 200)
    size = 600 * 902
    larger = Client(http=fake_service, job_pixels=size).enhance(
        picture, 2, format="jpeg", proof=True
    )
    assert replace(larger, request_id="") == replace(expected, request_id="")
    assert larger.request_id != expected.request_id
    assert requests_of(fake_service, "GET", "/jobs/{job_id}/result", 200) == jobs + 1
    Client(http=fake_service, job_pixels=size + 1).enhance(picture, 2)
    assert requests_of(fake_service, "GET", "/jobs/{job_id}/result", 200) == jobs + 1
    with pytest.raises(errors.UnsupportedFormat):
        Client(http=fake_service, job_pixels=0).enhance(b"hello")
    with pytest.raises(errors.BadImage, match="cannot be decoded"):
        Client(http=fake_service, job_pixels=0).enhance(picture[:50_000])

    async def awaited():
        async with AsyncClient(str(fake_service.base_url), job_pixels=0) as awaited:
            return await awaited.enhance(picture, 2, format="jpeg")

    assert asyncio.run(awaited()).content == expected.content
    assert jobs_of(fake_service) == before


def jobs_of(service: httpx.Client) -> list[str]:
    return [line for line in service.get("/metrics").text.splitlines() if "superres_jobs{" in line]


def requests_of(service: httpx.Client, method: str, route: str, status: int) -> float:
    labels = f'superres_requests_total{{method="{method}",route="{route}",status="{status}"}} '
    lines = [line for line in service.get("/metrics").text.splitlines() if line.startswith(labels)]
    return float(lines[0].removeprefix(labels)) if lines else 0.0


@contextmanager
def breaking(service: httpx.Client, every: int) -> Iterator[tuple[str, list[bytes]]]:
    """A line to a service that breaks after so many bytes of a result: its URL, and what was asked.

    The heads of the requests for results are noted.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def relay(near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", service.base_url.port))
        passed, ends = None, {near: far, far: near}
        with near, far:
            while True:
                for end in select.select(list(ends), [], [], 30)[0]:
                    data = end.recv(8192)
                    if end is near and data.startswith((b"GET", b"POST", b"DELETE")):
                        passed = None
                        if b"/result" in data.partition(b"\r\n")[0]:
                            asked.append(data)
                            passed = 0
                    if end is far and passed is not None:
                        passed += len(data)
                    if not data or (passed is not None and passed > every):
                        return
                    ends[end].sendall(data)

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=relay, args=[listener.accept()[0]], daemon=True).start()

    with listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_result_that_breaks_off_is_resumed_and_only_then_the_job_is_removed(
    fake_service, client: Client, chelsea, monkeypatch, awaited
):
    monkeypatch.setattr("superres.client.POLL_S", 0.05)
    picture = encoded(chelsea[:150, :200])
    expected = client.enhance(picture, 3)
    before = jobs_of(fake_service)
    each = len(expected.content) // 3

    async def await_it(url: str):
        async with AsyncClient(url, job_pixels=0) as one:
            return await one.enhance(picture, 3)

    with breaking(fake_service, each) as (url, asked):
        if awaited:
            answer = asyncio.run(await_it(url))
        else:
            with Client(url, job_pixels=0) as one:
                answer = one.enhance(picture, 3)
    assert replace(answer, request_id="") == replace(expected, request_id="")
    assert len(asked) >= 3
    assert b"range" not in asked[0].lower()
    assert all(b"\r\nrange: bytes=" in one.lower() for one in asked[1:])
    assert jobs_of(fake_service) == before


def test_a_job_whose_result_cannot_be_fetched_is_kept(fake_service, chelsea, monkeypatch):
    monkeypatch.setattr("superres.client.POLL_S", 0.05)
    picture = encoded(chelsea[:150, :200])
    with (
        breaking(fake_service, 1000) as (url, asked),
        Client(url, job_pixels=0, retries=2) as one,
        pytest.raises(errors.Unavailable, match="no answer") as broken,
    ):
        one.enhance(picture, 3)
    assert len(asked) >= 3
    (path,) = (note.removeprefix("the job is kept: ") for note in broken.value.__notes__)
    assert fake_service.get(f"{path}/result").status_code == 200
    fake_service.delete(path)


HTML = {"headers": {"Content-Type": "text/html"}, "text": "<h1>nginx</h1>"}
JOB_ID = str(uuid4())


def job_in(state: str, problem: dict | None = None) -> dict:
    """The JSON of GET /jobs/ID, and of the answer to POST /enhance."""
    progress = {"stage": "infer", "tiles_done": 0, "tiles": 1}
    report = {"id": JOB_ID, "state": state, "progress": progress, "problem": problem}
    times = {"created": 1, "started": 1, "ended": None, "timings": {}}
    return {**report, **times, "attempts": 1, "result": None}


def problem_of(kind: type[errors.SuperresError]) -> dict:
    """The answer of the service that such an error is."""
    problem = describe_error(kind("why"), "id")
    return {"json": problem, "status_code": problem["status"]}


def enhance_as_a_job(awaited: bool, *polls: dict, retries: int = 0) -> list[str]:
    """What a client asks after a job is accepted; the polls are answered so, the last for ever.

    Errors leave this with the calls as their last note.
    """
    calls: list[str] = []
    answers = iter(polls)
    last: dict = {}

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal last
        calls.append(f"{request.method} {request.url.path}".replace(JOB_ID, "ID"))
        if request.method == "POST":
            return httpx.Response(202, json=job_in("waiting"))
        if request.method == "DELETE":
            return httpx.Response(204)
        last = next(answers, last)
        return httpx.Response(**last)

    async def await_it() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(base_url="http://proxy", transport=transport) as http:
            await AsyncClient(http=http, job_pixels=0, retries=retries).enhance(plain())

    try:
        if awaited:
            asyncio.run(await_it())
        else:
            transport = httpx.MockTransport(answer)
            with httpx.Client(base_url="http://proxy", transport=transport) as http:
                Client(http=http, job_pixels=0, retries=retries).enhance(plain())
    except BaseException as error:
        error.add_note(", ".join(calls))
        raise
    return calls


RUNNING, DONE = ({"status_code": 200, "json": job_in(state)} for state in ("running", "done"))


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("before", [RUNNING, DONE], ids=["the job", "its result"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status_code": 502, **HTML}, errors.Unavailable),
        ({"status_code": 503, **HTML}, errors.Unavailable),
        ({"status_code": 504, **HTML}, errors.Unavailable),
        ({"status_code": 429, **HTML}, errors.Unavailable),
        ({"status_code": 500, **HTML}, errors.SuperresError),
        (problem_of(errors.TooManyRequests), errors.TooManyRequests),
        (problem_of(errors.NotReady), errors.NotReady),
        (problem_of(errors.Busy), errors.Busy),
        (problem_of(errors.DeadlineExceeded), errors.DeadlineExceeded),
        (problem_of(errors.Unauthorized), errors.Unauthorized),
        (problem_of(errors.ModelError), errors.SuperresError),
    ],
)
def test_a_job_that_has_not_failed_is_kept_on_any_error(monkeypatch, answer, kind, before, awaited):
    monkeypatch.setattr("superres.client.POLL_S", 0)
    with pytest.raises(errors.SuperresError) as raised:
        enhance_as_a_job(awaited, before, answer)
    assert type(raised.value) is kind
    *_, kept, calls = raised.value.__notes__
    assert kept == f"the job is kept: /jobs/{JOB_ID}"
    assert calls.startswith("POST /enhance, GET /jobs/ID, GET /jobs/ID")
    assert "DELETE" not in calls


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("kind", [errors.DeadlineExceeded, errors.Busy, errors.BadImage])
def test_a_job_that_has_failed_is_removed_and_its_error_raised(monkeypatch, kind, awaited):
    monkeypatch.setattr("superres.client.POLL_S", 0)
    failed = {"status_code": 200, "json": job_in("failed", describe_error(kind("why"), "of it"))}
    with pytest.raises(errors.SuperresError, match="why") as raised:
        enhance_as_a_job(awaited, failed, problem_of(kind))
    assert type(raised.value) is kind
    told, calls = raised.value.__notes__
    assert told.endswith("request of it")
    assert calls == "POST /enhance, GET /jobs/ID, DELETE /jobs/ID"


@pytest.mark.parametrize("awaited", [False, True])
def test_of_a_job_that_is_not_there_none_is_said_to_be_kept(monkeypatch, awaited):
    monkeypatch.setattr("superres.client.POLL_S", 0)
    with pytest.raises(errors.BadRequest, match="why") as raised:
        enhance_as_a_job(awaited, problem_of(JobMissing))
    told, calls = raised.value.__notes__
    assert told == "404 urn:superres:problem:unknown-job, request id"
    assert calls == "POST /enhance, GET /jobs/ID"


def test_ctrl_c_removes_the_job(monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("superres.client.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        enhance_as_a_job(False, RUNNING)
    assert raised.value.__notes__ == ["POST /enhance, DELETE /jobs/ID"]


@contextmanager
def answering(status: int, times: int, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy without a service: its URL, and the calls. After ``times`` answers, it says 404."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            calls.append(self.command)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status if len(calls) <= times else 404)
            for name, value in ({"Content-Length": "0"} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", calls
        server.shutdown()


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    ("status", "call", "repeated"),
    [
        (502, {}, True),
        (503, {}, True),
        (504, {}, True),
        (500, {}, False),
        (502, {"picture": True}, True),
        (504, {"picture": True}, False),  # the service may still work on it
        (504, {"picture": True, "as_job": True}, True),
        (504, {"content_type": "application/problem+json"}, False),  # the service's own
    ],
)
def test_a_call_is_made_again_if_a_proxy_has_no_answer(
    monkeypatch, status, call, repeated, awaited
):
    monkeypatch.setattr(Retry, "backoff_strategy", lambda self: 0.0)
    headers = {"Content_Type": call.get("content_type", "text/html")}
    pixels = 0 if call.get("as_job") else 10**9

    async def await_it(url: str) -> None:
        async with AsyncClient(url, retries=2, job_pixels=pixels) as client:
            await (client.enhance(plain()) if "picture" in call else client.metrics())

    def do_it(url: str) -> None:
        with Client(url, retries=2, job_pixels=pixels) as client:
            client.enhance(plain()) if "picture" in call else client.metrics()

    for times, answered in ((1, 404 if repeated else status), (9, status)):
        with (
            answering(status, times, **headers) as (url, calls),
            pytest.raises(errors.SuperresError, match=f"answered {answered}"),
        ):
            asyncio.run(await_it(url)) if awaited else do_it(url)
        assert len(calls) == ((2 if times == 1 else 3) if repeated else 1)


def test_the_seconds_of_a_proxy_are_taken_and_its_dates_are_not():
    for given, expected in (("7", 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 1), ("", 1)):
        response = httpx.Response(503, headers={"Retry-After": given}, text="<h1>nginx</h1>")
        transport = httpx.MockTransport(lambda request, response=response: response)
        with (
            httpx.Client(base_url="http://proxy", transport=transport) as http,
            pytest.raises(errors.Unavailable) as raised,
        ):
            Client(http=http).metrics()
        assert raised.value.retry_after == expected


def test_who_stops_waiting_for_a_job_cancels_it(serve, srcnn_card: ModelCard):
    engine = Stuck(srcnn_card)

    async def stop_waiting(url: str) -> None:
        async with AsyncClient(url, job_pixels=0) as client:
            waiting = asyncio.create_task(client.enhance(plain()))
            while not engine.calls:  # bounded by pytest-timeout
                await asyncio.sleep(0.02)
            waiting.cancel()
            await waiting

    with serve({srcnn_card.name: engine}) as service:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(stop_waiting(str(service.base_url)))
        engine.go.set()
        assert requests_of(service, "DELETE", "/jobs/{job_id}", 204) == 1
        assert 'superres_jobs{state="running"} 0.0' in service.get("/metrics").text


@pytest.mark.parametrize(
    ("picture", "parameters", "kind", "says"),
    [
        (b"hello", {}, errors.UnsupportedFormat, "not a picture in a format"),
        (b"", {}, errors.BadImage, "empty: 0 bytes"),
        (animated("GIF"), {}, errors.AnimatedImage, "this GIF has more than one"),
        (bomb(), {}, errors.ImageTooLarge, "at most 64,000,000 input pixels"),
        (plain(), {"scale": 9}, errors.BadRequest, "less than or equal to 4, not '9'"),
        (plain(), {"model": "magic"}, errors.ModelMissing, "no model or family 'magic'"),
        (plain(), {"scale": 1.2, "proof": True}, errors.BadRequest, "1.5 to 4, not 1.2"),
    ],
)
def test_a_refusal_is_raised_as_the_service_raised_it(
    client: Client, picture, parameters, kind, says
):
    with pytest.raises(errors.SuperresError, match=says) as refusal:
        client.enhance(picture, **parameters)
    assert type(refusal.value) is kind
    assert "request " in refusal.value.__notes__[0]


@pytest.mark.parametrize("kind", STATUS_AND_TYPE, ids=lambda kind: kind.__name__)
def test_every_problem_of_the_service_has_a_class_in_the_client(kind):
    """Its own, or the base class of one that only the service has."""
    if kind is CallerGone:
        return  # nobody gets its answer
    response = describe_error(kind("why"), "id")
    transport = httpx.MockTransport(
        lambda request: httpx.Response(response["status"], json=response)
    )
    with (
        httpx.Client(base_url="http://service", transport=transport) as http,
        pytest.raises(errors.SuperresError, match="why") as raised,
    ):
        Client(http=http).metrics()
    if kind is errors.ModelError:  # an internal error can be any
        assert type(raised.value) is errors.SuperresError
    elif kind.__module__ == "superres.errors":
        assert type(raised.value) is kind
    else:
        assert type(raised.value) in kind.__mro__[1:]
        assert type(raised.value) is not errors.SuperresError


def test_too_many_bytes_are_refused_by_name(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with (
        serve(engines, max_body_bytes=10) as service,
        pytest.raises(errors.BodyTooLarge, match="at most 10 bytes"),
    ):
        Client(http=service).enhance(plain())


@pytest.mark.slow
def test_a_busy_service_is_asked_again_when_it_said(serve, srcnn_card: ModelCard):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}, max_requests=1) as service, ThreadPoolExecutor() as pool:
        url = str(service.base_url)
        first = pool.submit(Client(http=service).enhance, plain())
        wait_until(lambda: "superres_pictures_in_progress 1.0" in service.get("/metrics").text)
        with Client(url, retries=0) as impatient:
            with pytest.raises(errors.Busy, match="at most 1 pictures") as busy:
                impatient.enhance(plain())
            assert busy.value.retry_after >= 1
        started = time.monotonic()
        with Client(url, retries=3) as patient:
            second = pool.submit(patient.enhance, plain())
            wait_until(lambda: requests_of(service, "POST", "/enhance", 503) == 2)
            engine.go.set()
            assert second.result().size == (30, 60)
        assert time.monotonic() - started >= busy.value.retry_after
        assert first.result().size == (30, 60)


def test_a_service_that_is_not_there_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        Client(url, retries=1) as client,
        pytest.raises(errors.Unavailable, match=f"no answer from {url}"),
    ):
        client.enhance(plain())


def test_what_is_not_the_service_is_told_so():
    page = httpx.MockTransport(lambda request: httpx.Response(502, text="<h1>Bad gateway</h1>"))
    with (
        httpx.Client(base_url="http://proxy", transport=page) as http,
        pytest.raises(errors.Unavailable, match="answered 502, and not as the service does"),
    ):
        Client(http=http).metrics()
