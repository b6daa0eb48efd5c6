"""Jobs that are submitted again, and the list of one's own: no key, no address sees another's."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from superres.client import AsyncClient, Client
from superres.schemas import JobReport
from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import ASYNC, order, path, wait
from tests.pictures import plain
from tests.serving import link_models, serve_process
from tests.storage import new_database, postgres


def keyed(key: str) -> dict[str, str]:
    return ASYNC | {"Idempotency-Key": key}


def submit(client: httpx.Client, key: str, content: bytes | None = None, **params: object):
    return client.post("/enhance", content=content or plain(), params=params, headers=keyed(key))


def listed(client: httpx.Client, **params: object) -> list[str]:
    return [job["id"] for job in client.get("/jobs", params=params | {"limit": 100}).json()["jobs"]]


def test_a_request_that_is_repeated_with_its_key_is_answered_with_the_same_job(fake_service):
    first = submit(fake_service, '"again"', scale=2)
    again = submit(fake_service, "again", scale=2)  # quotation marks are not part of a key
    form = fake_service.post(
        "/enhance", data={"scale": 2}, files={"file": plain()}, headers=keyed('"again"')
    )
    for answer in (again, form):
        assert answer.status_code == first.status_code == 202
        assert answer.headers["location"] == first.headers["location"]
    done = wait(fake_service, first.json())
    assert submit(fake_service, '"again"', scale=2).json() == done
    # What makes another answer is another request.
    for content, params in (
        (plain(), {"scale": 3}),
        (plain(), {"scale": 2, "format": "webp"}),
        (plain(99, 99), {"scale": 2}),
    ):
        refused = submit(fake_service, "again", content, **params)
        assert_problem(refused, 422, "idempotency-key-reused", f"'again' made job {done['id']}")
    png = fake_service.post(
        "/enhance?scale=2", content=plain(), headers=keyed("again") | {"Accept": "image/png"}
    )
    assert png.headers["location"] == first.headers["location"]  # as it was without
    accepts = keyed("again") | {"Accept": "image/jpeg"}
    refused = fake_service.post("/enhance?scale=2", content=plain(), headers=accepts)
    assert refused.status_code == 422
    fake_service.delete(path(done))
    other = submit(fake_service, "again", scale=3)
    assert other.status_code == 202
    fake_service.delete(other.headers["location"])


def test_without_a_key_each_request_is_a_job(fake_service):
    jobs = [order(fake_service, plain()) for _ in range(2)]
    assert jobs[0]["id"] != jobs[1]["id"]
    for job in jobs:
        fake_service.delete(path(job))


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"open', "caf\xe9", '"' + "\\" + '"'])
def test_a_key_that_is_not_one_is_refused(fake_service, key):
    headers = keyed("") | {"Idempotency-Key": key.encode("latin-1")}
    answer = fake_service.post("/enhance", content=plain(), headers=headers)
    assert_problem(answer, 422, "bad-parameter", "1 to 255 printable characters")


def test_of_equal_requests_at_once_one_makes_a_job(fake_service):
    before = len(listed(fake_service))
    barrier = threading.Barrier(8)

    def send(_: int) -> str:
        barrier.wait(30)
        return str(submit(fake_service, "race").headers["location"])

    with ThreadPoolExecutor(8) as threads:
        (location,) = set(threads.map(send, range(8)))
    assert len(listed(fake_service)) == before + 1
    fake_service.delete(location)


def test_jobs_are_listed_in_pages_the_newest_first_and_by_state(fake_service):
    before = set(listed(fake_service))
    made = [order(fake_service, plain()) for _ in range(5)]
    for job in made:
        wait(fake_service, job)
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = fake_service.get("/jobs", params={"limit": 2, "cursor": cursor}).json()
        assert len(page["jobs"]) <= 2
        cursor = page["cursor"]
        seen += [job["id"] for job in page["jobs"]]
    assert [job for job in seen if job not in before] == [job["id"] for job in reversed(made)]
    assert page["jobs"][0] == fake_service.get(f"/jobs/{page['jobs'][0]['id']}").json()
    done = set(listed(fake_service, state="done"))
    assert {job["id"] for job in made} <= done
    assert done == set(listed(fake_service, state=["done", "failed"])) - set(
        listed(fake_service, state="failed")
    )
    assert listed(fake_service, state="waiting") == []
    assert_problem(fake_service.get("/jobs?limit=0"), 422, "bad-parameter", "limit")
    assert_problem(fake_service.get("/jobs?state=lost"), 422, "bad-parameter", "state")
    assert_problem(fake_service.get("/jobs?cursor=x"), 422, "bad-parameter", "cursor: ")
    assert_problem(fake_service.get("/jobs?owner=x"), 422, "bad-parameter", "owner")
    for job in made:
        fake_service.delete(path(job))


def test_without_keys_the_list_has_what_the_callers_address_sent(fake_service):
    """All of 127.0.0.0/8 is this machine; the service listens on 127.0.0.1."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=fake_service.base_url, transport=transport) as other:
        job = order(other, plain())
        assert job["id"] in listed(other)
        assert job["id"] not in listed(fake_service)
        assert (
            submit(other, "same key").json()["id"] != submit(fake_service, "same key").json()["id"]
        )
        for one in listed(other):
            other.delete(f"/jobs/{one}")


