"""The configuration of docs/how-to/reverse-proxy.md, in a real nginx in front of a service."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.documents import blocks
from tests.integration.test_errors import assert_problem
from tests.needs import program
from tests.pictures import encoded
from tests.serving import free_port, wait_until

NAME = "photos.example"


@pytest.fixture
def proxied(fake_service: httpx.Client, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the proxy, which believes its certificate."""
    nginx, openssl = program("nginx"), program("openssl")
    pem, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subject = ("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}")
    made = (openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)
    subprocess.run([*made, "-keyout", key, "-out", pem], check=True, capture_output=True)
    ((_, site),) = blocks("nginx")
    for ours, theirs in {
        "127.0.0.1:8000": f"127.0.0.1:{fake_service.base_url.port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/photos.example.pem": str(pem),
        "/etc/ssl/photos.example.key": str(key),
        # The service of the tests has no keys, and answers to the names of loopback.
        "proxy_set_header Host $host": "proxy_set_header Host localhost",
    }.items():
        assert site.count(ours) == 1
        site = site.replace(ours, theirs)
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} {site} }}\n"
    )
    command = [nginx, "-p", str(tmp_path), "-e", "stderr", "-c", "nginx.conf"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = False  # the client calls it by its address
    with httpx.Client(
        base_url=f"https://127.0.0.1:{port}", verify=context, headers={"Host": NAME}, timeout=30
    ) as client:

        def is_up() -> bool:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                return client.get("/healthz").is_success
            except httpx.TransportError:
                return False

        wait_until(is_up)
        yield client
    process.terminate()
    process.wait(30)
    assert process.stderr
    process.stderr.close()


@pytest.mark.slow
def test_a_service_behind_nginx_does_all_that_it_does_without(proxied: httpx.Client):
    # Over the 1 MB that nginx takes by default.
    picture = encoded(np.random.default_rng(1).integers(0, 256, (500, 800, 3), np.uint8))
    assert len(picture) > 2**20
    answer = proxied.post("/enhance?scale=2", content=picture)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"].startswith("srcnn-x2@")

    too_large = proxied.post("/enhance", content=bytes(65 * 2**20))
    assert_problem(too_large, 413, "body-too-large", "67,108,864")

    assert proxied.get("/metrics").status_code == 403

    headers = {"Prefer": "respond-async"}
    submitted = proxied.post("/enhance?scale=2", content=picture, headers=headers)
    assert submitted.status_code == 202
    job = submitted.headers["location"]
    with proxied.stream("GET", f"{job}/events") as events:
        assert re.search('"state":"done"', "".join(events.iter_text()))
    assert proxied.get(f"{job}/result").content == answer.content
    assert proxied.delete(job).status_code == 204
