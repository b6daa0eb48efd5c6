"""Sends callbacks: a signed request for each job that has ended, repeated until it is taken.

Due rows are looked up every second. Of each lane (a caller and a host) one request is sent at a
time, so that a host that hangs holds up nobody but its own callers. Between two attempts a callback
is a row and nothing else: neither a task nor memory waits for a dead host.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
from anyio.abc import TaskGroup
from prometheus_client import Counter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from app.jobs.callback_hosts import CallbackHost, check_callback
from app.jobs.callbacks import CallbackRepository
from app.jobs.rows import Callback
from app.service_errors import StorageError
from superres.errors import BadRequest
from superres.webhooks import sign

POLL_S = 1.0
"""Seconds between two looks at the rows."""
AT_ONCE = 32
"""Most requests at the same time."""
CONNECT_S, READ_S, WHOLE_S = 5.0, 10.0, 15.0
"""Seconds to connect, without a byte of the answer, and of a whole request."""
LEASE_S = 2 * WHOLE_S
"""Seconds after which another service may send a row that was taken."""
RETRYING = AsyncRetrying(
    stop=stop_after_attempt(12) | stop_after_delay(86_400),
    wait=wait_random_exponential(multiplier=4, exp_base=3, min=1, max=4 * 3600),
)
"""How often, how long and after which pauses a callback is sent again: by seconds at first, by
hours at the end, and each pause at random, so that a host that comes back is not run over."""

logger = logging.getLogger("superres")


class CallbackSender:
    """Sends callbacks.

    Args:
        rows: of the callbacks.
        hosts: that may be called; without any, nothing is sent.
        secrets: that sign.
        counter: counts the requests by ``outcome``.
        draining: whether the service stops; then nothing more is sent.
    """

    def __init__(
        self,
        rows: CallbackRepository,
        *,
        hosts: Sequence[CallbackHost],
        secrets: Sequence[str],
        counter: Counter,
        draining: Callable[[], bool],
    ) -> None:
        self._rows = rows
        self._hosts = hosts
        self._secrets = secrets
        self._counter = counter
        self._draining = draining
        self._lanes: set[str] = set()
        """Lanes with a request on its way."""
        self._free = anyio.Event()
        """Set when a request has ended."""

    def check(self, url: str) -> None:
        """Return if a URL may be called.

        Raises:
            BadRequest: it may not.
        """
        check_callback(url, self._hosts)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send callbacks inside. A request on its way at the end is sent again later."""
        if not self._hosts:
            yield
            return
        certificates = await anyio.to_thread.run_sync(httpx.create_ssl_context)
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        headers = {"User-Agent": f"superres/{version('superres')}"}
        async with (
            httpx.AsyncClient(verify=certificates, timeout=timeout, headers=headers) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._poll, http, tasks)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _poll(self, http: httpx.AsyncClient, tasks: TaskGroup) -> None:
        while not self._draining():
            with anyio.move_on_after(POLL_S):
                await self._free.wait()
            self._free = anyio.Event()
            limit = AT_ONCE - len(self._lanes)
            take = partial(self._rows.take_due, list(self._lanes), limit, LEASE_S)
            try:
                leased = await anyio.to_thread.run_sync(take) if limit > 0 else []
            except StorageError as error:
                logger.warning("the callbacks wait for their storage: %s", error)
                continue
            except Exception:  # it must not end the service
                logger.exception("cannot read the callbacks")
                continue
            for callback in leased:
                self._lanes.add(callback.lane)
                tasks.start_soon(self._deliver, http, callback)

    async def _deliver(self, http: httpx.AsyncClient, callback: Callback) -> None:
        try:
            pause, outcome = await self._try_once(http, callback)
            self._counter.labels(outcome).inc()
            if pause is None:
                step = partial(self._rows.remove, callback.job_id)
            else:
                step = partial(self._rows.postpone, callback.job_id, time.time() + pause)
            await anyio.to_thread.run_sync(step)
        except StorageError as error:  # it is sent again when the lease is over
            logger.warning("the outcome of a callback cannot be stored: %s", error)
        except Exception:  # it must not end the service
            logger.exception("an unexpected error interrupted a callback")
        finally:
            self._lanes.discard(callback.lane)
            self._free.set()

    async def _try_once(
        self, http: httpx.AsyncClient, callback: Callback
    ) -> tuple[float | None, str]:
        """Send a callback: the seconds until the next attempt, if there is one; and the outcome."""
        try:
            self.check(callback.url)  # the setting may be another one by now
        except BadRequest:
            self._log(callback, "its host is no longer allowed; it is given up")
            return None, "given_up"
        failure, gone = await self._send(http, callback)
        if not failure:
            return None, "delivered"
        pause = None if gone else _pause(callback)
        if pause is None:
            self._log(callback, f"{failure}; it is given up")
            return None, "given_up"
        self._log(callback, f"{failure}; it is sent again in {pause:.0f} s")
        return pause, "failed"

    async def _send(self, http: httpx.AsyncClient, callback: Callback) -> tuple[str, bool]:
        """Send a callback once: why it was not taken, if so, and whether it never will be."""
        body = (callback.body or "").encode()
        headers = sign(body, str(callback.job_id), int(time.time()), self._secrets)
        headers["Content-Type"] = "application/json"
        status = 0
        try:
            with anyio.fail_after(WHOLE_S):
                # The head of the answer is all that is read of it.
                async with http.stream(
                    "POST", callback.url, content=body, headers=headers, follow_redirects=False
                ) as answer:
                    status = answer.status_code
        except Exception as error:  # its message may have the URL
            if not status:
                return f"no answer ({type(error).__name__})", False
        if 200 <= status < 300:
            return "", False
        redirects = ", and redirects are not followed" if 300 <= status < 400 else ""
        return f"answered {status}{redirects}", status == 410

    def _log(self, callback: Callback, failure: str) -> None:
        """Log a failure, without the URL: it may have a secret in it."""
        host = urlsplit(callback.url).hostname
        logger.warning(
            "the callback of job %s to %s, attempt %d: %s",
            callback.job_id,
            host,
            callback.attempts,
            failure,
        )


def _pause(callback: Callback) -> float | None:
    """Seconds until the next attempt, by :data:`RETRYING`; None after the last one.

    Tenacity computes it and does not wait: between two attempts there is only the row.
    """
    state = RetryCallState(RETRYING, None, (), {})
    state.attempt_number = callback.attempts
    state.outcome_timestamp = state.start_time + time.time() - (callback.ended or 0)
    return None if RETRYING.stop(state) else float(RETRYING.wait(state))
