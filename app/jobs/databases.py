"""The jobs' database: SQLite for a single service, or PostgreSQL for several that share the jobs.

Each also keeps claims on jobs: may this service run a job, and does any service still run it? A
claim is a lock that ends with the process, so that the jobs of a service that dies are found.
"""

import fcntl
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO
from uuid import UUID, uuid4

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.service_errors import StorageError
from superres.errors import BadRequest
from superres.paths import AnyPath, create_private

logger = logging.getLogger("superres")

LOCK_TIMEOUT_S = 1.0
"""Seconds to wait for a lock of the database."""
WRITE = {"begin": "IMMEDIATE"}
"""Options of a transaction that writes: it takes the single lock of all writers when it begins."""


class Database(Protocol):
    """A database of jobs. One transaction writes at a time, if it has the options :data:`WRITE`."""

    engine: Engine
    shared: bool
    """Whether other services work on the same jobs."""

    def claim(self, job_id: UUID) -> bool:
        """Claim a job for this service; False if another service has a claim on it."""

    def has_claim(self, job_id: UUID) -> bool:
        """Whether this service has a claim on a job, as far as it knows."""

    def release(self, job_id: UUID) -> None:
        """End this service's claim on a job, if it has one."""

    def renew(self) -> None:
        """Check the connection of the claims; if it was lost, claim the jobs again."""

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        """Whether no service has a claim on a job."""

    def close(self) -> None:
        """Release all claims and connections."""


class Sqlite:
    """A file in a folder that only this process uses.

    Args:
        folder: an existing folder.

    Raises:
        StorageError: another process uses it.
    """

    shared = False

    def __init__(self, folder: Path) -> None:
        self._lock = _lock_folder(folder)
        file = folder / "jobs.sqlite"
        create_private(file)  # SQLite's other files get the mode of this one
        self.engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": LOCK_TIMEOUT_S})
        event.listen(self.engine, "connect", self._set_up)
        event.listen(self.engine, "begin", self._begin)

    def claim(self, job_id: UUID) -> bool:
        return True

    def has_claim(self, job_id: UUID) -> bool:
        return True

    def release(self, job_id: UUID) -> None:
        pass

    def renew(self) -> None:
        pass

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        return True  # called only at the start, when this process runs no job

    def close(self) -> None:
        self.engine.dispose()
        self._lock.close()

    @staticmethod
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # _begin sends BEGIN, not the driver
        connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for writers
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power failure

    @staticmethod
    def _begin(connection: Connection) -> None:
        # A transaction that writes takes the lock now: later, it could only fail.
        mode = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


class Postgres:
    """PostgreSQL, in which the writer's lock and the claims are advisory locks.

    The server releases a claim when the connection of its service ends: because the process died,
    or because its machine or the network has not answered for half a minute.

    Args:
        url: SQLAlchemy's. A connection pooler must keep sessions apart (PgBouncer: ``session``).
    """

    shared = True

    WRITERS = int.from_bytes(b"superres", signed=True)
    """Key of the single lock of all writers."""

    def __init__(self, url: URL) -> None:
        # Each side notices within half a minute that the other no longer answers.
        alive = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
        options = {f"tcp_{name}": value for name, value in alive.items()} | {
            "lock_timeout": f"{LOCK_TIMEOUT_S:g}s",
            "idle_in_transaction_session_timeout": "10s",  # a service that hangs
        }
        self.engine = create_engine(
            url,
            pool_pre_ping=True,  # the server may have been restarted
            connect_args={
                "connect_timeout": 5,
                "application_name": "superres",
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
                "tcp_user_timeout": 30_000,
                **alive,
            },
        )
        event.listen(self.engine, "begin", self._begin)
        self._claimed: set[UUID] = set()
        self._claims: Connection | None = None
        """Connection whose session has the locks of this service's claims."""
        self._claims_lock = threading.Lock()

    def claim(self, job_id: UUID) -> bool:
        with self._claims_lock:
            if job_id in self._claimed or not _try_lock(self._claims_connection(), job_id):
                return False
            self._claimed.add(job_id)
            return True

    def has_claim(self, job_id: UUID) -> bool:
        return job_id in self._claimed

    def release(self, job_id: UUID) -> None:
        with self._claims_lock:
            if job_id in self._claimed:
                self._claimed.remove(job_id)
                self._claims_connection().scalar(select(func.pg_advisory_unlock(_key(job_id))))

    def renew(self) -> None:
        with self._claims_lock:
            self._claims_connection().scalar(select(1))

    def is_abandoned(self, session: Session, job_id: UUID) -> bool:
        # The lock ends with this transaction.
        return job_id not in self._claimed and bool(
            session.scalar(select(func.pg_try_advisory_xact_lock(_key(job_id))))
        )

    def close(self) -> None:
        if self._claims is not None:
            with suppress(SQLAlchemyError):  # explicitly: the server notices the end later
                self._claims.scalar(select(func.pg_advisory_unlock_all()))
            self._claims.close()
            self._claims = None
        self.engine.dispose()

    def _claims_connection(self) -> Connection:
        """The connection of the claims; if it was lost, a new one, with the claims still free."""
        if self._claims is None or self._claims.invalidated:
            options = {"isolation_level": "AUTOCOMMIT"}
            self._claims = self.engine.connect().execution_options(**options)
            for job_id in self._claimed:
                _try_lock(self._claims, job_id)
        return self._claims

    @classmethod
    def _begin(cls, connection: Connection) -> None:
        if "begin" in connection.get_execution_options():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({cls.WRITERS})")


