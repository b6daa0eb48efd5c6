"""What is kept of jobs, and what is found of it after a crash."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from anyio import CapacityLimiter
from fastapi import Request

from app.api.dependencies import get_caller
from app.errors import problem_of
from app.jobs import Jobs
from app.store import ATTEMPTS, Job, Progress, Store
from superres.errors import BadRequest, Busy, EngineError, JobAbandoned, JobMissing, StorageError
from tests.storage import empty_database, new_database, postgres

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


@pytest.fixture(scope="module")
def only_database() -> Iterator[str]:
    with postgres() as server:
        yield new_database(server)


@pytest.fixture
def shared_database(only_database: str) -> str:
    """Its URL; there is nothing in it."""
    empty_database(only_database)
    return only_database


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The setting: whatever has the rows, the store is the same."""
    return "" if request.param == "sqlite" else request.getfixturevalue("shared_database")


@pytest.fixture
def reopened(tmp_path: Path, database: str) -> Iterator[Callable[..., Store]]:
    """The store, as a service finds it that is started after a crash."""
    stores: list[Store] = []

    def reopened(max_waiting: int = 9, max_bytes: int = 999) -> Store:
        if stores:
            stores[-1].close()  # what it held, no crash would keep
        stores.append(Store(tmp_path, database, max_waiting=max_waiting, max_bytes=max_bytes))
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
    store.start(other.id)
    for _ in range(3):
        store.start(one.id)
        store.put_back(one.id)
    assert (store.find(one.id).state, store.find(one.id).attempts) == ("waiting", 0)
    assert (store.find(other.id).state, store.find(other.id).attempts) == ("running", 1)


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
        os.utime(tmp_path / orphan, (0, 0))
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
    with pytest.raises(JobAbandoned, match="its upload is gone"):
        store.read_upload(one)


def test_a_database_that_is_none_is_told(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"hello, world" * 1000)
    with pytest.raises(StorageError, match="file is not a database"):
        Store(tmp_path, max_waiting=1, max_bytes=1)


def test_uploads_are_on_the_disk_before_their_rows(reopened, monkeypatch):
    """So that a row never promises what is not there."""
    store = reopened()
    seen: list[int] = []
    monkeypatch.setattr(
        "app.store.write_whole", lambda path, data: seen.append(store.counts()["waiting"])
    )
    store.add(job(), UPLOAD)
    assert seen == [0]
    assert store.counts()["waiting"] == 1


@pytest.fixture
def two(tmp_path: Path, shared_database: str) -> Iterator[tuple[Store, Store]]:
    """Of two services that share their jobs."""
    stores = [Store(tmp_path, shared_database, max_waiting=9, max_bytes=999) for _ in range(2)]
    yield stores[0], stores[1]
    for store in stores:
        store.close()


def progress(of: Job, tiles_done: int) -> dict[UUID, Progress]:
    return {of.id: Progress(of.id, "infer", tiles_done, {"decode": 0.5})}


def test_of_two_services_one_begins_a_job(two):
    for store in two:
        store.add(job(), UPLOAD)
        first, second = (one.oldest_waiting() for one in two)
        assert first.id == second.id
        assert sorted([two[0].start(first.id), two[1].start(second.id)]) == [False, True]
        two[0].finish(first.id, RESULT, media_type="image/png", headers={}, timings={})


