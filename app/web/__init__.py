"""The pages: plain HTML, CSS and JavaScript; no build step.

``page.html`` is both pages, ``comparison.html`` what a comparison adds to it. Both are
``string.Template``. What is in ``static/`` is served as it is.
"""

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template

from app.web.kinds import KINDS
from app.web.languages import DEFAULT, read_words
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

CLEAR_DB = 1.0
"""Gain in dB from which a result is clearly sharper."""
EQUAL_DB = 0.15
"""Gain in dB up to which, and down to whose negative, a result looks like plain enlarging."""

ASIDE = ("scale", "model")
"""Parameters with fields of their own in ``page.html``; the others are advanced."""

_SAMPLE = Template(
    '    <li><button type="button" data-sample="$name" $current>'
    '<img src="samples/$name?thumbnail=true" alt="" loading="lazy"><span>$label</span>'
    "</button></li>"
)

_FOLDER = Template(
    '<input type="file" id="folder" class="unseen" webkitdirectory>'
    '<label for="folder" class="button" title="$choose_folder"><span class="icon folder"></span>'
    '<span class="unseen">$choose_folder</span></label>'
)


def enhance_page(model: str, language: str) -> str:
    """The page at ``/``, with the model that is chosen at first."""
    words = read_words(language)
    return _page(
        language=language,
        model=model,
        mode="enhance",
        title=words["title"],
        heading=words["heading"],
        lede=words["lede"],
        verb=words["enhance"],
        advanced_fields=_advanced_fields(language),
    )


def compare_page(
    comparison: Comparison,
    report: ComparisonReport,
    *,
    model: str,
    ensemble: bool,
    sample: str,
    language: str,
) -> str:
    """The page at ``/compare``, with a comparison.

    Args:
        comparison: what to show.
        report: its figures.
        model: as the caller asked for it.
        ensemble: likewise.
        sample: the shipped picture's name; empty for a caller's own.
        language: one of LANGUAGES.
    """
    return _compare_page(
        report.scale,
        model=model,
        ensemble=ensemble,
        sample=sample,
        language=language,
        comparison=_comparison(comparison, report, read_words(language)),
    )


def empty_compare_page(
    scale: float, *, model: str, ensemble: bool, sample: str, language: str
) -> str:
    """The same without the comparison, which its script then asks for with the caller's key."""
    return _compare_page(scale, model=model, ensemble=ensemble, sample=sample, language=language)


def _compare_page(
    scale: float, *, model: str, ensemble: bool, sample: str, language: str, comparison: str = ""
) -> str:
    words = read_words(language)
    return _page(
        language=language,
        mode="compare",
        title=words["title_compare"],
        heading=words["compare_heading"],
        lede=words["compare_lede"],
        verb=words["compare"],
        scale=f"{scale:g}",
        model=model,
        sample=sample,
        comparison=comparison,
        advanced_fields=_ensemble_field(words, checked=ensemble),
    )


def _page(
    *,
    language: str,
    mode: str,
    title: str,
    heading: str,
    lede: str,
    verb: str,
    scale: str = f"{DEFAULT_SCALE:g}",
    model: str,
    sample: str = "",
    comparison: str = "",
    advanced_fields: str = "",
) -> str:
    current = 'aria-current="page"'
    words = {key: escape(text) for key, text in read_words(language).items()}
    words["drop_about"] = words["drop_about"].format(formats=in_words("or"))
    return _template("page.html").substitute(
        words,
        language=language,
        mode=mode,
        action=mode,
        multiple="multiple" if mode == "enhance" else "",
        folder=_FOLDER.substitute(words) if mode == "enhance" else "",
        accepted=",".join(row.media_type for row in FORMATS.values()),
        result_formats=escape(json.dumps(_result_formats())),
        page_title=escape(title),
        page_heading=escape(heading),
        page_lede=escape(lede),
        verb=escape(verb),
        kinds=escape(json.dumps(KINDS)),
        clear_db=CLEAR_DB,
        equal_db=EQUAL_DB,
        chosen_scale=scale,
        smallest_scale=f"{bounds('scale')['min']:g}",
        largest_scale=f"{bounds('scale')['max']:g}",
        model=escape(model),
        sample=sample,
        comparison=comparison,
        advanced_fields=advanced_fields,
        drop_hidden="hidden" if comparison else "",
        enhance_current=current if mode == "enhance" else "",
        compare_current=current if mode == "compare" else "",
        sample_list="\n".join(
            _SAMPLE.substitute(
                name=name,
                label=words[f"sample_{name}"],
                current='aria-current="true"' if name == sample else "",
            )
            for name in SAMPLES
        ),
    )


def _advanced_fields(language: str) -> str:
    """A field for each parameter that has none of its own, by its definition."""
    words = read_words(language)
    fields = "\n".join(
        _field(name, words, hint=language == DEFAULT)
        for name in Parameters.model_fields
        if name not in ASIDE
    )
    summary = f"<summary>{escape(words['advanced'])}</summary>"
    # Without the script, fields that are empty would be sent.
    fields = f'<fieldset id="advanced-fields" disabled>\n{fields}\n</fieldset>'
    return f'<details id="advanced">{summary}\n{fields}\n</details>'


