"""The pictures of folders, and what else is in them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from superres.codecs import INPUT_SUFFIXES, foreign, is_recognised
from superres.paths import AnyPath, is_inside, path_below

SUBFOLDER = "subfolder"
HIDDEN = "hidden"
UNKNOWN = "of an unknown kind"
EMPTY = "empty"
SPECIAL = "no regular file"
TEXT = "text"


@dataclass
class Skipped:
    """What a batch leaves out, by kind."""

    files: Counter[str] = field(default_factory=Counter)
    """Files that are no pictures."""
    others: Counter[str] = field(default_factory=Counter)
    """Subfolders and hidden files, which nobody looked into."""

    def __str__(self) -> str:
        """As ``2 skipped: no picture that is read here (2 text)``; empty if nothing was."""
        parts = []
        if self.files:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.files.most_common())
            parts.append(f"{self.files.total()} skipped: no picture that is read here ({kinds})")
        if self.others[HIDDEN]:
            parts.append(f"{self.others[HIDDEN]} hidden left out")
        if count := self.others[SUBFOLDER]:
            folders = "subfolder" if count == 1 else "subfolders"
            parts.append(f"{count} {folders} not looked into: --recursive does")
        return "; ".join(parts)


@dataclass
class Found:
    """What is in the inputs of a batch."""

    pictures: list[tuple[AnyPath, PurePosixPath]] = field(default_factory=list)
    """Each picture, and its path below the folder that was given."""
    unreadable: list[tuple[AnyPath, PurePosixPath, str]] = field(default_factory=list)
    """Each folder that cannot be read, its path, and the reason."""
    skipped: Skipped = field(default_factory=Skipped)


def find_pictures(
    inputs: Sequence[AnyPath], output: AnyPath, recursive: bool, readers: Executor
) -> Found:
    """Find the pictures of a batch. A file that is given by itself counts as one.

    In a folder, a file is a picture if its suffix or its content says so, or if it cannot be read.
    Hidden files are left out, and so is what is below ``output`` where that is inside an input.

    Args:
        inputs: pictures, and folders of pictures.
        output: the folder of the results.
        recursive: look into folders in folders.
        readers: look into files in parallel.

    Raises:
        FileNotFoundError: a folder that can be read has no pictures.
    """
    found = Found()
    for given in inputs:
        if not given.is_dir():
            found.pictures.append((given, PurePosixPath(given.name)))
            continue
        in_place = is_inside(output, given) and is_inside(given, output)
        unreadable = len(found.unreadable)
        files = sorted(_files(given, recursive, found))
        kinds = zip(files, readers.map(_kind, files), strict=True)
        pictures = []
        for file, kind in kinds:
            outside = in_place or not is_inside(file, output)
            if kind is None:
                pictures.append((file, outside))
            elif outside:  # what the batch itself has put there is no input
                found.skipped.files[kind] += 1
        inputs_of_folder = [file for file, outside in pictures if outside]
        if pictures and not inputs_of_folder:
            raise FileNotFoundError(
                f"all pictures in {given} are in the output folder {output}, and so count as "
                "results: choose another output folder"
            )
        if not pictures and len(found.unreadable) == unreadable:
            why = f": {found.skipped}" if str(found.skipped) else ""
            raise FileNotFoundError(f"no pictures in {given}{why}")
        found.pictures += [(file, path_below(file, given)) for file in inputs_of_folder]
    return found


def _files(folder: AnyPath, recursive: bool, found: Found) -> Iterator[AnyPath]:
    """The files of a folder that are not hidden; what is left out is counted."""
    if not isinstance(folder, Path):
        yield from _files_of_bucket(folder, recursive, found)
        return

    def cannot_be_read(error: OSError) -> None:
        where = Path(error.filename)
        reason = error.strerror or str(error)
        found.unreadable.append((where, path_below(where, folder), reason))

    for root, folders, files in os.walk(folder, onerror=cannot_be_read):
        seen = [name for name in folders if not name.startswith(".")]
        found.skipped.others[HIDDEN] += sum(
            name.startswith(".") and not _is_ours(name) for name in (*folders, *files)
        )
        if not recursive:
            found.skipped.others[SUBFOLDER] += len(seen)
        folders[:] = sorted(seen) if recursive else []
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _files_of_bucket(folder: AnyPath, recursive: bool, found: Found) -> Iterator[AnyPath]:
    for file in folder.rglob("*") if recursive else folder.iterdir():
        parts = path_below(file, folder).parts
        hidden = [part for part in parts if part.startswith(".")]
        if hidden:
            found.skipped.others[HIDDEN] += not any(map(_is_ours, hidden))
        elif file.is_file():
            yield file
        elif not recursive:
            found.skipped.others[SUBFOLDER] += 1


def _is_ours(name: str) -> bool:
    """Whether a batch made that hidden file or folder: its notes, or a result half written."""
    return name.startswith(".superres") or name.endswith(".partial")


def _kind(file: AnyPath) -> str | None:
    """What a file is if it is no picture; None for a picture, and for what cannot be read."""
    try:
        if not file.is_file():
            return SPECIAL
        if file.suffix.lower() in INPUT_SUFFIXES:
            return None
        with file.open("rb") as opened:
            head = opened.read(foreign.HEAD)
    except OSError:
        return None  # its job fails, and says why
    return kind_of(head)


def kind_of(head: bytes) -> str | None:
    """What a file is by its first bytes; None for a picture, also one that is refused later.

    >>> kind_of(b"%PDF-1.7"), kind_of(b"Dear Ann,"), kind_of(b"GIF89a")
    ('PDF', 'text', None)
    """
    if not head:
        return EMPTY
    if is_recognised(head) and head[:4] != b"RIFF":
        return None
    if name := foreign.kind(head):
        return name
    if is_recognised(head):
        return None
    try:
        text = head[:-3].decode() if len(head) == foreign.HEAD else head.decode()
    except UnicodeDecodeError:
        return UNKNOWN
    return TEXT if text.isprintable() or not set(text) & _CONTROLS else UNKNOWN


_CONTROLS = {chr(code) for code in range(32)} - set("\t\n\r\f\x1b")
