"""The store of jobs: what it keeps, and what it finds after a crash."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from fastapi import Request
from sqlalchemy import delete, select, update

from app.api.dependencies import get_caller
from app.errors import describe_error
from app.jobs.callbacks import CallbackRepository
from app.jobs.listing import JobSelection
from app.jobs.queue import JobQueue
from app.jobs.repository import ATTEMPTS
from app.jobs.rows import Base, Callback, Job, Progress, SchemaVersion, Submission
from app.jobs.schema import VERSION
from app.jobs.store import JobStore
from app.service_errors import JobMissing, KeyReused, StorageError
from superres.errors import BadRequest, Busy, EngineError, JobAbandoned
from tests.storage import empty_database, new_database, postgres

UPLOAD, RESULT = b"upload", b"result, longer"
OLD_JOBS = Path(__file__).parents[1] / "jobs-0.1"
"""Folder of version 0.1, with a job that is done and two that wait."""


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


def open_store(
    folder: Path | str, database: str = "", *, max_waiting: int, max_bytes: int
) -> JobStore:
    return JobStore(
        folder,
        database,
        max_waiting=max_waiting,
        max_bytes=max_bytes,
        describe_error=describe_error,
        describe_job=lambda job: f"{job.id} {job.state}",
    )


def finish(store: JobStore, one: Job, result: bytes = RESULT) -> None:
    store.finish(one.id, result, media_type="image/png", headers={"X": "1"}, timings={"decode": 1})


@pytest.fixture(scope="module")
def only_database() -> Iterator[str]:
    with postgres() as server:
        yield new_database(server)


@pytest.fixture
def shared_database(only_database: str) -> str:
    """The URL of an empty database."""
    empty_database(only_database)
    return only_database


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The setting: the store behaves the same on both databases."""
    return "" if request.param == "sqlite" else request.getfixturevalue("shared_database")


@pytest.fixture
def reopened(tmp_path: Path, database: str) -> Iterator[Callable[..., JobStore]]:
    """The store, as a service finds it when it starts after a crash."""
    stores: list[JobStore] = []

    def reopened(max_waiting: int = 9, max_bytes: int = 999) -> JobStore:
        if stores:
            stores[-1].close()  # a crash ends its locks, too
        stores.append(open_store(tmp_path, database, max_waiting=max_waiting, max_bytes=max_bytes))
        stores[-1].recover()
        return stores[-1]

    yield reopened
    stores[-1].close()


def version(store: JobStore) -> int:
    with store.rows.reading() as session:
        return session.scalars(select(SchemaVersion.version)).one()


def test_jobs_of_version_0_1_are_kept(tmp_path: Path):
    shutil.copytree(OLD_JOBS, tmp_path, dirs_exist_ok=True)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as old:
        old.executescript((OLD_JOBS / "jobs.sql").read_text())
    for _ in range(2):
        with closing(open_store(tmp_path, max_waiting=9, max_bytes=9999)) as store:
            store.recover()
            assert store.rows.counts() == {"waiting": 2, "running": 0, "done": 1, "failed": 0}
            assert version(store) == VERSION
            assert len(store.files.read_upload(store.rows.oldest_waiting())) == 247


def test_jobs_of_a_later_version_are_refused_and_left_alone(reopened):
    store = reopened()
    assert version(store) == VERSION
    store.add(one := job(), UPLOAD)
    with store.rows.writing() as session:
        session.execute(update(SchemaVersion).values(version=VERSION + 1))
    with pytest.raises(StorageError, match=f"tables of version {VERSION + 1}, and this superres"):
        reopened()
    with store.rows.writing() as session:
        session.execute(update(SchemaVersion).values(version=VERSION))
    assert reopened().rows.find(one.id).state == "waiting"


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.suffix in (".upload", ".result")}


