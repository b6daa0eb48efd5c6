"""A client of the service: :class:`Client`, and :class:`AsyncClient` for asyncio.

What the service refuses is raised here as the class of :mod:`superres.errors` that it was
there, so that code which calls the service reads as code which calls the library.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Unpack

import httpx

from superres.errors import BadRequest, SuperresError
from superres.job_calls import AsyncJobCalls, JobCalls
from superres.messages import (
    EncodedPicture,
    Enhanced,
    PartialResult,
    authorization,
    check_answer,
    no_answer,
    output_pixels,
    read_content,
    request_parts,
    retrying_transport,
    to_enhanced,
    to_error,
)
from superres.models.registry import DEFAULT_SCALE
from superres.parameters import Fallback, Given
from superres.schemas import ComparisonReport, JobReport, QualityReport

__all__ = ["AsyncClient", "Client", "EncodedPicture", "Enhanced", "Fallback"]

URL = "http://127.0.0.1:8000"
JOB_PIXELS = 8_000_000
"""Output pixels from which a picture is enhanced as a job."""
POLL_S = 1.0
"""Seconds between two looks at a job."""


class Client(JobCalls):
    """Calls the service; safe to share between threads.

    A call that finds the service busy, not ready yet or not there, or the key's limit used up,
    is made again, when the service's ``Retry-After`` says so. So is one that a proxy answers with
    502, 503 or 504; but not after 504, if the service may still work on a picture that is no job.

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
            headers=authorization(key),
            timeout=timeout,
            transport=retrying_transport(retries),
        )

    def enhance(
        self,
        picture: EncodedPicture,
        scale: float | None = None,
        **parameters: Unpack[Given],
    ) -> Enhanced:
        """Enlarge a picture; :class:`superres.parameters.Parameters` says what can be asked for.

        A result that breaks off is resumed where it did. A job is removed when its result is here,
        when it has failed, and on an interrupt. It is kept on any other error, such as a service
        that is unavailable: a note of the error names it.

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
        query = {"scale": scale, **parameters}
        content = read_content(picture)
        large = output_pixels(content, query) >= self._job_pixels
        answer = self._call("POST", "/enhance", query, content, as_job=large)
        if answer.status_code != 202:
            return to_enhanced(answer)
        job = JobReport.model_validate_json(answer.content)
        path = f"/jobs/{job.id}"
        try:
            while job.state not in ("done", "failed"):
                time.sleep(POLL_S)
                answer = self._call("GET", path)
                job = JobReport.model_validate_json(answer.content)
            if job.problem is not None:
                raise to_error(job.problem)
            enhanced = to_enhanced(self._result(f"{path}/result"))
        except Exception as error:
            if job.state == "failed":
                self._remove(path)
            elif not isinstance(error, BadRequest):  # which says that there is no such job
                error.add_note(f"the job is kept: {path}")  # its result may still be fetched
            raise
        except BaseException:  # an interrupt: nobody waits for the result any more
            self._remove(path)
            raise
        self._remove(path)
        return enhanced

    def compare(
        self,
        picture: EncodedPicture | None = None,
        scale: float = DEFAULT_SCALE,
        *,
        sample: str | None = None,
        model: str | None = None,
    ) -> ComparisonReport:
        """Score bicubic and a model on a picture taken as the truth, or on a shipped sample.

        Raises:
            SuperresError: as :meth:`enhance`.
        """
        query = {"scale": scale, "sample": sample, "model": model}
        content = None if picture is None else read_content(picture)
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

    def __enter__(self) -> "Client":
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
        result = PartialResult()
        for retries in reversed(range(self._retries + 1)):
            try:
                with self._http.stream("GET", path, headers=result.request_headers()) as answer:
                    if not answer.is_success:
                        answer.read()
                    result.begin(check_answer(answer))
                    for part in answer.iter_bytes():
                        result.content += part
                return result.whole()
            except httpx.HTTPError as error:
                if not retries:
                    raise no_answer(error, self._http.base_url) from error
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
        parts = request_parts(path, query or {}, content, as_job)
        try:
            return check_answer(self._http.request(method, path, **parts))
        except httpx.HTTPError as error:
            raise no_answer(error, self._http.base_url) from error


class AsyncClient(AsyncJobCalls):
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
            headers=authorization(key),
            timeout=timeout,
            transport=retrying_transport(retries),
        )

    async def enhance(
        self,
        picture: EncodedPicture,
        scale: float | None = None,
        **parameters: Unpack[Given],
    ) -> Enhanced:
        """As :meth:`Client.enhance`."""
        query = {"scale": scale, **parameters}
        content = read_content(picture)
        large = output_pixels(content, query) >= self._job_pixels
        answer = await self._call("POST", "/enhance", query, content, as_job=large)
        if answer.status_code != 202:
            return to_enhanced(answer)
        job = JobReport.model_validate_json(answer.content)
        path = f"/jobs/{job.id}"
        try:
            while job.state not in ("done", "failed"):
                await asyncio.sleep(POLL_S)
                answer = await self._call("GET", path)
                job = JobReport.model_validate_json(answer.content)
            if job.problem is not None:
                raise to_error(job.problem)
            enhanced = to_enhanced(await self._result(f"{path}/result"))
        except Exception as error:
            if job.state == "failed":
                await self._remove(path)
            elif not isinstance(error, BadRequest):  # which says that there is no such job
                error.add_note(f"the job is kept: {path}")  # its result may still be fetched
            raise
        except BaseException:  # an interrupt: nobody waits for the result any more
            await self._remove(path)
            raise
        await self._remove(path)
        return enhanced

    async def compare(
        self,
        picture: EncodedPicture | None = None,
        scale: float = DEFAULT_SCALE,
        *,
        sample: str | None = None,
        model: str | None = None,
    ) -> ComparisonReport:
        """As :meth:`Client.compare`."""
        query = {"scale": scale, "sample": sample, "model": model}
        content = None if picture is None else read_content(picture)
        answer = await self._call("GET" if picture is None else "POST", "/compare", query, content)
        return ComparisonReport.model_validate_json(answer.content)

    async def metrics(self) -> QualityReport:
        """As :meth:`Client.metrics`."""
        return QualityReport.model_validate_json((await self._call("GET", "/metrics")).content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
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
        result = PartialResult()
        for retries in reversed(range(self._retries + 1)):
            try:
                async with self._http.stream(
                    "GET", path, headers=result.request_headers()
                ) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    result.begin(check_answer(answer))
                    async for part in answer.aiter_bytes():
                        result.content += part
                return result.whole()
            except httpx.HTTPError as error:
                if not retries:
                    raise no_answer(error, self._http.base_url) from error
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
        parts = request_parts(path, query or {}, content, as_job)
        try:
            return check_answer(await self._http.request(method, path, **parts))
        except httpx.HTTPError as error:
            raise no_answer(error, self._http.base_url) from error