def _field(name: str, words: Mapping[str, str], *, hint: bool) -> str:
    about = f'id="ask-{name}" name="{name}"'
    if hint:  # the definition is in English
        about += f' title="{escape(in_plain_text(name))}"'
    default = Parameters.model_fields[name].default
    values = choices(name)
    if name == "format":
        values = tuple(row["name"] for row in _result_formats().values())
    if values:
        # What is the default is not sent; "always" is deprecated.
        named = (value for value in values if value not in (default, "always"))
        first = default or "default"
        options = f'<option value="" data-value="{first}">{_value(first, words)}</option>'
        options += "".join(
            f'<option value="{value}">{_value(value, words)}</option>' for value in named
        )
        control = f"<select {about}>{options}</select>"
    elif default is False:  # the page asks for a proof, unless it is not to
        checked = "checked" if name == "proof" else ""
        control = f'<input type="checkbox" value="true" {checked} {about}>'
    else:
        limits = " ".join(f'{word}="{limit}"' for word, limit in bounds(name).items())
        shown = "" if default is None else default
        control = f'<input type="number" placeholder="{shown}" {limits} {about}>'
    label = f'<label for="ask-{name}">{escape(words[f"field_{name}"])}</label>'
    return f'<div class="field">{label}{control}</div>'


def _value(value: str, words: Mapping[str, str]) -> str:
    return escape(words.get(f"value_{value}", value.upper()))


def _ensemble_field(words: Mapping[str, str], *, checked: bool) -> str:
    return (
        '<div class="field"><input type="checkbox" id="ask-ensemble" name="ensemble" value="true" '
        f'{"checked" if checked else ""}><label for="ask-ensemble">'
        f"{escape(words['field_ensemble'])}</label></div>"
    )


def _result_formats() -> dict[str, dict[str, str]]:
    """Name and suffix of each format that the page asks for, by media type."""
    return {
        row.media_type: {"name": row.name, "suffix": row.suffixes[0]}
        for row in FORMATS.values()
        if row.encode is not None and row.shown_by_browsers
    }


def _comparison(comparison: Comparison, report: ComparisonReport, words: Mapping[str, str]) -> str:
    gain = comparison.gain_db
    values = {
        "model": report.model,
        "width": report.width,
        "height": report.height,
        "scale": f"{report.scale:g}",
        "amplified": AMPLIFIED,
    }
    told = {
        key: escape(text.format_map(values))
        for key, text in words.items()
        if key.startswith("compare_") and key not in ("compare_with",)
    }
    views = [
        {"label": f"{words['compare_plain']} | {report.model}", "left": "plain", "right": "sr"},
        {"label": f"{report.model} | {words['compare_original']}", "left": "sr", "right": "hr"},
        {
            "label": words["compare_differences"],
            "left": "plain-difference",
            "right": "sr-difference",
        },
    ]
    return _template("comparison.html").substitute(
        told,
        views=escape(json.dumps(views)),
        before=told["compare_plain"],
        model=escape(report.model),
        verdict=escape(words[_verdict(gain)]),
        gain=f"{gain:+.2f}".replace("-", "−"),
        plain_psnr=_decibels(report.bicubic.psnr_y),
        plain_ssim=f"{report.bicubic.ssim_y:.4f}",
        sr_psnr=_decibels(report.sr.psnr_y),
        sr_ssim=f"{report.sr.ssim_y:.4f}",
        plain=_data_uri(comparison.bicubic),
        sr=_data_uri(comparison.sr),
        hr=_data_uri(comparison.hr),
        plain_difference=_data_uri(draw_difference(comparison.hr, comparison.bicubic), grey=True),
        sr_difference=_data_uri(draw_difference(comparison.hr, comparison.sr), grey=True),
    )


def _verdict(gain_db: float) -> str:
    """The key of what a gain means, as ``static/results.js`` has it."""
    if gain_db >= CLEAR_DB:
        return "verdict_clear"
    if gain_db > EQUAL_DB:
        return "verdict_sharper"
    return "verdict_equal" if gain_db >= -EQUAL_DB else "verdict_loss"


def _decibels(psnr: float | str) -> str:
    return psnr if isinstance(psnr, str) else f"{psnr:.2f}"


def _data_uri(rgb: RgbU8, *, grey: bool = False) -> str:
    pixels = rgb.shape[0] * rgb.shape[1]
    output_format: OutputFormat = "png" if pixels <= LARGEST_PNG_PIXELS else "jpeg"
    data = encode(Picture(rgb, grey=grey), output_format, 95)
    return f"data:{MEDIA_TYPES[output_format]};base64,{base64.b64encode(data).decode()}"


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))
