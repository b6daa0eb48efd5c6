"""The end of a process, and models that are replaced while it runs."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.access import make_key
from app.inference.scheduler import BatchScheduler
from app.main import create_app
from app.settings import Settings
from superres.models.card import ModelCard, write_card
from superres.models.registry import DEFAULT_MODELS, read_cards
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.integration.test_auto import CountingEngines
from tests.integration.test_callers import gauge
from tests.integration.test_errors import Stuck, assert_problem
from tests.integration.test_jobs import order, path, wait
from tests.pictures import encoded, plain
from tests.serving import (
    link_models,
    resident_bytes,
    run,
    serve_app,
    serve_process,
    wait_until,
    wait_until_ready,
)
from tests.soak import slow, soak

ADMIN, ADMIN_ENTRY = make_key("ops", admin=True, limit="1000/second")
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}


@contextmanager
def stoppable(card: ModelCard, engine: Stuck, **settings: object):
    """A service with that device, in this process: the server, and a client."""
    with tempfile.TemporaryDirectory() as jobs:
        app = create_app(Settings(device="cpu", **{"jobs": jobs} | settings), {card.name: engine})
        with run(app) as (server, url), httpx.Client(base_url=url, timeout=30) as client:
            wait_until_ready(client)
            yield server, client
            engine.go.set()


def wait_for_the_device(engine: Stuck) -> None:
    wait_until(lambda: engine.calls)


def in_two_parts(go: threading.Event) -> Iterator[bytes]:
    """A picture whose second part is sent when the event is set."""
    yield plain()[:20]
    go.wait(100)
    yield plain()[20:]


def wait_for_draining(client: httpx.Client) -> httpx.Response:
    wait_until(lambda: client.get("/readyz").status_code != 200)
    return client.get("/readyz")


class Loading(dict[str, BlurEngine]):
    """Engines that are loaded when they are let go: that of edsr-lite-x3, and the rest."""

    def __init__(self, folder: Path) -> None:
        cards = read_cards(folder)
        super().__init__((card.name, BlurEngine(card.geometry)) for card in cards)
        self.first, self.rest = threading.Event(), threading.Event()

    def __getitem__(self, name: str) -> BlurEngine:
        (self.first if name == "edsr-lite-x3" else self.rest).wait(100)
        return super().__getitem__(name)


LOADED_IN_TURN = ("edsr-lite-x3", "edsr-lite-compressed-x3", "edsr-lite-x2", "srcnn-x3")


def test_health_is_told_before_any_model_is_loaded_and_a_loaded_one_answers_before_the_rest(
    tmp_path: Path,
):
    models = link_models(tmp_path / "models", *LOADED_IN_TURN)
    engines = Loading(models)
    settings = Settings(device="cpu", models=models, default_model="auto")
    with serve_app(settings, engines) as client:
        assert client.get("/healthz").status_code == 200
        for answer in (client.get("/readyz"), client.post("/enhance", content=plain())):
            assert_problem(answer, 503, "not-ready", "the models are being loaded and checked")
            assert answer.headers["retry-after"] == "5"
        engines.first.set()
        enhance = "/enhance?model=edsr-lite"
        wait_until(lambda: client.post(enhance, content=plain()).status_code == 200)
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 503, "not-ready", "is being loaded and checked")
        says = "1 of 3 models are loaded and checked"  # without that at x2; bicubic is one of them
        assert_problem(client.get("/readyz"), 503, "not-ready", says)
        for query in ("scale=2", "scale=2&dry_run=true"):
            answer = client.post(f"{enhance}&{query}", content=plain())
            assert_problem(answer, 503, "not-ready", "edsr-lite-x2 is being loaded and checked")
        job = order(client, plain(), model="edsr-lite", scale=2)
        assert "\nsuperres_ready 0.0\n" in client.get("/metrics").text
        engines.rest.set()
        assert wait(client, job)["state"] == "done"
        wait_until_ready(client)


@pytest.mark.slow
def test_a_job_that_comes_while_the_service_starts_has_its_model_loaded(tmp_path: Path):
    """And those after it do not wait for ever."""
    models = link_models(tmp_path / "models", *LOADED_IN_TURN)
    engines = Loading(models)
    settings = Settings(device="cpu", models=models, default_model="auto")
    with serve_app(settings, engines) as client:
        engines.first.set()
        wait_until(lambda: "1 of 3 models" in client.get("/readyz").text)
        first = order(client, plain(), model="edsr-lite", scale=2)
        second = order(client, plain(), model="edsr-lite", scale=3)
        engines.rest.set()
        assert {wait(client, job)["state"] for job in (first, second)} == {"done"}


@pytest.mark.slow
def test_a_thread_that_goes_on_does_not_keep_the_process(tmp_path: Path):
    program = """
