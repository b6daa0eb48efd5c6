"""What is running, whether it works, and how good it is."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from app.dependencies import ServiceDependency, TelemetryDependency, negotiate
from app.errors import declare
from app.schemas import (
    Health,
    ModelList,
    ModelQuality,
    ModelReport,
    QualityReport,
    Readiness,
    ReadyModel,
    Version,
)
from superres import errors

router = APIRouter()


@router.get("/healthz", summary="The event loop is alive")
async def healthz() -> Health:
    """Answers from the first moment on, whatever the models do."""
    return Health(status="ok")


@router.get(
    "/readyz",
    responses=declare(errors.NotReady),
    summary="The models are loaded, warmed up and agree with their cards",
)
async def readyz(service: ServiceDependency) -> Readiness:
    """503 until then, or for good, with the reason, if a model is not what its card says."""
    service.check_ready()
    return Readiness(
        status="ready",
        models=[
            ReadyModel(
                name=one.card.name,
                hash=one.card.short_hash,
                precision=one.precision,
                device=one.device,
            )
            for one in service.loaded
        ],
    )


@router.get("/version", summary="What is running")
async def get_version(service: ServiceDependency) -> Version:
    """The versions that a bug report should name."""
    return Version(
        version=version("superres"),
        commit=service.settings.commit,
        python=platform.python_version(),
        models={card.name: card.short_hash for card in service.cards},
    )


@router.get("/models", summary="The models' cards")
async def models(service: ServiceDependency) -> ModelList:
    """What each model is, how it was trained and what it scored."""
    return ModelList(models=[ModelReport.of(card) for card in service.cards])


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
        **declare(errors.NotAcceptable),
    },
    summary="Prometheus metrics, and each model's quality beside bicubic",
)
async def metrics(
    request: Request, service: ServiceDependency, telemetry: TelemetryDependency
) -> Response:
    """With `Accept: application/json`, the quality of each model on each set."""
    text = ["text/plain", "application/openmetrics-text"]
    if negotiate(request, [*text, "application/json"]) == "application/json":
        report = QualityReport(models=[ModelQuality.of(card) for card in service.cards])
        return Response(report.model_dump_json(), media_type="application/json")
    generate, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(generate(telemetry.registry), headers={"Content-Type": content_type})
