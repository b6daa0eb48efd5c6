"""GET /jobs/ID/events to many: one reads the database, and there are not more than allowed."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx
import pytest

from app.access import make_key
from app.jobs.repository import JobRepository
from superres.models.card import ModelCard
from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import ASYNC, Device, events, order, path, wait
from tests.pictures import plain
from tests.serving import wait_until

KEYS = {name: make_key(name, limit="10000/minute") for name in ("alice", "bob")}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name][0]}"}


@pytest.fixture
def device(srcnn_card: ModelCard) -> Iterator[Device]:
    """It stops, so that jobs go on running."""
    device = Device(srcnn_card)
    device.go.clear()
    yield device
    device.reset()


def test_however_many_watch_the_database_is_read_once_for_all(
    serve, srcnn_card, device, monkeypatch: pytest.MonkeyPatch
):
    watchers = 8
    found, polled = [], []
    find, find_all = JobRepository.find, JobRepository.find_all
    monkeypatch.setattr(JobRepository, "find", lambda *one: found.append(1) or find(*one))
    monkeypatch.setattr(
        JobRepository, "find_all", lambda self, ids: polled.append(ids) or find_all(self, ids)
    )
    monkeypatch.setattr("app.jobs.watch.WATCH_S", 0.02)
    seen = threading.Semaphore(0)
    with serve({srcnn_card.name: device}) as client, ThreadPoolExecutor(watchers) as pool:
        jobs = [order(client, plain()) for _ in range(2)]
        wait_until(lambda: device.calls)

        def watch(number: int) -> list[dict[str, object]]:
            told = []
            for one in events(client, jobs[number % 2]):
                told.append(one)
                if len(told) == 1:
                    seen.release()
            return told

        watching = [pool.submit(watch, number) for number in range(watchers)]
        assert all(seen.acquire(timeout=60) for _ in range(watchers))
        assert len(found) == watchers
        before = len(polled)
        wait_until(lambda: len(polled) > before + 10)
        assert len(found) == watchers  # each read its job once, when it came
        assert set(polled[-1]) == set(polled[-2])
        assert len(polled[-1]) == 2  # jobs, not watchers
        device.go.set()
        for one in watching:
            told = one.result(60)
            assert told[0]["state"] in ("waiting", "running")
            assert told[-1]["state"] == "done"
        after = len(polled)
        assert wait(client, order(client, plain()))["state"] == "done"
        assert len(polled) - after <= 1  # nobody watches any more


def open_events(
    stack: ExitStack, client: httpx.Client, job: dict[str, object], **headers: str
) -> httpx.Response:
    """A stream of events, whose first event has come."""
    url = str(client.base_url.join(path(job, "/events")))
    stream = stack.enter_context(
        httpx.stream("GET", url, headers=headers, timeout=30, verify=False)
    )
    assert stream.status_code == 200
    lines = stack.enter_context(closing(stream.iter_lines()))  # kept: its end closes the stream
    line = next(line for line in lines if line.startswith("data: "))
    assert json.loads(line.removeprefix("data: "))["id"] == job["id"]
    return stream


def test_there_are_no_more_watchers_than_allowed_and_who_leaves_makes_room(
    serve, srcnn_card, device
):
    with serve({srcnn_card.name: device}, max_watchers=3, max_watchers_per_key=1) as client:
        job = order(client, plain())
        with ExitStack() as streams:
            first = open_events(streams, client, job)
            for _ in range(2):
                open_events(streams, client, job)
            refused = client.get(path(job, "/events"))
            assert_problem(refused, 503, "busy", "at most 3 streams of events are open at once")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get(path(job)).status_code == 200
            first.close()
            wait_until(lambda: is_admitted(client, job))
        device.go.set()


def is_admitted(client: httpx.Client, job: dict[str, object], **headers: str) -> bool:
    url = str(client.base_url.join(path(job, "/events")))
    with httpx.stream("GET", url, headers=headers, timeout=30, verify=False) as stream:
        return stream.status_code == 200


def test_one_key_cannot_take_the_watchers_of_all(serve, srcnn_card, device):
    settings = {"max_watchers": 3, "max_watchers_per_key": 2}
    keys = ",".join(entry for _, entry in KEYS.values())
    with serve({srcnn_card.name: device}, api_keys=keys, **settings) as client:
        jobs = {
            name: client.post("/enhance", content=plain(), headers=bearer(name) | ASYNC).json()
            for name in KEYS
        }
        with ExitStack() as streams:
            for _ in range(2):
                open_events(streams, client, jobs["alice"], **bearer("alice"))
            refused = client.get(path(jobs["alice"], "/events"), headers=bearer("alice"))
            assert_problem(refused, 429, "too-many-requests", "with one key, and 'alice' has so")
            open_events(streams, client, jobs["bob"], **bearer("bob"))
            refused = client.get(path(jobs["bob"], "/events"), headers=bearer("bob"))
            assert_problem(refused, 503, "busy", "at most 3 streams")
        device.go.set()