import asyncio, sys, time
from types import SimpleNamespace
import uvicorn
from app.drain import Drain, Server

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 300)
    server.should_exit = True
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

models = SimpleNamespace(failure=None)
drain = Drain(SimpleNamespace(settings=SimpleNamespace(drain_s=0), draining=False, models=models))
server = Server(uvicorn.Config(app, port=0), drain, end_s=0.5)
server.run()
"""
    run = subprocess.run([sys.executable, "-c", program], timeout=100, capture_output=True)
    assert run.returncode == 1
    assert b"a thread still works after 0.5 s" in run.stderr


def test_what_was_begun_is_finished_while_newcomers_are_sent_elsewhere(srcnn_card):
    engine = Stuck(srcnn_card)
    with stoppable(srcnn_card, engine) as (server, client), ThreadPoolExecutor(1) as pool:
        begun = pool.submit(client.post, "/enhance", content=plain())
        wait_for_the_device(engine)
        server.should_exit = True
        assert_problem(wait_for_draining(client), 503, "not-ready", "the service is draining")
        refused = client.post("/enhance", content=plain())
        assert_problem(refused, 503, "not-ready", "the service is draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200
        engine.go.set()
        assert begun.result().status_code == 200


def test_a_body_that_was_on_its_way_is_still_taken(srcnn_card):
    engine = Stuck(srcnn_card)
    engine.go.set()
    with stoppable(srcnn_card, engine) as (server, client), ThreadPoolExecutor(1) as pool:
        sent = threading.Event()
        begun = pool.submit(client.post, "/enhance", content=in_two_parts(sent))
        wait_until(lambda: gauge(client, "superres_reserved_bytes") == 20)
        server.should_exit = True
        wait_for_draining(client)
        sent.set()
        assert begun.result().status_code == 200


@pytest.mark.slow
def test_no_job_is_begun_while_the_service_drains(srcnn_card, tmp_path: Path):
    """A request makes room for a job that waits for it, while another one is still coming in."""
    engine, jobs = Stuck(srcnn_card), tmp_path / "jobs"
    with (
        stoppable(srcnn_card, engine, jobs=jobs, max_requests=1) as (server, client),
        ThreadPoolExecutor(2) as pool,
    ):
        sent = threading.Event()
        begun = pool.submit(client.post, "/enhance", content=plain())
        wait_for_the_device(engine)
        reserved = gauge(client, "superres_reserved_bytes")
        coming = pool.submit(client.post, "/enhance", content=in_two_parts(sent))
        wait_until(lambda: gauge(client, "superres_reserved_bytes") == reserved + 20)
        order(client, plain())
        server.should_exit = True
        wait_for_draining(client)
        engine.go.set()
        assert begun.result().status_code == 200
        time.sleep(0.5)  # in which the job would be begun
        sent.set()
        assert coming.result().status_code == 200
    with closing(sqlite3.connect(jobs / "jobs.sqlite")) as rows:
        found = rows.execute("SELECT state, attempts FROM jobs").fetchall()
    assert found == [("waiting", 0)]


def test_past_the_bound_the_rest_is_refused_and_no_connection_cut(srcnn_card):
    engine = Stuck(srcnn_card)
    with (
        stoppable(srcnn_card, engine, drain_s=0.3) as (server, client),
        ThreadPoolExecutor(2) as pool,
    ):
        endless = threading.Event()

        def trickle() -> Iterator[bytes]:
            yield plain()[:20]
            endless.wait(100)

        begun = [pool.submit(client.post, "/enhance", content=trickle())]
        wait_until(lambda: gauge(client, "superres_reserved_bytes") == 20)
        begun.append(pool.submit(client.post, "/enhance", content=plain()))
        wait_for_the_device(engine)
        server.should_exit = True
        assert_problem(begun[1].result(), 503, "not-ready", "stopped before this was done")
        assert begun[1].result().headers["retry-after"] == "5"
        endless.set()
        assert_problem(begun[0].result(), 503, "not-ready", "stopped before this was done")


def test_a_device_that_hangs_makes_the_service_unready_until_it_moves(serve, srcnn_card):
    engine = Stuck(srcnn_card)
    with (
        serve({srcnn_card.name: engine}, stalled_s=0.3) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        held = pool.submit(client.post, "/enhance", content=plain())
        wait_for_the_device(engine)
        wait_until(lambda: client.get("/readyz").status_code != 200)
        stalled = re.search(r"^superres_stalled_seconds (.*)$", client.get("/metrics").text, re.M)
        assert float(stalled[1]) > 0.3
        assert_problem(client.get("/readyz"), 503, "not-ready", "the device has stalled")
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 503, "not-ready", "at most 0.3 are allowed")
        assert client.get("/healthz").status_code == 200
        engine.go.set()
        assert held.result().status_code == 200
        assert client.get("/readyz").status_code == 200


class Short(BlurEngine):
    """Leaves an answer out, once."""

    left_out = 1

    def predict(self, tiles):
        first, self.left_out = self.left_out, 0
        return super().predict(tiles)[first:]


def test_an_engine_that_leaves_an_answer_out_fails_that_request_alone(serve, srcnn_card):
    with serve({srcnn_card.name: Short(srcnn_card.geometry)}) as client:
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 500, "engine-failed", "the engine answered tiles of uint8 (1, ")
        assert client.get("/readyz").status_code == 200
        assert client.post("/enhance", content=plain()).status_code == 200


def test_a_thread_of_the_device_that_ends_makes_the_service_unready(
    serve, srcnn_card, monkeypatch: pytest.MonkeyPatch
):
    """By a defect of the scheduler itself, which is injected."""
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        monkeypatch.setattr(BatchScheduler, "_next_batch", lambda self: 1 / 0)
        assert client.post("/enhance", content=plain()).status_code == 200  # waited for before
        wait_until(lambda: client.get("/readyz").status_code != 200)
        assert_problem(client.get("/readyz"), 503, "not-ready", "a thread of the device has ended")
        answer = client.post("/enhance", content=plain())
        assert_problem(answer, 503, "not-ready", "the service has to be started again")
        assert gauge(client, "superres_ready") == 0
        assert client.get("/healthz").status_code == 200


def photographs(coffee: np.ndarray) -> list[bytes]:
    """Of several sizes, so that tiles of several shapes are at the device at once."""
    sides = [(40, 60), (130, 150), (200, 260), (300, 420)]
    return [encoded(coffee[:height, :width], "JPEG") for height, width in sides]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_accepted_request_is_lost_to_sigterm(coffee, tmp_path: Path):
    """Callers who hold their connection, and callers who connect anew, until nobody listens."""
    pictures = photographs(coffee)
    models = link_models(tmp_path / "models", "srcnn-x3")
    with serve_process(device="cpu", precision=PRECISIONS[-1], models=models) as (client, pid):
        stopping = threading.Event()
        answered = threading.Semaphore(0)

        def call(number: int) -> Counter[str]:
            ends: Counter[str] = Counter()
            holds = number % 2 == 0
            headers = {} if holds else {"Connection": "close"}
            while "nobody listened" not in ends and "lost" not in ends:
                try:
                    answer = client.post("/enhance", content=pictures[number % 4], headers=headers)
                except httpx.ConnectError:
                    ends["nobody listened"] += 1
                    continue
                except httpx.HTTPError as error:
                    ends["lost"] += 1
                    print(repr(error))
                    continue
                if answer.status_code == 200:
                    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
                    assert answer.headers["content-digest"] == f"sha-256=:{digest}:"
                    ends["answered after SIGTERM" if stopping.is_set() else "answered"] += 1
                    answered.release()
                else:
                    assert answer.status_code == 503
                    ends["refused"] += 1
                    time.sleep(int(answer.headers["retry-after"]))
            return ends

        with ThreadPoolExecutor(16) as callers:
            calls = [callers.submit(call, number) for number in range(16)]
            for _ in range(30):
                assert answered.acquire(timeout=60)
            stopping.set()
            os.kill(pid, signal.SIGTERM)
            ends = sum((one.result() for one in calls), Counter())
    print(ends)
    assert ends["lost"] == 0
    assert ends["answered"] > 4
    assert ends["answered after SIGTERM"] > 2
    assert ends["refused"] > 2
    assert ends["nobody listened"] == 16


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder of its own, that may be changed."""
    folder = tmp_path / "models"
    for name in ("srcnn-x2", "srcnn-x3"):
        shutil.copytree(DEFAULT_MODELS / name, folder / name)
    return folder


