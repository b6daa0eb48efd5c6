"""Who may call: named keys, of which only hashes are kept, and a limit for each.

A key is 32 random bytes, so that its plain SHA-256 gives nothing away; a password would need
more. Without any keys, everybody may call: then the service listens on loopback alone.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from superres.errors import BadRequest, Forbidden, TooManyRequests, Unauthorized

PREFIX = "superres_"
"""Of every key, so that one which was published by mistake is recognized."""
ADMIN = "admin"

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key."""

    name: str
    digest: str
    """SHA-256 of the key, in hexadecimal."""
    admin: bool
    limit: RateLimitItem


@dataclass(frozen=True)
class Allowance:
    """What is left of a key's limit."""

    key: ApiKey
    allowed: bool
    """Whether this request was within it."""
    remaining: int
    seconds: int
    """Until the oldest request that counts no longer does."""

    def headers(self) -> dict[str, str]:
        """As the draft of the RateLimit header fields has them."""
        amount, window = self.key.limit.amount, self.key.limit.get_expiry()
        return {
            "RateLimit-Policy": f'"key";q={amount};w={window}',
            "RateLimit": f'"key";r={self.remaining};t={self.seconds}',
        }


def make_key(name: str, *, admin: bool = False, limit: str | None = None) -> tuple[str, str]:
    """A new key, and the entry for ``SUPERRES_API_KEYS`` by which it is known.

    Raises:
        BadRequest: the name or the limit is not what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"a key's name is small letters and digits, joined by '.', '-' or '_', not {name!r}"
        )
    if limit is not None:
        _parse_limit(limit)
    key = PREFIX + secrets.token_urlsafe(32)
    entry = [name, _digest(key), *([ADMIN] if admin else []), *([limit] if limit else [])]
    return key, ":".join(entry)


def read_keys(setting: str, limit: str) -> tuple[ApiKey, ...]:
    """The keys of ``SUPERRES_API_KEYS``: ``NAME:SHA256[:admin][:LIMIT]``, separated by commas.

    Args:
        setting: as it is.
        limit: of a key that has none of its own.

    Raises:
        BadRequest: it is something else; since that may be a key, it is not repeated.
    """
    keys: dict[str, ApiKey] = {}
    for number, entry in enumerate(filter(None, map(str.strip, setting.split(","))), 1):
        name, _, rest = entry.partition(":")
        digest, *options = rest.split(":")
        admin = options[:1] == [ADMIN]
        own_limit = options[admin:]
        if not (_NAME.fullmatch(name) and _DIGEST.fullmatch(digest)) or len(own_limit) > 1:
            raise BadRequest(
                f"entry {number} of SUPERRES_API_KEYS is not NAME:SHA256[:admin][:LIMIT]; "
                "`superres key NAME` makes one"
            )
        if name in keys:
            raise BadRequest(f"SUPERRES_API_KEYS has two keys of the name {name!r}")
        keys[name] = ApiKey(name, digest, admin, _parse_limit(*own_limit or [limit]))
    return tuple(keys.values())


class Access:
    """Knows the keys, and counts what is done with each.

    Args:
        keys: that are accepted; without any, everybody is.
    """

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self.keys = keys
        # By the time of each request: of fixed windows, a caller could use two at a boundary.
        self._counts = MovingWindowRateLimiter(MemoryStorage())

    def identify(self, key: str | None) -> ApiKey:
        """The key's name and rights.

        Raises:
            Unauthorized: there is no key, or it is not known.
        """
        if key is None:
            raise Unauthorized("no key was sent; send one as 'Authorization: Bearer KEY'")
        digest = _digest(key)
        # All are compared, each in constant time: how long it takes tells nothing.
        known = [one for one in self.keys if hmac.compare_digest(one.digest, digest)]
        if not known:
            raise Unauthorized("the key is not one that is accepted here")
        return known[0]

    def count(self, key: ApiKey) -> Allowance:
        """Count one request, with those of the limit's period that ends now."""
        allowed = self._counts.hit(key.limit, key.name)
        reset_at, remaining = self._counts.get_window_stats(key.limit, key.name)
        if not allowed:  # at the very end of a period, the library's two figures differ
            remaining = 0
        return Allowance(key, allowed, remaining, max(1, math.ceil(reset_at - time.time())))


BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key that the operator gave you. A service without keys asks for none.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


async def admit(request: Request, credentials: Credentials) -> None:
    """Let the caller in, if he may; ``request.state.caller`` is then the key's name.

    Raises:
        Unauthorized: no key, or one that is not known.
        TooManyRequests: over the key's limit.
    """
    access: Access = request.state.access
    if access.keys:
        _enter(request, _identify(access, credentials))


async def admit_admin(request: Request, credentials: Credentials) -> None:
    """Let the caller in with a key that is marked ``admin``; without any keys, nobody.

    Raises:
        Unauthorized, TooManyRequests: as :func:`admit`.
        Forbidden: the key is not so marked.
    """
    access: Access = request.state.access
    if not access.keys:
        raise Unauthorized("this takes an admin's key, and the service was started without keys")
    key = _identify(access, credentials)
    _enter(request, key)
    if not key.admin:
        raise Forbidden(f"the key {key.name!r} is not an admin's")


def _identify(access: Access, credentials: HTTPAuthorizationCredentials | None) -> ApiKey:
    return access.identify(None if credentials is None else credentials.credentials)


def _enter(request: Request, key: ApiKey) -> None:
    request.state.caller = key.name
    request.state.allowance = allowance = request.state.access.count(key)
    if not allowance.allowed:
        raise TooManyRequests(
            f"the key {key.name!r} is good for {key.limit.amount:,} requests in "
            f"{key.limit.get_expiry():,} s, and they are used up",
            retry_after=allowance.seconds,
        )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _parse_limit(limit: str) -> RateLimitItem:
    try:
        return parse(limit)
    except ValueError:
        raise BadRequest(f"a limit is as 120/minute or 5/second, not {limit!r}") from None
