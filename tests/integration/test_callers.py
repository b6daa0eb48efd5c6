"""Slow callers, broken callers, callers who leave: none of them is waited for by the others."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import numpy as np
import pytest

from app.api.responses import PatientResponse
from app.settings import Settings
from superres.codecs import probe
from superres.forecast import forecast
from superres.models.card import ModelCard
from tests.engines import BlurEngine, SharpenEngine
from tests.integration.test_errors import Stuck, assert_problem
from tests.pictures import encoded, plain
from tests.serving import serve_app, wait_until, wait_until_ready


class Slow(BlurEngine):
    """A device that takes a moment for every call, and counts them."""

    def __init__(self, card: ModelCard, seconds: float) -> None:
        super().__init__(card.geometry)
        self.seconds = seconds
        self.calls = 0

    def predict(self, tiles):
        self.calls += 1
        time.sleep(self.seconds)
        return super().predict(tiles)


@pytest.fixture
def large() -> bytes:
    """A picture of many tiles at x4, that takes few bytes."""
    return encoded(np.zeros((1200, 1200, 3), np.uint8))


@pytest.fixture
def noise() -> bytes:
    """A picture whose answer is longer than what the kernel takes off a sender's hands."""
    return encoded(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8))


LARGE_ANSWER = b"/enhance?scale=4&format=tiff"
"""What makes 15 MB of it."""


@pytest.fixture(scope="module")
def impatient(srcnn_card: ModelCard) -> Iterator[httpx.Client]:
    """A service that does not wait long for the next part of a body or an answer."""
    settings = Settings(device="cpu", idle_timeout_s=2)
    with serve_app(settings, {srcnn_card.name: SharpenEngine(srcnn_card.geometry)}) as client:
        wait_until_ready(client)
        yield client


@contextmanager
def connected(client: httpx.Client):
    with closing(socket.socket()) as connection:
        connection.settimeout(60)
        # Otherwise the kernel takes whole answers for a caller who reads nothing.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.connect(("127.0.0.1", client.base_url.port))
        yield connection


