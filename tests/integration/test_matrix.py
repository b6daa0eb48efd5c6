"""Every kind of input file, to every output format, against libvips as an independent reader."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from superres.codecs import (
    FORMATS,
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    OutputFormat,
    conversion_notes,
    decode,
    encode,
)
from tests import matrix, vips
from tests.matrix import Case
from tests.vips import Shown, Vips

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("libvips"), pytest.mark.timeout(600)]

LOSS = {
    "png": (0.3, 1.1),
    "tiff": (0.3, 1.1),
    "jpeg": (1, 4),
    "webp": (1.5, 7),
    "avif": (1, 4),
    "jxl": (1, 4),
}
"""Levels of 255 that a format may cost at quality 100: mean, and 99th percentile."""
FEWEST = 5_000


@pytest.fixture(scope="module")
def reader() -> Iterator[Vips]:
    with vips.running() as running:
        yield running


@pytest.fixture(scope="module")
def cases(reader: Vips) -> list[tuple[Case, Shown]]:
    """With what libvips sees in each."""
    found = matrix.all_cases(reader)
    return list(
        zip(found, reader.shown(case.reference or case.data for case in found), strict=True)
    )


def faults(
    case: Case, before: Shown, output_format: OutputFormat, after: Shown, notes: str
) -> Iterator[str]:
    """What is wrong in a result, or with what is said of it."""
    if after.rgb.shape != before.rgb.shape or after.turned:
        yield f"size {after.rgb.shape[:2]} for {before.rgb.shape[:2]}, to be turned: {after.turned}"
        return
    weight = np.ones((*before.rgb.shape[:2], 1))
    expected = before.rgb
    if output_format == "jpeg":
        expected = before.on_white
    elif case.alpha:
        weight = before.alpha[..., None] / 255
        if after.alpha is None:
            yield "no alpha"
        elif np.abs(after.alpha - before.alpha).mean() > LOSS[output_format][0]:
            yield f"alpha off by {np.abs(after.alpha - before.alpha).mean():.2f}"
    if after.alpha is not None and not case.alpha:
        yield "alpha that was not there"
    difference = np.abs(after.rgb - expected) * weight
    mean, most = difference.mean(), np.percentile(difference, 99)
    blurred = 3 if case.steps and FORMATS[output_format].lossy else 1
    mean_loss, most_loss = (blurred * loss for loss in LOSS[output_format])
    if mean > mean_loss + case.loss or most > most_loss + 5 * case.loss:
        yield f"colours off by {mean:.2f}, in places by {most:.2f}"
    if case.grey and np.ptp(after.rgb, axis=2).max() > 1.5:  # WebP rounds, and has no grey
        yield f"grey is coloured by {np.ptp(after.rgb, axis=2).max():.1f}"
    if sorted(notes.split("; ")) != sorted(told(case, output_format, after).split("; ")):
        yield f"said {notes!r}, and {told(case, output_format, after)!r} is true"


def told(case: Case, output_format: OutputFormat, after: Shown) -> str:
    """The notes that are true, by what is in the result."""
    kept, converted = [], list(case.converted)
    # libjxl makes a profile of what the file says in words, and libvips reads grey of AVIF as RGB.
    profile = after.profile is not None and output_format != "jxl"
    grey = after.grey or output_format == "avif"
    if case.orientation != 1:
        converted.append(f"orientation {case.orientation} to upright")
    if case.profile and profile:
        kept.append("ICC profile")
    if case.exif:
        kept.append("EXIF")
    if case.dpi and after.dpi:
        kept.append("DPI")
    if case.alpha and after.alpha is not None:
        kept.append("alpha")
    elif case.alpha:
        converted.append("alpha flattened on white")
    if case.bits > 8 and after.bits == 16 and output_format != "avif":
        kept.append("16 bits")
    elif case.bits > 8:
        converted.append(f"16 bits rounded to {10 if after.bits == 16 else 8}")
    if case.grey and not grey:
        converted.append("grey to RGB")
    if case.profile and not profile:
        converted.append("ICC profile to sRGB")
    dropped = [*case.dropped, *(["DPI"] if case.dpi and not after.dpi else [])]
    parts = {"kept": kept, "converted": converted, "dropped": dropped}
    return "; ".join(f"{part}: {', '.join(names)}" for part, names in parts.items() if names)


def test_the_files_are_what_they_are_said_to_be(cases):
    """As libvips reads them, or reads what stands for them."""
    for case, before in cases:
        own = case.profile or "CMYK" in case.kind or case.format == "jxl"
        assert before.profile is None or own, case.name
        assert (before.alpha is not None) == case.alpha, case.name
        if case.upright is None:
            continue
        upright = 255 * case.upright
        assert upright.shape[:2] == before.rgb.shape[:2], case.name
        weight = upright[..., 3:] / 255 if case.alpha else 1
        difference = np.abs(before.rgb - upright[..., :3]) * weight
        assert case.profile or difference.mean() < 2.5, case.name


def test_every_input_becomes_every_output_and_all_that_changes_is_told(
    reader, cases, record_property
):
    combinations = [(case, before, to) for case, before in cases for to in OUTPUT_FORMATS]
    pictures = {id(case): decode(case.data) for case, _ in cases}
    written = (encode(pictures[id(case)], to, 100) for case, _, to in combinations)
    failures = [
        f"{case.name} to {to}: {fault}"
        for (case, before, to), after in zip(combinations, reader.shown(written), strict=True)
        for fault in faults(case, before, to, after, conversion_notes(pictures[id(case)], to))
    ]
    record_property("combinations", len(combinations))
    record_property("failures", len(failures))
    print(f"{len(combinations):,} combinations, {len(failures)} failures")
    assert not failures, "\n".join(failures[:40])
    assert len(combinations) >= FEWEST


def test_the_service_answers_the_same(reader, cases, fake_service: httpx.Client):
    """Every 37th combination, which has all formats, at scale 1 by bicubic."""
    every = [(case, before, to) for case, before in cases for to in OUTPUT_FORMATS]
    sample = every[::37]
    assert {case.format for case, _, _ in sample} == {case.format for case, _ in cases}
    answers = []
    for case, _, to in sample:
        parameters = {"scale": 1, "model": "bicubic", "format": to, "quality": 100}
        answer = fake_service.post("/enhance", params=parameters, content=case.data)
        assert answer.status_code == 200, (case.name, answer.text)
        assert answer.headers["content-type"] == MEDIA_TYPES[to]
        answers.append(answer)
    seen = reader.shown(answer.content for answer in answers)
    for (case, before, to), answer, after in zip(sample, answers, seen, strict=True):
        found = list(faults(case, before, to, after, answer.headers.get("x-notes", "")))
        assert not found, f"{case.name} to {to}: {found}"
