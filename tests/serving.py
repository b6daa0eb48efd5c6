"""A real uvicorn on loopback, in this process or its own, and clients for it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import uvicorn
from fastapi import FastAPI

from app.drain import LAST_ANSWERS_S, Server
from app.main import create_app
from app.settings import Settings
from superres.engines.base import Engine
from superres.models.registry import DEFAULT_MODELS

SPECIFICATION: dict[str, Any] = {}
"""The OpenAPI document, which no setting changes; filled by the first app that is served."""


def check_against_openapi(spec: dict[str, Any], response: httpx.Response) -> None:
    """Status, media type, headers and JSON must be as declared; else an AssertionError."""
    request = response.request
    media_type = response.headers.get("content-type", "").partition(";")[0]
    path = re.sub("^/samples/.*", "/samples/{sample}", request.url.path)
    path = re.sub("^/jobs/[^/]+", "/jobs/{job_id}", path)
    method = "get" if request.method == "HEAD" else request.method.lower()
    operation = spec["paths"].get(path, {}).get(method)
    if operation is None:  # an unknown path or method: a problem all the same
        assert response.status_code in (404, 405)
        schema = {"$ref": "#/components/schemas/Problem"}
    else:
        declared = operation["responses"].get(str(response.status_code))
        assert declared is not None, f"{request.method} {request.url}: {response.status_code}"
        content = declared.get("content", {})
        if not content:
            assert response.content == b""
            return
        assert media_type in content, f"{media_type} is not declared for {response.status_code}"
        schema = content[media_type].get("schema", {})
        if response.status_code in (200, 202, 409, 503) and "dry_run" not in request.url.params:
            optional = {"X-Notes", "X-Proof-Gain-dB", "X-Proof-Bicubic-dB", "X-Proof-Model-dB"}
            missing = declared.get("headers", {}).keys() - optional
            missing = {name for name in missing if name not in response.headers}
            assert not missing, f"declared headers are missing: {missing}"
    assert "x-request-id" in response.headers
    if response.status_code >= 400:
        assert media_type == "application/problem+json"
        assert response.json()["status"] == response.status_code
        assert response.json()["request_id"] == response.headers["x-request-id"]
    if media_type.endswith("json"):
        schema = schema | {"components": spec["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())


@contextmanager
def serve_app(settings: Settings, engines: Mapping[str, Engine] | None) -> Iterator[httpx.Client]:
    """The app in this process, and a client that holds every answer to the OpenAPI."""
    with tempfile.TemporaryDirectory() as jobs:  # unless there is one of the test's own
        if "jobs" not in settings.model_fields_set:
            settings = settings.model_copy(update={"jobs": Path(jobs)})
        with _serving(create_app(settings, engines)) as client:
            yield client


@contextmanager
def _serving(app: FastAPI) -> Iterator[httpx.Client]:
    if not SPECIFICATION:
        SPECIFICATION.update(json.loads(json.dumps(app.openapi())))

    def check(response: httpx.Response) -> None:
        response.read()
        check_against_openapi(SPECIFICATION, response)

    with (
        run(app) as (_, base_url),
        httpx.Client(
            base_url=base_url,
            timeout=60,
            verify=False,  # to load certificates takes longer than to start the service
            limits=httpx.Limits(max_connections=None),
            event_hooks={"response": [check]},
        ) as client,
    ):
        yield client


@contextmanager
def run(app: FastAPI) -> Iterator[tuple[Server, str]]:
    """The app in a thread of this process: the server, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=LAST_ANSWERS_S)
    server = Server(config, app.state.drain)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def serve_process(
    *, log: Path | None = None, ready: bool = True, **settings: object
) -> Iterator[tuple[httpx.Client, int]]:
    """`superres serve` in a process of its own: a client, and the process's id.

    Ready unless that is not waited for.
    """
    port = free_port()
    jobs = tempfile.TemporaryDirectory()
    settings = {"jobs": jobs.name} | settings
    environment = {f"SUPERRES_{name.upper()}": str(value) for name, value in settings.items()}
    with open(os.devnull if log is None else log, "wb") as said:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("superres"), "serve", "--port", str(port)],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,  # from a terminal, SIGHUP would end it
            stdout=said,
            stderr=subprocess.DEVNULL,
        )
    try:
        limits = httpx.Limits(max_connections=None)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=600, verify=False, limits=limits
        ) as client:
            if ready:
                wait_until_ready(client)
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(60)
        jobs.cleanup()


def link_models(folder: Path, *names: str) -> Path:
    """Make it a models folder of a few shipped models, which load sooner than all."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to(DEFAULT_MODELS / name)
    return folder


def free_port() -> int:
    """On loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """A process's memory: now, or at most since :func:`reset_peak`. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until(happened: Callable[[], object], *, seconds: float = 60) -> None:
    """Poll until it happened; the deadline is only for what never does."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.01)


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        with contextlib.suppress(httpx.ConnectError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(client.get("/readyz").text)
