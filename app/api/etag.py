"""The ``ETag`` of an enhanced picture, which is known before the picture is made.

It is weak (``W/``). A strong one promises equal bytes, and this one is given before there are any:
on one machine the same request has the same bytes, but two machines, or a CPU and a GPU, may differ
by a level. Nothing is lost: ``If-None-Match`` compares weakly, and only ``Range`` needs a strong
tag. The result of a job has one, of the bytes that are kept.

RFC 9110 has ``If-None-Match`` answered by 304 for GET and HEAD, and by 412 for methods that change
something. ``POST /enhance`` changes nothing: it is a query with a body. So it answers 304, too.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import Request, Response
from werkzeug.http import parse_etags, unquote_etag

from app.inference.enhance import EnhanceRequest
from app.settings import Settings

PROJECT = Path(__file__).parents[2]


async def digest_upload(upload: bytes) -> str:
    """SHA-256 of an upload, in hexadecimal."""

    def digest() -> str:
        code_version()  # which reads files the first time, so that :func:`enhanced_etag` does not
        return hashlib.sha256(upload).hexdigest()

    return await anyio.to_thread.run_sync(digest)


def enhanced_etag(upload_digest: str, request: EnhanceRequest, settings: Settings) -> str:
    """The tag of what a request asks for.

    It covers the upload, the parameters, the models between which the picture decides, the code
    and all settings: one that has no effect costs an answer that is made again, while one that
    was left out would let an old picture pass for the new one.

    Args:
        upload_digest: of the upload.
        request: what is made of it.
        settings: of the service; the secrets among them do not count.
    """
    parts = (
        upload_digest,
        canonical(request.options.model_dump(exclude={"format"})),
        request.output_format,
        [(card.name, card.short_hash) for card in request.cards],
        settings.model_dump_json(),
        code_version(),
    )
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def canonical(parameters: Mapping[str, Any]) -> str:
    """The same text for equal parameters: a default may be 3 where a caller's value is 3.0."""
    values = {
        name: float(value) if type(value) is int else value for name, value in parameters.items()
    }
    return json.dumps(values, sort_keys=True)


def digest_etag(content_digest: str) -> str:
    """The strong tag of bytes with this ``Content-Digest``."""
    return f'"{content_digest.split(":")[1]}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` has the tag: then the caller has this answer already.

    ``*`` asks whether there is an answer, and none is kept.
    """
    known = parse_etags(", ".join(request.headers.getlist("if-none-match")))
    return not known.star_tag and known.contains_weak(unquote_etag(etag)[0] or "")


def not_modified(etag: str) -> Response:
    """The answer to a caller who has this answer already."""
    return Response(status_code=304, headers={"ETag": etag, "Vary": "Accept"})


@cache
def code_version() -> str:
    """SHA-256 of the code that makes a picture: this project's, and the versions of its libraries.

    The project's own version would not do: a clone is changed without it.
    """
    digest = hashlib.sha256()
    for folder in ("app", "superres"):
        for file in sorted((PROJECT / folder).rglob("*")):
            if file.suffix in (".py", ".toml"):
                digest.update(f"{file.relative_to(PROJECT)} ".encode() + file.read_bytes())
    for requirement in requires("superres") or []:
        digest.update(f"{requirement} {_installed_version(requirement)}\n".encode())
    return digest.hexdigest()


def _installed_version(requirement: str) -> str:
    """The version of what a requirement names; empty if it is not installed."""
    name = re.match(r"[\w.-]+", requirement)
    try:
        return version(name[0]) if name else ""
    except PackageNotFoundError:
        return ""
