"""/admin: reloads the models, for the operator alone."""

from fastapi import APIRouter

from app import service_errors
from app.api.dependencies import ServiceDependency
from app.api.routes.status import ready_models
from app.api.schemas import Reloaded
from app.errors import declare
from superres import errors

ACCESS = "admin"
router = APIRouter()


@router.post(
    "/admin/reload",
    responses=declare(service_errors.ReloadFailed, errors.NotReady),
    summary="Let the models that are in the models folder now take over",
)
async def reload(service: ServiceDependency) -> Reloaded:
    """Changed models that are in use are loaded beside the old ones; SIGHUP does the same.

    No request is lost, and each ends on the model that it began with. If one model is bad,
    all stay as they are.
    """
    fresh = await service.reload()
    return Reloaded(fresh=fresh, models=ready_models(service))
