"""A client of the service: :class:`Client`, and :class:`AsyncClient` for asyncio.

What the service refuses is raised here as the class of :mod:`superres.errors` that it was
there, so that code which calls the service reads as code which calls the library.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from httpx_retries import Retry, RetryTransport
from pydantic import ValidationError

from app.schemas import ComparisonReport, Problem, QualityReport
from superres.arrays import Size
from superres.codecs import OutputFormat
from superres.errors import ModelError, SuperresError, Unavailable

URL = "http://127.0.0.1:8000"
EncodedPicture = bytes | os.PathLike[str]
"""An encoded picture, or the path of one."""
Fallback = Literal["none", "auto", "always"]


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
    """What made it: ``srcnn-x3@0123456789ab``, ``srcnn-x3+ensemble@0123456789ab``, ``bicubic``."""
    gain_db: float | None
    """With a proof, the model's estimated gain over bicubic."""
    notes: str
    """What the format could not hold, or why bicubic answered; empty if nothing."""
    request_id: str
    """Names this request in the service's log."""

    def save(self, file: os.PathLike[str]) -> None:
        """Write the picture to a file."""
        Path(file).write_bytes(self.content)


class Client:
    """Calls the service; safe to share between threads.

    A call that finds the service busy, not ready yet or not there is made again, when the
    service's ``Retry-After`` says so.

    Args:
        url: of the service.
        timeout: seconds without a byte after which a call is given up.
        retries: how often a call is made again.
        http: a connection of your own; then the others are its business.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        timeout: float = 300,
        retries: int = 5,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(
            base_url=url, timeout=timeout, transport=_transport(retries)
        )

    def enhance(
        self,
        picture: EncodedPicture,
        scale: float = 3,
        *,
        model: str | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        ensemble: bool = False,
        proof: bool = False,
        fallback: Fallback = "none",
    ) -> Enhanced:
        """Enlarge a picture; what the parameters mean, POST /enhance says.

        Raises:
            BadImage: it cannot be read, or has too many pixels.
            BadRequest: a parameter is not what is allowed, or there are too many bytes.
            ModelMissing: no such model.
            EngineError: the device failed.
            Unavailable: no answer, or busy, not ready or too late, after all retries.
        """
        query = _query(scale, model, output_format, quality, ensemble, proof, fallback)
        return _enhanced(self._call("POST", "/enhance", query, picture))

    def compare(
        self,
        picture: EncodedPicture | None = None,
        scale: float = 3,
        *,
        sample: str | None = None,
        model: str | None = None,
    ) -> ComparisonReport:
        """Score bicubic and a model on a picture taken as the truth, or on a shipped sample.

        Raises:
            SuperresError: as :meth:`enhance`.
        """
        query = {"scale": scale, "sample": sample, "model": model}
        answer = self._call("GET" if picture is None else "POST", "/compare", query, picture)
        return ComparisonReport.model_validate_json(answer.content)

    def metrics(self) -> QualityReport:
        """What each model scored on the published sets, beside bicubic.

        Raises:
            Unavailable: no answer.
        """
        return QualityReport.model_validate_json(self._call("GET", "/metrics", {}).content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        picture: EncodedPicture | None = None,
    ) -> httpx.Response:
        try:
            return _checked(self._http.request(method, path, **_parts(path, query, picture)))
        except httpx.HTTPError as error:
            raise _unanswered(error, self._http.base_url) from error


class AsyncClient:
    """:class:`Client` for asyncio: the same calls, awaited."""

    def __init__(
        self,
        url: str = URL,
        *,
        timeout: float = 300,
        retries: int = 5,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(
            base_url=url, timeout=timeout, transport=_transport(retries)
        )

    async def enhance(
        self,
        picture: EncodedPicture,
        scale: float = 3,
        *,
        model: str | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        ensemble: bool = False,
        proof: bool = False,
        fallback: Fallback = "none",
    ) -> Enhanced:
        """As :meth:`Client.enhance`."""
        query = _query(scale, model, output_format, quality, ensemble, proof, fallback)
        return _enhanced(await self._call("POST", "/enhance", query, picture))

    async def compare(
        self,
        picture: EncodedPicture | None = None,
        scale: float = 3,
        *,
        sample: str | None = None,
        model: str | None = None,
    ) -> ComparisonReport:
        """As :meth:`Client.compare`."""
        query = {"scale": scale, "sample": sample, "model": model}
        answer = await self._call("GET" if picture is None else "POST", "/compare", query, picture)
        return ComparisonReport.model_validate_json(answer.content)

    async def metrics(self) -> QualityReport:
        """As :meth:`Client.metrics`."""
        return QualityReport.model_validate_json((await self._call("GET", "/metrics", {})).content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        picture: EncodedPicture | None = None,
    ) -> httpx.Response:
        try:
            return _checked(await self._http.request(method, path, **_parts(path, query, picture)))
        except httpx.HTTPError as error:
            raise _unanswered(error, self._http.base_url) from error


def _transport(retries: int) -> RetryTransport:
    return RetryTransport(
        retry=Retry(
            total=retries,
            # No call changes anything, so that each can be made again.
            allowed_methods=["GET", "POST"],
            status_forcelist=[503],
            retry_on_exceptions=[httpx.ConnectError, httpx.RemoteProtocolError],
            backoff_factor=0.5,
        )
    )


def _query(
    scale: float,
    model: str | None,
    output_format: OutputFormat | None,
    quality: int | None,
    ensemble: bool,
    proof: bool,
    fallback: Fallback,
) -> dict[str, Any]:
    return {
        "scale": scale,
        "model": model,
        "format": output_format,
        "quality": quality,
        "ensemble": ensemble,
        "proof": proof,
        "fallback": fallback,
    }


def _parts(path: str, query: Mapping[str, Any], picture: EncodedPicture | None) -> dict[str, Any]:
    """The request but for method and path; parameters left to the service are not sent."""
    accept = "image/*" if path == "/enhance" else "application/json"
    parts: dict[str, Any] = {
        "params": {name: value for name, value in query.items() if value is not None},
        "headers": {"Accept": accept},
    }
    if picture is not None:
        parts["content"] = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        parts["headers"]["Content-Type"] = "application/octet-stream"
    return parts


def _enhanced(answer: httpx.Response) -> Enhanced:
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


def _checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is one.

    Raises:
        SuperresError: the problem that it tells of, as the service raised it.
    """
    if answer.is_success:
        return answer
    # The table brings in FastAPI, and only an error needs it.
    from app.errors import STATUS_AND_TYPE, TYPE_PREFIX

    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        raise SuperresError(
            f"{answer.url} answered {answer.status_code}, and not as the service does"
        ) from None
    # An internal error is more than a model that cannot be served.
    kinds = {slug: kind for kind, (_, slug) in STATUS_AND_TYPE.items() if kind is not ModelError}
    error = kinds.get(problem.type.removeprefix(TYPE_PREFIX), SuperresError)(problem.detail)
    if isinstance(error, Unavailable):
        error.retry_after = int(answer.headers.get("retry-after", error.retry_after))
    error.add_note(f"{problem.status} {problem.type}, request {problem.request_id}")
    raise error


def _unanswered(error: httpx.HTTPError, url: httpx.URL) -> Unavailable:
    return Unavailable(f"no answer from {url}: {error or type(error).__name__}")
