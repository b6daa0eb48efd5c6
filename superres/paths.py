"""Paths of the file system, or of a bucket by fsspec, with the same functions for both."""

import errno
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from superres.errors import BadRequest

if TYPE_CHECKING:
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"

NO_FSYNC = (errno.EINVAL, errno.ENOTSUP)
"""Errors of fsync of a folder on file systems that do not have it, such as some networks'."""


PRIVATE = 0o600
"""Mode of a file that only this user may read."""


def to_path(text: str) -> AnyPath:
    """A path, or a bucket's by its URL, as ``s3://bucket/folder``.

    Raises:
        BadRequest: the packages that read buckets are not installed.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        return UPath(text, use_listings_cache=False)  # other processes write
    except ImportError as error:  # of upath, or of the package for this kind of bucket
        raise BadRequest(
            f"{text} needs the extra cluster: make install EXTRA=cluster, or "
            "pip install universal-pathlib 'fsspec[gcs,s3]'"
        ) from error


def write_whole(
    target: AnyPath, data: bytes, *, dated_as: "AnyPath | None" = None, private: bool = False
) -> None:
    """Write a file whole or not at all, also if the power fails.

    Args:
        target: the file; its folder is created if necessary.
        data: the content.
        dated_as: a file whose date the target gets, unless one of the two is in a bucket.
        private: only this user may read the file, unless it is in a bucket.
    """
    if not isinstance(target, Path):  # a bucket stores a file whole or not at all
        target.write_bytes(data)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A short name: file systems allow 255 bytes.
    partial = target.with_name(f".{uuid4().hex}{target.suffix}.partial")
    try:
        with open(partial, "wb", opener=_open_private if private else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if isinstance(dated_as, Path):
            stat = dated_as.stat()
            os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise
    finally:
        os.close(folder)


def check_writable(target: AnyPath) -> None:
    """Return if nothing is known that prevents a file from being written by :func:`write_whole`.

    Nothing is created. In a bucket, nothing is checked.

    Raises:
        BadRequest: the name is a folder's, or the folder cannot be created or written.
    """
    if not isinstance(target, Path):
        return
    if target.is_dir():
        raise BadRequest(f"{target} is a folder, which a result does not replace: rename it")
    above = next(folder for folder in target.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise BadRequest(f"{target} cannot be written, as {above} is not a folder")
    if not _may(above, os.W_OK | os.X_OK):
        raise BadRequest(f"{target} cannot be written: this user may not write to {above}")


def check_appendable(target: AnyPath) -> None:
    """Return if nothing is known that prevents lines from being added to a file.

    Raises:
        BadRequest: as :func:`check_writable`; or the file exists and cannot be written.
    """
    if not isinstance(target, Path) or not target.is_file():
        check_writable(target)
    elif not _may(target, os.W_OK):
        raise BadRequest(f"this user may not write to {target}")


def _may(path: Path, mode: int) -> bool:
    """Whether this process has an access to a path, by the ids that count when it is opened."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def create_private(file: Path) -> None:
    """Create a file that only this user may read; of one that exists, change the mode if possible.

    Raises:
        OSError: it cannot be created.
    """
    os.close(_open_private(str(file), os.O_WRONLY | os.O_CREAT))
    with suppress(PermissionError):  # another user's
        file.chmod(PRIVATE)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)


def path_below(file: AnyPath, folder: AnyPath) -> PurePosixPath:
    """The path of a file relative to a folder that contains it."""
    return PurePosixPath(*file.parts[len(folder.parts) :])


def is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Whether a path is the folder itself, or inside it."""
    if isinstance(path, Path) and isinstance(folder, Path):
        return _resolved(path).is_relative_to(_resolved(folder))
    return f"{path}/".startswith(f"{folder}/")


def identity(path: AnyPath) -> object:
    """A key that is equal for all paths of one file, also through links."""
    if not isinstance(path, Path):
        return str(path)
    try:
        status = path.stat()
    except OSError:  # it does not exist
        return _resolved(path)
    return status.st_dev, status.st_ino


def _resolved(path: Path) -> Path:
    """Without links; of links that lead in a circle, as far as they can be followed."""
    return Path(os.path.realpath(path))


def is_same(one: AnyPath, other: AnyPath) -> bool:
    """Whether two paths name the same file; both exist."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.samefile(other)
    return str(one) == str(other)
