"""What the clients send and receive: how a request is made, and how an answer is read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from httpx_retries import Retry, RetryTransport
from pydantic import ValidationError

from superres.arrays import Size
from superres.codecs import probe
from superres.errors import (
    AccessDenied,
    AnimatedImage,
    BadImage,
    BadRequest,
    BodyTooLarge,
    Busy,
    DeadlineExceeded,
    EngineError,
    Forbidden,
    ImageTooLarge,
    JobAbandoned,
    ModelError,
    ModelMissing,
    NotReady,
    SuperresError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedFormat,
)
from superres.schemas import PROBLEM_TYPE, Problem
from superres.sizing import Target, resolve

EncodedPicture = bytes | os.PathLike[str]
"""An encoded picture, or the path of one."""

ERRORS: dict[str, type[SuperresError]] = {
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "cross-origin": AccessDenied,
    "body-too-large": BodyTooLarge,
    "unsupported-format": UnsupportedFormat,
    "animated-image": AnimatedImage,
    "image-too-large": ImageTooLarge,
    "unreadable-image": BadImage,
    "unknown-model": ModelMissing,
    "too-many-requests": TooManyRequests,
    "engine-failed": EngineError,
    "job-abandoned": JobAbandoned,
    "job-unfinished": Unavailable,
    "reload-failed": ModelError,
    "not-ready": NotReady,
    "busy": Busy,
    "deadline-exceeded": DeadlineExceeded,
}
"""The class that is raised for a problem, by its type."""

TEMPORARY = (429, 502, 503, 504)
"""Statuses that mean that the same request may be answered later, also if a proxy sends them."""
PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Enhanced:
    """The answer of POST /enhance."""

    content: bytes
    """The encoded picture."""
    media_type: str
    """``image/png`` and the like."""
    size: Size
    """(height, width), px."""
    model: str
    """What made it: ``srcnn-x3@0123456789ab``, ``srcnn-x3+ensemble@0123456789ab``."""
    gain_db: float | None
    """With a proof, the model's estimated gain over bicubic."""
    notes: str
    """What the format could not hold, and why the model was chosen; empty if nothing."""
    request_id: str
    """Names this request in the service's log."""

    def save(self, file: os.PathLike[str]) -> None:
        """Write the picture to a file."""
        Path(file).write_bytes(self.content)


class PartialResult:
    """The result of a job, as far as it has arrived."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._first: httpx.Response | None = None

    def request_headers(self) -> dict[str, str]:
        """Headers that ask for the rest of it."""
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        tag = self._first.headers.get("etag") if self._first else None
        if self.content and tag:
            headers |= {"Range": f"bytes={len(self.content)}-", "If-Range": tag}
        return headers

    def begin(self, answer: httpx.Response) -> None:
        """Take the head of an answer; unless it has the rest, it begins again."""
        if answer.status_code != 206 or self._first is None:
            self.content.clear()
            self._first = answer

    def whole(self) -> httpx.Response:
        """The answer, as if it had not been interrupted."""
        assert self._first is not None  # noqa: S101 begin was called
        first = self._first
        return httpx.Response(
            200, headers=first.headers, content=bytes(self.content), request=first.request
        )


def authorization(key: str | None) -> dict[str, str]:
    """The header that carries a key, if there is one."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def retrying_transport(retries: int) -> RetryTransport:
    """A transport that repeats a call after the ``Retry-After`` of the service or of a proxy."""
    return RetryTransport(
        retry=Retry(
            total=retries,
            # Each call can be made again: its Idempotency-Key keeps it from making two jobs.
            allowed_methods=["DELETE", "GET", "POST"],
            status_forcelist=[429, 503],
            validate_response=_check_gateway,
            retry_on_exceptions=[httpx.ConnectError, httpx.RemoteProtocolError, _GatewayError],
            backoff_factor=0.5,
        )
    )


class _GatewayError(Exception):
    """A proxy has no answer from the service, and the call can be made again."""


