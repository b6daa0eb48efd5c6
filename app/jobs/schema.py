"""The version of the jobs' tables: older ones are brought up to date, and newer ones refused."""

from collections.abc import Callable

from sqlalchemy import Connection, insert, inspect, select, update

from app.jobs.rows import Base, Job, SchemaVersion
from app.service_errors import StorageError


def _add_missing_tables(connection: Connection) -> None:
    """From 0, which has no version: tables may be missing, and no column is.

    They get the form of today, not that of version 1.
    """
    Base.metadata.create_all(connection)


UPGRADES: tuple[Callable[[Connection], None], ...] = (_add_missing_tables,)
"""What brings the tables from each version, counted from 0, to the next one.

Whoever changes a table appends to these, and never changes one that was released. Each step must
leave alone a table that already has its change, because the first one makes missing tables in
their newest form.
"""
VERSION = len(UPGRADES)
"""Version of the tables of :mod:`app.jobs.rows`."""


def prepare_tables(connection: Connection) -> None:
    """Create the tables, or bring those of an earlier version up to date.

    Args:
        connection: in a transaction that writes, so that other services wait.

    Raises:
        StorageError: a later version of superres has made the tables.
    """
    inspector = inspect(connection)
    noted = None
    if inspector.has_table(SchemaVersion.__tablename__):
        noted = connection.scalar(select(SchemaVersion.version))
    found = noted or 0
    if found > VERSION:
        raise StorageError(
            f"the jobs' database has tables of version {found}, and this superres knows versions "
            f"up to {VERSION}: run the newer superres that made them, or name another place by "
            "SUPERRES_JOBS and SUPERRES_JOBS_DATABASE"
        )
    if inspector.has_table(Job.__tablename__):
        for upgrade_tables in UPGRADES[found:]:
            upgrade_tables(connection)
    else:
        Base.metadata.create_all(connection)
    if noted is None:
        connection.execute(insert(SchemaVersion).values(version=VERSION))
    elif found < VERSION:
        connection.execute(update(SchemaVersion).values(version=VERSION))
