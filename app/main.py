"""The app, as ``superres serve`` serves it.

``uvicorn --factory app.main:create_app`` serves it, too, but on SIGTERM it cuts off the requests in
flight, and it listens on any address, with keys or without.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from importlib.metadata import version
from typing import Any, TypedDict

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from app import errors
from app.access import Access, admit, admit_admin, read_keys
from app.api import routes
from app.api.middleware import HeadMiddleware, ProtectionMiddleware, TelemetryMiddleware
from app.api.protection import LOOPBACK_HOSTS, CrossOriginMiddleware, TrustedHostsMiddleware
from app.api.responses import enhanced_headers
from app.api.schemas import job_report
from app.drain import Drain, DrainMiddleware
from app.errors import declare, describe_error
from app.inference.metrics import ServiceCollector
from app.inference.models import LoadEngine
from app.inference.scheduler import DeviceEngine
from app.inference.service import Service
from app.jobs.callback_hosts import CallbackHost, read_hosts
from app.jobs.metrics import JobCollector
from app.jobs.queue import JobQueue, job_status
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from app.jobs.webhooks import CallbackSender
from app.service_errors import CrossOrigin, UnknownHost
from app.settings import Settings
from app.telemetry import Telemetry
from app.traces import make_provider, of_requests
from app.web import STATIC
from superres.errors import (
    BadRequest,
    Forbidden,
    SuperresError,
    TooManyRequests,
    Unauthorized,
)
from superres.webhooks import check_secret

TAGS = {
    "enhance": "Enlarge and sharpen pictures.",
    "jobs": "Pictures that are enhanced in the background.",
    "compare": "Plain enlarging against a model.",
    "models": "What can be asked for.",
    "status": "For those who operate the service.",
    "page": "The page, and its samples.",
    "admin": "For keys of administrators.",
}
"""Groups of calls in the documentation, in its order: the modules of ``app.api.routes``."""


class State(TypedDict):
    """Contents of ``request.state``."""

    service: Service
    telemetry: Telemetry
    enhance_limiter: CapacityLimiter
    """Limits the threads that enhance."""
    jobs: JobQueue
    access: Access
    caller: str
    """Name of the caller's key; empty without one."""


