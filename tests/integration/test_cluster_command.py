"""`superres serve --cluster` and serve.yaml, each with a cluster of its own on this machine."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.lazy import Lazy
from tests.serving import free_port, link_models, wait_until_ready

load = Lazy("benchmarks.load")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@contextmanager
def running(
    command: list[object], port: int, tmp_path: Path
) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    environment = os.environ | {
        "RAY_ADDRESS": "local",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SUPERRES_JOBS": str(tmp_path / "jobs"),
        "SUPERRES_MODELS": str(link_models(tmp_path / "models", "srcnn-x3")),
        "SUPERRES_PRECISION": "float32",
    }
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until_ready(client)
                yield client, process
        finally:
            process.terminate()
            process.wait(60)


def test_the_command_serves_from_a_cluster_and_finishes_what_is_in_flight(tmp_path: Path):
    port = free_port()
    command = [PROGRAMS / "superres", "serve", "--cluster", "--port", port]
    with running([str(word) for word in command], port, tmp_path) as (client, process):
        models = client.get("/readyz").json()["models"]
        assert {model["precision"] for model in models} == {"float32"}
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(
                client.post("/enhance", content=load.photograph(667, 667))
            )
        )
        asking.start()
        until = time.monotonic() + 60
        while "superres_pictures_in_progress 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < until
        process.terminate()
        asking.join()
        assert answers[0].status_code == 200
        assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert re.search(r"route=\S*/enhance", log)


def test_serve_yaml_serves(tmp_path: Path):
    config = yaml.safe_load((REPOSITORY / "serve.yaml").read_text())
    port = config["http_options"]["port"] = free_port()
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [str(PROGRAMS / "serve"), "run", "--app-dir", ".", str(tmp_path / "serve.yaml")]
    with running(command, port, tmp_path) as (client, _):
        assert client.post("/enhance", content=load.photograph(100, 100)).status_code == 200