def _check_gateway(answer: httpx.Response) -> None:
    """Return if an answer is the service's, or if the call should not be made again.

    Raises:
        _GatewayError: a proxy does not reach the service, as during a restart, or has no answer in
            time.
    """
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code not in (502, 504) or media_type == PROBLEM_MEDIA_TYPE:
        return  # the service's own 504 is a deadline, which a repetition would exceed again
    request = answer.request
    if (
        answer.status_code == 504
        and request.method == "POST"
        and "idempotency-key" not in request.headers
    ):
        return  # the service may still work on the picture: a repetition doubles the work
    raise _GatewayError


def read_content(picture: EncodedPicture) -> bytes:
    """The bytes of a picture."""
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def output_pixels(content: bytes, query: Mapping[str, Any]) -> int:
    """How many pixels the result will have; 0 for what the service will refuse."""
    asked = Target(*(query.get(name) for name in ("scale", "width", "height", "fit")))
    try:
        height, width = resolve(probe(content).size, asked).size
    except (BadImage, BadRequest, ImageTooLarge):
        return 0
    return height * width


def request_parts(
    path: str, query: Mapping[str, Any], content: bytes | None, as_job: bool
) -> dict[str, Any]:
    """The request but for method and path; parameters left to the service are not sent."""
    accept = "image/*" if path == "/enhance" else "application/json"
    parts: dict[str, Any] = {
        "params": {name: value for name, value in query.items() if value is not None},
        "headers": {"Accept": accept},
    }
    if as_job:
        # A repetition of the call has the same key, and is answered with the same job.
        parts["headers"] |= {"Prefer": "respond-async", "Idempotency-Key": f'"{uuid4()}"'}
    if content is not None:
        parts["content"] = content
        parts["headers"]["Content-Type"] = "application/octet-stream"
    return parts


def to_enhanced(answer: httpx.Response) -> Enhanced:
    """Read an answer of POST /enhance, or of GET /jobs/ID/result."""
    headers = answer.headers
    width, height = map(int, headers["x-output-size"].split("x"))
    gain = headers.get("x-proof-gain-db")
    return Enhanced(
        content=answer.content,
        media_type=headers["content-type"],
        size=(height, width),
        model=headers["x-model"],
        gain_db=None if gain is None else float(gain),
        notes=headers.get("x-notes", ""),
        request_id=headers["x-request-id"],
    )


def check_answer(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is one.

    Raises:
        SuperresError: the problem in the response, as the class of :data:`ERRORS`. One that is not
            there is a ``BadRequest`` where the request is to blame, ``Unavailable`` where the
            same request may be answered later, and a ``SuperresError`` otherwise. An answer that
            is not the service's, but for example a proxy's, is one of the last two.
    """
    if answer.is_success:
        return answer
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        kind = Unavailable if answer.status_code in TEMPORARY else SuperresError
        error = kind(f"{answer.url} answered {answer.status_code}, and not as the service does")
    else:
        error = to_error(problem)
    seconds = answer.headers.get("retry-after", "")
    if isinstance(error, Unavailable) and seconds.isascii() and seconds.isdigit():
        error.retry_after = int(seconds)  # a proxy may send a date
    raise error


def to_error(problem: Problem) -> SuperresError:
    """The error that a problem is, of an answer or of a job that failed."""
    error = error_class(problem)(problem.detail)
    error.add_note(f"{problem.status} {problem.type}, request {problem.request_id}")
    return error


def error_class(problem: Problem) -> type[SuperresError]:
    """The class that the clients raise for a problem."""
    known = ERRORS.get(problem.type.removeprefix(PROBLEM_TYPE))
    if known is not None:
        return known
    if problem.status in TEMPORARY:
        return Unavailable
    return BadRequest if 400 <= problem.status < 500 else SuperresError


def no_answer(error: httpx.HTTPError, url: httpx.URL) -> Unavailable:
    """The error that says that the service does not answer."""
    return Unavailable(f"no answer from {url}: {error or type(error).__name__}")