def test_a_job_that_runs_at_a_crash_is_begun_again_but_not_for_ever(reopened):
    store = reopened()
    store.add(one := job(), UPLOAD)
    for attempt in range(1, ATTEMPTS + 1):
        assert store.rows.oldest_waiting().id == one.id
        assert store.files.read_upload(one) == UPLOAD
        assert store.rows.start(one.id)
        assert store.rows.find(one.id).attempts == attempt
        assert store.rows.oldest_waiting() is None
        store = reopened()
    failed = store.rows.find(one.id)
    assert failed.state == "failed"
    assert failed.problem["type"].endswith("job-abandoned")
    assert failed.problem["request_id"] == "request-1"
    assert f"the service stopped {ATTEMPTS} times" in failed.problem["detail"]
    assert store.rows.oldest_waiting() is None


def test_a_requeued_job_has_not_been_tried(reopened):
    store = reopened()
    store.add(one := job(), UPLOAD)
    store.add(other := job(2), UPLOAD)
    store.rows.start(other.id)
    for _ in range(3):
        store.rows.start(one.id)
        store.rows.requeue(one.id)
    assert (store.rows.find(one.id).state, store.rows.find(one.id).attempts) == ("waiting", 0)
    assert (store.rows.find(other.id).state, store.rows.find(other.id).attempts) == ("running", 1)


def test_what_is_done_and_what_waits_is_there_after_a_crash_and_what_nobody_knows_goes(
    reopened, tmp_path
):
    store = reopened()
    for one in (jobs := [job(3), job(1), job(2)]):
        store.add(one, UPLOAD)
    store.rows.start(jobs[1].id)
    finish(store, jobs[1])
    store.rows.start(jobs[2].id)
    store.fail(jobs[2].id, EngineError("why"), {"decode": 2.0})
    for orphan in (f"{uuid4()}.upload", f"{uuid4()}.result", f"{jobs[0].id}.upload.partial"):
        (tmp_path / orphan).write_bytes(b"half")
        os.utime(tmp_path / orphan, (0, 0))
    (tmp_path / "notes.txt").touch()
    store = reopened()
    assert files(tmp_path) == {f"{jobs[0].id}.upload", f"{jobs[1].id}.result"}
    assert (tmp_path / "notes.txt").exists()
    assert store.rows.oldest_waiting().id == jobs[0].id
    done = store.rows.find(jobs[1].id)
    with store.files.open_result(done) as file:
        assert file.read() == RESULT
    assert (done.headers, done.media_type, done.timings) == ({"X": "1"}, "image/png", {"decode": 1})
    assert store.rows.find(jobs[2].id).problem["detail"] == "why"
    assert store.rows.counts() == {"waiting": 1, "running": 0, "done": 1, "failed": 1}
    assert store.rows.stored_bytes() == len(UPLOAD) + len(RESULT)


def test_jobs_are_taken_in_the_order_in_which_they_came(reopened):
    store = reopened()
    for one in (jobs := [job(3), job(1), job(2)]):
        store.add(one, UPLOAD)
    taken = []
    while one := store.rows.oldest_waiting():
        taken.append(one.created)
        store.rows.start(one.id)
    assert taken == sorted(one.created for one in jobs)


def test_a_removed_job_leaves_nothing_and_its_late_result_is_not_kept(reopened, tmp_path):
    store = reopened()
    store.add(one := job(), UPLOAD)
    store.rows.start(one.id)
    store.rows.remove(one.id)
    assert not store.rows.start(one.id)
    finish(store, one)
    store.fail(one.id, EngineError("late"), {})
    assert store.rows.find(one.id) is None
    assert files(tmp_path) == set()
    with pytest.raises(JobMissing, match="no longer there"):
        store.files.open_result(one)


def test_what_is_refused_leaves_nothing(reopened, tmp_path):
    store = reopened(max_waiting=1, max_bytes=len(UPLOAD) + len(RESULT))
    store.add(one := job(), UPLOAD)
    with pytest.raises(Busy, match="at most 1 jobs wait; 1 do"):
        store.add(job(), UPLOAD)
    store.rows.start(one.id)
    with pytest.raises(StorageError, match="with this one's 15 there would be 21"):
        finish(store, one, RESULT + b"!")
    assert store.rows.find(one.id).state == "running"
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
        store.files.read_upload(one)


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"hello, world" * 1000)
    with pytest.raises(StorageError, match="file is not a database"):
        open_store(tmp_path, max_waiting=1, max_bytes=1)