@contextmanager
def losing_the_first_answer(url: httpx.URL) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a proxy that closes the connection in place of the first answer."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65536):
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def relay() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection((url.host, url.port)) as service:
                if not requests:
                    head = client.recv(65536)
                    requests.append(head)
                    service.sendall(head)
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    missing = length - len(head.split(b"\r\n\r\n", 1)[1])
                    while missing > 0:
                        missing -= len(part := client.recv(65536))
                        service.sendall(part)
                    assert service.recv(65536).startswith(b"HTTP/1.1 202")
                    continue
                back = threading.Thread(target=pump, args=(service, client), daemon=True)
                back.start()
                pump(client, service)
                back.join(30)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def test_a_client_whose_answer_was_lost_makes_one_job(fake_service, monkeypatch):
    monkeypatch.setattr("superres.client.POLL_S", 0.02)
    monkeypatch.setattr(Client, "_remove", lambda self, job: None)  # what is left is counted
    before = set(listed(fake_service))
    with (
        losing_the_first_answer(fake_service.base_url) as (url, requests),
        Client(url, job_pixels=0) as client,
    ):
        assert client.enhance(plain()).content
    assert b"idempotency-key: " in requests[0].lower()
    (job,) = set(listed(fake_service)) - before
    fake_service.delete(f"/jobs/{job}")


def test_the_clients_list_their_jobs_over_all_pages(fake_service, monkeypatch):
    monkeypatch.setattr("superres.job_calls.PAGE", 2)
    made = [order(fake_service, plain()) for _ in range(5)]
    for job in made:
        wait(fake_service, job)
    with Client(str(fake_service.base_url)) as client:
        jobs = list(client.jobs())
        assert all(isinstance(job, JobReport) for job in jobs)
        assert [str(job.id) for job in jobs] == listed(fake_service)
        assert [str(job.id) for job in client.jobs("done")] == listed(fake_service, state="done")
        assert list(client.jobs("waiting", "running")) == []

    async def ask() -> list[str]:
        async with AsyncClient(str(fake_service.base_url)) as client:
            return [str(job.id) async for job in client.jobs("done")]

    assert anyio.run(ask) == listed(fake_service, state="done")
    for job in made:
        fake_service.delete(path(job))


@pytest.mark.slow
def test_of_equal_requests_to_two_processes_at_once_one_makes_a_job(tmp_path: Path):
    models = link_models(tmp_path / "models", "srcnn-x3")
    with postgres() as server:
        own = {
            "device": "cpu",
            "models": models,
            "default_model": "bicubic",
            "jobs": tmp_path / "jobs",
            "jobs_database": new_database(server),
        }
        with serve_process(**own) as (one, first), serve_process(**own) as (other, second):
            assert len({first, second, os.getpid()}) == 3
            for number in range(5):
                with ThreadPoolExecutor(8) as threads:
                    sent = [
                        threads.submit(submit, (one, other)[n % 2], f"race {number}")
                        for n in range(8)
                    ]
                    assert {answer.result().status_code for answer in sent} == {202}
                    assert len({answer.result().headers["location"] for answer in sent}) == 1
            assert len(listed(one)) == 5
            assert set(listed(other)) == set(listed(one))