def disguised(models: Path) -> Path:
    """srcnn-x2 under the name and for the scale of srcnn-x3: another valid model."""
    folder = models.parent / "disguised"
    shutil.copytree(DEFAULT_MODELS / "srcnn-x2", folder)
    card = json.loads((folder / "card.json").read_text())
    card["name"], card["geometry"]["scale"] = "srcnn-x3", 3
    write_card(folder, ModelCard.model_validate(card))
    return folder


def exchange(models: Path, other: Path) -> None:
    """Swap srcnn-x3 and another folder."""
    served, aside = models / "srcnn-x3", models.parent / "aside"
    served.rename(aside)
    other.rename(served)
    aside.rename(other)


@pytest.mark.slow
def test_a_job_whose_model_is_replaced_while_it_waits_is_made_by_the_new_one(
    serve, models: Path, srcnn_card
):
    engine = Stuck(srcnn_card)
    settings = {"models": models, "max_requests": 1, "api_keys": ADMIN_ENTRY}
    with serve({srcnn_card.name: engine}, **settings) as client, ThreadPoolExecutor(1) as pool:
        client.headers.update(AS_ADMIN)
        held = pool.submit(client.post, "/enhance", content=plain())
        wait_for_the_device(engine)
        job = order(client, plain())
        time.sleep(0.3)  # it is at the door
        exchange(models, disguised(models))
        (label,) = client.post("/admin/reload").json()["fresh"]
        engine.go.set()
        assert held.result().headers["x-model"] != label
        assert wait(client, job)["state"] == "done"
        assert client.get(path(job, "/result")).headers["x-model"] == label


