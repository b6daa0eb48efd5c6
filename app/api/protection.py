"""Keeps out what browsers send for other sites: their pages' requests, and names of their own.

Whoever can reach the service may call it, if it has no keys. So may the pages that are open in the
browser of such a person, unless they are refused here.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import to_response
from app.service_errors import CrossOrigin, UnknownHost
from app.traces import PROBES

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""Names of a service that only this machine can reach."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing: that a page cannot read the answer is enough."""


class CrossOriginMiddleware:
    """Refuses requests of other sites' pages, as ``http.CrossOriginProtection`` of Go does.

    A browser says by ``Sec-Fetch-Site`` whose page it is. An old one, or one that trusts neither
    the network nor the name, sends ``Origin`` alone. What sends neither is no browser. A request
    with a bearer token is let through: a browser adds none by itself, and a page may add one only
    if the service lets it (CORS).

    Args:
        app: the app.
        origins: origins whose pages may call, as ``https://example.org``; ``*`` is all.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_allowed(scope["method"], Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin", "another site")
        error = CrossOrigin(
            f"pages of {origin[:200]!r} may not call this service; SUPERRES_CORS_ORIGINS lists "
            "the origins whose pages may"
        )
        await to_response(Request(scope), error)(scope, receive, send)

    def _is_allowed(self, method: str, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if (
            method in SAFE_METHODS
            or headers.get("authorization", "").lower().startswith("bearer ")
            or "*" in self._origins
            or origin in self._origins
        ):
            return True
        if site is not None:
            return site in ("same-origin", "none")
        if origin is None:
            return True
        host = _host(origin)
        return bool(host) and host == headers.get("host", "").lower()


class TrustedHostsMiddleware:
    """Starlette's :class:`TrustedHostMiddleware`, with a problem as the refusal.

    A page can have its own name point to 127.0.0.1, and is then of the same origin. Probes are let
    through: they call a container by any address, and tell nothing.

    Args:
        app: the app.
        hosts: names of the service; ``*`` is all, ``*.example.org`` those below a name.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES or await self._is_trusted(scope):
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        error = UnknownHost(
            f"this service is called by {', '.join(self._hosts)}, and not by {host[:200]!r}; "
            "SUPERRES_TRUSTED_HOSTS sets its names"
        )
        await to_response(Request(scope), error)(scope, receive, send)

    async def _is_trusted(self, scope: Scope) -> bool:
        trusted = False

        async def note(*_: object) -> None:
            nonlocal trusted
            trusted = True

        async def receive() -> Message:
            raise NotImplementedError

        async def discard(_: Message) -> None:
            """Of Starlette's own refusal."""

        check = TrustedHostMiddleware(note, self._hosts, www_redirect=False)
        await check(scope, receive, discard)
        return trusted


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # as brackets that are no IPv6 address
        return ""