def head(length: int | None, *more: str) -> bytes:
    lines = ["POST /enhance HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", *more]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def gauge(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def wait_until_idle(client: httpx.Client, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    names = ("superres_pictures_in_progress", "superres_queue_tiles", "superres_reserved_bytes")
    while any(gauge(client, name) for name in names):
        assert time.monotonic() < until, client.get("/metrics").text
        time.sleep(0.02)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and JSON of what a connection answers before it is closed."""
    data = b""
    while part := connection.recv(65_536):
        data += part
        heading, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in heading.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        if len(body) >= length:
            return int(heading.split()[1]), json.loads(body)
    raise ConnectionError(f"closed after {data!r}")


def test_a_caller_who_hangs_up_stops_the_work_between_tiles(serve, srcnn_card, large):
    engine = Stuck(srcnn_card)
    hung_up = 'superres_requests_total{method="POST",route="/enhance",status="499"} 1.0'
    with serve({srcnn_card.name: engine}) as client:
        with connected(client) as connection:
            connection.sendall(head(len(large)).replace(b"/enhance", b"/enhance?scale=4") + large)
            wait_until(lambda: engine.calls)
        wait_until(lambda: hung_up in client.get("/metrics").text)
        engine.go.set()
        wait_until_idle(client)
        assert engine.calls == 1  # of more than 25


def test_past_the_callers_own_deadline_the_work_stops_and_the_next_is_served(
    serve, srcnn_card, large
):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}) as client:
        answer = client.post(
            "/enhance", content=large, params={"scale": 4}, headers={"X-Deadline-Ms": "500"}
        )
        assert_problem(answer, 504, "deadline-exceeded", "had 0.5 s")
        engine.go.set()
        wait_until_idle(client)
        assert engine.calls <= 1  # of more than 25
        assert client.post("/enhance", content=plain()).status_code == 200


def test_the_servers_deadline_is_the_longest(serve, srcnn_card):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}, deadline_s=0.3) as client:
        for asked in ({}, {"X-Deadline-Ms": "3600000"}):
            answer = client.post("/enhance", content=plain(), headers=asked)
            assert_problem(answer, 504, "deadline-exceeded", "had 0.3 s")
        engine.go.set()


@pytest.mark.parametrize("value", ["0", "-5", "soon"])
def test_a_deadline_that_is_none_is_refused(fake_service, value):
    answer = fake_service.post("/enhance", content=plain(), headers={"X-Deadline-Ms": value})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("X-Deadline-Ms: ")


def test_a_dry_run_tells_what_it_would_take_and_takes_nothing(serve, srcnn_card, large):
    engine = Slow(srcnn_card, 0.0)
    with serve({srcnn_card.name: engine}, max_memory_bytes=200_000_000) as client:
        report = client.post("/enhance", content=large, params={"dry_run": True, "scale": 2}).json()
        assert (report["input_width"], report["output_height"]) == (1200, 2400)
        assert (report["bits"], report["source_format"], report["tiles"]) == (8, "png", 81)
        assert report["accepted"] is True
        assert engine.calls == 0
        # And what is never possible is refused as it would be.
        answer = client.post("/enhance", content=large, params={"dry_run": True, "scale": 4})
        assert answer.json()["type"] == "urn:superres:problem:image-too-large"
        assert "at most 200,000,000 bytes of memory" in answer.json()["detail"]


def test_memory_bounds_what_runs_at_once(serve, srcnn_card):
    engine = Stuck(srcnn_card)
    picture = encoded(np.zeros((300, 300, 3), np.uint8))
    peak = forecast(probe(picture), len(picture), 3, srcnn_card.geometry).peak_bytes
    with (
        serve({srcnn_card.name: engine}, max_memory_bytes=round(1.9 * peak)) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        call = {"content": picture, "params": {"scale": 3}}
        first = pool.submit(client.post, "/enhance", **call)
        wait_until(lambda: engine.calls)
        busy = client.post("/enhance", **call)
        assert busy.status_code == 503
        assert "bytes are taken, and this one needs" in busy.json()["detail"]
        dry = client.post("/enhance", content=picture, params={"scale": 3, "dry_run": True}).json()
        assert dry["accepted"] is False
        assert dry["retry_after"] >= 1
        beside = pool.submit(client.post, "/enhance", content=plain())
        wait_until(lambda: gauge(client, "superres_pictures_in_progress") == 2)
        engine.go.set()
        assert beside.result().status_code == 200
        assert first.result().status_code == 200
        wait_until_idle(client)


@pytest.mark.slow
def test_a_body_that_trickles_in_is_given_up(impatient):
    with connected(impatient) as slow:
        slow.sendall(head(len(plain())))
        answered = threading.Event()

        def trickle() -> None:
            with suppress(OSError):  # the service may close the connection once it has answered
                for byte in plain():
                    slow.sendall(bytes([byte]))
                    if answered.wait(0.1):
                        return

        sender = threading.Thread(target=trickle)
        sender.start()
        status, problem = answer_of(slow)
        answered.set()
        sender.join()
    assert (status, problem["type"]) == (408, "urn:superres:problem:body-too-slow")
    wait_until_idle(impatient)


@pytest.mark.slow
def test_a_body_may_take_as_long_as_it_needs_while_it_goes_on(impatient, noise):
    with connected(impatient) as connection:
        connection.sendall(head(len(noise)).replace(b"/enhance", b"/enhance?dry_run=true"))
        parts = np.array_split(np.frombuffer(noise, np.uint8), 6)
        for part in parts:
            connection.sendall(part.tobytes())
            time.sleep(0.5)  # the six of them are longer than the longest pause
        assert answer_of(connection)[0] == 200
    wait_until_idle(impatient)


def test_a_callers_own_deadline_ends_the_wait_for_his_body(impatient):
    with connected(impatient) as connection:
        connection.sendall(head(5_000_000, "X-Deadline-Ms: 200") + bytes(1000))
        status, problem = answer_of(connection)
    assert (status, problem["type"]) == (504, "urn:superres:problem:deadline-exceeded")
    assert "had 0.2 s; its body had not arrived" in problem["detail"]
    wait_until_idle(impatient)


def test_the_servers_deadline_is_for_the_work_and_not_for_a_slow_body(serve, srcnn_card):
    with serve({srcnn_card.name: Slow(srcnn_card, 0)}, deadline_s=1) as client:
        with connected(client) as connection:
            connection.sendall(head(len(plain())))
            time.sleep(1.2)
            connection.sendall(plain())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        wait_until_idle(client)


@pytest.mark.parametrize("kind", [b"image/png", b"multipart/form-data; boundary=x"])
def test_nobody_waits_for_a_body_on_its_way_and_cut_off_it_leaves_nothing_behind(
    fake_service, kind
):
    with connected(fake_service) as connection:
        connection.sendall(
            head(5_000_000).replace(b"image/png", kind)
            + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            + bytes(2_000_000)
        )
        wait_until(lambda: gauge(fake_service, "superres_reserved_bytes") > 2_000_000)
        assert fake_service.post("/enhance", content=plain()).status_code == 200
        assert gauge(fake_service, "superres_reserved_bytes") > 2_000_000
    wait_until_idle(fake_service)


def test_a_connection_closed_mid_answer_leaves_nothing_behind(fake_service, noise):
    with connected(fake_service) as connection:
        connection.sendall(head(len(noise)).replace(b"/enhance", LARGE_ANSWER) + noise)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert gauge(fake_service, "superres_pictures_in_progress") == 0
        assert gauge(fake_service, "superres_reserved_bytes") > 5e6  # until it is taken
    wait_until_idle(fake_service)


@pytest.mark.slow
def test_an_answer_that_is_not_taken_is_given_up(impatient, noise):
    with connected(impatient) as connection:
        connection.sendall(head(len(noise)).replace(b"/enhance", LARGE_ANSWER) + noise)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert gauge(impatient, "superres_reserved_bytes") > 5e6
        wait_until_idle(impatient)


@pytest.mark.slow
def test_an_answer_may_take_as_long_as_it_needs_while_it_is_taken(impatient, noise):
    with connected(impatient) as connection:
        connection.sendall(head(len(noise)).replace(b"/enhance", LARGE_ANSWER) + noise)
        taken = 0
        for parts in range(1, 16):
            while taken < parts * 1_000_000:
                part = connection.recv(250_000)
                assert part, f"given up after {taken} bytes"
                taken += len(part)
            time.sleep(0.25)  # all of them are longer than the longest pause
    wait_until_idle(impatient)


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/html"])
def test_a_comparison_keeps_no_more_than_its_answer_while_that_is_taken(serve, srcnn_card, accept):
    kept = []

    class Watched(PatientResponse):
        async def __call__(self, scope, receive, send):
            kept.append((self._reservation.bytes, len(self.body)))
            await super().__call__(scope, receive, send)

    with (
        pytest.MonkeyPatch.context() as patch,
        serve({srcnn_card.name: Slow(srcnn_card, 0)}) as client,
    ):
        patch.setattr("app.api.routes.compare.PatientResponse", Watched)
        answer = client.post("/compare", content=plain(150, 150), headers={"Accept": accept})
        assert answer.status_code == 200
        assert kept == [(len(answer.content), len(answer.content))]


@pytest.mark.slow
def test_a_body_shorter_than_its_content_length_is_not_waited_for(impatient):
    with connected(impatient) as connection:
        connection.sendall(head(len(plain()) + 10) + plain())
        assert answer_of(connection)[0] == 408


def test_a_body_longer_than_its_content_length_costs_its_own_connection_alone(fake_service):
    with connected(fake_service) as connection:
        connection.sendall(head(len(plain()) - 10) + plain() + b"\0" * 100)
        data = b""
        while part := connection.recv(65_536):
            data += part
    assert data.split()[1] in (b"400", b"422")
    assert fake_service.post("/enhance", content=plain()).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"5\r\nhello\r\n0\r\n\r\n", 415), (b"zz\r\nhello\r\n", None), (b"-1\r\n\r\n", None)],
)
def test_chunks_that_are_none_are_answered_or_closed(fake_service, body, status):
    with connected(fake_service) as connection:
        connection.sendall(head(None) + body)
        if status is not None:
            assert answer_of(connection)[0] == status
        else:
            assert connection.recv(1000).split()[1:2] in ([b"400"], [])
    assert fake_service.post("/enhance", content=plain()).status_code == 200


def test_chunked_bodies_without_end_are_answered_at_the_limit(serve, srcnn_card):
    with serve({srcnn_card.name: Slow(srcnn_card, 0)}, max_body_bytes=100_000) as client:
        with connected(client) as connection:
            connection.sendall(head(None))
            for _ in range(20):
                connection.sendall(b"2000\r\n" + bytes(0x2000) + b"\r\n")
            status, problem = answer_of(connection)
            assert (status, problem["type"]) == (413, "urn:superres:problem:body-too-large")
        wait_until_idle(client)


def test_bodies_that_arrive_together_share_the_memory_that_there_is(serve, srcnn_card):
    with serve({srcnn_card.name: Slow(srcnn_card, 0)}, max_memory_bytes=1_000_000) as client:
        with connected(client) as first, connected(client) as second:
            first.sendall(head(900_000) + bytes(600_000))
            wait_until(lambda: gauge(client, "superres_reserved_bytes") >= 600_000)
            second.sendall(head(900_000) + bytes(600_000))
            status, problem = answer_of(second)
            assert (status, problem["type"]) == (503, "urn:superres:problem:busy")
        wait_until_idle(client)
