"""The pages: plain HTML, CSS and JavaScript; no build step.

``page.html`` is both pages, ``comparison.html`` what a comparison adds to it. Both are
``string.Template``. What is in ``static/`` is served as it is.
"""

import base64
import json
from html import escape
from pathlib import Path
from string import Template

from app.web.samples import SAMPLES
from superres.arrays import RgbU8
from superres.codecs import FORMATS, MEDIA_TYPES, OutputFormat, Picture, encode, in_words
from superres.evaluation.proof import Comparison
from superres.evaluation.strip import AMPLIFIED, draw_difference
from superres.models.registry import DEFAULT_SCALE
from superres.parameters import Parameters, bounds, choices, in_plain_text
from superres.schemas import ComparisonReport

STATIC = Path(__file__).with_name("static")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
"""Of every page: nothing comes from other hosts, and nothing inline runs."""

LARGEST_PNG_PIXELS = 2_000_000
"""A larger picture goes into a page as JPEG: losslessly it would be tens of megabytes."""

ASIDE = ("scale", "model", "ensemble")
"""Parameters with fields of their own in ``page.html``; the others are advanced."""

_LABELS = {"icc": "Colour profile"}
"""Labels that are not the parameter's name."""
_SAMPLE = Template(
    '    <li><button type="button" data-sample="$name" $current>'
    '<img src="samples/$name?thumbnail=true" alt="" loading="lazy"><span>$name</span>'
    "</button></li>"
)


def enhance_page(model: str) -> str:
    """The page at ``/``, with the model that is chosen at first."""
    return _page(
        model=model,
        mode="enhance",
        title="superres: larger, sharper pictures",
        heading="Larger and sharper, and by how much",
        lede="A photograph comes back enlarged by a small neural network, beside what plain "
        "bicubic interpolation makes of it.",
        verb="Enhance",
        advanced=_advanced_fields(),
    )


def compare_page(
    comparison: Comparison, report: ComparisonReport, *, model: str, ensemble: bool, sample: str
) -> str:
    """The page at ``/compare``, with a comparison.

    Args:
        comparison: what to show.
        report: its figures.
        model: as the caller asked for it.
        ensemble: likewise.
        sample: the shipped picture's name; empty for a caller's own.
    """
    return _compare_page(
        f"superres: bicubic against {report.model} at x{report.scale:g}",
        report.scale,
        model=model,
        ensemble=ensemble,
        sample=sample,
        comparison=_comparison(comparison, report),
    )


def empty_compare_page(scale: float, *, model: str, ensemble: bool, sample: str) -> str:
    """The same without the comparison, which its script then asks for with the caller's key."""
    return _compare_page("superres: compare", scale, model=model, ensemble=ensemble, sample=sample)


def _compare_page(
    title: str, scale: float, *, model: str, ensemble: bool, sample: str, comparison: str = ""
) -> str:
    return _page(
        mode="compare",
        title=title,
        heading="Shrunk, brought back, and scored",
        lede="A picture is taken as the truth. It is shrunk, bicubic and the model each bring it "
        "back, and both are held against it.",
        verb="Compare",
        scale=f"{scale:g}",
        model=model,
        ensemble=ensemble,
        sample=sample,
        comparison=comparison,
    )


def _page(
    *,
    mode: str,
    title: str,
    heading: str,
    lede: str,
    verb: str,
    scale: str = f"{DEFAULT_SCALE:g}",
    model: str,
    ensemble: bool = False,
    sample: str = "",
    comparison: str = "",
    advanced: str = "",
) -> str:
    current = 'aria-current="page"'
    return _template("page.html").substitute(
        mode=mode,
        accepted=",".join(row.media_type for row in FORMATS.values()),
        formats_read=in_words("or"),
        result_formats=escape(json.dumps(_result_formats())),
        title=escape(title),
        heading=heading,
        lede=lede,
        verb=verb,
        scale=scale,
        model=escape(model),
        ensemble="checked" if ensemble else "",
        sample=sample,
        comparison=comparison,
        advanced=advanced,
        drop_hidden="hidden" if comparison else "",
        enhance_current=current if mode == "enhance" else "",
        compare_current=current if mode == "compare" else "",
        samples="\n".join(
            _SAMPLE.substitute(name=name, current='aria-current="true"' if name == sample else "")
            for name in SAMPLES
        ),
    )


def _advanced_fields() -> str:
    """A field for each parameter that has none of its own, by its definition."""
    fields = "\n".join(_field(name) for name in Parameters.model_fields if name not in ASIDE)
    summary = "<summary>More settings</summary>"
    return f'<details id="advanced">{summary}\n<div>\n{fields}\n</div>\n</details>'


def _field(name: str) -> str:
    about = f'id="ask-{name}" name="{name}" title="{escape(in_plain_text(name))}"'
    default = Parameters.model_fields[name].default
    values = choices(name)
    if name == "format":
        values = tuple(row["name"] for row in _result_formats().values())
    if values:
        # What is the default is not sent; "always" is deprecated.
        named = (value for value in values if value not in (default, "always"))
        options = f'<option value="">{default or "default"}</option>' + "".join(
            f"<option>{value}</option>" for value in named
        )
        control = f"<select {about}>{options}</select>"
    elif default is False:  # the page asks for a proof, unless it is not to
        control = f'<input type="checkbox" value="true" checked {about}>'
    else:
        limits = " ".join(f'{word}="{limit}"' for word, limit in bounds(name).items())
        shown = "" if default is None else default
        control = f'<input type="number" placeholder="{shown}" {limits} {about}>'
    label = f'<label for="ask-{name}">{_LABELS.get(name, name.title())}</label>'
    return f'<div class="field">{label}{control}</div>'


def _result_formats() -> dict[str, dict[str, str]]:
    """Name and suffix of each format that the page asks for, by media type."""
    return {
        row.media_type: {"name": row.name, "suffix": row.suffixes[0]}
        for row in FORMATS.values()
        if row.encode is not None and row.shown_by_browsers
    }


def _comparison(comparison: Comparison, report: ComparisonReport) -> str:
    return _template("comparison.html").substitute(
        model=report.model,
        scale=f"{report.scale:g}",
        width=report.width,
        height=report.height,
        gain=f"{comparison.gain_db:+.2f}".replace("-", "−"),
        against="over bicubic" if comparison.gain_db >= 0 else "under bicubic",
        bicubic_psnr=_decibels(report.bicubic.psnr_y),
        bicubic_ssim=f"{report.bicubic.ssim_y:.4f}",
        sr_psnr=_decibels(report.sr.psnr_y),
        sr_ssim=f"{report.sr.ssim_y:.4f}",
        bicubic=_data_uri(comparison.bicubic),
        sr=_data_uri(comparison.sr),
        hr=_data_uri(comparison.hr),
        bicubic_difference=_data_uri(draw_difference(comparison.hr, comparison.bicubic), grey=True),
        sr_difference=_data_uri(draw_difference(comparison.hr, comparison.sr), grey=True),
        amplified=AMPLIFIED,
    )


def _decibels(psnr: float | str) -> str:
    return psnr if isinstance(psnr, str) else f"{psnr:.2f}"


def _data_uri(rgb: RgbU8, *, grey: bool = False) -> str:
    pixels = rgb.shape[0] * rgb.shape[1]
    output_format: OutputFormat = "png" if pixels <= LARGEST_PNG_PIXELS else "jpeg"
    data = encode(Picture(rgb, grey=grey), output_format, 95)
    return f"data:{MEDIA_TYPES[output_format]};base64,{base64.b64encode(data).decode()}"


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))
