"""What is kept of jobs, and what is found of it after a crash."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import anyio
import pytest
from anyio import CapacityLimiter
from fastapi import Request

from app.dependencies import get_caller
from app.errors import problem_of
from app.jobs import Jobs
from app.store import ATTEMPTS, Job, Store
from superres.errors import Busy, EngineError, JobAbandoned, JobMissing, StorageError

UPLOAD, RESULT = b"upload", b"result, longer"


def job(created: float = 1.0, owner: str | None = None) -> Job:
    return Job(
        owner=owner,
        request_id=f"request-{created:g}",
        query={"scale": 3},
        output_format="png",
        tiles=4,
        deadline=None,
        upload_bytes=len(UPLOAD),
        created=created,
    )


def finish(store: Store, one: Job, result: bytes = RESULT) -> None:
    store.finish(one.id, result, media_type="image/png", headers={"X": "1"}, timings={"decode": 1})


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """The store, as a service finds it that is started after a crash."""
    stores: list[Store] = []

    def reopened(max_waiting: int = 9, max_bytes: int = 999) -> Store:
        if stores:
            stores[-1].close()  # what it held, no crash would keep
        stores.append(Store(tmp_path, max_waiting=max_waiting, max_bytes=max_bytes))
        stores[-1].recover()
        return stores[-1]

    yield reopened
    stores[-1].close()


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.suffix in (".upload", ".result")}


def test_a_job_that_runs_at_a_crash_is_begun_again_but_not_for_ever(reopened):
    store = reopened()
    store.add(one := job(), UPLOAD)
    for attempt in range(1, ATTEMPTS + 1):
        assert store.oldest_waiting().id == one.id
        assert store.read_upload(one) == UPLOAD
        assert store.start(one.id)
        assert store.find(one.id).attempts == attempt
        assert store.oldest_waiting() is None
        store = reopened()
    failed = store.find(one.id)
    assert failed.state == "failed"
    assert failed.problem["type"].endswith("job-abandoned")
    assert failed.problem["request_id"] == "request-1"
    assert f"the service stopped {ATTEMPTS} times" in failed.problem["detail"]
    assert store.oldest_waiting() is None


def test_a_job_that_is_put_back_has_not_been_tried(reopened):
    store = reopened()
    store.add(one := job(), UPLOAD)
    store.add(other := job(2), UPLOAD)
    for _ in range(3):
        store.start(one.id)
        store.start(other.id)
        store.put_back(one.id)
    assert (store.find(one.id).state, store.find(one.id).attempts) == ("waiting", 0)
    assert (store.find(other.id).state, store.find(other.id).attempts) == ("running", 3)


def test_what_is_done_and_what_waits_is_there_after_a_crash_and_what_nobody_knows_goes(
    reopened, tmp_path
):
    store = reopened()
    for one in (jobs := [job(3), job(1), job(2)]):
        store.add(one, UPLOAD)
    store.start(jobs[1].id)
    finish(store, jobs[1])
    store.start(jobs[2].id)
    store.fail(jobs[2].id, problem_of(EngineError("why"), "id"), {"decode": 2.0})
    for orphan in (f"{uuid4()}.upload", f"{uuid4()}.result", f"{jobs[0].id}.upload.partial"):
        (tmp_path / orphan).write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    store = reopened()
    assert files(tmp_path) == {f"{jobs[0].id}.upload", f"{jobs[1].id}.result"}
    assert (tmp_path / "notes.txt").exists()
    assert store.oldest_waiting().id == jobs[0].id
    done = store.find(jobs[1].id)
    with store.open_result(done) as file:
        assert file.read() == RESULT
    assert (done.headers, done.media_type, done.timings) == ({"X": "1"}, "image/png", {"decode": 1})
    assert store.find(jobs[2].id).problem["detail"] == "why"
    assert store.counts() == {"waiting": 1, "running": 0, "done": 1, "failed": 1}
    assert store.stored_bytes() == len(UPLOAD) + len(RESULT)


def test_jobs_are_taken_in_the_order_in_which_they_came(reopened):
    store = reopened()
    for one in (jobs := [job(3), job(1), job(2)]):
        store.add(one, UPLOAD)
    taken = []
    while one := store.oldest_waiting():
        taken.append(one.created)
        store.start(one.id)
    assert taken == sorted(one.created for one in jobs)


def test_a_removed_job_leaves_nothing_and_its_late_result_is_not_kept(reopened, tmp_path):
    store = reopened()
    store.add(one := job(), UPLOAD)
    store.start(one.id)
    store.remove(one.id)
    assert not store.start(one.id)
    finish(store, one)
    store.fail(one.id, problem_of(EngineError("late"), "id"), {})
    assert store.find(one.id) is None
    assert files(tmp_path) == set()
    with pytest.raises(JobMissing, match="no longer there"):
        store.open_result(one)


def test_what_is_refused_leaves_nothing(reopened, tmp_path):
    store = reopened(max_waiting=1, max_bytes=len(UPLOAD) + len(RESULT))
    store.add(one := job(), UPLOAD)
    with pytest.raises(Busy, match="at most 1 jobs wait; 1 do"):
        store.add(job(), UPLOAD)
    store.start(one.id)
    with pytest.raises(StorageError, match="with this one's 15 there would be 21"):
        finish(store, one, RESULT + b"!")
    assert store.find(one.id).state == "running"
    assert files(tmp_path) == {f"{one.id}.upload"}
    finish(store, one)
    with pytest.raises(StorageError, match="at most 20 bytes of uploads and results"):
        store.add(job(), b"x" * 21)
    assert files(tmp_path) == {f"{one.id}.result"}


def test_an_upload_that_is_gone_ends_its_job(reopened, tmp_path):
    store = reopened()
    store.add(one := job(), UPLOAD)
    (tmp_path / f"{one.id}.upload").unlink()
    with pytest.raises(JobAbandoned, match="its upload cannot be read: No such file"):
        store.read_upload(one)


def test_a_database_that_is_none_is_told(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"hello, world" * 1000)
    with pytest.raises(StorageError, match="file is not a database"):
        Store(tmp_path, max_waiting=1, max_bytes=1)


def test_uploads_are_on_the_disk_before_their_rows(reopened, tmp_path, monkeypatch):
    """So that a row never promises what is not there."""
    store = reopened()
    monkeypatch.setattr("app.store._write", lambda path, data: seen.append(rows(tmp_path)))
    seen: list[list[str]] = []
    store.add(one := job(), UPLOAD)
    assert seen == [[]]
    assert rows(tmp_path) == [one.id.hex]


def rows(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as database:
        return [row[0] for row in database.execute("SELECT id FROM jobs")]


def test_a_job_is_its_owners_alone(reopened):
    """The owner is the name of the key, which whoever checks keys leaves in the request's state."""

    def caller(**state: str) -> str | None:
        return get_caller(Request({"type": "http", "state": state}))

    store = reopened()
    store.add(hers := job(owner=caller(caller="alice")), UPLOAD)
    store.add(nobodys := job(owner=caller(caller="")), UPLOAD)
    assert (hers.owner, nobodys.owner) == ("alice", None)

    async def seen_by(who: str | None, one: Job) -> bool:
        jobs = Jobs(store, SimpleNamespace(), SimpleNamespace(), CapacityLimiter(1))
        try:
            return (await jobs.find(one.id, who)).id == one.id
        except JobMissing:
            return False

    for who, seen in (("alice", [True, False]), ("bob", [False] * 2), (None, [False, True])):
        assert [anyio.run(seen_by, who, one) for one in (hers, nobodys)] == seen