def create_app(
    settings: Settings | None = None,
    engines: Mapping[str, DeviceEngine] | None = None,
    load_engine: LoadEngine | None = None,
) -> FastAPI:
    """Build the app.

    Args:
        settings: read from the environment unless given.
        engines: engines by model name, instead of those of the models folder; for tests.
        load_engine: see :class:`app.inference.models.Models`.

    Raises:
        BadRequest: the setting of the keys, of a limit or of callbacks is invalid; or traces are
            on, and the packages that they need are not installed; or the database of the jobs is
            not PostgreSQL.
        ModelMissing: there are no models in the models folder.
        ModelMismatch: a card or a file there does not match.
        StorageError: another service uses the folder of the jobs, or it cannot be written, or
            the database of the jobs does not answer.
    """
    settings = settings or Settings()
    hosts, secrets = _read_callbacks(settings)
    access = Access(read_keys(settings.api_keys.get_secret_value(), settings.rate_limit))
    service = Service(settings, engines, load_engine)
    store = JobStore(
        settings.jobs,
        settings.jobs_database.get_secret_value(),
        max_waiting=settings.max_waiting_jobs,
        max_bytes=settings.max_jobs_bytes,
        describe_error=describe_error,
        describe_job=lambda job: job_report(job_status(job)).model_dump_json(),
    )
    traces = make_provider(settings.traces)
    telemetry = Telemetry(traces)
    telemetry.registry.register(ServiceCollector(service))
    telemetry.registry.register(JobCollector(store))
    drain = Drain(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        _limit_malloc_arenas()
        loading = asyncio.create_task(service.start())
        _reload_on_hangup(service)
        # Decoding and encoding run in the default threads, which enhancing must not use up.
        enhance_limiter = CapacityLimiter(settings.max_requests)
        with closing(store), closing(service):
            runner = JobRunner(
                store, service, telemetry, enhance_limiter, make_headers=enhanced_headers
            )
            callbacks = CallbackSender(
                store.callbacks,
                hosts=hosts,
                secrets=secrets,
                counter=telemetry.callbacks,
                draining=lambda: service.draining,
            )
            queue = JobQueue(
                store,
                runner,
                callbacks,
                max_watchers=settings.max_watchers,
                max_watchers_per_key=settings.max_watchers_per_key,
            )
            async with runner.running(), queue.running():
                yield State(
                    service=service,
                    telemetry=telemetry,
                    enhance_limiter=enhance_limiter,
                    jobs=queue,
                    access=access,
                    caller="",
                )
                loading.cancel()

    app = FastAPIOffline(
        redoc_url=None,
        title="superres",
        version=version("superres"),
        summary="Enlarges and sharpens photographs, and proves that it beats bicubic.",
        description="[Back to the page](./)",
        openapi_tags=[{"name": tag, "description": about} for tag, about in TAGS.items()],
        lifespan=lifespan,
        telemetry=of_requests(traces),
        license_info={"name": "MIT", "identifier": "MIT"},
        responses=declare(UnknownHost),
    )
    app.state.drain = drain
    app.state.metrics = telemetry.registry
    # The middleware that is added last is the outermost.
    app.add_middleware(DrainMiddleware, drain=drain)
    origins = _split(settings.cors_origins)
    app.add_middleware(CrossOriginMiddleware, origins=origins)
    app.add_middleware(TrustedHostsMiddleware, hosts=_trusted_hosts(settings, access))
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ProtectionMiddleware)
    app.add_middleware(TelemetryMiddleware, telemetry=telemetry)
    errors.install(app)
    keyed = declare(Unauthorized, TooManyRequests)
    guards: dict[str, dict[str, Any]] = {
        "open": {},
        "key": {"dependencies": [Depends(admit)], "responses": keyed},
        "admin": {
            "dependencies": [Depends(admit_admin)],
            "responses": keyed | declare(Forbidden, CrossOrigin),
        },
    }
    for module in sorted(routes.modules(), key=lambda module: list(guards).index(module.ACCESS)):
        tag = module.__name__.rpartition(".")[2]
        app.include_router(module.router, tags=[tag], **guards[module.ACCESS])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _trusted_hosts(settings: Settings, access: Access) -> Sequence[str]:
    """Those that are set; by default all, but without keys those of loopback."""
    if hosts := _split(settings.trusted_hosts):
        return hosts
    return ["*"] if access.keys or settings.without_keys else LOOPBACK_HOSTS


def _read_callbacks(settings: Settings) -> tuple[tuple[CallbackHost, ...], list[str]]:
    """The hosts that may be called, and the secrets that sign the calls.

    Raises:
        BadRequest: a setting is invalid, or there are hosts and no secret.
    """
    hosts = read_hosts(settings.callback_hosts)
    secrets = _split(settings.callback_secret.get_secret_value())
    for secret in secrets:
        check_secret(secret)
    if hosts and not secrets:
        raise BadRequest(
            "SUPERRES_CALLBACK_HOSTS needs SUPERRES_CALLBACK_SECRET, with which receivers know "
            'the service; `echo "whsec_$(openssl rand -base64 32)"` makes one'
        )
    return hosts, secrets


def _split(setting: str) -> list[str]:
    return [part.strip() for part in setting.split(",") if part.strip()]


def _limit_malloc_arenas() -> None:
    """Let all threads share two of glibc's arenas, so that one can use what another frees.

    By default glibc has up to 8 arenas per core: memory grew by a tenth over 2,000 requests. With
    another C library, do nothing.
    """
    m_arena_max = -8
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(m_arena_max, 2)


def _reload_on_hangup(service: Service) -> None:
    """Reload the models on SIGHUP, unless it would mean that the terminal was closed."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return
    if os.isatty(0):
        return
    tasks: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        with suppress(SuperresError):  # it has been logged
            await service.reload()

    def begin() -> None:
        task = asyncio.create_task(reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)
