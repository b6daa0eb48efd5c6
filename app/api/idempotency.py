"""The ``Idempotency-Key`` of a job, as the IETF's draft has it.

The same caller, key and request are the same job. The draft lets a request that comes while the
first one is at work be refused; here it is answered with the job, too.
"""

import hashlib
import re
from typing import Annotated

from fastapi import Depends, Header
from pydantic import BaseModel

from app.api.etag import canonical
from superres.errors import BadRequest

MAX_KEY = 255
"""Characters of a key."""

_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
"""A String of RFC 9651."""
_CHARACTERS = re.compile(f"[ -~]{{1,{MAX_KEY}}}")


async def read_idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="With `Prefer: respond-async`, and repeated with the same request, it "
            "answers with the job that the first one made. Keys are each caller's own, and kept "
            "as long as their jobs. With or without quotation marks.",
            examples=['"8e03978e-40d5-43e8-bc93-6894a57f9324"'],
        ),
    ] = None,
) -> str | None:
    """The key, without quotation marks; None without the header.

    Raises:
        BadRequest: it is empty, too long, or has other characters than those of ASCII.
    """
    if key is None:
        return None
    quoted = _STRING.fullmatch(key.strip())
    plain = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else key.strip()
    if not _CHARACTERS.fullmatch(plain) or (plain.startswith('"') and not quoted):
        raise BadRequest(
            f"Idempotency-Key: it has 1 to {MAX_KEY} printable characters of ASCII, as a UUID "
            f"does, within quotation marks or without any; this one has {len(plain):,}"
        )
    return plain


IdempotencyKeyDependency = Annotated[str | None, Depends(read_idempotency_key)]


def fingerprint(upload_digest: str, query: BaseModel, output_format: str) -> str:
    """Digest of a request: it is the same when the request is repeated.

    Neither ``X-Deadline-Ms`` nor ``X-Request-ID`` counts: a repetition may have less time left.

    Args:
        upload_digest: of the upload.
        query: the parameters, as they were sent.
        output_format: of the result; ``Accept`` may have decided it.
    """
    parameters = canonical(query.model_dump(mode="json", exclude={"format"}))
    parts = f"{upload_digest} {output_format} {parameters}"
    return hashlib.sha256(parts.encode()).hexdigest()
