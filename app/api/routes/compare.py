"""/compare: bicubic against a model, on a sample or on the caller's own picture."""

import hashlib
from importlib.metadata import version
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from app.access import Credentials, admit
from app.api.body import is_form
from app.api.context import RequestContext
from app.api.dependencies import (
    ENHANCING_ERRORS,
    UPLOAD_ERRORS,
    ContextDependency,
    ServiceDependency,
    negotiate,
    read_upload,
    upload_body,
)
from app.api.responses import PatientResponse
from app.errors import declare
from app.inference.compare import (
    Compared,
    CompareRequest,
    compare_picture,
    prepare_comparison,
)
from app.inference.service import Service
from app.service_errors import CrossOrigin
from app.web import HEADERS, compare_page, empty_compare_page
from app.web.languages import choose_language
from app.web.samples import Sample, read_sample
from superres.arrays import RgbU8
from superres.codecs import Header, Picture, encode
from superres.errors import TooManyRequests, Unauthorized
from superres.evaluation.strip import draw_strip
from superres.models.registry import COMPARED_MODEL, DEFAULT_SCALE
from superres.models.selection import rules_label
from superres.schemas import ComparisonReport
from superres.sizing import LARGEST_SCALE

ACCESS = "open"  # shows a page without a key, and checks the key itself
router = APIRouter()

VERSION = version("superres")

OFFERED = ["application/json", "image/png", "text/html"]
_VARY = {"Vary": {"description": "Accept.", "schema": {"type": "string"}}}
COMPARED: dict[str, Any] = {
    "description": "As `Accept` asks: the figures (default), a captioned strip, or a page.",
    "content": {
        "image/png": {"schema": {"type": "string", "format": "binary"}},
        "text/html": {"schema": {"type": "string"}},
    },
    "headers": _VARY,
}
SAMPLE_COMPARED = COMPARED | {
    "headers": _VARY
    | {"ETag": {"description": "Of the model and the picture.", "schema": {"type": "string"}}}
}


