"""The jobs' database: SQLite for one service alone, or PostgreSQL for several that share the jobs.

Both answer two questions besides: may this service begin a job, and is a job that is said to run
still at work anywhere? A service that dies cannot say so; its lock goes with it all the same.
"""

import fcntl
import sqlite3
import threading
from pathlib import Path
from typing import Protocol, TextIO
from uuid import UUID

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from superres.errors import BadRequest, StorageError

PATIENCE_S = 1.0
"""That a locked database is waited for."""
WRITE = {"begin": "IMMEDIATE"}
"""Options of a transaction that will write: it takes the one lock of all writers as it begins."""


class Database(Protocol):
    """Where the jobs' rows are. One that writes at a time, by :data:`WRITE`."""

    engine: Engine
    shared: bool
    """Whether other services work on the same jobs."""

    def hold(self, job_id: UUID) -> bool:
        """Be the one that is at a job; false if another service is."""

    def let_go(self, job_id: UUID) -> None:
        """Be no longer at a job."""

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        """Whether no service is at a job."""

    def close(self) -> None:
        """Let go of everything."""


class Sqlite:
    """A file in a folder that this process alone works in.

    Args:
        folder: there already.

    Raises:
        StorageError: another process has it.
    """

    shared = False

    def __init__(self, folder: Path) -> None:
        self._lock = _locked(folder)
        self.engine = create_engine(
            f"sqlite:///{folder / 'jobs.sqlite'}", connect_args={"timeout": PATIENCE_S}
        )
        event.listen(self.engine, "connect", self._set_up)
        event.listen(self.engine, "begin", self._begin)

    def hold(self, job_id: UUID) -> bool:
        return True

    def let_go(self, job_id: UUID) -> None:
        pass

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        return True  # asked at the start alone, when this process has begun none

    def close(self) -> None:
        self.engine.dispose()
        self._lock.close()

    @staticmethod
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # _begin says BEGIN, not the driver
        connection.execute("PRAGMA journal_mode = WAL")  # who reads waits for nobody who writes
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut

    @staticmethod
    def _begin(connection: Connection) -> None:
        # A transaction that will write takes the lock at once: later, it could only fail.
        kind = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")


class Postgres:
    """PostgreSQL, in which who writes and who is at a job are advisory locks.

    The server releases a job's lock when the connection of its service is gone, be it that the
    process died, its machine (after half a minute without an answer), or the network.

    Args:
        url: SQLAlchemy's. A pooler between must keep sessions apart (PgBouncer: ``session``).
    """

    shared = True

    WRITERS = int.from_bytes(b"superres", signed=True)
    """The key of all writers' one lock."""

    def __init__(self, url: URL) -> None:
        options = {
            "lock_timeout": f"{PATIENCE_S:g}s",
            "tcp_keepalives_idle": 15,
            "tcp_keepalives_interval": 5,
            "tcp_keepalives_count": 3,
        }
        self.engine = create_engine(
            url,
            pool_pre_ping=True,  # the server may have been restarted
            connect_args={
                "connect_timeout": 5,
                "application_name": "superres",
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            },
        )
        event.listen(self.engine, "begin", self._begin)
        self._holding: Connection | None = None
        self._in_use = threading.Lock()

    def hold(self, job_id: UUID) -> bool:
        with self._in_use:
            return bool(self._holder().scalar(select(func.pg_try_advisory_lock(_key(job_id)))))

    def let_go(self, job_id: UUID) -> None:
        with self._in_use:
            self._holder().scalar(select(func.pg_advisory_unlock(_key(job_id))))

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        # Taken for this transaction alone; a lock of this process's own is another session's.
        return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_key(job_id)))))

    def close(self) -> None:
        if self._holding is not None:
            self._holding.invalidate()  # or the pool would keep it, and what it holds
            self._holding.close()
            self._holding = None
        self.engine.dispose()

    def _holder(self) -> Connection:
        """The connection whose locks say which jobs this service is at.

        Where it was lost, they are lost: others may have begun those jobs, and whoever is
        done first has done them.
        """
        if self._holding is None or self._holding.invalidated:
            options = {"isolation_level": "AUTOCOMMIT"}
            self._holding = self.engine.connect().execution_options(**options)
        return self._holding

    @classmethod
    def _begin(cls, connection: Connection) -> None:
        if "begin" in connection.get_execution_options():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({cls.WRITERS})")


def postgres_url(text: str) -> URL:
    """The URL of a database that services can share.

    Raises:
        BadRequest: it is not PostgreSQL's, or what reads one is not installed.
    """
    try:
        url = make_url(text)
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            url.get_dialect().import_dbapi()
            return url
    except ArgumentError:
        pass
    except ImportError as error:
        raise BadRequest(
            "SUPERRES_JOBS_DATABASE needs the extra cluster: make install EXTRA=cluster"
        ) from error
    raise BadRequest(  # without the text, in which there may be a password
        "SUPERRES_JOBS_DATABASE is postgresql://USER:PASSWORD@HOST/NAME, or empty for SQLite in "
        "the folder of jobs"
    )


def _key(job_id: UUID) -> int:
    """Of a job's advisory lock: 64 bits, with a sign."""
    return int.from_bytes(job_id.bytes[:8], signed=True)


def _locked(folder: Path) -> TextIO:
    """Hold the folder for as long as the file is open."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StorageError(
            f"another service works in {folder}; SUPERRES_JOBS names a folder of this one's own"
        ) from None
    return lock
