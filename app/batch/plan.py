"""Many pictures through one model: what ``superres enhance`` does.

Each picture is one job, done by one thread from its bytes to its file; several threads do
so at once, so that pictures are decoded and encoded while the device works on another. Paths are
the file system's, or a bucket's by fsspec; :mod:`app.cluster.batch` does the jobs on a cluster.
"""

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from app.paths import AnyPath, write_whole
from superres.arrays import Size, TileBatch
from superres.codecs import (
    INPUT_SUFFIXES,
    MAX_OUTPUT_PIXELS,
    SUFFIXES,
    Header,
    OutputFormat,
    decode,
    default_output_format,
    encode,
    read_header,
)
from superres.engine import Engine
from superres.enhancer import Enhancer, output_size
from superres.errors import BadImage, BadRequest, SuperresError

LEDGER = ".superres.jsonl"
ENTRIES = ".superres"
HEAD = 2**18
"""Bytes of a bucket's picture that are read for its header."""
READERS = 16
"""Headers that are read at once: a bucket takes its time for each."""
THREADS = 3
"""One for the device, one for what comes before it, one for what comes after."""

Verdict = Literal["made", "to be made", "done already", "failed"]
Progress = Callable[["Job", float], None]
"""Called with a job and how much of it, 0 to 1, has been done since the last call."""


@dataclass(frozen=True)
class Job:
    """One picture, and where its result goes."""

    source: AnyPath
    target: AnyPath
    output_format: OutputFormat
    pixels: int
    """Of the source, by its header; 1 where that cannot be read."""
    problem: str | None = None
    """Why it cannot be done, if that is known beforehand."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    verdict: Verdict
    size: Size = (0, 0)
    """Of the result, if one is made."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class Recipe:
    """What is made of every picture. With a picture's content, all that its result depends on."""

    model: str
    """Name and hash."""
    scale: float
    quality: int


def plan(
    inputs: Sequence[AnyPath],
    output: AnyPath,
    output_format: OutputFormat | None,
    *,
    recursive: bool,
) -> list[Job]:
    """Say which pictures there are and where each result goes; nothing is decoded.

    A picture keeps its name, and its place below the folder that was named. Its suffix
    changes where the format does. Of two with one target, the second has a problem.

    Args:
        inputs: pictures, and folders of pictures.
        output: a folder; for a single picture, also a file.
        output_format: of the results; each picture's own unless given.
        recursive: look into folders in folders. What is hidden, or below ``output`` where that
            is one of them, is left out.

    Raises:
        FileNotFoundError: a folder without pictures.
    """
    to_file = is_file(inputs, output)
    jobs: list[Job] = []
    taken: dict[AnyPath, AnyPath] = {}
    pictures = list(_pictures(inputs, output, recursive))
    with ThreadPoolExecutor(READERS) as readers:
        headers = list(readers.map(_header, [source for source, _ in pictures]))
    for (source, place), (own_format, pixels) in zip(pictures, headers, strict=True):
        chosen = output_format or own_format
        target = output if to_file else output / place.with_name(_name(place, chosen))
        problem = None
        if target in taken:
            problem = f"{target} is already the result of {taken[target]}"
        taken.setdefault(target, source)
        jobs.append(Job(source, target, chosen, pixels, problem))
    return jobs


def is_file(inputs: Sequence[AnyPath], output: AnyPath) -> bool:
    """Whether ``output`` names the result itself, and not a folder for it."""
    return (
        len(inputs) == 1
        and not inputs[0].is_dir()
        and not output.is_dir()
        and output.suffix.lower() in INPUT_SUFFIXES
    )


