"""A client of the service: :class:`Client`, and :class:`AsyncClient` for asyncio.

What the service refuses is raised here as the class of :mod:`superres.errors` that it was
there, so that code which calls the service reads as code which calls the library.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from httpx_retries import Retry, RetryTransport
from pydantic import ValidationError

from app.api.schemas import ComparisonReport, JobReport, Problem, QualityReport
from superres.arrays import Size
from superres.codecs import OutputFormat, probe
from superres.errors import BadImage, ModelError, SuperresError, Unavailable

URL = "http://127.0.0.1:8000"
JOB_PIXELS = 8_000_000
"""Output pixels from which a picture is enhanced as a job."""
POLL_S = 1.0
"""Seconds between two looks at a job."""
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

    A call that finds the service busy, not ready yet or not there, or the key's limit used up,
    is made again, when the service's ``Retry-After`` says so.

    Args:
        url: of the service.
        key: that the operator gave you, if the service asks for one.
        timeout: seconds without a byte after which a call is given up.
        retries: how often a call is made again.
        job_pixels: output pixels from which a picture is enhanced as a job, which no time of an
            answer bounds and which a restart of the service does not lose.
        http: a connection of your own; then the others are its business.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout: float = 300,
        retries: int = 5,
        job_pixels: int = JOB_PIXELS,
        http: httpx.Client | None = None,
    ) -> None:
        self._job_pixels = job_pixels
        self._retries = retries
        self._http = http or httpx.Client(
            base_url=url,
            headers=_authorization(key),
            timeout=timeout,
            transport=_transport(retries),
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

        A result that breaks off is resumed where it did. A job is removed when its result is here,
        or when this is left by an error or an interrupt; but not when the service is unavailable:
        then the error names it.

        Raises:
            BadImage: it cannot be read, or has too many pixels.
            BadRequest: a parameter is invalid, or there are too many bytes.
            ModelMissing: no such model.
            EngineError: the device failed.
            JobAbandoned: the service could not bring it to an end.
            Unauthorized: the service asks for a key, or for another one.
            Unavailable: no answer, or busy, not ready, too late or over the key's limit, after
                all retries.
        """
        query = _query(scale, model, output_format, quality, ensemble, proof, fallback)
        content = _content(picture)
        large = _output_pixels(content, scale) >= self._job_pixels
        answer = self._call("POST", "/enhance", query, content, as_job=large)
        if answer.status_code != 202:
            return _enhanced(answer)
        job = JobReport.model_validate_json(answer.content)
        path = f"/jobs/{job.id}"
        try:
            while job.state not in ("done", "failed"):
                time.sleep(POLL_S)
                answer = self._call("GET", path)
                job = JobReport.model_validate_json(answer.content)
            enhanced = _enhanced(self._result(f"{path}/result"))
        except BaseException as error:
            if type(error) is Unavailable:  # no answer: its result may still be fetched
                error.add_note(f"the job is kept: {path}")
            else:
                self._remove(path)
            raise
        self._remove(path)
        return enhanced

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
        content = None if picture is None else _content(picture)
        answer = self._call("GET" if picture is None else "POST", "/compare", query, content)
        return ComparisonReport.model_validate_json(answer.content)

    def metrics(self) -> QualityReport:
        """What each model scored on the published sets, beside bicubic.

        Raises:
            Unavailable: no answer.
        """
        return QualityReport.model_validate_json(self._call("GET", "/metrics").content)

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

    def _result(self, path: str) -> httpx.Response:
        """The result of a job, resumed if the connection breaks."""
        result = _Result()
        for retries in reversed(range(self._retries + 1)):
            try:
                with self._http.stream("GET", path, headers=result.request_headers()) as answer:
                    if not answer.is_success:
                        answer.read()
                    result.begin(_checked(answer))
                    for part in answer.iter_bytes():
                        result.content += part
                return result.whole()
            except httpx.HTTPError as error:
                if not retries:
                    raise _unanswered(error, self._http.base_url) from error
        raise AssertionError("unreachable")

    def _remove(self, job: str) -> None:
        with suppress(SuperresError):  # there is an answer, or an error that tells more
            self._call("DELETE", job)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        *,
        as_job: bool = False,
    ) -> httpx.Response:
        parts = _parts(path, query or {}, content, as_job)
        try:
            return _checked(self._http.request(method, path, **parts))
        except httpx.HTTPError as error:
            raise _unanswered(error, self._http.base_url) from error


