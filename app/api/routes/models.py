"""/version and /models: the versions and the models of the service."""

import platform
from importlib.metadata import version

from fastapi import APIRouter

from app.api.dependencies import ServiceDependency
from app.api.schemas import ModelList, ModelReport, Version

ACCESS = "key"
router = APIRouter()


@router.get("/version", summary="What is running")
async def get_version(service: ServiceDependency) -> Version:
    """The versions that a bug report should name."""
    return Version(
        version=version("superres"),
        commit=service.settings.known_commit,
        python=platform.python_version(),
        models={card.name: card.short_hash for card in service.models.cards},
    )


@router.get("/models", summary="The models' cards")
async def models(service: ServiceDependency) -> ModelList:
    """What each model is, how it was trained and what it scored."""
    return ModelList(models=[ModelReport.of(card) for card in service.models.cards])
