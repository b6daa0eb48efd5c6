"""The plan of a batch: which pictures there are, where each result goes, and what is left out.

Paths are the file system's, or a bucket's by fsspec.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from superres.arrays import Size
from superres.batch.folders import Skipped, find_pictures
from superres.codecs import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIXES,
    SUFFIXES,
    Header,
    OutputFormat,
    default_output_format,
    probe,
)
from superres.errors import BadImage, BadRequest
from superres.paths import AnyPath, identity, path_below

HEADER_BYTES = 2**18
"""Bytes of a bucket's picture that are read for its header."""
LEDGER = ".superres.jsonl"
"""File of the output folder in which a batch notes its results."""
ENTRIES = ".superres"
"""The folder of such notes where many machines write them, a file for each result."""
PICTURE_SUFFIXES = INPUT_SUFFIXES.union(
    (".jfif", ".jfi", ".jif", ".jpe", ".pjp", ".pjpeg"),
    (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jxr", ".hdp"),
    (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
    (".ico", ".svg", ".psd", ".exr", ".hdr", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dib"),
)
"""Suffixes of pictures, also of those that are not read or written here. An output that ends in one
is a file, and a result takes its place; any other end of a name is a part of it."""
READERS = 16
"""Files that are looked at in parallel: a bucket takes some time for each."""


@dataclass(frozen=True)
class Job:
    """One picture, and where its result goes."""

    source: AnyPath
    target: AnyPath
    output_format: OutputFormat
    size: Size
    """Size of the source, by its header; one pixel where the header cannot be read."""
    problem: str | None = None
    """Reason why the job cannot be done, if it is known beforehand."""

    @property
    def pixels(self) -> int:
        """Pixels of the source."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Plan:
    """What a batch does, and what it leaves out."""

    jobs: list[Job]
    skipped: Skipped


def plan(
    inputs: Sequence[AnyPath],
    output: AnyPath,
    output_format: OutputFormat | None,
    *,
    recursive: bool,
) -> Plan:
    """List the pictures, and the path of each result; nothing is decoded.

    The content tells what is a picture, unless the suffix does. A folder that cannot be read
    is a job with a problem. A picture keeps its name, and its path below the folder that was given.
    Its suffix changes where the format does. If two pictures have the same target, the second has
    a problem. A picture whose target is another input has one, too.

    Args:
        inputs: pictures, and folders of pictures.
        output: a folder; for a single picture, also a file.
        output_format: of the results; each picture's own unless given.
        recursive: look into folders in folders. Hidden files are left out, and so is what is below
            ``output`` where ``output`` is inside an input.

    Raises:
        FileNotFoundError: a folder without pictures, though it can be read.
        BadRequest: an input is where the batch would write its notes.
    """
    to_file = is_file(inputs, output)
    with ThreadPoolExecutor(READERS) as readers:
        found = find_pictures(inputs, output, recursive, readers)
        headers = list(readers.map(_format_and_size, [source for source, _ in found.pictures]))
    jobs = [
        Job(folder, output / place, "png", (1, 1), f"this folder cannot be read: {reason}")
        for folder, place, reason in found.unreadable
    ]
    sources: dict[AnyPath, AnyPath] = {}
    """By target."""
    inputs_by_file = {identity(source): source for source, _ in found.pictures}
    for (source, place), (own_format, size) in zip(found.pictures, headers, strict=True):
        chosen = output_format or own_format
        target = output if to_file else output / place.with_name(_name(place, chosen))
        problem = None
        if target in sources:
            problem = f"{target} is already the result of {sources[target]}"
        elif inputs_by_file.get(identity(target), source) != source:
            problem = (
                f"{target} is an input of this batch, and an input is never overwritten: "
                "choose another folder or format"
            )
        sources.setdefault(target, source)
        jobs.append(Job(source, target, chosen, size, problem))
    if not to_file:
        _check_notes(output, jobs, inputs_by_file)
    return Plan(jobs, found.skipped)


def is_file(inputs: Sequence[AnyPath], output: AnyPath) -> bool:
    """Whether ``output`` names the result itself, and not a folder for it."""
    return (
        len(inputs) == 1
        and not inputs[0].is_dir()
        and not output.is_dir()
        and output.suffix.lower() in PICTURE_SUFFIXES
    )


def entry(output: AnyPath, key: str) -> AnyPath:
    """The note on one result, by the result's path below the output folder."""
    return output / ENTRIES / f"{key}.json"


def _check_notes(
    output: AnyPath, jobs: Sequence[Job], inputs_by_file: Mapping[object, AnyPath]
) -> None:
    entries = (entry(output, path_below(job.target, output).as_posix()) for job in jobs)
    for note in (output / LEDGER, *entries):
        if source := inputs_by_file.get(identity(note)):
            raise BadRequest(
                f"{source} is an input of this batch, and {note} is where it notes its results: "
                "choose another output folder"
            )


def _format_and_size(source: AnyPath) -> tuple[OutputFormat, Size]:
    """The format of a picture's result, and its size; a picture that cannot be read fails later.

    Of such a picture, any format and one pixel.
    """
    try:
        header = _read_header(source)
    except (BadImage, OSError):
        return "png", (1, 1)
    return default_output_format(header), header.size


def _read_header(source: AnyPath) -> Header:
    if isinstance(source, Path):
        return probe(source, max_pixels=sys.maxsize)
    with source.open("rb") as file:
        head = file.read(HEADER_BYTES)
        try:
            return probe(head, max_pixels=sys.maxsize)
        except BadImage:  # a TIFF's header may be at the end
            return probe(head + file.read(), max_pixels=sys.maxsize)


def _name(place: PurePosixPath, output_format: OutputFormat) -> str:
    """The picture's name, with a suffix of the format: its own suffix, if it is one."""
    if OUTPUT_SUFFIXES.get(place.suffix.lower()) == output_format:
        return place.name
    stem = place.stem if place.suffix.lower() in PICTURE_SUFFIXES else place.name
    return f"{stem}{SUFFIXES[output_format]}"
