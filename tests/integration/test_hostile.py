"""Requests, and pictures, that nobody would send on purpose."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from superres.arrays import RgbU8
from superres.models.card import ModelCard
from tests.conftest import PRECISIONS
from tests.engines import BlurEngine
from tests.hostile import mutated, seeds
from tests.integration.test_callers import wait_until_idle
from tests.pictures import encoded, plain
from tests.serving import link_models, resident_bytes, serve_process
from tests.soak import slow, soak

FIRST = int(os.environ.get("SUPERRES_FUZZ_FIRST", "0"))
INPUTS = int(os.environ.get("SUPERRES_FUZZ_INPUTS", "20000"))


@pytest.mark.parametrize("examples", [slow(10), soak(100)])
@pytest.mark.parametrize(
    ("options", "reached"),
    [
        (["--phases=examples,coverage,fuzzing"], {}),
        # What a job's answer links to is asked for with its id.
        (
            [
                "--phases=coverage,fuzzing,stateful",
                "--include-path-regex=^/(enhance|jobs)",
                "--header=Prefer: respond-async",
            ],
            {
                ("POST", "/enhance"): 202,
                ("GET", "/jobs/{job_id}"): 200,
                ("GET", "/jobs/{job_id}/events"): 200,
                ("GET", "/jobs/{job_id}/result"): 200,
                ("DELETE", "/jobs/{job_id}"): 204,
            },
        ),
    ],
    ids=["requests", "jobs"],
)
def test_every_answer_to_what_the_openapi_allows_is_one_that_it_declares(
    serve, srcnn_card: ModelCard, tmp_path: Path, options, reached, examples: int
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as client:
        run = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                str(client.base_url.join("/openapi.json")),
                "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
                "response_headers_conformance,response_schema_conformance,unsupported_method",
                *options,
                f"--max-examples={examples}",
                "--request-timeout=60",
                "--header=X-Deadline-Ms: 60000",  # in 1 ms, 504 is the right answer
                "--continue-on-failure",
                "--seed=6",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        metrics = client.get("/metrics").text
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    for (method, route), status in reached.items():
        assert f'{{method="{method}",route="{route}",status="{status}"}}' in metrics


def test_the_seeds_are_pictures(fake_service):
    """Or their damage would not be looked at."""
    answers = [fake_service.post("/enhance?scale=1", content=seed) for seed in seeds()]
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize(
    ("inputs", "seconds"),
    [
        slow(1500, 60),
        pytest.param(
            INPUTS, 10, marks=[pytest.mark.soak, pytest.mark.timeout(max(600, INPUTS // 20))]
        ),
    ],
)
def test_damaged_pictures_are_answered_and_break_nothing(
    tmp_path: Path, inputs: int, seconds: int, record_property
):
    """`make fuzz INPUTS=1000000` for longer. What goes wrong is left in the temporary folder."""
    models = link_models(tmp_path / "models", "srcnn-x2")
    settings = {"device": "cpu", "precision": PRECISIONS[-1], "models": models}
    with serve_process(**settings, max_input_pixels=500_000) as (client, pid):

        def send(number: int) -> int:
            data = mutated(number)
            url = "/enhance?scale=1&icc=srgb"
            try:
                answer = client.post(url, content=data, timeout=seconds)
                assert answer.status_code in (200, 413, 415, 422, 503), answer.text
            except Exception:
                (tmp_path / f"{number}.bin").write_bytes(data)
                raise
            return answer.status_code

        with ThreadPoolExecutor(8) as callers:
            statuses = Counter(callers.map(send, range(FIRST, FIRST + inputs)))
        assert client.post("/enhance", content=plain()).status_code == 200
        peak = resident_bytes(pid, peak=True)
    record_property("answers", ", ".join(f"{n} of {status}" for status, n in statuses.items()))
    record_property("peak, MB", round(peak / 1e6))
    assert peak < 2e9
    # Damage that nobody notices, and damage that everybody does, would show nothing.
    assert statuses[200] > inputs / 20
    assert statuses[422] > inputs / 20


@pytest.mark.parametrize("seconds", [slow(8), soak(30)])
def test_64_hostile_callers_hurt_nobody_else(
    tmp_path: Path, coffee: RgbU8, seconds: int, record_property
):
    """Health is reported, a good picture is made in time, and no memory is lost."""
    good = encoded(coffee[:256, :256], "JPEG")
    models = link_models(tmp_path / "models", "srcnn-x2")
    settings = {"device": "cpu", "precision": PRECISIONS[-1], "models": models}
    with serve_process(**settings, idle_timeout_s=300, min_bytes_per_s=1) as (client, pid):

        def enhance() -> float:
            started = time.monotonic()
            assert client.post("/enhance?scale=2", content=good).status_code == 200
            return time.monotonic() - started

        @contextmanager
        def hostile_callers() -> Iterator[subprocess.Popen[str]]:
            command = [sys.executable, "-m", "tests.hostile_callers", str(client.base_url.port)]
            callers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert callers.stdout is not None
            try:
                assert callers.stdout.readline(), "they have ended"
                yield callers
                callers.terminate()
                record_property("answers", callers.stdout.read().strip())
            finally:
                callers.kill()
                callers.communicate()

        def measure() -> None:
            with hostile_callers(), ThreadPoolExecutor(1) as pool:
                until = time.monotonic() + seconds / 2
                while time.monotonic() < until:
                    one = pool.submit(enhance)
                    while not one.done():
                        started = time.monotonic()
                        assert client.get("/healthz").status_code == 200
                        health.append(time.monotonic() - started)
                        time.sleep(0.02)
                    beside.append(one.result())
            wait_until_idle(client)
            alone.extend(enhance() for _ in range(10))
            resident.append(resident_bytes(pid))

        health: list[float] = []
        beside: list[float] = []
        alone: list[float] = []
        resident: list[int] = []
        for _ in range(3):  # as for other kinds of request, the first ones fill the allocator
            measure()
    early, late = resident[1:]
    p99 = float(np.percentile(health, 99))
    ratio = float(np.median(beside) / np.median(alone))
    record_property("p99 of /healthz, ms", round(1000 * p99))
    record_property("good pictures", len(beside))
    record_property("times as long as alone", round(ratio, 2))
    record_property("at most", round(max(beside) / float(np.median(alone)), 2))
    record_property("MB before", round(early / 1e6))
    record_property("MB after", round(late / 1e6))
    # The soak has the machine for itself; make test-slow runs another test beside this one.
    longest, most, growth = (0.1, 5, 1.05) if seconds >= 30 else (1, 10, 1.25)
    assert p99 < longest
    assert ratio <= most
    assert late <= growth * early
