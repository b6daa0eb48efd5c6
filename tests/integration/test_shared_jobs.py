"""Services that share their jobs: rows in PostgreSQL, uploads and results in a bucket."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from upath import UPath

from app.settings import Settings
from superres.models.card import ModelCard
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.integration.test_callers import gauge, wait_until_idle
from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import (
    ASYNC,
    COLUMN,
    Device,
    events_call_by_call,
    order,
    path,
    wait,
)
from tests.pictures import encoded, plain
from tests.serving import (
    link_models,
    serve_app,
    serve_process,
    wait_until,
    wait_until_ready,
)
from tests.storage import new_database, postgres, s3_bucket


@pytest.fixture(scope="module")
def server():
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def bucket() -> Iterator[UPath]:
    with s3_bucket("jobs") as bucket:
        yield bucket


@pytest.fixture
def settings(server, bucket: UPath) -> dict[str, str]:
    """Of every service that shares the jobs of this test."""
    database = new_database(server)
    name = database.partition("/jobs_")[2].partition("?")[0]
    return {"jobs": str(bucket / name), "jobs_database": database}


def files(settings: dict[str, str]) -> list[str]:
    return sorted(
        file.suffix for file in UPath(settings["jobs"], use_listings_cache=False).glob("*")
    )


@pytest.fixture
def device(srcnn_card: ModelCard) -> Iterator[Device]:
    """Of one of the two services."""
    device = Device(srcnn_card)
    yield device
    device.reset()


@pytest.fixture
def two(
    settings: dict[str, str], srcnn_card: ModelCard, device: Device, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """One with that device, and one that is quick."""
    monkeypatch.setattr("app.jobs.runner.SYNCHRONIZE_S", 0.1)
    quick = BlurEngine(srcnn_card.geometry)
    both = Settings(device="cpu", **settings)
    with (
        serve_app(both, {srcnn_card.name: device}) as there,
        serve_app(both, {srcnn_card.name: quick}) as here,
    ):
        for client in (there, here):
            wait_until_ready(client)
        yield there, here


def begun_at(client: httpx.Client, content: bytes) -> dict[str, object]:
    """A job that this service is at, and not the other."""
    for _ in range(20):
        job = order(client, content, scale=4)
        wait(client, job, "running", "done")
        if gauge(client, "superres_pictures_in_progress"):
            return job
    raise AssertionError("the other service took every job")


@pytest.mark.slow
def test_a_job_is_known_to_every_service(two, settings, device):
    there, here = two
    device.allowed = threading.Semaphore(0)
    job = begun_at(there, COLUMN)
    seen = [told["progress"] for told in events_call_by_call(here, job, device)]
    assert {"infer", "over"} <= {progress["stage"] for progress in seen}
    assert len({progress["tiles_done"] for progress in seen}) > 2
    results = [client.get(path(job, "/result")) for client in two]
    assert results[0].status_code == 200
    assert results[0].content == results[1].content
    assert files(settings).count(".upload") == 0
    assert here.delete(path(job)).status_code == 204
    assert there.get(path(job)).status_code == 404


def test_a_job_can_be_stopped_at_any_service(two, settings, device):
    there, here = two
    device.go.clear()
    job = begun_at(there, COLUMN)
    assert here.delete(path(job)).status_code == 204
    assert_problem(there.get(path(job)), 404, "unknown-job", "there is no job")
    wait_until(lambda: gauge(there, "superres_pictures_in_progress") == 0)
    device.go.set()
    wait_until_idle(there)
    assert device.calls <= 1  # of 13


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "attempts"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
def test_what_a_service_was_at_when_it_stopped_is_done_by_another(
    settings, chelsea, tmp_path: Path, number, attempts
):
    """Killed, that counts as an attempt; told to stop, it hands over."""
    content = encoded(np.tile(chelsea, (3, 3, 1)))
    models = link_models(tmp_path / "models", "srcnn-x3")
    own = {"device": "cpu", "precision": PRECISIONS[-1], "models": models, "drain_s": 0}
    (UPath(settings["jobs"]) / "notes").write_bytes(b"")  # not empty when they look first
    with serve_process(**own, **settings) as one, serve_process(**own, **settings) as other:
        job = order(one[0], content, scale=3)
        wait(one[0], job, "running")
        (_, pid), (left, _) = sorted(
            (one, other), key=lambda service: -gauge(service[0], "superres_pictures_in_progress")
        )
        os.kill(pid, number)
        ended = wait(left, job, seconds=120)
        assert (ended["state"], ended["attempts"]) == ("done", attempts)
        expected = left.post("/enhance", content=content, params={"scale": 3})
        assert left.get(path(job, "/result")).content == expected.content


@pytest.mark.slow
def test_a_database_that_goes_and_comes_again_is_told_and_nothing_is_lost(
    server, settings, srcnn_card, monkeypatch
):
    monkeypatch.setattr("app.jobs.runner.SYNCHRONIZE_S", 0.1)
    monkeypatch.setattr("app.jobs.runner.RETRY_S", 0.1)
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve_app(Settings(device="cpu", **settings), engines) as client:
        wait_until_ready(client)
        before = order(client, plain())
        wait(client, before)
        server.stop()
        answer = client.post("/enhance", content=plain(), headers=ASYNC)
        assert_problem(answer, 503, "storage-failed", "the jobs' database")
        assert client.post("/enhance", content=plain()).status_code == 200
        server.start()
        assert client.get(path(before, "/result")).status_code == 200
        assert wait(client, order(client, plain()))["state"] == "done"
