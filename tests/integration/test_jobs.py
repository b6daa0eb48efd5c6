"""Jobs over a real connection: taken in, watched, fetched, cancelled, and found again."""

import errno
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest

from app.jobs.rows import STATES
from app.main import create_app
from app.service_errors import StorageError
from app.settings import Settings
from superres.codecs import probe
from superres.forecast import forecast
from superres.models.card import ModelCard
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.integration.test_callers import Slow, gauge, wait_until_idle
from tests.integration.test_errors import assert_problem
from tests.pictures import animated, bomb, encoded, plain
from tests.serving import (
    link_models,
    serve_app,
    serve_process,
    wait_until,
    wait_until_ready,
)
from tests.soak import slow, soak

ASYNC = {"Prefer": "respond-async"}
FILES = {".upload", ".result", ".partial"}
SENT_EACH_TIME = {"server-timing", "x-request-id", "date", "etag"}


def order(client: httpx.Client, content: bytes, **params: object) -> dict[str, object]:
    answer = client.post("/enhance", content=content, params=params, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    job: dict[str, object] = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    return job


def path(job: dict[str, object], of: str = "") -> str:
    return f"/jobs/{job['id']}{of}"


def wait(
    client: httpx.Client, job: dict[str, object], *states: str, seconds: float = 60
) -> dict[str, object]:
    until = time.monotonic() + seconds
    while (now := client.get(path(job)).json())["state"] not in (states or ("done", "failed")):
        assert time.monotonic() < until, now
        time.sleep(0.02)
    return now


def events(client: httpx.Client, job: dict[str, object]) -> Iterator[dict[str, object]]:
    url = str(client.base_url.join(path(job, "/events")))
    with httpx.stream("GET", url, timeout=30) as stream:  # the client at hand would read it whole
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


class Device(BlurEngine):
    """A blur that stops, goes on call by call, or fails, as a test likes."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card.geometry)
        self.go = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.calls = 0
        self.allowed: threading.Semaphore | None = None
        self.failure: Exception | None = None
        self.go.set()

    def predict(self, tiles):
        self.calls += 1
        self.go.wait(100)  # less than a test may take
        if self.allowed:
            self.allowed.acquire(timeout=100)
        if self.failure:
            raise self.failure
        return super().predict(tiles)


COLUMN = encoded(np.zeros((1500, 100, 3), np.uint8))
"""At x4, 13 tiles below each other: the device is called for one at a time."""


def events_call_by_call(
    client: httpx.Client, job: dict[str, object], device: Device
) -> list[dict[str, object]]:
    """All events of a job; the device is let go for a call once what the last made is told."""
    told: list[dict[str, object]] = []
    for one in events(client, job):
        known = [before["progress"] for before in told]
        if one["progress"]["stage"] == "infer" and one["progress"] not in known:
            device.allowed.release()
        told.append(one)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def shared_device(srcnn_card: ModelCard) -> Device:
    return Device(srcnn_card)


@pytest.fixture
def device(shared_device: Device) -> Iterator[Device]:
    yield shared_device
    shared_device.reset()


@pytest.fixture(scope="module")
def small(shared_device: Device, srcnn_card: ModelCard, folder: Path) -> Iterator[httpx.Client]:
    """A service where little happens at once and little is waited for."""
    settings = Settings(device="cpu", max_requests=1, max_waiting_jobs=3, jobs=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.jobs.runner.RETRY_S", 0.05)
        patch.setattr("app.jobs.watch.WATCH_S", 0.02)
        patch.setattr("app.jobs.databases.LOCK_TIMEOUT_S", 0.5)
        with serve_app(settings, {srcnn_card.name: shared_device}) as client:
            wait_until_ready(client)
            yield client


@pytest.fixture(autouse=True)
def forgotten(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test sees another's jobs."""
    yield
    if "small" in request.fixturenames:
        client, folder = request.getfixturevalue("small"), request.getfixturevalue("folder")
        for file in {*folder.glob("*.upload"), *folder.glob("*.result")}:
            client.delete(f"/jobs/{file.stem}")
        wait_until_idle(client)


@pytest.fixture
def large() -> bytes:
    """A picture of many tiles at x4, that takes few bytes."""
    return encoded(np.zeros((1200, 1200, 3), np.uint8))


def files(folder: Path) -> list[str]:
    return sorted(file.suffix for file in folder.iterdir() if file.suffix in FILES)


def test_a_job_ends_with_the_very_answer_that_the_request_would_have_had(fake_service, chelsea):
    picture = encoded(chelsea, "JPEG", quality=90)
    params = {"scale": 2, "format": "webp", "quality": 80, "proof": True, "metadata": "strip"}
    job = order(fake_service, picture, **params)
    done = wait(fake_service, job)
    assert done["state"] == "done"
    assert done["problem"] is None
    assert done["attempts"] == 1
    assert done["progress"] == {"stage": "over", "tiles_done": 4, "tiles": 4}
    assert {"waiting", "decode", "proof", "queue", "infer", "bicubic", "encode"} == done[
        "timings"
    ].keys()
    assert done["created"] <= done["started"] <= done["ended"]

    result = fake_service.get(done["result"])
    expected = fake_service.post("/enhance", content=picture, params=params)
    assert result.content == expected.content
    resumed_by = {"accept-ranges"}
    assert result.headers.keys() - resumed_by == expected.headers.keys()
    for name in expected.headers.keys() - SENT_EACH_TIME:
        assert result.headers[name] == expected.headers[name]

    assert fake_service.delete(path(job)).status_code == 204
    for of in ("", "/result", "/events"):
        assert_problem(fake_service.get(path(job, of)), 404, "unknown-job", f"no job {job['id']}")
    assert_problem(fake_service.delete(path(job)), 404, "unknown-job", "no job")


def test_what_the_header_tells_is_refused_before_there_is_a_job(fake_service):
    for content, params, status, slug in (
        (b"", {}, 422, "unreadable-image"),
        (b"hello, world", {}, 415, "unsupported-format"),
        (animated("GIF"), {}, 422, "animated-image"),
        (bomb(), {}, 422, "image-too-large"),
        (plain(), {"scale": 9}, 422, "bad-parameter"),
        (plain(), {"scale": 1.2, "proof": True}, 422, "bad-parameter"),
        (plain(), {"model": "magic"}, 422, "unknown-model"),
        (encoded(np.zeros((4200, 4, 3), np.uint8)), {"scale": 4, "format": "webp"}, 422, None),
    ):
        answer = fake_service.post("/enhance", content=content, params=params, headers=ASYNC)
        assert answer.status_code == status
        assert slug is None or answer.json()["type"].endswith(slug)
    answer = fake_service.post("/enhance?dry_run=true", content=plain(), headers=ASYNC)
    assert answer.status_code == 200
    assert answer.json()["tiles"] == 1
    assert gauge(fake_service, 'superres_jobs{state="waiting"}') == 0


def test_the_preference_is_one_of_several_and_only_that_one_counts(small):
    for prefer, status in (
        ("wait=10, Respond-Async", 202),
        ("respond-sync", 200),
        ("handling=strict", 200),
    ):
        answer = small.post("/enhance", content=plain(), headers={"Prefer": prefer})
        assert answer.status_code == status
        if status == 202:
            wait(small, answer.json())


def test_an_unknown_job_is_one_problem_whatever_is_asked_of_it(small):
    for of in ("", "/result", "/events"):
        answer = small.get(f"/jobs/{uuid4()}{of}")
        assert_problem(answer, 404, "unknown-job", "there is no job")
    assert_problem(small.delete(f"/jobs/{uuid4()}"), 404, "unknown-job", "there is no job")
    assert_problem(small.get("/jobs/1"), 422, "bad-parameter", "job_id: ")


def test_progress_is_told_tile_by_tile(small, device):
    device.allowed = threading.Semaphore(0)
    job = order(small, COLUMN, scale=4)
    assert_problem(small.get(path(job, "/result")), 409, "job-unfinished", f"job {job['id']} is ")
    told = events_call_by_call(small, job, device)
    assert told[-1]["state"] == "done"
    tiles = [one["progress"]["tiles_done"] for one in told]
    assert tiles == sorted(tiles)
    assert len(set(tiles)) > 2
    assert tiles[-1] == told[-1]["progress"]["tiles"] == job["progress"]["tiles"] > 10
    assert {one["progress"]["stage"] for one in told} >= {"infer", "over"}
    assert list(events(small, job)) == told[-1:]


def test_jobs_wait_for_room_in_order_where_a_request_is_told_to_come_back(small, device):
    device.go.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(small.post, "/enhance", content=plain())
        wait_until(lambda: gauge(small, "superres_pictures_in_progress") == 1)
        jobs = [order(small, plain(width, 10)) for width in (20, 30, 40)]
        assert small.post("/enhance", content=plain()).status_code == 503
        time.sleep(0.2)
        assert [small.get(path(job)).json()["state"] for job in jobs] == ["waiting"] * 3
        assert gauge(small, 'superres_jobs{state="waiting"}') == 3
        device.go.set()
        assert first.result().status_code == 200
    done = [wait(small, job) for job in jobs]
    assert [one["state"] for one in done] == ["done"] * 3
    assert done == sorted(done, key=lambda one: one["started"])
    assert gauge(small, 'superres_jobs{state="done"}') >= 3
    assert gauge(small, "superres_jobs_stored_bytes") > 100


def test_no_more_jobs_wait_than_are_allowed(small, device, folder):
    device.go.clear()
    wait(small, order(small, plain()), "running")
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda _: small.post("/enhance", content=plain(), headers=ASYNC), range(8))
        )
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [503] * 5
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert_problem(refused, 503, "busy", "at most 3 jobs wait; 3 do")
    assert int(refused.headers["retry-after"]) > 0
    assert files(folder) == [".upload"] * 4
    device.go.set()
    for answer in answers:
        if answer.status_code == 202:
            assert wait(small, answer.json())["state"] == "done"


