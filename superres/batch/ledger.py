"""The ledger of a batch: which results were made, of which content and with which options."""

import hashlib
import json
import threading
from dataclasses import dataclass

from superres.batch.plan import LEDGER, Job, entry
from superres.parameters import Parameters
from superres.paths import AnyPath, check_appendable, check_writable, path_below, write_whole


@dataclass(frozen=True)
class Options:
    """How every picture is enhanced.

    A result depends on these, on the output format and on the picture's content, and on nothing
    else.
    """

    model: str
    """Name and hash of the model; of all that may be used, and of the rules between them."""
    parameters: Parameters
    provenance: bool = True
    """Whether results tell which model made them."""


class Ledger:
    """The results that were made: a file of JSON lines in the output folder.

    A line is written before its result is put in place, with the result's hash. So if the process
    is killed between the two, there is a line without a result, and never a result without a line.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._file = folder / LEDGER
        self._folder = folder
        self._lock = threading.Lock()
        self._lines: dict[str, dict[str, str]] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    known = json.loads(line)
                    self._lines[known["target"]] = known
                except (ValueError, KeyError, TypeError):
                    continue  # the process was killed in the middle of the line

    def has(self, job: Job, content: bytes, options: Options) -> bool:
        """Whether the job's result is there, whole, and a new run would give the same."""
        line = self._find(self._key(job))
        return (
            line is not None
            and line["made_of"] == _digest_of_inputs(content, job, options)
            and job.target.exists()
            and line["result"] == _digest(job.target.read_bytes())
        )

    def has_made(self, job: Job) -> bool:
        """Whether what is at the job's target is a result, of whatever content and options."""
        line = self._find(self._key(job))
        return line is not None and line["result"] == _digest(job.target.read_bytes())

    def check_writable(self, job: Job) -> None:
        """Return if nothing is known that prevents a line about the job from being written.

        Raises:
            BadRequest: the file or the output folder cannot be written.
        """
        check_appendable(self._file)

    def announce(self, job: Job, content: bytes, options: Options, result: bytes) -> None:
        """Write down that this result is about to be put in place."""
        line = {
            "target": self._key(job),
            "made_of": _digest_of_inputs(content, job, options),
            "result": _digest(result),
        }
        self._add(line)

    def _find(self, key: str) -> dict[str, str] | None:
        return self._lines.get(key)

    def _add(self, line: dict[str, str]) -> None:
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                # The last line has no end if the process was killed in the middle of it.
                file.write(f"\n{json.dumps(line)}\n")
            self._lines[line["target"]] = line

    def _key(self, job: Job) -> str:
        return path_below(job.target, self._folder).as_posix()


class SharedLedger(Ledger):
    """A ledger for many machines: one file for each entry, since a bucket's files cannot grow.

    The entries of a :class:`Ledger` of the same folder count, too.
    """

    def check_writable(self, job: Job) -> None:
        """As :meth:`Ledger.check_writable`, for the job's own file."""
        check_writable(entry(self._folder, self._key(job)))

    def _find(self, key: str) -> dict[str, str] | None:
        try:
            known: dict[str, str] = json.loads(entry(self._folder, key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return super()._find(key)
        return known

    def _add(self, line: dict[str, str]) -> None:
        write_whole(entry(self._folder, line["target"]), json.dumps(line).encode())


def _digest_of_inputs(content: bytes, job: Job, options: Options) -> str:
    """A hash of all that a result depends on."""
    asked = options.parameters.model_dump() | {"format": job.output_format}
    settings = json.dumps(
        asked | {"model": options.model, "provenance": options.provenance}, sort_keys=True
    )
    return _digest(settings.encode() + content)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
