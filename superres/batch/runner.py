"""Runs a batch: many pictures through one model or several, as ``superres enhance`` does.

Each picture is one job. One thread does all of it, from the file's bytes to the result's file.
Several threads work in parallel, so that pictures are decoded and encoded while the device works
on another one. :mod:`app.cluster.batch` does the same jobs on a cluster.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from superres.arrays import Size, TileBatch
from superres.automatic import SizedEnhancer
from superres.batch.ledger import Ledger, Options
from superres.batch.plan import Job
from superres.codecs import (
    MAX_INPUT_PIXELS,
    MAX_OUTPUT_PIXELS,
    OutputFormat,
    Picture,
    check_output,
    conversion_notes,
    decode,
    encode,
    to_srgb,
    without_metadata,
)
from superres.engines.base import Engine
from superres.enhancer import Enhancer, native_size, plan
from superres.errors import BadRequest, ImageTooLarge, SuperresError
from superres.evaluation.proof import FALLBACK, check_estimable, estimate_file
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.paths import check_writable, is_same, write_whole
from superres.provenance import with_provenance, without_damaged_xmp
from superres.sizing import Sizing, resolve

THREADS = 3
"""One for the device, one for what comes before it, one for what comes after."""

Status = Literal["made", "to be made", "done already", "failed"]
Progress = Callable[[Job, float], None]
"""Called with a job and the fraction of it, 0 to 1, that has been done since the last call."""


@dataclass(frozen=True)
class Outcome:
    """The end of a job."""

    job: Job
    status: Status
    size: Size = (0, 0)
    """Size of the result, if one is made."""
    reason: str = ""
    """Reason of a failure."""
    note: str = ""
    """The model that was chosen, and why; what a proof found; what was converted and dropped."""


@dataclass(frozen=True)
class Result:
    """An enhanced picture, encoded; without content in a dry run."""

    content: bytes
    size: Size
    note: str


class BatchRunner:
    """Does jobs, several in parallel.

    Args:
        enhancer: a model, or what chooses one for each picture.
        options: how every picture is enhanced.
        ledger: the results of earlier runs; None where the output is not a folder.
        resume: leave out the jobs that the ledger has.
        force: overwrite files that exist, but never an input.
        dry_run: decode, choose and check, but make nothing; ``enhancer`` may then be None. What is
            wrong before a network works on a picture is found, too.
        replace_own: overwrite results of the ledger, too, but nothing else.
        max_pixels: most pixels of an input.
    """

    def __init__(
        self,
        enhancer: Enhancer | SizedEnhancer | None,
        options: Options,
        ledger: Ledger | None,
        *,
        resume: bool,
        force: bool,
        dry_run: bool = False,
        replace_own: bool = False,
        max_pixels: int = MAX_INPUT_PIXELS,
    ) -> None:
        self._max_pixels = max_pixels
        self._enhancer = enhancer
        self._dry_run = dry_run or enhancer is None
        self._device = threading.Lock()
        self._options = options
        self._ledger = ledger
        self._resume = resume
        self._force = force
        self._replace_own = replace_own
        self._budget = _PixelBudget(MAX_OUTPUT_PIXELS)

    def run(self, jobs: list[Job], progress: Progress) -> Iterator[Outcome]:
        """Do the jobs, and yield the outcome of each as soon as it is known.

        A job that fails does not stop the others. If the caller stops the iteration, the jobs that
        run are finished, and the others are not begun.
        """
        executor = ThreadPoolExecutor(THREADS)
        try:
            for done in as_completed([executor.submit(self.do, job, progress) for job in jobs]):
                yield done.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def do(self, job: Job, progress: Progress) -> Outcome:
        """Do one job; an error is in the outcome."""
        reported = 0.0

        def report(tiles: int, of: int) -> None:
            nonlocal reported
            progress(job, tiles / of - reported)
            reported = tiles / of

        try:
            with self._budget.reserve(self._output_pixels(job)):
                return self._enhance(job, report)
        except (SuperresError, OSError) as error:
            return Outcome(job, "failed", reason=str(error))
        except Exception as error:
            if isinstance(job.source, Path) and isinstance(job.target, Path):
                raise
            # A bucket's library has its own types of errors.
            return Outcome(job, "failed", reason=str(error) or type(error).__name__)
        finally:
            report(1, 1)

    def _enhance(self, job: Job, report: Callable[[int, int], None]) -> Outcome:
        if job.problem is not None:
            raise BadRequest(job.problem)
        content = job.source.read_bytes()
        if self._resume and self._ledger and self._ledger.has(job, content, self._options):
            return Outcome(job, "done already")
        self._check_target(job)
        result = self.enhance(content, job.output_format, report)
        if self._dry_run:
            return Outcome(job, "to be made", result.size, note=result.note)
        if self._ledger:
            self._ledger.announce(job, content, self._options, result.content)
        write_whole(job.target, result.content, dated_as=job.source)
        return Outcome(job, "made", result.size, note=result.note)

    def enhance(
        self, content: bytes, output_format: OutputFormat, report: Callable[[int, int], None]
    ) -> Result:
        """Enhance one picture.

        Args:
            content: its file.
            output_format: of the result.
            report: called with the tiles done and the tiles in all.

        Raises:
            BadImage: it cannot be read.
            BadRequest, ImageTooLarge: the size asked for is not possible for it, in this format or
                by this model.
        """
        asked = self._options.parameters
        picture = self._decode(content)
        if self._options.provenance:
            picture = without_damaged_xmp(picture)
        sizing = resolve(picture.size, asked.target)
        check_output(sizing.size, output_format)
        if asked.wants_proof:
            check_estimable(sizing.scale)
        card, enhancer, notes = self._choose(content, picture, sizing)
        if card is not None:  # a network of whole pictures refuses large ones
            plan(native_size(picture.size, sizing.size, card.geometry, sizing.box), card.geometry)
        if enhancer is None:
            return Result(b"", sizing.size, "; ".join(notes))
        if asked.wants_proof:
            card, enhancer, proved = self._prove(card, enhancer, content, picture, sizing)
            notes += proved
        enhanced = enhancer.enhance(picture, asked.target, progress=report)
        if card not in (None, BICUBIC) and self._options.provenance and asked.metadata == "keep":
            made_by = f"{card.label(ensemble=asked.ensemble)}@{card.short_hash}"
            enhanced, note = with_provenance(enhanced, made_by, output_format)
            notes.append(note)
        encoded = encode(enhanced, output_format, asked.quality)
        notes.append(conversion_notes(picture, output_format))
        return Result(encoded, sizing.size, "; ".join(filter(None, notes)))

    def _choose(
        self, content: bytes, picture: Picture, sizing: Sizing
    ) -> tuple[ModelCard | None, Enhancer | None, list[str]]:
        """A picture's model and why; without an enhancer in a dry run, or a card in a test."""
        card: ModelCard | None = None
        enhancer, notes = self._enhancer, []
        if isinstance(enhancer, SizedEnhancer):
            card, reason = enhancer.choose(content, picture, sizing)
            if reason:
                notes.append(f"{card.name}, {reason}")
            enhancer = None if self._dry_run else enhancer.enhancer(card)
        if enhancer is None or self._dry_run:
            return card, None, notes
        return card, self._sharing(enhancer), notes

    def _prove(
        self,
        card: ModelCard | None,
        enhancer: Enhancer,
        content: bytes,
        picture: Picture,
        sizing: Sizing,
    ) -> tuple[ModelCard | None, Enhancer, list[str]]:
        """The model, or bicubic if a proof favours that and it is asked for; and what it found."""
        try:
            proof = estimate_file(enhancer, picture, sizing.scale, content)
        except BadRequest as error:  # a picture that is too small to score
            return card, enhancer, [f"no proof: {error}"]
        notes = [f"{proof.gain_db:+.2f} dB over bicubic, by the proof"]
        models = self._enhancer
        if self._options.parameters.fallback != "auto" or proof.gain_db >= 0:
            return card, enhancer, notes
        if not isinstance(models, SizedEnhancer):
            return card, enhancer, notes
        return BICUBIC, self._sharing(models.enhancer(BICUBIC)), [*notes, FALLBACK]

    def _sharing(self, enhancer: Enhancer) -> Enhancer:
        """The enhancer with an engine that threads share."""
        return replace(enhancer, engine=_SerialEngine(enhancer.engine, self._device))

    def _output_pixels(self, job: Job) -> int:
        """About how many pixels the result has; of a job that cannot be done, any number."""
        try:
            height, width = resolve(job.size, self._options.parameters.target).size
        except SuperresError:
            return job.pixels
        return height * width

    def _decode(self, content: bytes) -> Picture:
        asked = self._options.parameters
        try:
            picture = decode(content, max_pixels=self._max_pixels)
        except ImageTooLarge as error:
            raise ImageTooLarge(f"{error}: use --max-pixels") from error
        if asked.metadata == "strip":
            picture = without_metadata(picture)
        return to_srgb(picture) if asked.icc == "srgb" else picture

    def _check_target(self, job: Job) -> None:
        check_writable(job.target)
        if self._ledger:
            self._ledger.check_writable(job)
        if not job.target.exists():
            return
        if is_same(job.target, job.source):
            raise BadRequest(f"{job.target} is there already: an input is never overwritten")
        if self._replace_own and self._ledger and self._ledger.has_made(job):
            return
        if not self._force:
            other = ", made otherwise or of something else" if self._resume else ""
            raise BadRequest(f"{job.target} is there already{other}: use --force")


class _SerialEngine:
    """An engine that threads share: under a lock, the device does one call at a time."""

    def __init__(self, engine: Engine, lock: threading.Lock) -> None:
        self._engine = engine
        self._lock = lock

    def predict(self, tiles: TileBatch) -> TileBatch:
        with self._lock:
            return self._engine.predict(tiles)


class _PixelBudget:
    """Output pixels that may be in memory at the same time.

    A picture that is larger than the budget waits until it is the only one.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._reserved = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._reserved == 0 or self._reserved + pixels <= self._pixels
            )
            self._reserved += pixels
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= pixels
                self._changed.notify_all()
