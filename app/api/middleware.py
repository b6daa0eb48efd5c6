"""ASGI middleware around every request."""

import logging
import re
import time
import uuid

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from app.telemetry import Telemetry
from app.traces import PROBES

logger = logging.getLogger("superres")

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers by which browsers keep an answer to this site; an answer may set its own."""

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Policy of /docs: FastAPI makes the page, and its script is inline."""


class ProtectionMiddleware:
    """Adds :data:`HEADERS`, and the rest of the caller's rate limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith("/docs"):
                    headers.setdefault("Content-Security-Policy", DOCS_POLICY)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if allowance := scope["state"].get("allowance"):
                    headers.update(allowance.headers())
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HeadMiddleware:
    """Answers HEAD with the head of the answer to GET, and ends the work as soon as it is there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answering.cancel()

        try:
            with anyio.CancelScope() as answering:
                await self._app(as_get, receive, send_head)
        finally:
            scope.update({**as_get, "method": "HEAD"})  # the telemetry names the route


class TelemetryMiddleware:
    """Gives each request an id, unless the caller has set one; times it and counts it."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        # Each request has its own task, and so its own variables.
        bind_contextvars(request_id=request_id, method=scope["method"])
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            # Routes are labels, and paths are not: callers can send any number of paths.
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - started
            self._telemetry.requests.labels(method, route, status).inc()
            self._telemetry.request_seconds.labels(method, route).observe(seconds)
            about = {"route": route, "status": status, "seconds": round(seconds, 4)}
            quiet = route in PROBES and status < 400
            logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra=about)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex
