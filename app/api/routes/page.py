"""The page at /, and its sample pictures."""

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import HTMLResponse

from app.api.dependencies import ServiceDependency
from app.errors import declare
from app.web import HEADERS, enhance_page
from app.web.languages import choose_language
from app.web.samples import THUMBNAIL_HEIGHT, Sample, encode_sample
from superres import errors

ACCESS = "open"
router = APIRouter()


@router.get("/", response_class=HTMLResponse, summary="The page")
async def page(request: Request, service: ServiceDependency) -> HTMLResponse:
    """Drop a picture, see it enhanced beside bicubic's, and download it."""
    language = choose_language(request.headers.get("accept-language", ""))
    html = enhance_page(service.settings.default_model, language)
    return HTMLResponse(html, headers=HEADERS | {"Vary": "Accept-Language"})


@router.get(
    "/samples/{sample}",
    response_class=Response,
    responses={
        200: {
            "description": "The picture, or a thumbnail of it.",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        **declare(errors.BadRequest),
    },
    summary="A shipped photograph",
)
async def sample(
    sample: Annotated[Sample, Path(description="Its name.")],
    thumbnail: Annotated[
        bool, Query(description=f"At a height of {THUMBNAIL_HEIGHT} pixels.")
    ] = False,
) -> Response:
    """To try the service without a picture at hand."""
    png = await anyio.to_thread.run_sync(encode_sample, sample, thumbnail)
    return Response(png, media_type="image/png", headers={"Cache-Control": "max-age=86400"})
