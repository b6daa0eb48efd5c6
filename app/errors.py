"""SuperresError -> application/problem+json (RFC 9457): one table, here and nowhere else."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app import service_errors
from app.api.middleware import HEADERS
from superres import errors
from superres.errors import SuperresError
from superres.schemas import PROBLEM_TYPE, Problem

logger = logging.getLogger("superres")

MEDIA_TYPE = "application/problem+json"
UNFORESEEN = "an unforeseen error; the log has it by request_id"

STATUS_AND_TYPE: dict[type[SuperresError], tuple[int, str]] = {
    service_errors.MalformedRequest: (400, "malformed-request"),
    errors.Unauthorized: (401, "unauthorized"),
    service_errors.CrossOrigin: (403, "cross-origin"),
    errors.Forbidden: (403, "forbidden"),
    service_errors.JobMissing: (404, "unknown-job"),
    service_errors.NotAcceptable: (406, "not-acceptable"),
    service_errors.BodyTooSlow: (408, "body-too-slow"),
    service_errors.JobUnfinished: (409, "job-unfinished"),
    service_errors.ReloadFailed: (409, "reload-failed"),
    errors.BodyTooLarge: (413, "body-too-large"),
    errors.UnsupportedFormat: (415, "unsupported-format"),
    service_errors.RangeNotSatisfiable: (416, "range-not-satisfiable"),
    service_errors.UnknownHost: (421, "unknown-host"),
    errors.AnimatedImage: (422, "animated-image"),
    errors.ImageTooLarge: (422, "image-too-large"),
    errors.BadImage: (422, "unreadable-image"),
    errors.BadRequest: (422, "bad-parameter"),
    service_errors.KeyReused: (422, "idempotency-key-reused"),
    errors.ModelMissing: (422, "unknown-model"),
    errors.TooManyRequests: (429, "too-many-requests"),
    service_errors.CallerGone: (499, "caller-gone"),
    errors.EngineError: (500, "engine-failed"),
    errors.JobAbandoned: (500, "job-abandoned"),
    errors.ModelError: (500, "internal-error"),
    errors.NotReady: (503, "not-ready"),
    errors.Busy: (503, "busy"),
    service_errors.StorageError: (503, "storage-failed"),
    errors.DeadlineExceeded: (504, "deadline-exceeded"),
}
"""Looked up along a class's bases, nearest first."""

TITLES = {
    "malformed-request": "The request cannot be parsed",
    "unauthorized": "A key is needed",
    "cross-origin": "Pages of other sites may not do this",
    "forbidden": "The key is not good for this",
    "not-found": "No such resource",
    "method-not-allowed": "Not a method of this resource",
    "unknown-job": "No such job",
    "not-acceptable": "No answer in a form that you accept",
    "body-too-slow": "The body did not arrive in time",
    "job-unfinished": "The job is not done yet",
    "reload-failed": "The models were not replaced",
    "body-too-large": "The body has too many bytes",
    "unsupported-format": "Not a format that is read here",
    "range-not-satisfiable": "The result does not have this part",
    "unknown-host": "Not a name of this service",
    "animated-image": "Animated and multi-page pictures are not enhanced",
    "image-too-large": "The picture has too many pixels",
    "unreadable-image": "The picture cannot be read",
    "bad-parameter": "Invalid parameter",
    "idempotency-key-reused": "The key was used for another request",
    "unknown-model": "No such model",
    "too-many-requests": "Too many requests with this key",
    "caller-gone": "Client disconnected",
    "engine-failed": "The device failed",
    "job-abandoned": "The job was given up",
    "internal-error": "Something went wrong here",
    "not-ready": "The service is not ready",
    "busy": "The service is busy",
    "storage-failed": "Nothing can be stored now",
    "deadline-exceeded": "Deadline exceeded",
}

CAUSES = {
    "malformed-request": "The form cannot be parsed, has no `file`, or has too many or too long "
    "fields.",
    "unauthorized": "There is no key, or not one that is known. The response has "
    "`WWW-Authenticate`.",
    "cross-origin": "A page of another site sends the request, and `SUPERRES_CORS_ORIGINS` does "
    "not list it.",
    "forbidden": "The key is not an administrator's, which `/admin` needs.",
    "not-found": "There is no such path.",
    "method-not-allowed": "The path does not have this method.",
    "unknown-job": "There is no such job, or it belongs to another key.",
    "not-acceptable": "`Accept` allows no available format.",
    "body-too-slow": "The body paused for `SUPERRES_IDLE_TIMEOUT_S`, or was slower than "
    "`SUPERRES_MIN_BYTES_PER_S`.",
    "job-unfinished": "The result is not ready yet.",
    "reload-failed": "A model in the models folder does not match its card; the old models stay.",
    "body-too-large": "The body has more bytes than `SUPERRES_MAX_BODY_BYTES`.",
    "unsupported-format": "The file is not a picture in a supported format. The message names what "
    "it is and what to do instead, where that is known.",
    "range-not-satisfiable": "`Range` begins after the end of the result; `Content-Range` has its "
    "length.",
    "unknown-host": "`Host` is not a name of the service: see `SUPERRES_TRUSTED_HOSTS`.",
    "animated-image": "The file has more than one frame or page.",
    "image-too-large": "There are too many input or output pixels, more than the output format "
    "allows, or they need more memory than the service has.",
    "unreadable-image": "The file is damaged, or reading it takes too much time or memory.",
    "bad-parameter": "A parameter is out of range, unknown, or contradicts another one.",
    "idempotency-key-reused": "The `Idempotency-Key` came with another request before.",
    "unknown-model": "No model or family has this name.",
    "too-many-requests": "The limit of the key is used up, or the key has "
    "`SUPERRES_MAX_WATCHERS_PER_KEY` streams of events open.",
    "caller-gone": "The client disconnected. Only the metrics show this.",
    "engine-failed": "The device failed, or a model could not be loaded at its first use; the log "
    "has details.",
    "job-abandoned": "The service stopped twice while it worked on the job, or could not store "
    "its result.",
    "internal-error": "An error of the service; the log has details by `request_id`.",
    "not-ready": "The models are being loaded, the service is stopping, or the device hangs.",
    "busy": "There is no capacity, too many jobs wait, too many streams of events are open, or the "
    "caller has an equal part already while other callers wait.",
    "storage-failed": "The disk of the jobs or `SUPERRES_MAX_JOBS_BYTES` is full, or their "
    "database is locked.",
    "deadline-exceeded": "The request took longer than `X-Deadline-Ms` or `SUPERRES_DEADLINE_S`.",
}
"""When each is the answer: the page docs/reference/errors.md."""

