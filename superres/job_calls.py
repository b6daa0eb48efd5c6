"""The calls of the clients that list jobs."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal

import httpx

from superres.schemas import JobList, JobReport

JobState = Literal["waiting", "running", "done", "failed"]
PAGE = 100
"""Jobs that are asked for at a time."""


class JobCalls:
    """What :class:`superres.client.Client` has for lists of jobs."""

    _call: Callable[..., httpx.Response]

    def jobs(self, *states: JobState) -> Iterator[JobReport]:
        """Your jobs, the newest first: those of the key, or without keys of the address.

        Args:
            states: that the jobs are in; without any, all jobs.

        Raises:
            SuperresError: as :meth:`superres.client.Client.enhance`.
        """
        cursor: str | None = ""
        while cursor is not None:
            answer = self._call("GET", "/jobs", _query(states, cursor))
            page = JobList.model_validate_json(answer.content)
            yield from page.jobs
            cursor = page.cursor


class AsyncJobCalls:
    """What :class:`superres.client.AsyncClient` has for lists of jobs."""

    _call: Callable[..., Awaitable[httpx.Response]]

    async def jobs(self, *states: JobState) -> AsyncIterator[JobReport]:
        """As :meth:`JobCalls.jobs`."""
        cursor: str | None = ""
        while cursor is not None:
            answer = await self._call("GET", "/jobs", _query(states, cursor))
            page = JobList.model_validate_json(answer.content)
            for job in page.jobs:
                yield job
            cursor = page.cursor


def _query(states: tuple[JobState, ...], cursor: str) -> dict[str, Any]:
    return {"state": list(states), "cursor": cursor, "limit": PAGE}
