"""Callbacks of jobs, sent to a real server on loopback: one that answers, hangs, fails or lies."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

from app.jobs import webhooks
from app.settings import Settings
from superres.errors import EngineError
from superres.models.card import ModelCard
from superres.webhooks import verify
from tests.integration.test_callers import gauge
from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import ASYNC, Device, path, wait
from tests.pictures import plain
from tests.serving import free_port, link_models, serve_app, serve_process

SECRET = "whsec_" + "c2VjcmV0" * 4
OLD_SECRET = "whsec_" + "b2xkLW9u" * 4


class Receiver(ThreadingHTTPServer):
    """A server that answers as the path says, and notes what it was sent."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.go = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def sent(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for at, headers, body in self.requests if at == path]

    def close(self) -> None:
        self.go.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_) -> None:
        """A caller that leaves is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        before = len(self.server.sent(self.path))
        self.server.requests.append((self.path, dict(self.headers), body))
        kind = self.path.split("/")[1]
        if kind == "hang":
            self.server.go.wait(60)
            return
        status = {"flaky": 500 if before == 0 else 200, "down": 503, "gone": 410, "redirect": 307}
        self.send_response(status.get(kind, 200))
        if kind == "redirect":
            self.send_header("Location", "/target")
        self.end_headers()
        if kind == "endless":
            with open("/dev/zero", "rb") as zeros:
                while True:
                    self.wfile.write(zeros.read(65536))
                    before += 1
                    self.server.go.wait(0.001)

    do_GET = do_POST  # noqa: N815 the name is the library's

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def shared_device(srcnn_card: ModelCard) -> Device:
    return Device(srcnn_card)


@pytest.fixture
def device(shared_device: Device) -> Iterator[Device]:
    yield shared_device
    shared_device.reset()


@contextmanager
def quick(**values: object) -> Iterator[None]:
    """Inside, little is waited for."""
    values = {
        "POLL_S": 0.05,
        "RETRYING": AsyncRetrying(stop=stop_after_attempt(3), wait=wait_fixed(0.05)),
    } | values
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(webhooks, name, value)
        yield


PORT = free_port()
"""Of the receivers that the shared service may call; a test has one at a time."""


@pytest.fixture(scope="module")
def calling(shared_device: Device, srcnn_card: ModelCard) -> Iterator[httpx.Client]:
    """A service that may call the receiver."""
    settings = Settings(
        device="cpu",
        callback_hosts=f"127.0.0.1:{PORT}, localhost:{PORT}, example.org",
        callback_secret=f"{SECRET},{OLD_SECRET}",
    )
    with quick(), serve_app(settings, {srcnn_card.name: shared_device}) as client:
        yield client


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    receiver = None
    for _ in range(100):  # another test's connection may have the port for a moment
        with suppress(OSError):
            receiver = Receiver(PORT)
            break
        time.sleep(0.3)
    assert receiver is not None, f"port {PORT} stays taken"
    yield receiver
    receiver.close()


def order(client: httpx.Client, url: str) -> dict[str, object]:
    answer = client.post("/enhance", params={"callback": url}, content=plain(), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.json()


def wait_until(happened: Callable[[], object]) -> None:
    """As that of :mod:`tests.serving`, for what is asked over HTTP."""
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def url(path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{PORT}{path}"


def count(client: httpx.Client, outcome: str) -> float:
    return gauge(client, f'superres_callbacks_total{{outcome="{outcome}"}}')


def counted(client: httpx.Client) -> Callable[[], dict[str, int]]:
    before = {name: count(client, name) for name in ("delivered", "failed", "given_up")}
    return lambda: {name: int(count(client, name) - was) for name, was in before.items()}


def test_the_end_of_a_job_is_reported_with_its_status_signed(calling, hooks):
    since = counted(calling)
    job = order(calling, url("/ok?token=1"))
    status = wait(calling, job)
    wait_until(lambda: since()["delivered"] == 1)
    ((headers, body),) = hooks.sent("/ok?token=1")
    assert json.loads(body) == status
    assert status["state"] == "done"
    assert headers["webhook-id"] == job["id"]
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("superres/")
    for secret in (SECRET, OLD_SECRET):
        verify(headers, body, secret)
    assert gauge(calling, "superres_callbacks_unsent") == 0


def test_so_is_its_failure_and_by_a_form_too(calling, hooks, device):
    device.failure = EngineError("broken")
    fields = {"callback": url("/ok")}
    answer = calling.post("/enhance", data=fields, files={"file": plain()}, headers=ASYNC)
    wait_until(lambda: hooks.sent("/ok"))
    ((_, body),) = hooks.sent("/ok")
    assert json.loads(body) == calling.get(answer.headers["location"]).json()
    assert json.loads(body)["problem"]["type"].endswith("engine-failed")


def test_what_fails_is_sent_again_the_same_but_for_its_time(calling, hooks):
    since = counted(calling)
    order(calling, url("/flaky"))
    wait_until(lambda: since()["delivered"] == 1)
    assert since() == {"delivered": 1, "failed": 1, "given_up": 0}
    (first, body), (second, again) = hooks.sent("/flaky")
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    verify(second, again, SECRET)


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [
        pytest.param("down", 3, marks=pytest.mark.slow),
        ("redirect", 3),
        pytest.param("gone", 1, marks=pytest.mark.slow),
    ],
)
def test_no_redirect_is_followed_and_what_never_succeeds_is_given_up(
    calling, hooks, kind, attempts, caplog
):
    since = counted(calling)
    order(calling, url(f"/{kind}/s3cret"))
    wait_until(lambda: since()["given_up"] == 1)
    assert since() == {"delivered": 0, "failed": attempts - 1, "given_up": 1}
    assert len(hooks.requests) == attempts  # none of them at /target
    assert gauge(calling, "superres_callbacks_unsent") == 0
    said = " ".join(one.getMessage() for one in caplog.records if one.name == "superres")
    assert "to 127.0.0.1, attempt" in said
    assert "it is given up" in said
    assert "s3cret" not in said


@pytest.mark.slow
def test_nobody_listens(calling):
    since = counted(calling)
    order(calling, url("/ok"))
    wait_until(lambda: since()["given_up"] == 1)
    assert since()["failed"] == 2


def test_a_receiver_that_hangs_holds_up_no_job_and_no_other_receiver(calling, hooks):
    """Names are lanes: 127.0.0.1 hangs, and localhost does not."""
    since = counted(calling)
    hanging = [order(calling, url("/hang")) for _ in range(3)]
    wait_until(lambda: hooks.sent("/hang"))
    for _ in range(3):
        wait(calling, order(calling, url("/ok", "localhost")))
    wait_until(lambda: len(hooks.sent("/ok")) == 3)
    for job in hanging:
        assert wait(calling, job)["state"] == "done"
    assert len(hooks.sent("/hang")) == 1  # one at a time
    hooks.go.set()
    wait_until(lambda: since()["given_up"] == 3)


@pytest.mark.slow
def test_a_receiver_that_never_answers_is_left_after_a_time(serve, srcnn_card, receiver):
    hosts = f"127.0.0.1:{receiver.server_port}"
    with (
        quick(WHOLE_S=0.3),
        serve(
            {srcnn_card.name: Device(srcnn_card)}, callback_hosts=hosts, callback_secret=SECRET
        ) as client,
    ):
        order(client, f"http://{hosts}/hang")
        wait_until(lambda: count(client, "given_up") == 1)
        assert len(receiver.sent("/hang")) == 3
        # Of an answer without an end, the head is read.
        order(client, f"http://{hosts}/endless")
        wait_until(lambda: count(client, "delivered") == 1)


@pytest.mark.slow
def test_a_stop_does_not_wait_for_receivers_and_loses_nothing(srcnn_card, tmp_path: Path, receiver):
    settings = Settings(
        device="cpu",
        jobs=tmp_path,
        callback_hosts=f"127.0.0.1:{receiver.server_port}",
        callback_secret=SECRET,
    )
    engines = {srcnn_card.name: Device(srcnn_card)}
    with quick(LEASE_S=0.5):
        with serve_app(settings, engines) as client:
            job = order(client, f"http://127.0.0.1:{receiver.server_port}/hang")
            wait_until(lambda: receiver.sent("/hang"))
            began = time.monotonic()
        assert time.monotonic() - began < 9  # the receiver hangs for 60 s, a request lasts 15 s
        receiver.go.set()
        hanging = receiver.sent("/hang")
        with serve_app(settings, engines):
            wait_until(lambda: len(receiver.sent("/hang")) > len(hanging))
        assert {headers["webhook-id"] for headers, _ in receiver.sent("/hang")} == {job["id"]}


@pytest.mark.slow
def test_a_host_that_is_no_longer_allowed_is_not_called(srcnn_card, tmp_path: Path, receiver):
    there = f"127.0.0.1:{receiver.server_port}"
    engines = {srcnn_card.name: Device(srcnn_card)}
    of = {"device": "cpu", "jobs": tmp_path, "callback_secret": SECRET}
    for_ever = AsyncRetrying(stop=stop_after_attempt(10**6), wait=wait_fixed(0.2))
    with quick(LEASE_S=0.1, RETRYING=for_ever):
        with serve_app(Settings(callback_hosts=there, **of), engines) as client:
            order(client, f"http://{there}/down")
            wait_until(lambda: receiver.sent("/down"))
        sent = len(receiver.requests)
        with serve_app(Settings(callback_hosts="example.org", **of), engines) as client:
            wait_until(lambda: count(client, "given_up") == 1)
            wait_until(lambda: gauge(client, "superres_callbacks_unsent") == 0)
        assert len(receiver.requests) == sent


def test_a_callback_that_is_not_allowed_is_told_before_the_body_and_makes_no_job(calling):
    before = calling.get("/jobs").json()
    for bad in ("https://evil.example/", "http://example.org/", "http://169.254.169.254/", "x"):
        answer = calling.post(
            "/enhance", params={"callback": bad}, content=b"no picture", headers=ASYNC
        )
        assert_problem(answer, 422, "bad-parameter", "callback: ")
        form = calling.post(
            "/enhance", data={"callback": bad}, files={"file": plain()}, headers=ASYNC
        )
        assert_problem(form, 422, "bad-parameter", "callback: ")
    no_job = calling.post("/enhance", params={"callback": "https://example.org/"}, content=plain())
    assert_problem(no_job, 422, "bad-parameter", "'Prefer: respond-async'")
    assert calling.get("/jobs").json() == before


@pytest.mark.slow
def test_by_default_nobody_is_called(fake_service):
    answer = fake_service.post(
        "/enhance", params={"callback": "http://127.0.0.1/"}, content=plain(), headers=ASYNC
    )
    assert_problem(answer, 422, "bad-parameter", "SUPERRES_CALLBACK_HOSTS")


def test_a_job_that_is_removed_before_its_end_calls_nobody(calling, hooks, device):
    device.go.clear()
    job = order(calling, url("/ok"))
    wait(calling, job, "running")
    calling.delete(path(job))
    device.go.set()
    other = order(calling, url("/ok"))
    wait_until(lambda: hooks.requests)
    assert [headers["webhook-id"] for headers, _ in hooks.sent("/ok")] == [other["id"]]


@pytest.mark.slow
def test_the_log_of_a_service_has_neither_secrets_nor_urls(tmp_path: Path, receiver):
    there = f"127.0.0.1:{receiver.server_port}"
    log = tmp_path / "log"
    with serve_process(
        log=log,
        device="cpu",
        default_model="bicubic",
        models=link_models(tmp_path / "models", "srcnn-x3"),
        callback_hosts=there,
        callback_secret=SECRET,
    ) as (client, _):
        for kind in ("ok", "gone"):
            order(client, f"http://{there}/{kind}/s3cret?t=0ken")
            wait_until(lambda kind=kind: receiver.sent(f"/{kind}/s3cret?t=0ken"))
        wait_until(lambda: "it is given up" in log.read_text())
    said = log.read_text()
    for secret in ("s3cret", "0ken", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in said
