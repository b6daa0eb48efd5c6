"""POST /enhance: a picture goes in, a larger and sharper one comes out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Header as HttpHeader
from fastapi.responses import JSONResponse
from werkzeug.http import parse_set_header

from app.api.body import Answer
from app.api.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD,
    UPLOAD_ERRORS,
    CallDependency,
    CallerDependency,
    JobsDependency,
    ServiceDependency,
    StagesDependency,
    TelemetryDependency,
    UploadDependency,
    negotiate,
)
from app.api.schemas import DryRun, JobReport
from app.errors import declare
from app.inference import enhance as enhancing
from app.inference.enhance import EnhanceQuery
from superres import errors
from superres.codecs import (
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    Header,
    OutputFormat,
    default_output_format,
)

router = APIRouter()


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
)
async def enhance(
    request: Request,
    query: Annotated[EnhanceQuery, Query()],
    call: CallDependency,
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
    """The body is the picture: as it is, or as the multipart field `file`. So is the answer's.

    PNG, JPEG, WebP, TIFF, BMP and still GIFs are read; the bytes decide, not the header.
    """
    header = upload.header
    output_format = query.format or _accepted_format(request, header)
    asked = enhancing.order(service, query, header, len(upload.data), output_format)
    if query.dry_run:
        report = service.report(call, asked.card, asked.label, header, asked.taken)
        return Response(report.model_dump_json(), media_type="application/json")
    if "respond-async" in parse_set_header(", ".join(prefer or [])):
        job = await jobs.accept(
            asked,
            upload.data,
            owner=caller,
            request_id=request.scope["request_id"],
            deadline_s=call.asked_s,
        )
        return JSONResponse(
            jobs.report(job).model_dump(mode="json"),
            status_code=202,
            headers={
                "Location": f"/jobs/{job.id}",
                "Preference-Applied": "respond-async",
            },
        )
    with service.at_work(call, asked.card, asked.label, header.bits, asked.taken) as turn:
        made = await enhancing.enhance(
            asked,
            upload.data,
            turn,
            stages=stages,
            telemetry=telemetry,
            limiter=request.state.enhancing,
        )
    call.reservation.hold(len(upload.data) + len(made.body))
    return Answer(
        made.body,
        service.settings.transfer_timeout_s,
        media_type=made.media_type,
        headers=made.headers,
    )


def _accepted_format(request: Request, header: Header) -> OutputFormat:
    own = default_output_format(header)
    formats = [own, *(name for name in OUTPUT_FORMATS if name != own)]
    best = negotiate(request, [MEDIA_TYPES[name] for name in formats])
    return next(name for name in formats if MEDIA_TYPES[name] == best)