def test_a_job_that_fails_says_why_and_its_result_is_the_requests_own_error(small):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    half = encoded(noise)[:9000]
    failed = wait(small, job := order(small, half))
    expected = small.post("/enhance", content=half)
    assert_problem(expected, 422, "unreadable-image", "cannot be decoded")
    assert failed["state"] == "failed"
    assert failed["result"] is None
    told, same = failed["problem"], expected.json()
    assert told.pop("request_id") != same.pop("request_id")
    assert told == same
    assert_problem(small.get(path(job, "/result")), 422, "unreadable-image", same["detail"])
    small.delete(path(job))


def test_a_device_that_fails_fails_the_job_and_a_bug_is_not_told(small, device):
    device.failure = RuntimeError("secret")
    failed = wait(small, job := order(small, plain()))
    assert failed["problem"]["type"].endswith("engine-failed")
    assert "secret" not in str(failed)
    small.delete(path(job))


def test_deleting_a_job_stops_the_work_and_removes_what_there_is(small, device, folder, large):
    device.go.clear()
    running, waiting = order(small, large, scale=4), order(small, large)
    wait_until(lambda: device.calls)
    watching = events(small, running)
    assert next(watching)["state"] == "running"
    assert small.delete(path(waiting)).status_code == 204
    assert small.delete(path(running)).status_code == 204
    assert all(one["state"] == "running" for one in watching)
    wait_until(lambda: gauge(small, "superres_pictures_in_progress") == 0)
    device.go.set()
    wait_until_idle(small)
    assert device.calls == 1  # of more than 25
    assert small.get(path(running)).status_code == 404
    assert files(folder) == []
    assert wait(small, order(small, plain()))["state"] == "done"