def open_database(folder: AnyPath, url: str) -> Database:
    """Open the database, once it is certain that the folder can be written.

    Args:
        folder: of the jobs' files; created if necessary.
        url: PostgreSQL's; empty for SQLite in the folder.

    Raises:
        BadRequest: services cannot share this database, or SQLite is to be in a bucket.
        StorageError: another process uses the folder, or it cannot be written.
    """
    postgres = postgres_url(url) if url else None
    try:
        if isinstance(folder, Path):
            _make_private_folder(folder)
            if postgres is None:
                return Sqlite(folder)
        if postgres is None:
            raise BadRequest(f"for jobs in {folder}, SUPERRES_JOBS_DATABASE must name a database")
        trial = folder / f"{uuid4()}.partial"
        trial.write_bytes(b"")
        trial.unlink()
        return Postgres(postgres)
    except (BadRequest, StorageError):
        raise
    except Exception as error:  # a bucket's library has its own types of errors
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"the jobs' folder {folder} cannot be written: {reason}; SUPERRES_JOBS names it"
        ) from error


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise the errors of the database as :class:`StorageError`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        reason = str(cause).strip().partition("\n")[0]  # psycopg's other lines are details
        raise StorageError(f"the jobs' database: {reason}", retry_after=5) from error


def postgres_url(text: str) -> URL:
    """The URL of a database that services can share.

    Raises:
        BadRequest: it is not PostgreSQL's, or the driver is not installed.
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
    raise BadRequest(  # without the text, which may have a password
        "SUPERRES_JOBS_DATABASE is postgresql://USER:PASSWORD@HOST/NAME, or empty for SQLite in "
        "the folder of jobs"
    )


def _try_lock(connection: Connection, job_id: UUID) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(_key(job_id)))))


def _key(job_id: UUID) -> int:
    """Key of a job's advisory lock: 64 bits, signed."""
    return int.from_bytes(job_id.bytes[:8], signed=True)


def _make_private_folder(folder: Path) -> None:
    """Create the folder so that only this user may look into it.

    The mode of one that exists is its owner's business: it may be a shared one.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    # In a container, any user may run the service, and all are in group 0.
    others = 0o007 if status.st_gid == 0 else 0o077
    if status.st_mode & others:
        logger.warning(
            "other users can look into %s, the folder of jobs, though not read its files: "
            "chmod 700 keeps them out",
            folder,
        )


def _lock_folder(folder: Path) -> TextIO:
    """Lock the folder for as long as the file is open."""
    create_private(folder / "lock")
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StorageError(
            f"another service works in {folder}; SUPERRES_JOBS names a folder of this one's own"
        ) from None
    return lock