RETRIED = (
    errors.NotReady,
    errors.Busy,
    errors.TooManyRequests,
    service_errors.JobUnfinished,
    service_errors.StorageError,
)
"""Those that come with a ``Retry-After``."""


def declare(*kinds: type[SuperresError]) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses`` say of the errors that it can answer with."""
    declared: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, slug = STATUS_AND_TYPE[kind]
        entry = declared.setdefault(
            status,
            {
                "model": Problem,
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        entry["description"] += ("; " if entry["description"] else "") + (
            f"{TITLES[slug]} (`{PROBLEM_TYPE}{slug}`)"
        )
        if status == 401:
            entry["headers"] = {
                "WWW-Authenticate": {
                    "description": "How a key is sent.",
                    "schema": {"type": "string"},
                }
            }
        if issubclass(kind, RETRIED):
            entry["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait before trying again.",
                    "schema": {"type": "integer"},
                }
            }
    return declared


def install(app: FastAPI) -> None:
    """Make every error of an app a problem, in its answers and in its OpenAPI."""
    make_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        spec = make_openapi()
        for operations in spec["paths"].values():
            for operation in operations.values():
                for response in operation["responses"].values():
                    # FastAPI declares every model in the route's own media type too.
                    if MEDIA_TYPE in (content := response.get("content", {})):
                        response["content"] = {MEDIA_TYPE: content[MEDIA_TYPE]}
                    elif "image/png" in content:
                        # Pages of documentation accept the type that comes first: a picture.
                        response["content"] = dict(
                            sorted(content.items(), key=lambda row: not row[0].startswith("image/"))
                        )
        return spec

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(SuperresError)
    async def _superres_error(request: Request, error: SuperresError) -> JSONResponse:
        return to_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return _problem(request, 422, "bad-parameter", "; ".join(map(_sentence, error.errors())))

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
        slug = {404: "not-found", 405: "method-not-allowed"}.get(
            error.status_code, "malformed-request"
        )
        detail = f"{request.method} {request.url.path}: {error.detail}"
        response = _problem(request, error.status_code, slug, detail)
        response.headers.update(error.headers or {})
        if "GET" in (allow := response.headers.get("allow", "").split(", ")):
            response.headers["Allow"] = ", ".join([*allow, "HEAD"])
        return response

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        # What it was is for the log, not for the caller; Starlette logs the traceback.
        response = _problem(request, 500, "internal-error", UNFORESEEN)
        # Starlette sends this past all middleware, and then has uvicorn close the connection.
        response.headers.update(HEADERS)
        response.headers["X-Request-ID"] = request.scope.get("request_id", "")
        response.headers["Connection"] = "close"
        return response


def to_response(request: Request, error: SuperresError) -> JSONResponse:
    """The problem that an error is."""
    status, slug = _status_and_slug(error)
    if status == 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    response = _problem(request, status, slug, str(error))
    if isinstance(error, RETRIED):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="superres"'
    if isinstance(error, service_errors.RangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, service_errors.BodyTooSlow):
        response.headers["Connection"] = "close"  # the rest of it is not waited for
    return response


def describe_error(error: Exception, request_id: str) -> dict[str, Any]:
    """The JSON of the problem that an error is, for a job that failed."""
    if isinstance(error, SuperresError):
        problem = _told(*_status_and_slug(error), str(error), request_id)
    else:
        problem = _told(500, "internal-error", UNFORESEEN, request_id)
    return problem.model_dump()


def answer_with(request: Request, problem: Problem) -> JSONResponse:
    """The answer of a request whose work has failed earlier, in a job."""
    return _problem(
        request, problem.status, problem.type.removeprefix(PROBLEM_TYPE), problem.detail
    )


def _status_and_slug(error: SuperresError) -> tuple[int, str]:
    return STATUS_AND_TYPE[next(base for base in type(error).__mro__ if base in STATUS_AND_TYPE)]


def _problem(request: Request, status: int, slug: str, detail: str) -> JSONResponse:
    problem = _told(status, slug, detail, request.scope.get("request_id", ""))
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)


def _told(status: int, slug: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"{PROBLEM_TYPE}{slug}",
        title=TITLES[slug],
        status=status,
        detail=detail,
        request_id=request_id,
    )


def _sentence(error: Any) -> str:
    """One of pydantic's errors, with the parameter, the limit and the value."""
    name = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{name}: {message}, not {error['input']!r}"
