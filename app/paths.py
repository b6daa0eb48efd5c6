"""Files of a folder, or of a bucket by fsspec: the same calls."""

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from superres.errors import BadRequest

if TYPE_CHECKING:
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"

CANNOT = (errno.EINVAL, errno.ENOTSUP)
"""What fsync of a folder says where there is no such thing: on some networks' file systems."""


def to_path(text: str) -> AnyPath:
    """A path, or a bucket's by its URL, as ``s3://bucket/folder``.

    Raises:
        BadRequest: what reads buckets is not installed.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        return UPath(text, use_listings_cache=False)  # others write there, too
    except ImportError as error:  # of the one, or of what it reads that kind of bucket by
        raise BadRequest(f"{text} needs the extra cluster: make install EXTRA=cluster") from error


def write_whole(target: AnyPath, data: bytes, *, dated_as: "AnyPath | None" = None) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Args:
        target: the file; its folder is made if need be.
        data: what is written.
        dated_as: a file whose date it gets; where one of them is a bucket's, it gets none.
    """
    if not isinstance(target, Path):  # what a bucket takes, it takes whole
        target.write_bytes(data)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # No longer than need be: a name may have 255 bytes.
    partial = target.with_name(f".{uuid4().hex}{target.suffix}.partial")
    try:
        with partial.open("wb") as file:
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
        if error.errno not in CANNOT:
            raise
    finally:
        os.close(folder)
