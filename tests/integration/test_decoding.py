"""What breaks a decoder costs one request: an error that says why, and nothing that stays."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from app.decoding import decoders as decoding
from app.settings import Settings
from superres.codecs import FORMATS
from superres.models.card import ModelCard
from tests.engines import SharpenEngine
from tests.hostile_decoder import HOSTILE, hostile
from tests.integration.test_callers import wait_until_idle
from tests.integration.test_errors import assert_problem
from tests.pictures import plain
from tests.serving import serve_app, wait_until, wait_until_ready


@pytest.fixture(scope="module")
def hostile_service(srcnn_card: ModelCard) -> Iterator[httpx.Client]:
    """A service that reads the hostile format, too, and keeps no process for the next upload."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, HOSTILE.name, HOSTILE)
        patch.setattr(decoding, "FORK_SERVER", "tests.hostile_decoder")
        patch.setattr(decoding, "MAX_IDLE", 0)
        patch.setattr(decoding, "DECODE_SECONDS", 0.3)
        engines = {srcnn_card.name: SharpenEngine(srcnn_card.geometry)}
        with serve_app(Settings(device="cpu"), engines) as client:
            wait_until_ready(client)
            yield client


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(one) for task in tasks for one in (task / "children").read_text().split()]


def reading() -> int:
    """Processes that read uploads now, of the service with the hostile format."""
    return sum(
        len(children(pid))
        for pid in children(os.getpid())
        if b"tests.hostile_decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def wait_until_nothing_is_left(client: httpx.Client) -> None:
    """Neither a process, nor a place, nor memory."""
    wait_until(lambda: not reading())
    wait_until_idle(client)


def send(client: httpx.Client, body: bytes) -> socket.socket:
    """Post a picture, and do not wait for the answer."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    head = f"POST /enhance HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("path", ["/enhance", "/compare"])
@pytest.mark.parametrize("operation", ["probe", "decode"])
@pytest.mark.parametrize(
    ("deed", "says"), [("crash", "crashed"), ("fill", "memory"), ("spin", "processor time")]
)
def test_a_picture_that_breaks_its_decoder_is_refused_and_leaves_nothing(
    hostile_service: httpx.Client, path: str, operation: str, deed: str, says: str
):
    answer = hostile_service.post(path, content=hostile(**{operation: deed}))
    assert_problem(answer, 422, "unreadable-image", says)
    wait_until_nothing_is_left(hostile_service)


def test_a_job_with_such_a_picture_fails_for_that_reason(hostile_service: httpx.Client):
    job = hostile_service.post(
        "/enhance", content=hostile(decode="crash"), headers={"Prefer": "respond-async"}
    )
    url = job.headers["location"]
    wait_until(lambda: hostile_service.get(url).json()["state"] == "failed")
    assert hostile_service.get(url).json()["problem"]["type"].endswith("unreadable-image")


@pytest.mark.parametrize("path", ["/enhance", "/compare"])
@pytest.mark.parametrize("operation", ["probe", "decode"])
def test_reading_ends_at_the_deadline(hostile_service: httpx.Client, path: str, operation: str):
    answer = hostile_service.post(
        path, content=hostile(**{operation: "sleep"}), headers={"X-Deadline-Ms": "300"}
    )
    assert_problem(answer, 504, "deadline-exceeded", "had 0.3 s")
    wait_until_nothing_is_left(hostile_service)


@pytest.mark.parametrize("operation", ["probe", "decode"])
def test_reading_ends_when_the_caller_leaves(hostile_service: httpx.Client, operation: str):
    with closing(send(hostile_service, hostile(**{operation: "sleep"}))):
        wait_until(reading)
    wait_until_nothing_is_left(hostile_service)


def test_health_and_a_good_picture_are_answered_while_45_hostile_headers_are_read(
    hostile_service: httpx.Client,
):
    with ExitStack() as connections:
        for _ in range(45):
            connections.enter_context(closing(send(hostile_service, hostile(probe="sleep"))))
        wait_until(lambda: reading() == 45)
        assert hostile_service.get("/healthz").status_code == 200
        assert hostile_service.get("/readyz").status_code == 200
        assert hostile_service.get("/metrics").status_code == 200
        assert hostile_service.post("/enhance", content=plain()).status_code == 200
        wait_until(lambda: reading() == 45)
    wait_until_nothing_is_left(hostile_service)
