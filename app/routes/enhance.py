"""POST /enhance: a picture goes in, a larger and sharper one comes out."""

import base64
import hashlib
import sys
from functools import partial
from typing import Annotated, Literal

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD,
    UPLOAD_ERRORS,
    CallDependency,
    ServiceDependency,
    StagesDependency,
    TelemetryDependency,
    UploadDependency,
    negotiate,
)
from app.errors import declare
from app.schemas import DryRun
from app.transfer import Answer
from superres.arrays import Size, to_integer
from superres.codecs import (
    DEFAULT_QUALITY,
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    Header,
    OutputFormat,
    Picture,
    account,
    check_output,
    decode,
    default_output_format,
    encode,
    to_srgb,
    without_metadata,
)
from superres.enhancer import BICUBIC, LARGEST_SCALE, SMALLEST_SCALE, Enhancer
from superres.errors import BadRequest
from superres.jpeg import jpeg_settings
from superres.proof import Estimate, check_estimable, estimate
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
    icc: Literal["keep", "srgb"] = Field(
        "keep", description="The colour profile goes along, or the colours become sRGB's."
    )
    metadata: Literal["keep", "strip"] = Field(
        "keep", description="EXIF and XMP; orientation is applied and DPI kept either way."
    )
    ensemble: bool = Field(
        False,
        description="Average the model's answers to eight views of the picture, turned and "
        "mirrored: slightly better, in eight times the time.",
    )
    dry_run: bool = Field(
        False, description="Only compute what it would take, and say whether there is room now."
    )
    proof: bool = Field(
        False,
        description="Estimate the gain on this picture: it is shrunk by `scale` (1.5 and above), "
        "brought back by bicubic and by the model, and both are scored against it.",
    )
    fallback: Literal["none", "auto", "always"] = Field(
        "none",
        description="`auto`: with a proof, and bicubic's answer where it favours bicubic. "
        "`always`: bicubic's answer, to look at beside.",
    )


