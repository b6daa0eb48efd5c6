"""POST /enhance: a picture goes in, a larger and sharper one comes out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Header as HttpHeader
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.http import parse_set_header

from app.api.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD,
    UPLOAD_ERRORS,
    CallerDependency,
    ContextDependency,
    JobsDependency,
    ServiceDependency,
    StagesDependency,
    TelemetryDependency,
    UploadDependency,
    negotiate,
)
from app.api.responses import TimedResponse, enhanced_headers
from app.api.schemas import DryRun, JobReport
from app.errors import declare
from app.inference.enhance import (
    EnhanceOptions,
    EnhanceRequest,
    Fallback,
    Icc,
    Metadata,
    enhance_picture,
    prepare_request,
)
from app.inference.service import AdmissionForecast
from superres import errors
from superres.codecs import (
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    Header,
    OutputFormat,
    default_output_format,
    in_words,
)
from superres.enhancer import LARGEST_SCALE, SMALLEST_SCALE

router = APIRouter()

DEFAULTS = EnhanceOptions()


class EnhanceQuery(BaseModel):
    """The parameters of POST /enhance."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(
        DEFAULTS.scale,
        ge=SMALLEST_SCALE,
        le=LARGEST_SCALE,
        description="Output side over input side.",
    )
    model: str = Field(DEFAULTS.model, description="A family (`srcnn`) or a name (`srcnn-x3`).")
    format: OutputFormat | None = Field(
        None,
        description="Default: what `Accept` asks for, else the upload's own format, else png.",
    )
    quality: int = Field(
        DEFAULTS.quality, ge=1, le=100, description=f"For {in_words('and', lossy=True)}."
    )
    icc: Icc = Field(
        DEFAULTS.icc,
        description="Keep the colour profile, or convert the colours to sRGB.",
    )
    metadata: Metadata = Field(
        DEFAULTS.metadata,
        description="EXIF and XMP; orientation is applied and DPI kept either way.",
    )
    ensemble: bool = Field(
        DEFAULTS.ensemble,
        description="Average the model's answers to eight views of the picture, turned and "
        "mirrored: slightly better, in eight times the time.",
    )
    dry_run: bool = Field(
        False, description="Only compute what it would take, and say whether there is room now."
    )
    proof: bool = Field(
        DEFAULTS.proof,
        description="Estimate the gain on this picture: it is shrunk by `scale` (1.5 and above), "
        "brought back by bicubic and by the model, and both are scored against it.",
    )
    fallback: Fallback = Field(
        DEFAULTS.fallback,
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
        "Server-Timing": _header("decode, proof, queue, infer, bicubic, encode, in milliseconds."),
        "Content-Digest": _header("SHA-256 of the body (RFC 9530)."),
        "Vary": _header("Accept."),
    },
}


ACCEPTED = {
    "model": JobReport,
    "description": "With `Prefer: respond-async`: a job, which is on the disk by now.",
    "headers": {
        "Location": _header("Of the job: `/jobs/{job_id}`."),
        "Preference-Applied": _header("`respond-async`."),
    },
    "links": {
        name: {"operationId": operation, "parameters": {"job_id": "$response.body#/id"}}
        for name, operation in {
            "job": "read_job_jobs__job_id__get",
            "events": "job_events_jobs__job_id__events_get",
            "result": "job_result_jobs__job_id__result_get",
            "cancel": "delete_job_jobs__job_id__delete",
        }.items()
    },
}


@router.post(
    "/enhance",
    response_model=DryRun,
    responses={
        200: ENHANCED,
        202: ACCEPTED,
        **declare(*UPLOAD_ERRORS, *ENHANCING_ERRORS, errors.StorageError),
    },
    openapi_extra=UPLOAD,
    summary="Enlarge and sharpen a picture",
    description=(
        "The body is the picture: as it is, or as the multipart field `file`. So is the answer's."
        f"\n\n{in_words('and')} are read; the bytes decide, not the header."
    ),
)
async def enhance(
    request: Request,
    query: Annotated[EnhanceQuery, Query()],
    context: ContextDependency,
    upload: UploadDependency,
    service: ServiceDependency,
    telemetry: TelemetryDependency,
    stages: StagesDependency,
    jobs: JobsDependency,
    caller: CallerDependency,
    prefer: Annotated[
        list[str] | None,
        HttpHeader(
            description="`respond-async`: answer at once with a job, and make the picture when "
            "there is room (RFC 7240).",
            examples=["respond-async"],
        ),
    ] = None,
) -> Response:
    """Answer with the enlarged picture, a job or a dry run."""
    header = upload.header
    output_format = query.format or _accepted_format(request, header)
    options = EnhanceOptions.from_mapping(query.model_dump())
    enhance_request = prepare_request(service, options, header, len(upload.data), output_format)
    if query.dry_run:
        report = _dry_run(enhance_request, service.forecast_admission(enhance_request, context))
        return Response(report.model_dump_json(), media_type="application/json")
    if "respond-async" in parse_set_header(", ".join(prefer or [])):
        job = await jobs.accept(
            enhance_request,
            upload.data,
            owner=caller,
            request_id=request.scope["request_id"],
            deadline_s=context.requested_deadline_s,
        )
        return JSONResponse(
            JobReport.of(jobs.status(job)).model_dump(mode="json"),
            status_code=202,
            headers={
                "Location": f"/jobs/{job.id}",
                "Preference-Applied": "respond-async",
            },
        )
    with service.admit(enhance_request, context) as engine:
        enhanced = await enhance_picture(
            enhance_request,
            upload.data,
            engine,
            decoders=service.decoders,
            stages=stages,
            telemetry=telemetry,
            limiter=request.state.enhance_limiter,
        )
    context.reservation.resize(len(upload.data) + len(enhanced.body))
    return TimedResponse(
        enhanced.body,
        service.settings.transfer_timeout_s,
        media_type=MEDIA_TYPES[enhanced.output_format],
        headers=enhanced_headers(enhanced),
    )


def _dry_run(request: EnhanceRequest, forecast: AdmissionForecast) -> DryRun:
    header, cost = request.header, request.cost
    return DryRun(
        model=request.label,
        source_format=header.source_format,
        bits=header.bits,
        input_width=header.size[1],
        input_height=header.size[0],
        output_width=cost.output_size[1],
        output_height=cost.output_size[0],
        tiles=cost.tiles,
        peak_bytes=cost.peak_bytes,
        seconds_alone=round(forecast.seconds_alone, 3),
        seconds_expected=round(forecast.seconds_expected, 3),
        accepted=forecast.retry_after == 0,
        retry_after=forecast.retry_after,
    )


def _accepted_format(request: Request, header: Header) -> OutputFormat:
    own = default_output_format(header)
    formats = [own, *(name for name in OUTPUT_FORMATS if name != own)]
    best = negotiate(request, [MEDIA_TYPES[name] for name in formats])
    return next(name for name in formats if MEDIA_TYPES[name] == best)