class Ledger:
    """What was made, of which content and how: a file of JSON lines in the output folder.

    A line is written before its result is put in place, with the result's hash. So a kill
    between the two leaves a line whose result is not there, and never a result without one.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._file = folder / LEDGER
        self._folder = folder
        self._lock = threading.Lock()
        self._lines: dict[str, dict[str, str]] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._lines[entry["target"]] = entry
                except (ValueError, KeyError):
                    continue  # cut short by a kill: its result was never put in place

    def has(self, job: Job, content: bytes, recipe: Recipe) -> bool:
        """Whether the job's result is there, whole, and would come out the same again."""
        line = self._find(self._key(job))
        return (
            line is not None
            and line["made_of"] == _made_of(content, job, recipe)
            and job.target.exists()
            and line["result"] == _digest(job.target.read_bytes())
        )

    def announce(self, job: Job, content: bytes, recipe: Recipe, result: bytes) -> None:
        """Say that this result is about to be put in place."""
        line = {
            "target": self._key(job),
            "made_of": _made_of(content, job, recipe),
            "result": _digest(result),
        }
        self._add(line)

    def _find(self, key: str) -> dict[str, str] | None:
        return self._lines.get(key)

    def _add(self, line: dict[str, str]) -> None:
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                # A line that a kill cut short has no end yet.
                file.write(f"\n{json.dumps(line)}\n")

    def _key(self, job: Job) -> str:
        return _below(job.target, self._folder).as_posix()


