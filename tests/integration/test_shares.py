"""A greedy caller leaves another one its half: of the memory, of the places, of the device.

Without keys a caller is an address; that of the other one is 127.0.0.2.
"""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx
import numpy as np
import pytest

from app.access import make_key
from superres.codecs import probe
from superres.forecast import forecast
from superres.models.card import ModelCard
from tests.engines import BlurEngine, SharpenEngine
from tests.integration.test_callers import LARGE_ANSWER, answer_of, gauge, head, wait_until_idle
from tests.needs import unavailable
from tests.pictures import encoded, plain
from tests.serving import wait_until

OTHER = "127.0.0.2"
BODY = 500_000


@pytest.fixture(autouse=True)
def _two_addresses() -> None:
    try:
        socket.create_server((OTHER, 0)).close()
    except OSError:
        unavailable(f"{OTHER} is not an address of this machine")


def connect(client: httpx.Client, address: str) -> socket.socket:
    own = ("127.0.0.1", client.base_url.port)
    connection = socket.socket()
    connection.settimeout(60)
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536
    )  # it takes no answer by itself
    connection.bind((address, 0))
    connection.connect(own)
    return connection


def from_other(client: httpx.Client, **options: object) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=OTHER)
    return httpx.Client(base_url=client.base_url, transport=transport, timeout=60, **options)


def stalled(client: httpx.Client, address: str) -> socket.socket:
    """A body of which all but a byte is sent; it is counted when this returns."""
    before = gauge(client, "superres_reserved_bytes")
    connection = connect(client, address)
    connection.sendall(head(BODY + 1) + bytes(BODY))
    wait_until(lambda: gauge(client, "superres_reserved_bytes") != before)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether nothing has been answered yet."""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        connection.setblocking(True)


def test_stalled_bodies_of_one_caller_starve_no_other(serve, srcnn_card: ModelCard):
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    memory = 20 * BODY
    with (
        serve(engines, max_memory_bytes=memory, idle_timeout_s=100) as client,
        ExitStack() as stack,
        from_other(client) as other,
    ):
        connections = [stack.enter_context(stalled(client, "127.0.0.1")) for _ in range(20)]
        assert gauge(client, "superres_reserved_bytes") == memory
        busy = client.post("/enhance", content=plain())
        assert busy.status_code == 503
        assert "10,000,000 of them by this caller" in busy.json()["detail"]
        assert other.post("/enhance", content=plain()).status_code == 200
        # Also if the other one does the same, up to its half.
        of_other = []
        for _ in range(10):
            one = stack.enter_context(connect(client, OTHER))
            one.sendall(head(BODY + 1) + bytes(BODY))
            of_other.append(one)
        wait_until(lambda: sum(map(is_open, connections)) <= 10)
        assert sum(map(is_open, of_other)) >= 9  # 45 %
        assert sum(map(is_open, connections)) >= 9
        given_up = next(one for one in connections if not is_open(one))
        status, problem = answer_of(given_up)
        assert (status, problem["type"]) == (503, "urn:superres:problem:busy")
        assert "send fewer or smaller pictures at once" in problem["detail"]
        stack.close()
        wait_until_idle(client)


@pytest.mark.slow
def test_answers_that_nobody_takes_are_given_up_for_another_caller(serve, srcnn_card: ModelCard):
    noise = encoded(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8))
    peak = forecast(
        probe(noise), len(noise), 4, srcnn_card.geometry, output_format="tiff"
    ).peak_bytes
    memory = 2 * peak + 1_000_000
    engines = {srcnn_card.name: SharpenEngine(srcnn_card.geometry)}
    with (
        serve(engines, max_memory_bytes=memory, idle_timeout_s=100) as client,
        ExitStack() as stack,
        from_other(client) as other,
    ):
        status = b"200"
        while status == b"200":
            connection = stack.enter_context(connect(client, "127.0.0.1"))
            connection.sendall(head(len(noise)).replace(b"/enhance", LARGE_ANSWER) + noise)
            status = connection.recv(100).split()[1]
        assert status == b"503"
        assert gauge(client, "superres_reserved_bytes") > memory - peak
        assert other.post(LARGE_ANSWER.decode(), content=noise).status_code == 200
        stack.close()
        wait_until_idle(client)


class Metered(BlurEngine):
    """A device on which a tile takes a while; it knows whose it is by its brightness."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card.geometry)
        self.seconds = {"greedy": 0.0, "other": 0.0}

    def predict(self, tiles):
        for tile in tiles:
            started = time.monotonic()
            time.sleep(0.05)
            name = "greedy" if tile.mean() > 128 else "other"
            self.seconds[name] += time.monotonic() - started
        return super().predict(tiles)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow) for name in ("addresses", "keys")]
)
def callers(
    request: pytest.FixtureRequest, serve, srcnn_card: ModelCard
) -> Iterator[tuple[Metered, httpx.Client, httpx.Client]]:
    """A device, and clients of two callers: by their address, or by their keys."""
    device = Metered(srcnn_card)
    if request.param == "addresses":
        with serve({srcnn_card.name: device}) as client, from_other(client) as other:
            yield device, client, other
        return
    keys = [make_key(name, limit="1000000/second") for name in ("greedy", "other")]
    entries = ",".join(entry for _, entry in keys)
    with serve({srcnn_card.name: device}, api_keys=entries) as client:
        bearers = [{"Authorization": f"Bearer {key}"} for key, _ in keys]
        client.headers.update(bearers[0])
        with closing(httpx.Client(base_url=client.base_url, headers=bearers[1], timeout=60)) as one:
            yield device, client, one


def test_a_greedy_caller_leaves_another_its_half_of_the_device(callers):
    device, greedy, other = callers
    pictures = {
        greedy: encoded(np.full((20, 20, 3), 250, np.uint8)),
        other: encoded(np.zeros((20, 20, 3), np.uint8)),
    }
    over = threading.Event()

    def call(client: httpx.Client) -> None:
        while not over.is_set():
            if client.post("/enhance", content=pictures[client]).status_code == 503:
                over.wait(0.1)  # sooner than asked for

    with ThreadPoolExecutor(32) as pool:
        try:
            calls = [pool.submit(call, greedy) for _ in range(20)]
            wait_until(lambda: gauge(greedy, "superres_pictures_in_progress") == 12)
            calls += [pool.submit(call, other) for _ in range(12)]
            wait_until(lambda: device.seconds["other"] > 0.2)
            before = dict(device.seconds)
            wait_until(lambda: sum(device.seconds.values()) > sum(before.values()) + 2)
            got = {name: device.seconds[name] - before[name] for name in before}
        finally:
            over.set()
            for one in calls:
                one.result(60)
    assert got["other"] / sum(got.values()) >= 0.45
