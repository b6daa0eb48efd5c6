"""The jobs' database: SQLite for one service alone, or PostgreSQL for several that share the jobs.

Both answer two questions besides: may this service begin a job, and is a job that is said to run
still at work anywhere? A service that dies cannot say so; its lock goes with it all the same.
"""

import fcntl
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO
from uuid import UUID

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
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

    def holds(self, job_id: UUID) -> bool:
        """Whether this service is at a job, as far as it knows."""

    def let_go(self, job_id: UUID) -> None:
        """Be no longer at a job, if this service was."""

    def renew(self) -> None:
        """See to it that the others know what this service is at."""

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

    def holds(self, job_id: UUID) -> bool:
        return True

    def let_go(self, job_id: UUID) -> None:
        pass

    def renew(self) -> None:
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
        # Each side finds out in half a minute that the other is gone without a word.
        alive = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
        of_session = {f"tcp_{name}": value for name, value in alive.items()} | {
            "lock_timeout": f"{PATIENCE_S:g}s",
            "idle_in_transaction_session_timeout": "10s",  # a service that stands still
        }
        self.engine = create_engine(
            url,
            pool_pre_ping=True,  # the server may have been restarted
            connect_args={
                "connect_timeout": 5,
                "application_name": "superres",
                "options": " ".join(f"-c {name}={value}" for name, value in of_session.items()),
                "tcp_user_timeout": 30_000,
                **alive,
            },
        )
        event.listen(self.engine, "begin", self._begin)
        self._held: set[UUID] = set()
        self._holder: Connection | None = None
        """Whose locks say which jobs this service is at."""
        self._in_use = threading.Lock()

    def hold(self, job_id: UUID) -> bool:
        with self._in_use:
            if job_id in self._held or not _try_lock(self._connected(), job_id):
                return False
            self._held.add(job_id)
            return True

    def holds(self, job_id: UUID) -> bool:
        return job_id in self._held

    def let_go(self, job_id: UUID) -> None:
        with self._in_use:
            if job_id in self._held:
                self._held.remove(job_id)
                self._connected().scalar(select(func.pg_advisory_unlock(_key(job_id))))

    def renew(self) -> None:
        with self._in_use:
            self._connected().scalar(select(1))

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        # Taken for this transaction alone.
        return job_id not in self._held and bool(
            session.scalar(select(func.pg_try_advisory_xact_lock(_key(job_id))))
        )

    def close(self) -> None:
        if self._holder is not None:
            with suppress(SQLAlchemyError):  # at once: the server sees the end of it later
                self._holder.scalar(select(func.pg_advisory_unlock_all()))
            self._holder.close()
            self._holder = None
        self.engine.dispose()

    def _connected(self) -> Connection:
        """The holder; where it was lost, another, that takes what others have not taken since."""
        if self._holder is None or self._holder.invalidated:
            options = {"isolation_level": "AUTOCOMMIT"}
            self._holder = self.engine.connect().execution_options(**options)
            for job_id in self._held:
                _try_lock(self._holder, job_id)
        return self._holder

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
    except (ArgumentError, ValueError):
        pass
    except ImportError as error:
        raise BadRequest(
            "SUPERRES_JOBS_DATABASE needs the extra cluster: make install EXTRA=cluster"
        ) from error
    raise BadRequest(  # without the text, in which there may be a password
        "SUPERRES_JOBS_DATABASE is postgresql://USER:PASSWORD@HOST/NAME, or empty for SQLite in "
        "the folder of jobs"
    )


def _try_lock(connection: Connection, job_id: UUID) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(_key(job_id)))))


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
