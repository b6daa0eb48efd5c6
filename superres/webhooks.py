"""Signatures of webhooks, as the specification Standard Webhooks has them: to sign and to verify.

The service signs what it sends to the ``callback`` of a job, and a receiver verifies it:

>>> from superres.webhooks import sign, verify
>>> secret = "whsec_" + "c2VjcmV0" * 4
>>> body = b'{"state": "done"}'
>>> headers = sign(body, "1234", 1_700_000_000, [secret])
>>> sorted(headers)
['webhook-id', 'webhook-signature', 'webhook-timestamp']
>>> verify(headers, body, secret, now=1_700_000_001)
>>> verify(headers, body + b" ", secret, now=1_700_000_001)
Traceback (most recent call last):
    ...
superres.errors.AccessDenied: no webhook-signature was made of this body with this secret
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping

from superres.errors import AccessDenied, BadRequest

PREFIX = "whsec_"
"""Of every secret."""
TOLERANCE_S = 300.0
"""Age in seconds from which a signature is refused: whoever overheard it may be repeating it."""


def sign(body: bytes, message_id: str, timestamp: int, secrets: Iterable[str]) -> dict[str, str]:
    """The headers that sign a body.

    Args:
        body: what is sent.
        message_id: the same whenever the same message is sent again.
        timestamp: seconds since 1970, now.
        secrets: of each there is a signature, so that one can be replaced by another.

    Raises:
        BadRequest: a secret is not one.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(signed, secret) for secret in secrets),
    }


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> None:
    """Return if a webhook was signed with the secret, a short time ago.

    The same message may come more than once: ``webhook-id`` names it.

    Args:
        headers: of the request; capitals and small letters are the same.
        body: of the request, as it was received.
        secret: that the operator of the service gave you, ``whsec_...``.
        tolerance_s: largest difference between the clocks, and time on the way, in seconds.
        now: seconds since 1970; by default the clock's.

    Raises:
        AccessDenied: a header is missing, the time is another one, or the signature is wrong.
        BadRequest: the secret is not one.
    """
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (
            found[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        raise AccessDenied(f"a signed webhook has the header {error.args[0]}") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise AccessDenied(f"webhook-timestamp is seconds since 1970, not {timestamp[:100]!r}")
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) > tolerance_s:
        raise AccessDenied(
            f"webhook-timestamp may differ from this clock by {tolerance_s:g} s; it does by "
            f"{age:.0f} s"
        )
    expected = _signature(f"{message_id}.{timestamp}.".encode() + body, secret).encode()
    # All are compared, each in constant time: how long it takes tells nothing.
    equal = [hmac.compare_digest(one.encode(), expected) for one in signatures.split(" ")]
    if not any(equal):
        raise AccessDenied("no webhook-signature was made of this body with this secret")


def check_secret(secret: str) -> None:
    """Return if it is a secret.

    Raises:
        BadRequest: it is not; since it may be one that was mistyped, it is not repeated.
    """
    _key(secret)


def _signature(signed: bytes, secret: str) -> str:
    digest = hmac.digest(_key(secret), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise BadRequest(
            f"the secret of webhooks is {PREFIX} and 24 to 64 random bytes in base64, as "
            f'`echo "{PREFIX}$(openssl rand -base64 32)"` makes one'
        )
    return key