def test_what_a_service_is_at_is_no_other_services_until_it_stops(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    here.share({}, ())
    here.recover()
    assert here.find(one.id).state == "running"
    there.close()  # as the server does for one that died
    here.share({}, ())
    assert here.oldest_waiting().id == one.id
    assert here.start(one.id)
    assert here.find(one.id).attempts == 2


def test_how_far_a_job_is_can_be_read_at_another_service(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    assert here.find(one.id).progress is None
    for tiles_done in (1, 3):
        assert there.share(progress(one, tiles_done), ()) == set()
        told = here.find(one.id).progress
        assert (told.stage, told.tiles_done, told.timings) == ("infer", tiles_done, {"decode": 0.5})
    there.put_back(one.id)
    here.start(one.id)
    assert there.find(one.id).progress is None
    here.share(progress(one, 2), ())
    finish(here, one)
    assert there.find(one.id).progress is None


def test_the_service_that_is_at_a_job_hears_that_another_removed_it(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    there.share(progress(one, 1), ())
    here.remove(one.id)
    assert there.share(progress(one, 2), ()) == {one.id}


def test_a_service_that_is_about_to_begin_a_job_hears_that_another_has(two):
    here, there = two
    for one in (jobs := [job(1), job(2), job(3)]):
        there.add(one, UPLOAD)
    there.start(jobs[0].id)
    here.start(jobs[1].id)
    there.remove(jobs[2].id)
    assert here.share({}, [one.id for one in jobs]) == {jobs[0].id, jobs[2].id}


def test_what_a_service_is_not_at_it_neither_puts_back_nor_fails(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    here.put_back(one.id)
    here.fail(one.id, problem_of(EngineError("not here"), "id"), {})
    assert (there.find(one.id).state, there.find(one.id).attempts) == ("running", 1)
    assert there.read_upload(one) == UPLOAD


def test_the_first_service_to_end_a_job_has_done_it(two):
    """One whose connection was lost goes on with what another has begun meanwhile."""
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    finish(here, one)
    finish(there, one, b"late")
    there.fail(one.id, problem_of(EngineError("late"), "id"), {})
    assert here.find(one.id).state == "done"
    with here.open_result(one) as file:
        assert file.read() == RESULT


def test_a_service_whose_connections_were_lost_is_still_at_its_jobs(two, shared_database):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.start(one.id)
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'superres' AND datname = current_database()"
        )
    for _ in range(2):  # the first finds out
        with suppress(StorageError):
            there.share({}, ())
    here.share({}, ())
    assert here.find(one.id).state == "running"


def test_no_more_jobs_wait_than_are_allowed_however_many_services_take_them(
    tmp_path, shared_database
):
    stores = [Store(tmp_path, shared_database, max_waiting=5, max_bytes=999) for _ in range(4)]

    def add(store: Store) -> None:
        for _ in range(4):
            with suppress(Busy):
                store.add(job(), UPLOAD)

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(add, stores))
    assert stores[0].counts()["waiting"] == 5
    for store in stores:
        store.close()


def test_a_young_file_without_a_row_may_be_another_services(two, tmp_path):
    coming, left = (tmp_path / f"{uuid4()}.upload" for _ in range(2))
    for file in (coming, left):
        file.write_bytes(UPLOAD)
    os.utime(left, (0, 0))
    two[0].recover()
    assert coming.exists()
    assert not left.exists()


def test_what_jobs_cannot_be_shared_by_is_told(tmp_path):
    for database in ("jobs", "mysql://a:secret@localhost/jobs"):
        with pytest.raises(BadRequest, match="is postgresql://USER:PASSWORD@HOST/NAME") as told:
            Store(tmp_path, database, max_waiting=1, max_bytes=1)
        assert "secret" not in str(told.value)
    with pytest.raises(BadRequest, match=r"jobs in memory://jobs.*must name a database"):
        Store("memory://jobs", max_waiting=1, max_bytes=1)
    with pytest.raises(StorageError, match="the jobs' database: connection"):
        Store(tmp_path, f"postgresql:///jobs?host={tmp_path}", max_waiting=1, max_bytes=1)


def test_a_job_is_its_owners_alone(reopened):
    """The owner is the name of the key, which whoever checks keys leaves in the request's state."""

    def caller(**state: str) -> str | None:
        return anyio.run(get_caller, Request({"type": "http", "state": state}))

    store = reopened()
    store.add(hers := job(owner=caller(caller="alice")), UPLOAD)
    store.add(nobodys := job(owner=caller(caller="")), UPLOAD)
    assert (hers.owner, nobodys.owner) == ("alice", None)

    async def seen_by(who: str | None, one: Job) -> bool:
        jobs = Jobs(
            store, SimpleNamespace(), SimpleNamespace(), CapacityLimiter(1), make_headers=dict
        )
        try:
            return (await jobs.find(one.id, who)).id == one.id
        except JobMissing:
            return False

    for who, seen in (("alice", [True, False]), ("bob", [False] * 2), (None, [False, True])):
        assert [anyio.run(seen_by, who, one) for one in (hers, nobodys)] == seen
