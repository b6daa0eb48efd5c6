"""Requests, and pictures, that nobody would send on purpose."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from superres.card import ModelCard
from superres.engine import BlurEngine
from tests.hostile import mutated, seeds
from tests.pictures import plain
from tests.serving import resident_bytes, serve_process

FIRST = int(os.environ.get("SUPERRES_FUZZ_FIRST", "0"))
INPUTS = int(os.environ.get("SUPERRES_FUZZ_INPUTS", "20000"))


@pytest.mark.slow
@pytest.mark.timeout(300)
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
    serve, srcnn_card: ModelCard, tmp_path: Path, options, reached
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
                "--max-examples=100",
                "--request-timeout=10",
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


@pytest.mark.slow
@pytest.mark.timeout(max(300, INPUTS // 40))
def test_damaged_pictures_are_answered_and_break_nothing(tmp_path: Path):
    """`make fuzz INPUTS=1000000` for longer. What goes wrong is left in the temporary folder."""
    with serve_process(device="cpu", max_input_pixels=500_000) as (client, pid):
        statuses: dict[int, int] = {}

        def send(number: int) -> None:
            data = mutated(number)
            started = time.monotonic()
            try:
                answer = client.post("/enhance?scale=1&icc=srgb", content=data, timeout=10)
                status = answer.status_code
                assert status in (200, 413, 415, 422, 503), answer.text
            except Exception:
                (tmp_path / f"{number}.bin").write_bytes(data)
                raise
            assert time.monotonic() - started < 10
            statuses[status] = statuses.get(status, 0) + 1

        with ThreadPoolExecutor(8) as callers:
            for _ in callers.map(send, range(FIRST, FIRST + INPUTS)):
                pass
        assert client.post("/enhance", content=plain()).status_code == 200
        assert resident_bytes(pid, peak=True) < 2e9
    # Damage that nobody notices, and damage that everybody does, would show nothing.
    assert statuses[200] > INPUTS / 20
    assert statuses[422] > INPUTS / 20