class AsyncClient:
    """:class:`Client` for asyncio: the same calls, awaited."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout: float = 300,
        retries: int = 5,
        job_pixels: int = JOB_PIXELS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._job_pixels = job_pixels
        self._retries = retries
        self._http = http or httpx.AsyncClient(
            base_url=url,
            headers=_authorization(key),
            timeout=timeout,
            transport=_transport(retries),
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
        content = _content(picture)
        large = _output_pixels(content, scale) >= self._job_pixels
        answer = await self._call("POST", "/enhance", query, content, as_job=large)
        if answer.status_code != 202:
            return _enhanced(answer)
        job = JobReport.model_validate_json(answer.content)
        path = f"/jobs/{job.id}"
        try:
            while job.state not in ("done", "failed"):
                await asyncio.sleep(POLL_S)
                answer = await self._call("GET", path)
                job = JobReport.model_validate_json(answer.content)
            enhanced = _enhanced(await self._result(f"{path}/result"))
        except BaseException as error:
            if type(error) is Unavailable:  # no answer: its result may still be fetched
                error.add_note(f"the job is kept: {path}")
            else:
                await self._remove(path)
            raise
        await self._remove(path)
        return enhanced

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
        content = None if picture is None else _content(picture)
        answer = await self._call("GET" if picture is None else "POST", "/compare", query, content)
        return ComparisonReport.model_validate_json(answer.content)

    async def metrics(self) -> QualityReport:
        """As :meth:`Client.metrics`."""
        return QualityReport.model_validate_json((await self._call("GET", "/metrics")).content)

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

    async def _result(self, path: str) -> httpx.Response:
        """The result of a job, resumed if the connection breaks."""
        result = _Result()
        for retries in reversed(range(self._retries + 1)):
            try:
                async with self._http.stream(
                    "GET", path, headers=result.request_headers()
                ) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    result.begin(_checked(answer))
                    async for part in answer.aiter_bytes():
                        result.content += part
                return result.whole()
            except httpx.HTTPError as error:
                if not retries:
                    raise _unanswered(error, self._http.base_url) from error
        raise AssertionError("unreachable")

    async def _remove(self, job: str) -> None:
        with suppress(SuperresError):  # there is an answer, or an error that tells more
            await self._call("DELETE", job)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        *,
        as_job: bool = False,
    ) -> httpx.Response:
        parts = _parts(path, query or {}, content, as_job)
        try:
            return _checked(await self._http.request(method, path, **parts))
        except httpx.HTTPError as error:
            raise _unanswered(error, self._http.base_url) from error


class _Result:
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


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _transport(retries: int) -> RetryTransport:
    return RetryTransport(
        retry=Retry(
            total=retries,
            # Each call can be made again: at worst there are two jobs, and one goes unfetched.
            allowed_methods=["DELETE", "GET", "POST"],
            status_forcelist=[429, 503],
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


def _content(picture: EncodedPicture) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def _output_pixels(content: bytes, scale: float) -> float:
    """About how many will be made; none of what the service will refuse."""
    try:
        height, width = probe(content).size
    except BadImage:
        return 0
    return height * width * scale**2


def _parts(
    path: str, query: Mapping[str, Any], content: bytes | None, as_job: bool
) -> dict[str, Any]:
    """The request but for method and path; parameters left to the service are not sent."""
    accept = "image/*" if path == "/enhance" else "application/json"
    parts: dict[str, Any] = {
        "params": {name: value for name, value in query.items() if value is not None},
        "headers": {"Accept": accept},
    }
    if as_job:
        parts["headers"]["Prefer"] = "respond-async"
    if content is not None:
        parts["content"] = content
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
        SuperresError: the problem in the response, as the class that the service raised.
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
