"""A batch never writes to a source, whatever the folders, names, links and flags."""

import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from superres import Enhancer
from superres.batch.ledger import LEDGER, Ledger, Options, SharedLedger
from superres.batch.plan import is_file, plan
from superres.batch.runner import BatchRunner
from superres.codecs import OUTPUT_FORMATS
from superres.errors import BadRequest
from superres.models.card import Geometry
from superres.parameters import Parameters
from tests.engines import BlurEngine
from tests.pictures import encoded
from tests.soak import slow, soak

GEOMETRY = Geometry(domain="hr", scale=2, halo=0, largest_tile=64)
OPTIONS = Options("blur@0", Parameters(scale=2))
PICTURES = [
    encoded(np.full((2, 3, 3), shade, np.uint8), kind)
    for shade, kind in zip(range(0, 240, 10), itertools.cycle(("PNG", "BMP", "JPEG", "GIF")))
]
"""All different, so that no result is equal to a source."""

FOLDERS = ("in", "in/sub", "out", "in/out", "out/sub")
folders = st.sampled_from(FOLDERS)
names = st.builds(
    "{}{}".format,
    st.sampled_from("ab"),
    st.sampled_from(
        [
            ".png",
            ".PNG",
            ".jpg",
            ".jpeg",
            ".bmp",
            ".gif",
            ".tif",
            ".webp",
            ".txt",
            ".jfif",
            ".v2",
            "",
        ]
    ),
) | st.sampled_from([LEDGER, ".hidden.png"])
files = st.builds("{}/{}".format, folders, names)
links = st.tuples(
    st.sampled_from(["symbolic", "hard"]),
    files | folders | st.sampled_from(["link", "in/link", "out/link"]),
    files | folders,
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str, str]], list[str], str]:
    """Files, links, inputs among them, and an output."""
    present = draw(st.lists(files, min_size=1, max_size=8, unique=True))
    linked = draw(st.lists(links, max_size=4))
    known = [*present, *(str(Path(file).parent) for file in present)]
    known += [link for _, link, _ in linked] + ["out/../in"]
    inputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
    output = draw(st.sampled_from([*known, *FOLDERS, "new", "out/new/deep"]))
    return present, linked, inputs, output


def build(root: Path, present: list[str], linked: list[tuple[str, str, str]]) -> None:
    """Folders, pictures and links below ``root``, as far as they are possible."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file, content in zip(present, PICTURES, strict=False):
        (root / file).write_bytes(content)
    for kind, link, to in linked:
        with suppress(OSError):
            if kind == "hard":
                os.link(root / to, root / link)
            else:
                (root / link).symlink_to(root / to)


def content_of(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


@given(
    world=worlds(),
    output_format=st.none() | st.sampled_from(OUTPUT_FORMATS),
    recursive=st.booleans(),
    resume=st.booleans(),
    force=st.sampled_from([True, True, False]),
    shared=st.booleans(),
)
def no_source_is_written(world, output_format, recursive, resume, force, shared) -> None:
    present, linked, inputs, output = world
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, present, linked)
        given_paths, target = [root / one for one in inputs], root / output
        try:
            jobs = plan(given_paths, target, output_format, recursive=recursive).jobs
        except (FileNotFoundError, BadRequest) as error:
            event(type(error).__name__)
            return
        before = {job.source: content_of(job.source) for job in jobs}  # so far nothing is written
        to_file = is_file(given_paths, target)
        ledger = None
        if not to_file:
            try:
                ledger = (SharedLedger if shared else Ledger)(target)
            except OSError as error:  # a folder, or a circle of links; the command ends with it
                event(type(error).__name__)
                return
        enhancer = Enhancer(BlurEngine(GEOMETRY), GEOMETRY)
        runner = BatchRunner(enhancer, OPTIONS, ledger, resume=resume, force=force)
        for job in jobs:
            outcome = runner.do(job, lambda job, part: None)
            event(outcome.status)
        assert {file for file in before if content_of(file) != before[file]} == set()


@pytest.mark.parametrize("batches", [100, slow(4_000), soak(10_000)])
def test_no_source_is_ever_written(monkeypatch: pytest.MonkeyPatch, batches: int):
    # What survives a power cut is not the point, and would take most of the time.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    settings(max_examples=batches, deadline=None)(no_source_is_written)()
