"""The app: ``uvicorn --factory app.main:create_app``, or ``superres serve``."""

import ctypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import TypedDict

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from app import errors
from app.routes import compare, enhance, page, status
from app.service import Service
from app.settings import Settings
from app.telemetry import Telemetry, TelemetryMiddleware
from app.traces import make_provider, of_requests
from app.web import STATIC
from superres.engine import Engine


class State(TypedDict):
    """What requests find in ``request.state``."""

    service: Service
    telemetry: Telemetry
    enhancing: CapacityLimiter


def create_app(
    settings: Settings | None = None, engines: Mapping[str, Engine] | None = None
) -> FastAPI:
    """Build the app.

    Args:
        settings: read from the environment unless given.
        engines: engines by model name, in place of the SavedModels: for tests.

    Raises:
        ModelMissing: no models in the models folder.
        ModelMismatch: a card or a file there is not what it says.
        BadRequest: traces are asked for, and what makes them is not installed.
    """
    settings = settings or Settings()
    service = Service(settings, engines)
    traces = make_provider(settings.traces)
    telemetry = Telemetry(service, traces)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        _share_heaps()
        service.start()
        # Decoding and encoding have the default threads: enhancing must not take them all.
        yield State(
            service=service,
            telemetry=telemetry,
            enhancing=CapacityLimiter(settings.max_requests),
        )
        service.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="superres",
        version=version("superres"),
        summary="Enlarges and sharpens photographs, and proves that it beats bicubic.",
        lifespan=lifespan,
        telemetry=of_requests(traces),
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    app.add_middleware(TelemetryMiddleware, telemetry=telemetry)
    errors.install(app)
    for routes in (page, enhance, compare, status):
        app.include_router(routes.router)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _share_heaps() -> None:
    """Let all threads share two heaps, so that what one frees another can use.

    glibc would give each thread its own, up to 8 a core: memory grew by a tenth over 2,000
    requests. Elsewhere there is nothing to do.
    """
    m_arena_max = -8
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(m_arena_max, 2)