@pytest.mark.slow
def test_a_request_whose_model_is_replaced_before_its_first_use_is_made_by_the_new_one(
    serve, models: Path
):
    engines = CountingEngines(models)
    settings = {"models": models, "default_model": "srcnn-x2", "api_keys": ADMIN_ENTRY}
    with serve(engines, **settings) as client, ThreadPoolExecutor(2) as pool:
        client.headers.update(AS_ADMIN)
        exchange(models, disguised(models))
        card = json.loads((models / "srcnn-x2" / "card.json").read_text())
        card["reason"] = "changed, so that it is loaded again"
        write_card(models / "srcnn-x2", ModelCard.model_validate(card))
        engines.go.clear()
        loads = len(engines.begun)
        reload = pool.submit(client.post, "/admin/reload")
        wait_until(lambda: len(engines.begun) > loads)
        answer = pool.submit(client.post, "/enhance?model=srcnn-x3", content=plain())
        time.sleep(0.3)  # it waits for the load of the model, which waits for the reload
        engines.go.set()
        assert reload.result().status_code == 200
        assert answer.result().status_code == 200
        (new,) = (card for card in read_cards(models) if card.name == "srcnn-x3")
        assert answer.result().headers["x-model"] == f"srcnn-x3@{new.short_hash}"


@pytest.mark.parametrize("reloads", [slow(4), soak(10)])
def test_reloads_under_load_lose_nothing_mix_nothing_and_leave_no_memory(
    models: Path, coffee, reloads: int, record_property
):
    other = disguised(models)
    pictures = photographs(coffee)
    settings = {"models": models, "api_keys": ADMIN_ENTRY, "precision": PRECISIONS[-1]}
    with serve_process(device="cpu", **settings) as (client, pid):
        client.headers.update(AS_ADMIN)

        def reload() -> str:
            exchange(models, other)
            answer = client.post("/admin/reload")
            assert answer.status_code == 200, answer.text
            (label,) = answer.json()["fresh"]
            return label

        def one(number: int) -> httpx.Response:
            return client.post("/enhance", content=pictures[number])

        alone: dict[str, list[bytes]] = {}
        for _ in range(2):
            label = reload()
            alone[label] = [one(number).content for number in range(4)]
            assert one(0).headers["x-model"] == label
        assert len(alone) == 2
        assert all(a != b for a, b in zip(*alone.values(), strict=True))

        def reload_under_load(times: int) -> None:
            """Each model answers a few callers' calls before the next takes its place."""
            stop = threading.Event()
            answered = {label: threading.Semaphore(0) for label in alone}

            def caller(number: int) -> None:
                while not stop.is_set():
                    answer = one(number)
                    assert answer.status_code == 200, answer.text
                    label = answer.headers["x-model"]
                    assert answer.content == alone[label][number]
                    answered[label].release()

            with ThreadPoolExecutor(6) as callers:
                calls = [callers.submit(caller, number % 4) for number in range(6)]
                try:
                    for _ in range(times):
                        label = reload()
                        for _ in range(8):
                            assert answered[label].acquire(timeout=60)
                finally:
                    stop.set()
                for call in calls:
                    call.result()
            reload()

        reload_under_load(3)
        time.sleep(2)  # what was replaced last is let go
        before = resident_bytes(pid)
        reload_under_load(reloads)
        until = time.monotonic() + 30
        while (after := resident_bytes(pid)) > 1.05 * before and time.monotonic() < until:
            time.sleep(0.5)
    record_property("MB before", round(before / 1e6))
    record_property(f"MB after {reloads} reloads", round(after / 1e6))
    assert after <= 1.05 * before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_bad_model_leaves_the_old_one_serving_and_sighup_does_as_the_call(
    models: Path, tmp_path: Path
):
    other = disguised(models)
    log = tmp_path / "log"
    settings = {"models": models, "api_keys": ADMIN_ENTRY, "precision": PRECISIONS[-1]}
    with serve_process(log=log, device="cpu", **settings) as (client, pid):
        client.headers.update(AS_ADMIN)
        before = client.post("/enhance", content=plain())
        weights = models / "srcnn-x3" / "saved_model" / "saved_model.pb"
        whole = weights.read_bytes()
        weights.write_bytes(whole + b"!")
        refused = client.post("/admin/reload")
        assert_problem(refused, 409, "reload-failed", "the models stay as they are: srcnn-x3:")
        weights.write_bytes(whole)

        card = json.loads((other / "card.json").read_text())
        answer = np.frombuffer(base64.b64decode(card["example"]["answer"]), "<f4") * 0.9
        card["example"]["answer"] = base64.b64encode(answer.astype("<f4").tobytes()).decode()
        write_card(other, ModelCard.model_validate(card))
        exchange(models, other)
        os.kill(pid, signal.SIGHUP)
        until = time.monotonic() + 60
        while "differs from the card's example" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        assert "SHA-256" in log.read_text()
        after = client.post("/enhance", content=plain())
        assert (after.headers["x-model"], after.content) == (
            before.headers["x-model"],
            before.content,
        )

        exchange(models, other)
        shutil.rmtree(models / "srcnn-x2")
        os.kill(pid, signal.SIGHUP)
        until = time.monotonic() + 60
        while "srcnn-x2" in client.get("/models").text:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        assert client.get("/readyz").status_code == 200
        assert ADMIN not in log.read_text()