def _header(description: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": "string"}}


ENHANCED = {
    "description": "The enhanced picture; with `dry_run`, JSON and none of these headers.",
    "content": {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for media_type in MEDIA_TYPES.values()
    },
    "headers": {
        "X-Request-ID": _header("The caller's own, or a fresh one."),
        "X-Model": _header(
            "What made it: the model's name and short hash, `srcnn-x3@0123456789ab`, with "
            "`ensemble` `srcnn-x3+ensemble@0123456789ab`; or `bicubic`."
        ),
        "X-Input-Size": _header("Width x height of the upload, upright: `170x120`."),
        "X-Output-Size": _header("Width x height of the answer: `510x360`."),
        "X-Notes": _header(
            "What was kept, converted and dropped of the file, and why bicubic answered: "
            "`kept: ICC profile, DPI; converted: alpha flattened on white; dropped: comment`."
        ),
        "X-Proof-Gain-dB": _header("With a proof: the model's estimated gain over bicubic, dB."),
        "X-Proof-Bicubic-dB": _header("With a proof: bicubic's PSNR of luma, dB."),
        "X-Proof-Model-dB": _header("With a proof: the model's PSNR of luma, dB."),
        "Server-Timing": _header("decode, proof, queue, infer, encode, in milliseconds."),
        "Content-Digest": _header("SHA-256 of the body (RFC 9530)."),
        "Vary": _header("Accept."),
    },
}


@router.post(
    "/enhance",
    response_model=DryRun,
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
    call: CallDependency,
    upload: UploadDependency,
    service: ServiceDependency,
    telemetry: TelemetryDependency,
    stages: StagesDependency,
) -> Response:
    """The body is the picture: as it is, or as the multipart field `file`. So is the answer's.

    PNG, JPEG, WebP, TIFF, BMP and still GIFs are read; the bytes decide, not the header.
    """
    card = service.choose(query.model, query.scale)
    header = upload.header
    output_format = query.format or _accepted_format(request, header)
    taken = service.forecast(
        header, len(upload.data), card, query.scale, output_format, ensemble=query.ensemble
    )
    check_output(taken.output_size, output_format)
    proving = query.proof or query.fallback == "auto"
    if proving:
        check_estimable(query.scale)
    if query.dry_run:
        report = service.report(call, card, header, taken, ensemble=query.ensemble)
        return Response(report.model_dump_json(), media_type="application/json")
    notes: list[str] = []
    proof: Estimate | None = None
    label = card.label(ensemble=query.ensemble)
    made_by = f"{label}@{card.short_hash}"

    with service.at_work(call, card, header.bits, taken, ensemble=query.ensemble) as turn:
        with stages.time("decode"):
            picture = await anyio.to_thread.run_sync(_decode, upload.data, query)
        turn.check()
        enhancer = Enhancer(turn, card.geometry)
        if query.ensemble:
            enhancer = enhancer.ensembled()
        if proving:
            try:
                with stages.time("proof"):
                    proof = await anyio.to_thread.run_sync(
                        _estimate,
                        enhancer,
                        picture,
                        query.scale,
                        upload.data,
                        limiter=request.state.enhancing,
                    )
                telemetry.proof_gain.labels(label).observe(proof.gain_db)
            except BadRequest as error:  # too small to be scored is still worth enlarging
                notes.append(f"no proof: {error}")
            turn.check()
        bicubic_wins = proof is not None and proof.gain_db < 0
        if query.fallback == "always" or (query.fallback == "auto" and bicubic_wins):
            enhancer, made_by = BICUBIC, "bicubic"
            notes.append(f"bicubic, as fallback={query.fallback} asks")
        enhanced = await anyio.to_thread.run_sync(
            partial(
                enhancer.enhance,
                picture,
                query.scale,
                max_pixels=service.settings.max_output_pixels,
            ),
            limiter=request.state.enhancing,
        )
        stages.add("queue", turn.queue_seconds)
        stages.add("infer", turn.infer_seconds)
        turn.check()
        with stages.time("encode"):
            body, digest = await anyio.to_thread.run_sync(
                _encode_and_digest, enhanced, output_format, query.quality
            )
    call.reservation.hold(len(upload.data) + len(body))
    telemetry.pixels.labels("input").inc(picture.size[0] * picture.size[1])
    telemetry.pixels.labels("output").inc(enhanced.size[0] * enhanced.size[1])
    headers = {
        "X-Model": made_by,
        "X-Input-Size": _width_by_height(picture.size),
        "X-Output-Size": _width_by_height(enhanced.size),
        "X-Notes": "; ".join(filter(None, [account(picture, output_format), *notes])),
        "Server-Timing": stages.header(),
        "Content-Digest": f"sha-256=:{digest}:",
        "Vary": "Accept",
    }
    if proof is not None:
        headers["X-Proof-Gain-dB"] = _decibels(proof.gain_db)
        headers["X-Proof-Bicubic-dB"] = _decibels(proof.bicubic_psnr_y)
        headers["X-Proof-Model-dB"] = _decibels(proof.sr_psnr_y)
    return Answer(
        body,
        service.settings.transfer_timeout_s,
        media_type=MEDIA_TYPES[output_format],
        headers={name: value for name, value in headers.items() if value},
    )


def _estimate(enhancer: Enhancer, picture: Picture, scale: float, data: bytes) -> Estimate:
    rgb = to_integer(picture.rgb, np.uint8)
    return estimate(enhancer, rgb, scale, jpeg=jpeg_settings(data))


def _accepted_format(request: Request, header: Header) -> OutputFormat:
    own = default_output_format(header)
    formats = [own, *(name for name in OUTPUT_FORMATS if name != own)]
    best = negotiate(request, [MEDIA_TYPES[name] for name in formats])
    return next(name for name in formats if MEDIA_TYPES[name] == best)


def _decode(data: bytes, query: EnhanceQuery) -> Picture:
    # Its pixels were counted on the header.
    picture = decode(data, max_pixels=sys.maxsize)
    if query.metadata == "strip":
        picture = without_metadata(picture)
    return to_srgb(picture) if query.icc == "srgb" else picture


def _encode_and_digest(
    picture: Picture, output_format: OutputFormat, quality: int
) -> tuple[bytes, str]:
    body = encode(picture, output_format, quality)
    return body, base64.b64encode(hashlib.sha256(body).digest()).decode()


def _width_by_height(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _decibels(value: float) -> str:
    """Two decimals; infinity spelled out, as in the JSON."""
    return f"{value:.2f}".replace("inf", "infinity")
