"""Bytes and pictures in files without a name, which two processes can map into memory."""

import json
import mmap
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from superres.codecs import Header, Picture


@dataclass(frozen=True)
class Task:
    """What a process does with an upload, and what it may take."""

    operation: Literal["probe", "decode"]
    max_pixels: int
    """Most pixels of the picture."""
    max_bytes: int
    """Most bytes of memory, besides what the process has at its start."""
    max_seconds: float
    """Most seconds of processor time."""
    srgb: bool = False
    """Whether the colours are converted to sRGB."""
    strip_metadata: bool = False
    """Whether EXIF and XMP are left out."""

    LENGTH = 256
    """Bytes of a task as it is sent."""

    def to_bytes(self) -> bytes:
        """The task, as it is sent."""
        return json.dumps(asdict(self)).encode().ljust(self.LENGTH)

    @classmethod
    def from_bytes(cls, sent: bytes) -> "Task":
        """The inverse of :meth:`to_bytes`."""
        return cls(**json.loads(sent))


def write_file(data: bytes) -> int:
    """Write a new file; the caller closes its descriptor."""
    descriptor = _create()
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return descriptor


def read_file(descriptor: int) -> bytes:
    """Read what :func:`write_file` wrote, and close the file."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def write_result(result: Header | Picture | Exception) -> int:
    """Write a result to a new file; the caller closes its descriptor.

    The file has the samples, the other bytes, the rest as JSON, and the length of that in 8 bytes.
    Nothing of it is code, as a pickle would be: the process that wrote it read a stranger's bytes.
    """
    if isinstance(result, Exception):
        samples = np.empty(0, np.uint8)
        values: dict[str, Any] = {"error": type(result).__name__, "message": str(result)}
    else:
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        samples = values.pop("samples", np.empty(0, np.uint8))
        values |= {"shape": samples.shape, "dtype": samples.dtype.name}
    blobs: list[bytes] = []
    for name, value in values.items():
        if isinstance(value, bytes):
            blobs.append(value)
            values[name] = {"length": len(value)}
    text = json.dumps(values, default=float).encode()
    tail = b"".join([*blobs, text, len(text).to_bytes(8, "little")])
    descriptor = _create()
    os.ftruncate(descriptor, samples.nbytes + len(tail))
    with mmap.mmap(descriptor, 0) as mapped:
        mapped[samples.nbytes :] = tail
        if samples.size:  # one copy, in whichever order they are
            target = np.frombuffer(mapped, samples.dtype, samples.size).reshape(samples.shape)
            target[:] = samples
            del target  # or the file could not be unmapped
    return descriptor


def read_values(descriptor: int) -> dict[str, Any]:
    """Read what :func:`write_result` wrote, and close the file.

    Returns:
        The attributes of the header or picture, or ``error`` and ``message``. Samples are mapped,
        not copied.
    """
    try:
        mapped = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    end = len(mapped) - 8
    start = end - int.from_bytes(mapped[end:], "little")
    values: dict[str, Any] = json.loads(mapped[start:end])
    if "error" in values:
        return values
    shape, dtype = values.pop("shape"), np.dtype(values.pop("dtype"))
    count = int(np.prod(shape))
    position = count * dtype.itemsize
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = mapped[position : position + value["length"]]
            position += value["length"]
        elif isinstance(value, list):
            values[name] = tuple(value)
    if count:
        values["samples"] = np.frombuffer(mapped, dtype, count).reshape(shape)
    return values


def _create() -> int:
    if hasattr(os, "memfd_create"):  # unlike /dev/shm, of any length in a container, too
        return os.memfd_create("superres")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
