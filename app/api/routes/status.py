"""Health, readiness, metrics and quality of the service; no key is needed."""

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from app import service_errors
from app.api.dependencies import ServiceDependency, TelemetryDependency, negotiate
from app.api.schemas import Health, Readiness, ReadyModel
from app.errors import declare
from app.inference.service import Service
from superres import errors
from superres.schemas import ModelQuality, QualityReport

ACCESS = "open"
router = APIRouter()


@router.get("/healthz", summary="The event loop is alive")
async def healthz() -> Health:
    """Answer as soon as the process listens, also while the models are loading."""
    return Health(status="ok")


@router.get(
    "/readyz",
    responses=declare(errors.NotReady),
    summary="The models of the default at x3 are loaded and checked; the device works",
)
async def readyz(service: ServiceDependency) -> Readiness:
    """503 until then, with the reason; for good, if a model is not what its card says.

    So too while the device has stalled, and from SIGTERM on, while the service drains.
    """
    service.check_ready()
    return Readiness(status="ready", models=ready_models(service))


def ready_models(service: Service) -> list[ReadyModel]:
    """The models that are served now."""
    return [
        ReadyModel(
            name=one.card.name,
            hash=one.card.short_hash,
            precision=one.precision,
            device=one.device,
        )
        for one in service.models.loaded
    ]


@router.get(
    "/metrics",
    response_model=QualityReport,
    responses={
        200: {
            "description": "Prometheus text, or the quality report as JSON.",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        },
        **declare(service_errors.NotAcceptable),
    },
    summary="Prometheus metrics, and each model's quality beside bicubic",
)
async def metrics(
    request: Request, service: ServiceDependency, telemetry: TelemetryDependency
) -> Response:
    """With `Accept: application/json`, the quality of each model on each set."""
    text_types = ["text/plain", "application/openmetrics-text"]
    if negotiate(request, [*text_types, "application/json"]) == "application/json":
        report = QualityReport(models=[ModelQuality.of(card) for card in service.models.cards])
        return Response(report.model_dump_json(), media_type="application/json")
    generate, content_type = choose_encoder(request.headers.get("accept", ""))
    # In a thread: the counts of the jobs come from a database.
    text = await anyio.to_thread.run_sync(generate, telemetry.registry)
    return Response(text, headers={"Content-Type": content_type})