def test_a_job_that_is_deleted_while_it_waits_for_room_makes_way(serve, srcnn_card, large):
    device = Device(srcnn_card)
    device.go.clear()
    peak = forecast(probe(large), len(large), 4, srcnn_card.geometry).peak_bytes
    with (
        serve({srcnn_card.name: device}, max_memory_bytes=peak + 1000) as client,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(client.post, "/enhance", content=plain())
        wait_until(lambda: gauge(client, "superres_pictures_in_progress") == 1)
        jobs = [order(client, large, scale=4), order(client, plain())]
        time.sleep(0.3)
        assert [client.get(path(job)).json()["state"] for job in jobs] == ["waiting"] * 2
        client.delete(path(jobs[0]))
        wait(client, jobs[1], "running")
        device.go.set()
        assert first.result().status_code == 200
        assert wait(client, jobs[1])["state"] == "done"
        wait_until_idle(client)


def test_a_callers_deadline_is_its_jobs_too(small, device, large):
    device.go.clear()
    deadline = {"X-Deadline-Ms": "300"}
    answer = small.post("/enhance?scale=4", content=large, headers=ASYNC | deadline)
    failed = wait(small, job := answer.json())
    assert failed["problem"]["type"].endswith("deadline-exceeded")
    assert "had 0.3 s" in failed["problem"]["detail"]
    assert small.get(path(job, "/result")).status_code == 504
    small.delete(path(job))


def test_the_oldest_results_make_room_and_what_never_fits_is_refused(serve, srcnn_card, tmp_path):
    noise, too_much = (
        encoded(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
        for side in (100, 200)
    )
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, jobs=tmp_path, max_jobs_bytes=120_000) as client:
        jobs = [order(client, noise, scale=2)]
        wait(client, jobs[0])
        size = gauge(client, "superres_jobs_stored_bytes")
        assert 30_000 < size < 60_000  # and with an upload, twice as much
        for _ in range(3):
            jobs.append(order(client, noise, scale=2))
            assert wait(client, jobs[-1])["state"] == "done"
        assert gauge(client, "superres_jobs_stored_bytes") <= 120_000
        assert [client.get(path(job)).status_code for job in (jobs[0], jobs[-1])] == [404, 200]
        answer = client.post("/enhance", content=too_much, headers=ASYNC)
        assert_problem(answer, 503, "storage-failed", "at most 120,000 bytes of uploads and")
        assert client.get(path(jobs[-1], "/result")).status_code == 200


@pytest.mark.slow
def test_a_jobs_time_is_bounded_and_what_has_ended_is_not_kept_for_ever(
    serve, srcnn_card, monkeypatch, tmp_path
):
    monkeypatch.setattr("app.jobs.runner.REMOVE_S", 0.1)
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, jobs=tmp_path, job_deadline_s=0.001, keep_jobs_s=2) as client:
        failed = wait(client, job := order(client, plain()))
        assert "had 0.001 s" in failed["problem"]["detail"]
        wait_until(lambda: client.get(path(job)).status_code == 404)
        assert files(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_a_stop_what_was_running_goes_on(serve, srcnn_card, tmp_path):
    slow, fast = Slow(srcnn_card, 0.05), BlurEngine(srcnn_card.geometry)
    picture = encoded(np.zeros((300, 300, 3), np.uint8))
    with serve({srcnn_card.name: slow}, jobs=tmp_path) as client:
        done = order(client, plain())
        wait(client, done)
        expected = client.get(path(done, "/result")).content
        jobs = [order(client, picture, scale=4) for _ in range(3)]
        wait(client, jobs[0], "running")
    with serve({srcnn_card.name: fast}, jobs=tmp_path) as client:
        assert client.get(path(done, "/result")).content == expected
        ended = [wait(client, job) for job in jobs]
        assert [one["state"] for one in ended] == ["done"] * 3
        assert {one["attempts"] for one in ended} == {1}  # a clean stop costs none
        assert files(tmp_path) == [".result"] * 4


def test_a_folder_is_one_services_alone(small, folder, tmp_path):
    with pytest.raises(StorageError, match="another service works in"):
        create_app(Settings(jobs=folder))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        create_app(Settings(jobs=tmp_path / "file" / "jobs"))


def test_a_full_disk_is_told_and_nothing_is_lost(small, device, monkeypatch, folder):
    """An error of fsync's, injected: where a file system tells of what it could not allocate."""
    fsync = os.fsync
    full = {".upload"}

    def fsync_if_there_is_room(fd: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(".partial")).suffix in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    before = order(small, plain())
    wait(small, before)
    monkeypatch.setattr(os, "fsync", fsync_if_there_is_room)
    answer = small.post("/enhance", content=plain(), headers=ASYNC)
    assert_problem(answer, 503, "storage-failed", "the disk for jobs is full")
    assert int(answer.headers["retry-after"]) > 0
    assert small.post("/enhance", content=plain()).status_code == 200
    assert small.get(path(before, "/result")).status_code == 200
    assert files(folder) == [".result"]

    full = {".result"}
    job = order(small, plain())
    wait(small, job, "running")
    time.sleep(0.3)
    assert small.get(path(job)).json()["state"] == "running"  # it waits for the disk
    full = set()
    assert wait(small, job)["state"] == "done"

    full = {".result"}
    monkeypatch.setattr("app.jobs.runner.GIVE_UP_S", 0.0)
    failed = wait(small, job := order(small, plain()))
    assert failed["problem"]["type"].endswith("job-abandoned")
    assert "could not be stored for 0 s: the disk for jobs is full" in failed["problem"]["detail"]
    assert small.get(path(job, "/result")).status_code == 500
    small.delete(path(job))


def test_a_locked_database_is_told_and_nothing_is_lost(small, device, folder):
    device.go.clear()
    running, waiting = order(small, plain()), order(small, plain())
    wait(small, running, "running")
    with closing(sqlite3.connect(folder / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for answer in (
            small.post("/enhance", content=plain(), headers=ASYNC),
            small.delete(path(waiting)),
        ):
            assert_problem(answer, 503, "storage-failed", "database is locked")
            assert int(answer.headers["retry-after"]) > 0
        device.go.set()
        time.sleep(0.3)
        assert small.get(path(running)).json()["state"] == "running"  # as far as it is noted
        assert len(list(folder.glob("*.upload"))) == 2  # nothing of what was refused
        other.execute("ROLLBACK")
    for job in (running, waiting):
        assert wait(small, job)["state"] == "done"
        assert small.get(path(job, "/result")).status_code == 200
    assert wait(small, order(small, plain()))["state"] == "done"


@pytest.mark.parametrize(
    ("count", "kills"), [slow(10, (1, 1)), soak(20, (2, 2, 9))], ids=["two kills", "three kills"]
)
def test_a_service_that_is_killed_again_and_again_loses_no_job(
    chelsea, tmp_path: Path, count: int, kills: tuple[int, ...], record_property
):
    """kill -9 while jobs are under way; what is done is what a request would have got.

    Each kill is once so many jobs are done: the second at once, so that what ran at both is given
    up.
    """
    pictures = [np.roll(chelsea, 20 * i, axis=1) for i in range(count)]
    params = {"scale": 4, "format": "png"}
    jobs: list[dict[str, object]] = []
    folder = tmp_path / "jobs"
    models = link_models(tmp_path / "models", "srcnn-x4")
    settings = {"device": "cpu", "precision": PRECISIONS[-1], "jobs": folder, "models": models}

    def states(client: httpx.Client) -> list[str]:
        return [client.get(path(job)).json()["state"] for job in jobs]

    for done_before in kills:
        with serve_process(**settings) as (client, pid):
            if not jobs:
                jobs += [order(client, encoded(picture), **params) for picture in pictures]
            while states(client).count("done") < done_before:
                time.sleep(0.05)
            while "running" not in states(client):
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
    with serve_process(**settings) as (client, _):
        ended = [wait(client, job, seconds=200) for job in jobs]
        reached = {state: sum(one["state"] == state for one in ended) for state in STATES}
        record_property("kills", len(kills))
        record_property("done", reached["done"])
        record_property("begun twice", sum(one["attempts"] > 1 for one in ended))
        assert reached["done"] >= count - 2 * len(kills)
        assert reached["done"] + reached["failed"] == count
        assert any(one["attempts"] > 1 for one in ended)
        for job, picture, one in zip(jobs, pictures, ended, strict=True):
            result = client.get(path(job, "/result"))
            if one["state"] == "done":
                expected = client.post("/enhance", content=encoded(picture), params=params)
                assert result.content == expected.content
                assert result.headers["content-digest"] == expected.headers["content-digest"]
            else:
                assert one["attempts"] == 2
                assert one["problem"]["type"].endswith("job-abandoned")
                assert "the service stopped 2 times" in one["problem"]["detail"]
                assert result.status_code == 500
    assert files(folder) == [".result"] * reached["done"]