class SharedLedger(Ledger):
    """The same for many machines: a file an entry, since a bucket's files are not appended to.

    What a :class:`Ledger` of the same folder has counts, too.
    """

    def _find(self, key: str) -> dict[str, str] | None:
        try:
            entry: dict[str, str] = json.loads(self._entry(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return super()._find(key)
        return entry

    def _add(self, line: dict[str, str]) -> None:
        write_whole(self._entry(line["target"]), json.dumps(line).encode())

    def _entry(self, key: str) -> AnyPath:
        return self._folder / ENTRIES / f"{key}.json"


class Batch:
    """Does jobs, several at a time.

    Args:
        enhancer: the model; none for a rehearsal, which decodes and checks but makes nothing.
        recipe: what is made of every picture.
        ledger: what was made before; none where the output is not a folder.
        resume: leave out what the ledger has.
        force: overwrite what is there, but never an input.
    """

    def __init__(
        self,
        enhancer: Enhancer | None,
        recipe: Recipe,
        ledger: Ledger | None,
        *,
        resume: bool,
        force: bool,
    ) -> None:
        self._enhancer = enhancer and replace(enhancer, engine=_OneAtATime(enhancer.engine))
        self._recipe = recipe
        self._ledger = ledger
        self._resume = resume
        self._force = force
        self._room = _Room(MAX_OUTPUT_PIXELS)

    def run(self, jobs: list[Job], progress: Progress) -> Iterator[Outcome]:
        """Do the jobs, and yield what became of each as soon as that is known.

        A job that fails does not stop the others. What is under way when the caller stops
        listening is finished.
        """
        executor = ThreadPoolExecutor(THREADS)
        try:
            for done in as_completed([executor.submit(self.do, job, progress) for job in jobs]):
                yield done.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def do(self, job: Job, progress: Progress) -> Outcome:
        """Do one job; what goes wrong is in the outcome."""
        told = 0.0

        def tell(tiles: int, of: int) -> None:
            nonlocal told
            progress(job, tiles / of - told)
            told = tiles / of

        try:
            with self._room.take(round(job.pixels * self._recipe.scale**2)):
                return self._make(job, tell)
        except (SuperresError, OSError) as error:
            return Outcome(job, "failed", reason=str(error))
        except Exception as error:
            if isinstance(job.source, Path) and isinstance(job.target, Path):
                raise
            # A bucket's library has kinds of its own.
            return Outcome(job, "failed", reason=str(error) or type(error).__name__)
        finally:
            tell(1, 1)

    def _make(self, job: Job, tell: Callable[[int, int], None]) -> Outcome:
        if job.problem is not None:
            raise BadRequest(job.problem)
        content = job.source.read_bytes()
        if self._resume and self._ledger and self._ledger.has(job, content, self._recipe):
            return Outcome(job, "done already")
        self._check_target(job)
        picture = decode(content)
        size = output_size(picture.size, self._recipe.scale)
        if self._enhancer is None:
            return Outcome(job, "to be made", size)
        enhanced = self._enhancer.enhance(picture, self._recipe.scale, progress=tell)
        result = encode(enhanced, job.output_format, self._recipe.quality)
        if self._ledger:
            self._ledger.announce(job, content, self._recipe, result)
        write_whole(job.target, result, dated_as=job.source)
        return Outcome(job, "made", size)

    def _check_target(self, job: Job) -> None:
        if not job.target.exists():
            return
        if _is_same(job.target, job.source):
            raise BadRequest(f"{job.target} is there already: an input is never overwritten")
        if not self._force:
            other = ", made otherwise or of something else" if self._resume else ""
            raise BadRequest(f"{job.target} is there already{other}: use --force")


class _OneAtATime:
    """An engine that threads share: the device does one thing at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()

    def predict(self, tiles: TileBatch) -> TileBatch:
        with self._lock:
            return self._engine.predict(tiles)


class _Room:
    """Output pixels that may be in memory at once; a picture beyond that has it all alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


def _pictures(
    inputs: Sequence[AnyPath], output: AnyPath, recursive: bool
) -> Iterator[tuple[AnyPath, PurePosixPath]]:
    """Each picture, and its path below the folder that was named."""
    for given in inputs:
        if not given.is_dir():
            yield given, PurePosixPath(given.name)
            continue
        in_place = _is_below(output, given) and _is_below(given, output)
        found = sorted(
            file
            for file in (given.rglob("*") if recursive else given.iterdir())
            if file.suffix.lower() in INPUT_SUFFIXES
            and not any(part.startswith(".") for part in _below(file, given).parts)
            and (in_place or not _is_below(file, output))
            and file.is_file()
        )
        if not found:
            raise FileNotFoundError(f"no pictures in {given}")
        for file in found:
            yield file, _below(file, given)


def _below(file: AnyPath, folder: AnyPath) -> PurePosixPath:
    return PurePosixPath(*file.parts[len(folder.parts) :])


def _is_below(path: AnyPath, folder: AnyPath) -> bool:
    """Whether it is that folder, or in it."""
    if isinstance(path, Path) and isinstance(folder, Path):
        return path.resolve().is_relative_to(folder.resolve())
    return f"{path}/".startswith(f"{folder}/")


def _is_same(one: AnyPath, other: AnyPath) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.samefile(other)
    return str(one) == str(other)


def _header(source: AnyPath) -> tuple[OutputFormat, int]:
    """The format that a picture's result has, and its pixels; what cannot be read fails later."""
    try:
        header = _read_header(source)
    except (BadImage, OSError):
        return "png", 1
    return default_output_format(header), header.size[0] * header.size[1]


def _read_header(source: AnyPath) -> Header:
    if isinstance(source, Path):
        return read_header(source, max_pixels=sys.maxsize)
    with source.open("rb") as file:
        head = file.read(HEAD)
        try:
            return read_header(head, max_pixels=sys.maxsize)
        except BadImage:  # a TIFF's may be at the end
            return read_header(head + file.read(), max_pixels=sys.maxsize)


def _name(place: PurePosixPath, output_format: OutputFormat) -> str:
    """The picture's name, with a suffix of the format: its own, if it is one."""
    own = {".jpeg": "jpeg", ".tiff": "tiff"} | {suffix: name for name, suffix in SUFFIXES.items()}
    if own.get(place.suffix.lower()) == output_format:
        return place.name
    return f"{place.stem}{SUFFIXES[output_format]}"


def _made_of(content: bytes, job: Job, recipe: Recipe) -> str:
    settings = json.dumps(asdict(recipe) | {"format": job.output_format}, sort_keys=True)
    return _digest(settings.encode() + content)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