def test_no_other_user_can_read_what_is_kept(tmp_path):
    """Whatever the umask; what an earlier release left behind its readers is closed."""
    folder = tmp_path / "new" / "jobs"
    before = os.umask(0)
    try:
        store = open_store(folder, max_waiting=10, max_bytes=10**6)
        store.add(one := job(), UPLOAD)
        store.add(two := job(2), UPLOAD)
        assert store.rows.start(one.id)
        finish(store, one)
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {"lock", "jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"}
    assert modes == dict.fromkeys({*names, f"{one.id}.result", f"{two.id}.upload"}, 0o600)

    (folder / "jobs.sqlite").chmod(0o644)
    open_store(folder, max_waiting=10, max_bytes=10**6).close()
    assert (folder / "jobs.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_can_look_into_is_left_and_told(tmp_path, caplog):
    """It may be one that people share."""
    tmp_path.chmod(0o755)
    open_store(tmp_path, max_waiting=10, max_bytes=10**6).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert f"other users can look into {tmp_path}" in caplog.text


def test_uploads_are_on_the_disk_before_their_rows(reopened, monkeypatch):
    """So that no row is without its upload."""
    store = reopened()
    seen: list[int] = []
    monkeypatch.setattr(
        "app.jobs.files.write_whole",
        lambda *_, **__: seen.append(store.rows.counts()["waiting"]),
    )
    store.add(job(), UPLOAD)
    assert seen == [0]
    assert store.rows.counts()["waiting"] == 1


@pytest.fixture
def two(tmp_path: Path, shared_database: str) -> Iterator[tuple[JobStore, JobStore]]:
    """Of two services that share their jobs."""
    stores = [open_store(tmp_path, shared_database, max_waiting=9, max_bytes=999) for _ in range(2)]
    yield stores[0], stores[1]
    for store in stores:
        store.close()


def progress(of: Job, tiles_done: int) -> dict[UUID, Progress]:
    return {of.id: Progress(of.id, "infer", tiles_done, {"decode": 0.5})}


def test_of_two_services_one_begins_a_job(two):
    for store in two:
        store.add(job(), UPLOAD)
        first, second = (one.rows.oldest_waiting() for one in two)
        assert first.id == second.id
        assert sorted([two[0].rows.start(first.id), two[1].rows.start(second.id)]) == [False, True]
        two[0].finish(first.id, RESULT, media_type="image/png", headers={}, timings={})


def test_a_running_job_is_left_alone_by_other_services_until_its_own_stops(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    here.rows.synchronize({}, ())
    here.recover()
    assert here.rows.find(one.id).state == "running"
    there.close()  # as the server does for one that died
    here.rows.synchronize({}, ())
    assert here.rows.oldest_waiting().id == one.id
    assert here.rows.start(one.id)
    assert here.rows.find(one.id).attempts == 2


def test_the_progress_of_a_job_can_be_read_at_another_service(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    assert here.rows.find(one.id).progress is None
    for tiles_done in (1, 3):
        assert there.rows.synchronize(progress(one, tiles_done), ()) == set()
        read = here.rows.find(one.id).progress
        assert (read.stage, read.tiles_done, read.timings) == ("infer", tiles_done, {"decode": 0.5})
    there.rows.requeue(one.id)
    here.rows.start(one.id)
    assert there.rows.find(one.id).progress is None
    here.rows.synchronize(progress(one, 2), ())
    finish(here, one)
    assert there.rows.find(one.id).progress is None


def test_a_service_learns_that_another_removed_its_running_job(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    there.rows.synchronize(progress(one, 1), ())
    here.rows.remove(one.id)
    assert there.rows.synchronize(progress(one, 2), ()) == {one.id}


def test_a_service_that_is_about_to_begin_a_job_learns_that_another_has_begun_it(two):
    here, there = two
    for one in (jobs := [job(1), job(2), job(3)]):
        there.add(one, UPLOAD)
    there.rows.start(jobs[0].id)
    here.rows.start(jobs[1].id)
    there.rows.remove(jobs[2].id)
    assert here.rows.synchronize({}, [one.id for one in jobs]) == {jobs[0].id, jobs[2].id}


def test_a_service_neither_requeues_nor_fails_a_job_of_another(two):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    here.rows.requeue(one.id)
    here.fail(one.id, EngineError("not here"), {})
    assert (there.rows.find(one.id).state, there.rows.find(one.id).attempts) == ("running", 1)
    assert there.files.read_upload(one) == UPLOAD


def test_the_first_service_to_end_a_job_has_done_it(two):
    """A service that lost its connection continues a job that another one has begun meanwhile."""
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    finish(here, one)
    finish(there, one, b"late")
    there.fail(one.id, EngineError("late"), {})
    assert here.rows.find(one.id).state == "done"
    with here.files.open_result(one) as file:
        assert file.read() == RESULT


def test_a_service_whose_connections_were_lost_keeps_its_jobs(two, shared_database):
    here, there = two
    there.add(one := job(), UPLOAD)
    there.rows.start(one.id)
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'superres' AND datname = current_database()"
        )
    for _ in range(2):  # the first try finds that the connection is lost
        with suppress(StorageError):
            there.rows.synchronize({}, ())
    here.rows.synchronize({}, ())
    assert here.rows.find(one.id).state == "running"


def test_no_more_jobs_wait_than_are_allowed_however_many_services_take_them(
    tmp_path, shared_database
):
    stores = [open_store(tmp_path, shared_database, max_waiting=5, max_bytes=999) for _ in range(4)]

    def add(store: JobStore) -> None:
        for _ in range(4):
            with suppress(Busy):
                store.add(job(), UPLOAD)

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(add, stores))
    assert stores[0].rows.counts()["waiting"] == 5
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


def test_a_database_that_services_cannot_share_is_refused(tmp_path):
    for database in ("jobs", "mysql://a:secret@localhost/jobs"):
        with pytest.raises(BadRequest, match="is postgresql://USER:PASSWORD@HOST/NAME") as refused:
            open_store(tmp_path, database, max_waiting=1, max_bytes=1)
        assert "secret" not in str(refused.value)
    with pytest.raises(BadRequest, match=r"jobs in memory://jobs.*must name a database"):
        open_store("memory://jobs", max_waiting=1, max_bytes=1)
    with pytest.raises(StorageError, match="the jobs' database: connection"):
        open_store(tmp_path, f"postgresql:///jobs?host={tmp_path}", max_waiting=1, max_bytes=1)


def test_a_job_is_its_owners_alone(reopened):
    """The owner is the name of the key, which whoever checks keys leaves in the request's state."""

    def caller(**state: str) -> str | None:
        return anyio.run(get_caller, Request({"type": "http", "state": state}))

    store = reopened()
    store.add(hers := job(owner=caller(caller="alice")), UPLOAD)
    store.add(nobodys := job(owner=caller(caller="")), UPLOAD)
    assert (hers.owner, nobodys.owner) == ("alice", None)

    async def seen_by(who: str | None, one: Job) -> bool:
        jobs = JobQueue(
            store,
            SimpleNamespace(),
            SimpleNamespace(),
            max_watchers=1,
            max_watchers_per_key=1,
        )
        try:
            return (await jobs.find(one.id, who)).id == one.id
        except JobMissing:
            return False

    for who, seen in (("alice", [True, False]), ("bob", [False] * 2), (None, [False, True])):
        assert [anyio.run(seen_by, who, one) for one in (hers, nobodys)] == seen


def submission(of: Job, key: str | None = "k", caller: str = "key alice", fingerprint: str = "f"):
    return Submission(job_id=of.id, caller=caller, key=key, fingerprint=fingerprint)


def submit(store: JobStore, one: Job | None = None, **of: str | None) -> Job:
    one = one or job()
    return store.add(one, UPLOAD, submission(one, **of))


def test_the_same_caller_key_and_request_are_the_same_job_as_long_as_it_is_kept(reopened, tmp_path):
    store = reopened(max_waiting=5)
    first = submit(store)
    assert submit(store).id == first.id
    with pytest.raises(KeyReused, match=f"'k' made job {first.id}"):
        submit(store, fingerprint="another")
    others = [submit(store, **of) for of in ({"key": "j"}, {"caller": "key bob"}, {"key": None})]
    assert len({first.id, *(one.id for one in others), submit(store, key=None).id}) == 5
    assert len(files(tmp_path)) == 5
    with pytest.raises(Busy):
        submit(store, key="no room")
    assert submit(store).id == first.id  # where there is no room for a new one, too
    store = reopened()
    store.rows.start(first.id)
    finish(store, first)
    repeated = submit(store)
    assert (repeated.id, repeated.state) == (first.id, "done")
    store.rows.remove(first.id)
    assert submit(store, fingerprint="another").id != first.id


def test_of_equal_submissions_at_once_one_makes_a_job(reopened, tmp_path):
    store = reopened(max_waiting=99)
    with ThreadPoolExecutor(8) as threads:
        for number in range(5):
            made = [threads.submit(submit, store, key=f"key {number}") for _ in range(8)]
            assert len({one.result().id for one in made}) == 1
    assert len(store.rows.all()) == 5
    assert len(files(tmp_path)) == 5


def test_of_equal_submissions_to_two_services_at_once_one_makes_a_job(two):
    with ThreadPoolExecutor(8) as threads:
        for number in range(5):
            made = [threads.submit(submit, two[n % 2], key=f"key {number}") for n in range(8)]
            assert len({one.result().id for one in made}) == 1
    assert len(two[0].rows.all()) == 5


def test_a_database_of_an_earlier_version_gets_the_tables_that_it_lacks(reopened):
    store = reopened()
    store.add(old := job(owner="alice"), UPLOAD)
    new = [SchemaVersion.__table__, Submission.__table__, Callback.__table__]
    Base.metadata.drop_all(store.rows._database.engine, new)
    store = reopened()
    assert submit(store, job(2, owner="alice")).id == submit(store, job(3)).id
    assert old.id in {one.id for one in page(store, owner="alice")[0]}
    store.rows.start(old.id)
    finish(store, old)
    store.rows.remove(old.id)


def test_a_key_whose_job_an_earlier_version_removed_is_free(tmp_path):
    store = open_store(tmp_path, max_waiting=9, max_bytes=999)
    first = submit(store)
    with store.rows.writing() as session:  # PostgreSQL itself removes what refers to a job
        session.execute(delete(Job).where(Job.id == first.id))
    assert submit(store).id != first.id
    store.close()


def page(store: JobStore, *states: str, **of: str | int | None) -> tuple[list[Job], str | None]:
    asked = {"owner": None, "caller": "address ::1", "cursor": "", "limit": 9} | of
    found = store.page(JobSelection(states=states, **asked))
    return found.jobs, found.cursor


def test_a_callers_jobs_are_listed_in_pages_the_newest_first(reopened):
    store = reopened(max_waiting=99)
    made = [job(1 + n // 3 / 7, owner="alice") for n in range(8)]  # some at the same time
    for one in made:
        submit(store, one, key=None)
    for other in (job(2), job(2, owner="bob")):
        submit(store, other, key=None, caller="key bob")
    store.rows.start(made[0].id)
    newest = sorted(made, key=lambda one: (one.created, one.id), reverse=True)
    for limit in (1, 2, 3, 7, 8, 9):
        seen, cursor = [], ""
        while cursor is not None:
            jobs, cursor = page(store, owner="alice", limit=limit, cursor=cursor)
            assert len(jobs) <= limit
            seen += jobs
            if len(seen) == 3:  # what comes meanwhile moves nothing
                store.add(job(9, owner="alice"), UPLOAD)
        assert [one.id for one in seen if one.created < 9] == [one.id for one in newest]
        for one in page(store, owner="alice", limit=99)[0]:
            if one.created == 9:
                store.rows.remove(one.id)
    assert [one.id for one in page(store, "running", owner="alice")[0]] == [made[0].id]
    assert len(page(store, "running", "waiting", owner="alice")[0]) == 8
    assert page(store, "done", owner="alice") == ([], None)


def test_without_keys_a_job_is_listed_for_the_address_that_sent_it(reopened):
    store = reopened()
    hers = submit(store, key=None, caller="address ::1")
    submit(store, key=None, caller="address ::2")
    submit(store, job(owner="::1"), key=None, caller="key ::1")
    store.add(job(), UPLOAD)  # of an earlier version
    assert [one.id for one in page(store)[0]] == [hers.id]


@pytest.mark.parametrize("cursor", ["x", "1-2", "nan-" + "0" * 32, "1e9-" + "0" * 32, "-" * 99])
def test_a_cursor_that_is_of_no_page_is_refused(reopened, cursor):
    with pytest.raises(BadRequest, match="cursor: "):
        page(reopened(), cursor=cursor)


def with_callback(store: JobStore, lane: str = "alice example.org") -> Job:
    one = job()
    return store.add(one, UPLOAD, None, Callback(job_id=one.id, url="https://x", lane=lane))


def due(callbacks: CallbackRepository, *busy: str, limit: int = 9, seconds: float = 60):
    return callbacks.take_due(busy, limit, seconds)


def test_a_callback_is_due_when_its_job_has_ended_and_is_kept_until_it_is_sent(reopened):
    store = reopened()
    done, failed, removed, abandoned = (with_callback(store, f"lane {n}") for n in range(4))
    for one in (done, failed, abandoned):
        store.rows.start(one.id)
    assert due(store.callbacks) == []
    finish(store, done)
    store.rows.remove(done.id)  # its end is reported all the same
    store.fail(failed.id, EngineError("broken"), {})
    store.rows.remove(removed.id)  # it has not ended, and its caller knows
    with store.rows.reading() as session:
        assert session.get(Callback, removed.id) is None
    store = reopened()
    store.rows.start(abandoned.id)
    store = reopened()
    taken = {one.job_id: one for one in due(store.callbacks)}
    assert taken.keys() == {done.id, failed.id, abandoned.id}
    assert taken[done.id].body == f"{done.id} done"
    assert taken[failed.id].body == f"{failed.id} failed"
    assert all(one.attempts == 1 for one in taken.values())
    assert due(store.callbacks) == []  # taken
    assert store.callbacks.count() == 3
    store.callbacks.postpone(done.id, 0)
    store.callbacks.remove(failed.id)
    store = reopened()
    (again,) = due(store.callbacks)
    assert (again.job_id, again.attempts, again.body) == (done.id, 2, f"{done.id} done")
    assert store.callbacks.count() == 2


def test_callbacks_are_taken_one_of_each_lane_and_by_one_service(two):
    ended = []
    for n in range(6):
        one = with_callback(two[0], f"lane {n % 3}")
        two[0].rows.start(one.id)
        finish(two[0], one)
        ended.append(one.id)
    here, there = (store.callbacks for store in two)
    first = due(here, "lane 0", limit=1)
    assert [one.job_id for one in first] == ended[1:2]
    with ThreadPoolExecutor(6) as threads:
        taking = [threads.submit(due, (here, there)[n % 2]) for n in range(6)]
        taken = [one for batch in taking for one in batch.result()]
    assert sorted(map(str, [*(one.job_id for one in taken), ended[1]])) == sorted(map(str, ended))
    # A lease that is over: who took them has died.
    for one in taken:
        here.postpone(one.job_id, 0)
    assert len(due(there)) == 3
