"""POST /enhance: a picture goes in, a larger and sharper one comes out."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Header as HttpHeader
from fastapi.responses import JSONResponse
from pydantic import Field
from werkzeug.http import parse_set_header

from app import service_errors
from app.api.body import is_form
from app.api.callbacks import CallbackUrl, check_callback
from app.api.callers import CallerIdDependency
from app.api.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD_ERRORS,
    CallerDependency,
    ContextDependency,
    JobsDependency,
    ServiceDependency,
    StagesDependency,
    TelemetryDependency,
    negotiate,
    read_upload,
    upload_body,
)
from app.api.etag import digest_upload, enhanced_etag, is_known, not_modified
from app.api.idempotency import IdempotencyKeyDependency, fingerprint
from app.api.responses import PatientResponse, enhanced_headers
from app.api.schemas import DryRun, job_report
from app.errors import declare
from app.inference.enhance import (
    EnhanceOptions,
    EnhanceRequest,
    enhance_picture,
    prepare_request,
    preview,
)
from app.inference.service import AdmissionForecast, Service
from superres.codecs import (
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    Header,
    OutputFormat,
    default_output_format,
    in_words,
)
from superres.evaluation.proof import check_estimable
from superres.models.registry import AUTO, DEFAULT_SCALE
from superres.parameters import Parameters
from superres.schemas import JobReport

ACCESS = "key"
router = APIRouter()


class EnhanceQuery(Parameters):
    """The parameters of POST /enhance."""

    dry_run: bool = Field(
        False, description="Only compute what it would take, and say whether there is room now."
    )
    callback: CallbackUrl = None


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
            "`ensemble` `srcnn-x3+ensemble@0123456789ab`."
        ),
        "X-Input-Size": _header("Width x height of the upload, upright: `170x120`."),
        "X-Output-Size": _header("Width x height of the answer: `510x360`."),
        "X-Notes": _header(
            "What was kept, converted and dropped of the file, and why the model was chosen: "
            "`kept: ICC profile, DPI; converted: alpha flattened on white; dropped: comment`."
        ),
        "X-Proof-Gain-dB": _header("With a proof: the model's estimated gain over bicubic, dB."),
        "X-Proof-Bicubic-dB": _header("With a proof: bicubic's PSNR of luma, dB."),
        "X-Proof-Model-dB": _header("With a proof: the model's PSNR of luma, dB."),
        "Server-Timing": _header("decode, proof, queue, infer, bicubic, encode, in milliseconds."),
        "Content-Digest": _header("SHA-256 of the body (RFC 9530)."),
        "ETag": _header(
            "Of upload, parameters, models and code, weak; of a job's result, of its bytes."
        ),
        "Vary": _header("Accept."),
    },
}


NOT_MODIFIED = {
    "description": "`If-None-Match` has the `ETag` of this answer: the caller has it already.",
    "headers": {"ETag": _header("The same."), "Vary": _header("Accept.")},
}

ACCEPTED = {
    "model": JobReport,
    "description": "With `Prefer: respond-async`: a job, which is on the disk by now; with an "
    "`Idempotency-Key`, perhaps the one that an equal request made before.",
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
        304: NOT_MODIFIED,
        **declare(
            *UPLOAD_ERRORS,
            *ENHANCING_ERRORS,
            service_errors.CrossOrigin,
            service_errors.KeyReused,
            service_errors.StorageError,
        ),
    },
    openapi_extra=upload_body(EnhanceQuery),
    summary="Enlarge and sharpen a picture",
    description=(
        "The body is the picture: as it is, or as the multipart field `file`. Other fields of the "
        "form are parameters, as in the query, which comes first."
        f"\n\n{in_words('and')} are read; the bytes decide, not the header."
    ),
)
async def enhance(
    request: Request,
    query: Annotated[EnhanceQuery, Query()],
    context: ContextDependency,
    service: ServiceDependency,
    telemetry: TelemetryDependency,
    stages: StagesDependency,
    jobs: JobsDependency,
    owner: CallerDependency,
    caller: CallerIdDependency,
    idempotency_key: IdempotencyKeyDependency,
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
    as_job = "respond-async" in parse_set_header(", ".join(prefer or []))
    _check_before_body(request, service, query, as_job=as_job)
    check_callback(jobs, query.callback, as_job=as_job)
    upload, query = await read_upload(request, service, context, query)
    check_callback(jobs, query.callback, as_job=as_job)
    header = upload.header
    output_format = query.format or _accepted_format(request, header, json=as_job or query.dry_run)
    model = query.model or service.settings.default_model
    options = EnhanceOptions.from_mapping(query.model_dump() | {"model": model})
    upload_digest = await digest_upload(upload.data)
    prepare = partial(prepare_request, service, options, header, len(upload.data), output_format)
    enhance_request = prepare()
    # Each loop is for a reload that has replaced a model of the request while it waited. Nothing
    # waits between the loop and the admission: a reload between the two would refuse the request.
    if query.dry_run:
        ready = False
        while not ready:
            chosen, notes = await context.within_deadline(
                preview(service, prepare(), upload.data, context.reservation)
            )
            ready = await context.within_deadline(service.models.require(*chosen.cards))
        report = _dry_run(chosen, service.forecast_admission(chosen, context), notes)
        return Response(report.model_dump_json(), media_type="application/json")
    etag = enhanced_etag(upload_digest, enhance_request, service.settings)
    if is_known(request, etag):
        return not_modified(etag)
    if as_job:
        job = await jobs.accept(
            enhance_request,
            upload.data,
            owner=owner,
            request_id=request.scope["request_id"],
            deadline_s=context.requested_deadline_s,
            caller=caller,
            key=idempotency_key,
            fingerprint=fingerprint(upload_digest, query, output_format),
            callback=query.callback,
        )
        return JSONResponse(
            job_report(jobs.status(job)).model_dump(mode="json"),
            status_code=202,
            headers={
                "Location": f"/jobs/{job.id}",
                "Preference-Applied": "respond-async",
            },
        )
    while not await context.within_deadline(service.models.require(*enhance_request.cards)):
        enhance_request = prepare()
        etag = enhanced_etag(upload_digest, enhance_request, service.settings)
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
    context.reservation.resize(len(enhanced.body))
    return PatientResponse(
        enhanced.body,
        service.settings.idle_timeout_s,
        context.reservation,
        media_type=MEDIA_TYPES[enhanced.output_format],
        headers=enhanced_headers(enhanced) | {"ETag": etag},
    )


def _dry_run(request: EnhanceRequest, forecast: AdmissionForecast, notes: str) -> DryRun:
    header, cost = request.header, request.cost
    return DryRun(
        model=request.label,
        notes=notes,
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


def _check_before_body(
    request: Request, service: Service, query: EnhanceQuery, *, as_job: bool
) -> None:
    """Raise what is wrong with any body; a form may have parameters that the query lacks."""
    in_form = is_form(request)
    known = query.model_fields_set if in_form else EnhanceQuery.model_fields.keys()
    scale = DEFAULT_SCALE if query.scale is None else query.scale
    model = query.model or service.settings.default_model
    if not in_form or query.fit is None:  # a form may have the sides that fit needs
        query.target.check()
    if "model" in known and model != AUTO:
        service.choose(model, scale)
    if query.scale is not None and query.wants_proof:
        check_estimable(scale)
    if "format" in known and query.format is None:
        _accepted_format(request, None, json=as_job or query.dry_run)


def _accepted_format(request: Request, header: Header | None, *, json: bool) -> OutputFormat:
    """The format of the picture that ``Accept`` asks for, else its own.

    Args:
        request: the request.
        header: of the picture; None if it is not known yet.
        json: whether the answer itself is JSON.
    """
    own = OUTPUT_FORMATS[0] if header is None else default_output_format(header)
    formats = [own, *(name for name in OUTPUT_FORMATS if name != own)]
    try:
        best = negotiate(request, [MEDIA_TYPES[name] for name in formats])
    except service_errors.NotAcceptable:
        if not json:
            raise
        negotiate(request, ["application/json"])
        return own
    return next(name for name in formats if MEDIA_TYPES[name] == best)