class CompareQuery(BaseModel):
    """The parameters of both."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(
        DEFAULT_SCALE, gt=1, le=LARGEST_SCALE, description="How far the truth is shrunk."
    )
    model: str = Field(
        COMPARED_MODEL,
        description="A family (`srcnn`) or a name (`srcnn-x3`). `auto` is its model for clean "
        "pictures, as the shrunken copy is one; with `jpeg`, it chooses by the copy.",
    )
    ensemble: bool = Field(
        False, description="Average the model's answers to eight views: eight times the work."
    )
    jpeg: int | None = Field(
        None,
        ge=1,
        le=100,
        description="JPEG quality that the shrunken copy is compressed at, as the pictures that "
        "people have; by default it is not compressed.",
    )


class SampleQuery(CompareQuery):
    """The parameters of GET /compare."""

    sample: Sample = Field("coffee", description="A shipped photograph.")


async def admit_or_ask(request: Request, credentials: Credentials) -> bool:
    """Whether the caller is admitted; without a key, a browser gets a page that asks for one."""
    wants_page = negotiate(request, OFFERED) == "text/html"
    if request.state.access.keys and credentials is None and wants_page:
        return False
    await admit(request, credentials)
    return True


@router.get(
    "/compare",
    response_model=ComparisonReport,
    responses={
        200: SAMPLE_COMPARED,
        304: {"description": "As `If-None-Match` says, nothing has changed."},
        **declare(Unauthorized, TooManyRequests, *ENHANCING_ERRORS),
    },
    summary="Bicubic against the model on a shipped sample",
)
async def compare_sample(
    request: Request,
    admitted: Annotated[bool, Depends(admit_or_ask)],
    query: Annotated[SampleQuery, Query()],
    context: ContextDependency,
    service: ServiceDependency,
) -> Response:
    """The sample is the truth: it is shrunk, and both methods bring it back."""
    if not admitted:
        page = empty_compare_page(
            query.scale,
            model=query.model,
            ensemble=query.ensemble,
            sample=query.sample,
            language=_language(request),
        )
        vary = "Accept, Accept-Language, Authorization"
        return HTMLResponse(page, headers=HEADERS | {"Vary": vary})
    truth = await anyio.to_thread.run_sync(read_sample, query.sample)
    header = Header("png", (truth.shape[0], truth.shape[1]), 8)
    return await _compare(request, service, context, header, truth, query)


@router.post(
    "/compare",
    response_model=ComparisonReport,
    responses={
        200: COMPARED,
        **declare(Unauthorized, TooManyRequests, CrossOrigin, *UPLOAD_ERRORS, *ENHANCING_ERRORS),
    },
    dependencies=[Depends(admit)],
    openapi_extra=upload_body(CompareQuery),
    summary="Bicubic against the model on your picture",
)
async def compare_upload(
    request: Request,
    query: Annotated[CompareQuery, Query()],
    context: ContextDependency,
    service: ServiceDependency,
) -> Response:
    """Your picture is the truth: it is shrunk, and both methods bring it back."""
    negotiate(request, OFFERED)
    if not is_form(request) or "model" in query.model_fields_set:
        service.choose(query.model, query.scale)
    upload, query = await read_upload(request, service, context, query)
    return await _compare(request, service, context, upload.header, upload.data, query)


async def _compare(
    request: Request,
    service: Service,
    context: RequestContext,
    header: Header,
    truth: RgbU8 | bytes,
    query: CompareQuery,
) -> Response:
    compare_request = prepare_comparison(
        service,
        header,
        context.reservation.bytes,
        model=query.model,
        scale=query.scale,
        ensemble=query.ensemble,
        jpeg=query.jpeg,
    )
    media_type = negotiate(request, OFFERED)
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    language = _language(request) if media_type == "text/html" else ""
    if language:
        headers |= HEADERS | {"Vary": "Accept, Accept-Language"}
    if not isinstance(truth, bytes):
        headers["ETag"] = await anyio.to_thread.run_sync(
            _etag, truth, query, compare_request, media_type + language
        )
        # This comes before the work, so that its time is not recorded as that of a comparison.
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    if not await context.within_deadline(service.models.require(*compare_request.cards)):
        return await _compare(request, service, context, header, truth, query)
    with service.admit(compare_request, context) as engine:
        compared = await compare_picture(
            compare_request,
            truth,
            engine,
            decoders=service.decoders,
            limiter=request.state.enhance_limiter,
        )
        body = await anyio.to_thread.run_sync(_render, compared, query, media_type, language)
    context.reservation.resize(len(body))
    return PatientResponse(
        body,
        service.settings.idle_timeout_s,
        context.reservation,
        media_type=media_type,
        headers=headers,
    )


def _render(compared: Compared, query: CompareQuery, media_type: str, language: str) -> bytes:
    comparison = compared.comparison
    report = ComparisonReport.of(comparison, compared.label, compared.reason)
    if media_type == "image/png":
        return encode(Picture(draw_strip(comparison, compared.label)), "png")
    if media_type == "text/html":
        sample = query.sample if isinstance(query, SampleQuery) else ""
        return compare_page(
            comparison,
            report,
            model=query.model,
            ensemble=query.ensemble,
            sample=sample,
            language=language,
        ).encode()
    return report.model_dump_json().encode()


def _language(request: Request) -> str:
    return choose_language(request.headers.get("accept-language", ""))


def _etag(truth: RgbU8, query: CompareQuery, request: CompareRequest, form: str) -> str:
    models = " ".join(f"{card.name} {card.short_hash}" for card in request.cards)
    names = f"{truth.shape} {query!r} {models} {rules_label()} {form} {VERSION} "
    return f'"{hashlib.sha256(names.encode() + truth.tobytes()).hexdigest()[:32]}"'
