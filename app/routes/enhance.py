"""POST /enhance: a picture goes in, a larger and sharper one comes out."""

import base64
import hashlib
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD,
    UPLOAD_ERRORS,
    PictureDependency,
    ServiceDependency,
    StagesDependency,
    TelemetryDependency,
    negotiate,
)
from app.errors import declare
from superres.arrays import Size
from superres.codecs import (
    DEFAULT_QUALITY,
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    OutputFormat,
    Picture,
    account,
    default_output_format,
    encode,
)
from superres.enhancer import LARGEST_SCALE, SMALLEST_SCALE, output_size
from superres.registry import DEFAULT_MODEL

router = APIRouter()


class EnhanceQuery(BaseModel):
    """The parameters of POST /enhance."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(
        3, ge=SMALLEST_SCALE, le=LARGEST_SCALE, description="Output side over input side."
    )
    model: str = Field(DEFAULT_MODEL, description="A family (`srcnn`) or a name (`srcnn-x3`).")
    format: OutputFormat | None = Field(
        None,
        description="Default: what `Accept` asks for, else the upload's own format, else png.",
    )
    quality: int = Field(DEFAULT_QUALITY, ge=1, le=100, description="For jpeg and webp.")


def _header(description: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": "string"}}


ENHANCED = {
    "description": "The enhanced picture.",
    "content": {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for media_type in MEDIA_TYPES.values()
    },
    "headers": {
        "X-Request-ID": _header("The caller's own, or a fresh one."),
        "X-Model": _header("The model's name and short hash: `srcnn-x3@0123456789ab`."),
        "X-Input-Size": _header("Width x height of the upload, upright: `170x120`."),
        "X-Output-Size": _header("Width x height of the answer: `510x360`."),
        "X-Notes": _header("What the format could not hold; only where there is something."),
        "Server-Timing": _header("decode, queue, infer, encode, in milliseconds."),
        "Content-Digest": _header("SHA-256 of the body (RFC 9530)."),
        "Vary": _header("Accept."),
    },
}


@router.post(
    "/enhance",
    response_class=Response,
    responses={
        200: ENHANCED,
        **declare(*UPLOAD_ERRORS, *ENHANCING_ERRORS),
    },
    openapi_extra=UPLOAD,
    summary="Enlarge and sharpen a picture",
)
async def enhance(
    request: Request,
    query: Annotated[EnhanceQuery, Query()],
    picture: PictureDependency,
    service: ServiceDependency,
    telemetry: TelemetryDependency,
    stages: StagesDependency,
) -> Response:
    """The body is the picture: as it is, or as the multipart field `file`. So is the answer's.

    PNG, JPEG, WebP, TIFF, BMP and still GIFs are read; the bytes decide, not the header.
    """
    card = service.choose(query.model, query.scale)
    output_format = query.format or _accepted_format(request, picture)
    max_pixels = service.settings.max_output_pixels
    output_size(picture.size, query.scale, max_pixels=max_pixels)

    with service.enhancer(card) as (enhancer, turn):
        enhanced = await anyio.to_thread.run_sync(
            lambda: enhancer.enhance(picture, query.scale, max_pixels=max_pixels),
            limiter=request.state.enhancing,
        )
        stages.add("queue", turn.queue_seconds)
        stages.add("infer", turn.infer_seconds)
    with stages.time("encode"):
        body, digest = await anyio.to_thread.run_sync(
            _encode_and_digest, enhanced, output_format, query.quality
        )
    telemetry.pixels.labels("input").inc(picture.size[0] * picture.size[1])
    telemetry.pixels.labels("output").inc(enhanced.size[0] * enhanced.size[1])
    headers = {
        "X-Model": f"{card.name}@{card.short_hash}",
        "X-Input-Size": _width_by_height(picture.size),
        "X-Output-Size": _width_by_height(enhanced.size),
        "Server-Timing": stages.header(),
        "Content-Digest": f"sha-256=:{digest}:",
        "Vary": "Accept",
    }
    headers["X-Notes"] = account(picture, output_format)
    return Response(body, media_type=MEDIA_TYPES[output_format], headers=headers)


def _accepted_format(request: Request, picture: Picture) -> OutputFormat:
    own = default_output_format(picture)
    formats = [own, *(name for name in OUTPUT_FORMATS if name != own)]
    best = negotiate(request, [MEDIA_TYPES[name] for name in formats])
    return next(name for name in formats if MEDIA_TYPES[name] == best)


def _encode_and_digest(
    picture: Picture, output_format: OutputFormat, quality: int
) -> tuple[bytes, str]:
    body = encode(picture, output_format, quality)
    return body, base64.b64encode(hashlib.sha256(body).digest()).decode()


def _width_by_height(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
