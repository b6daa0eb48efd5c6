"""Preparation of training data from DIV2K, a folder of photographs, or a manifest.

A manifest lists pictures with their sources and licences; its pictures become a prepared set (see
:mod:`training.prepared`). DIV2K and folders become pairs: ``train/``, ``val/`` and ``test/`` with
``NNNN_hr.png`` and ``NNNN_lr.png``, and ``manifest.csv``, which names the source of each. The LR
picture is made from the HR picture cropped to a multiple of the scale.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from PIL import Image
from rich.progress import Progress

from superres.arrays import RgbU8, to_integer
from superres.codecs import INPUT_SUFFIXES, Picture, decode, encode
from superres.evaluation.metrics import to_y
from superres.resample import degrade
from training.dataset import crop_to_multiple, picture_files, read_rgb
from training.prepared import (
    DESCRIPTION,
    FORMAT_VERSION,
    PIXELS,
    PreparedPicture,
    PreparedSet,
    SetDescription,
)

Crop = Literal["corner", "center", "detail"]
SIDE = 512
"""Side of the HR crops, px."""
SPLIT_SEED = 42
HELD_OUT = 0.15
"""Share of the pictures for validation; the same share is for testing."""
_BEGUN = "begun.json"
"""File that describes the sources of an unfinished prepared set."""
_DONE = "done.jsonl"
"""File with a line for each picture whose pixels are written, until the set is finished."""


class PrepareFailed(RuntimeError):
    """The pictures cannot be prepared; the message says why."""


@dataclass(frozen=True)
class Archive:
    """A file to download, with its size and MD5 hash."""

    url: str
    size: int
    md5: str
    licence: str = ""


DIV2K = Archive(
    url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
    size=3_530_603_713,
    md5="bdc2d9338d4e574fe81bf7d158758658",
    licence="academic research only",
)
"""800 photographs of about 2 megapixels and more (Agustsson and Timofte, 2017)."""


@dataclass(frozen=True)
class Settings:
    """Settings that a prepared folder depends on, apart from its pictures."""

    source: str
    crop: Crop
    scale: int
    licence: str = ""


def prepare_manifest(
    manifest: Path, out: Path, *, where: str | None = None, progress: Progress
) -> PreparedSet:
    """Decode the pictures of a manifest into a prepared set.

    After an interruption it continues with the next picture. A finished set is not changed. While
    another process prepares the same folder, it waits.

    Args:
        manifest: a CSV file beside its pictures, with columns ``file`` or ``name``, ``source`` or
            ``repo``, and ``licence``. If it has no column ``split``, the first folder of ``file``
            is the split.
        out: the folder of the set.
        where: the rows to use, such as ``split=train``; all by default.
        progress: the progress display.

    Raises:
        FileNotFoundError: the manifest or a picture is missing.
        superres.errors.BadImage: a file is not a picture; the message names it.
        PrepareFailed: there are no rows, a picture has no licence, or ``out`` was made from
            something else.
    """
    data = manifest.read_bytes()
    wanted = {
        "format_version": FORMAT_VERSION,
        "name": manifest.resolve().parent.name,
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "where": where,
    }
    if (done := _finished_set(out, wanted)) is not None:
        return done
    rows = manifest_rows(data.decode(), manifest, where)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        if (done := _finished_set(out, wanted)) is not None:
            return done
        begun = out / _BEGUN
        if begun.exists():
            _check_same(out, json.loads(begun.read_text()), wanted)
        else:
            _write_atomically(begun, json.dumps(wanted).encode())
        pictures = _write_pixels(manifest.parent, rows, out, progress)
        with (out / PIXELS).open("rb") as file:
            pixels_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        description = SetDescription(
            **wanted,
            pixels_sha256=pixels_sha256,
            sources=dict(Counter(picture.source for picture in pictures).most_common()),
            licences=dict(Counter(picture.licence for picture in pictures).most_common()),
            pictures=tuple(pictures),
        )
        _write_atomically(out / DESCRIPTION, description.model_dump_json(indent=1).encode())
        (out / _DONE).unlink()
        begun.unlink()
    return PreparedSet.open(out)


def _finished_set(out: Path, wanted: dict[str, Any]) -> PreparedSet | None:
    """The set in this folder, if it is finished.

    Raises:
        PrepareFailed: it was made from something else.
    """
    if not (out / DESCRIPTION).exists():
        return None
    done = PreparedSet.open(out)
    _check_same(out, done.description.model_dump(include=set(wanted)), wanted)
    return done


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that prepare this folder, and let them wait until the end."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def prepare_archive(
    archive: Archive, out: Path, *, crop: Crop, scale: int, progress: Progress
) -> dict[str, int]:
    """Download an archive of pictures and prepare a folder of them.

    The archive is kept in ``out/downloads`` and may be removed afterwards.

    Returns:
        Pictures in each split.

    Raises:
        PrepareFailed: the download fails, or ``out`` has other settings.
    """
    settings = Settings(archive.url, crop, scale, archive.licence)
    if (done := _finished(out, settings)) is not None:
        return done
    file = out / "downloads" / archive.url.rsplit("/", 1)[1]
    download(archive, file, progress=progress)
    with zipfile.ZipFile(file) as opened:
        names = sorted(name for name in opened.namelist() if name.lower().endswith(".png"))
        sources = {Path(name).name: _lazy_member(opened, name) for name in names}
        return _prepare(sources, out, settings, progress)


def prepare_folder(
    folder: Path, out: Path, *, crop: Crop, scale: int, licence: str, progress: Progress
) -> dict[str, int]:
    """Prepare a folder of photographs; those with a side under 512 px are skipped.

    Returns:
        Pictures in each split.

    Raises:
        FileNotFoundError: there are no pictures.
        superres.errors.BadImage: a file is not a picture; the message names it.
        PrepareFailed: ``out`` has other settings, or no picture is large enough.
    """
    settings = Settings(str(folder.resolve()), crop, scale, licence)
    if (done := _finished(out, settings)) is not None:
        return done
    files = picture_files([folder])
    return _prepare({file.name: _lazy_file(file) for file in files}, out, settings, progress)


def download(
    archive: Archive, file: Path, *, progress: Progress, attempts: int = 8, patience_s: float = 5
) -> None:
    """Download a file, resuming an interrupted download, and verify it.

    Args:
        archive: what to download.
        file: the file to write; it exists only once it is complete and verified.
        progress: the progress display.
        attempts: number of consecutive connections without new data after which to give up.
        patience_s: seconds between two connections.

    Raises:
        PrepareFailed: the download fails, or the size or hash is wrong.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    task = progress.add_task(f"downloading {file.name}", total=archive.size)
    failures = 0
    while (had := partial.stat().st_size if partial.exists() else 0) < archive.size:
        try:
            _fetch_rest(archive, partial, had, lambda n: progress.update(task, completed=n))
            reason = "the connection was closed early"
        except httpx.HTTPStatusError as error:
            reason = f"HTTP {error.response.status_code}"
            if error.response.is_client_error:
                raise PrepareFailed(f"{archive.url}: {reason}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
        now = partial.stat().st_size if partial.exists() else 0
        failures = 0 if now > had else failures + 1
        if failures >= attempts:
            raise PrepareFailed(f"{archive.url}: {reason}, {attempts} times in a row")
        if now < archive.size:
            time.sleep(patience_s)
    progress.update(task, description=f"verifying {file.name}")
    size, md5 = partial.stat().st_size, _md5(partial)
    if (size, md5) != (archive.size, archive.md5):
        partial.unlink()
        raise PrepareFailed(
            f"{archive.url} has {size:,} bytes and MD5 {md5}; "
            f"{archive.size:,} and {archive.md5} were expected. It was removed: try again"
        )
    partial.rename(file)
    progress.remove_task(task)


def find_crop(rgb: RgbU8, crop: Crop) -> tuple[int, int]:
    """Top and left of the 512x512 crop.

    ``corner`` is (0, 0); ``detail`` is the crop, on a grid of 64 px, with the largest sum of luma
    differences between neighbouring pixels.
    """
    height, width = rgb.shape[:2]
    if crop == "corner":
        return 0, 0
    if crop == "center":
        return (height - SIDE) // 2, (width - SIDE) // 2
    luma = to_y(rgb)
    steps = np.abs(np.diff(luma, axis=0))[:, :-1] + np.abs(np.diff(luma, axis=1))[:-1]
    corners = [
        (top, left)
        for top in range(0, height - SIDE + 1, 64)
        for left in range(0, width - SIDE + 1, 64)
    ]
    return max(corners, key=lambda at: steps[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE].sum())


def split_names(names: list[str]) -> dict[str, str]:
    """Assign each name to ``train``, ``val`` or ``test``: 70, 15 and 15 %, deterministically.

    >>> from collections import Counter
    >>> dict(sorted(Counter(split_names([f"{i:04}" for i in range(800)]).values()).items()))
    {'test': 120, 'train': 560, 'val': 120}
    """
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(sorted(names)).tolist()
    held_out = int(len(names) * HELD_OUT)
    splits = ["val"] * held_out + ["test"] * held_out
    splits += ["train"] * (len(names) - len(splits))
    return dict(zip(shuffled, splits, strict=True))


def _check_same(out: Path, theirs: dict[str, object], wanted: dict[str, object]) -> None:
    if changed := [key for key in wanted if theirs.get(key) != wanted[key]]:
        raise PrepareFailed(
            f"{out} is a set of another {' and '.join(changed)} "
            f"({', '.join(str(theirs.get(key)) for key in changed)}): use another folder"
        )


def manifest_rows(text: str, manifest: Path, where: str | None) -> list[dict[str, str]]:
    """File, source and licence of each picture of a manifest, in its order.

    Raises:
        PrepareFailed: there are no rows, or a picture has no licence.
    """
    column, _, value = (where or "").partition("=")
    rows = []
    for row in csv.DictReader(io.StringIO(text)):
        file = row.get("file") or row["name"]
        row.setdefault("split", file.partition("/")[0] if "/" in file else "")
        if where is not None:
            if column not in row:
                raise PrepareFailed(
                    f"{manifest} has no column {column!r}: --where needs COLUMN=VALUE"
                )
            if row[column] != value:
                continue
        licence = (row.get("licence") or "").strip()
        if not licence:
            raise PrepareFailed(f"{manifest} states no licence for {file}")
        rows.append(
            {
                "file": file,
                "source": row.get("source") or row.get("repo") or "unknown",
                "licence": licence,
            }
        )
    if not rows:
        raise PrepareFailed(f"{manifest} has no pictures" + (f" where {where}" if where else ""))
    return rows


def _write_pixels(
    folder: Path, rows: list[dict[str, str]], out: Path, progress: Progress
) -> list[PreparedPicture]:
    """Append the pictures that are not yet in ``pixels.bin``."""
    pictures = _pictures_written(out)
    end = pictures[-1].offset + pictures[-1].nbytes if pictures else 0
    task = progress.add_task("decoding", total=len(rows), completed=len(pictures))
    with (out / PIXELS).open("ab") as pixels, (out / _DONE).open("w") as notes:
        pixels.truncate(end)
        notes.writelines(f"{picture.model_dump_json()}\n" for picture in pictures)
        for row in rows[len(pictures) :]:
            file = folder / row["file"]
            rgb = _read_listed(file)
            picture = PreparedPicture(
                **row,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                height=rgb.shape[0],
                width=rgb.shape[1],
                offset=end,
            )
            pixels.write(rgb.tobytes())
            # Pixels first, so that every listed picture is complete.
            pixels.flush()
            notes.write(f"{picture.model_dump_json()}\n")
            notes.flush()
            end += picture.nbytes
            pictures.append(picture)
            progress.advance(task)
        os.fsync(pixels.fileno())
    return pictures


def _pictures_written(out: Path) -> list[PreparedPicture]:
    """The pictures that an interrupted call listed and whose pixels are complete."""
    if not (out / _DONE).exists() or not (out / PIXELS).exists():
        return []
    size = (out / PIXELS).stat().st_size
    pictures = []
    for line in (out / _DONE).read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # The line is incomplete.
        picture = PreparedPicture.model_validate_json(line)
        if picture.offset + picture.nbytes > size:
            break
        pictures.append(picture)
    return pictures


def _read_listed(file: Path) -> RgbU8:
    """Read a picture with 8 bits per sample; also AVIF, which the service does not accept."""
    if file.suffix.lower() in INPUT_SUFFIXES:
        return read_rgb(file)
    with Image.open(file) as image:
        if image.mode != "RGB" or "icc_profile" in image.info:
            raise PrepareFailed(
                f"{file} is {image.mode} or has a profile; it must be sRGB without a profile"
            )
        return np.asarray(image)


def _prepare(
    sources: dict[str, Callable[[], RgbU8]], out: Path, settings: Settings, progress: Progress
) -> dict[str, int]:
    out.mkdir(parents=True, exist_ok=True)
    names, begun = sorted(sources), out / "sources.json"
    if begun.exists() and json.loads(begun.read_text()) != names:
        # Numbers and splits would differ from those of the existing files.
        raise PrepareFailed(f"{out} was begun with other pictures: use another folder")
    _write_atomically(begun, json.dumps(names).encode())
    (out / "settings.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
    rows = []
    task = progress.add_task("cropping", total=len(sources))
    splits = split_names(list(sources))
    for number, (name, read) in enumerate(sorted(sources.items()), start=1):
        stem = out / splits[name] / f"{number:04}"
        row = _finished_pair(stem) or _make_pair_files(read(), stem, settings)
        if row is not None:
            rows.append(
                {
                    "file": f"{splits[name]}/{_pair_file(stem, 'hr').name}",
                    "split": splits[name],
                    "pair": stem.name,
                    "source": settings.source,
                    "original": name,
                    "licence": settings.licence,
                    **row,
                }
            )
        progress.advance(task)
    if not rows:
        raise PrepareFailed(f"none of {len(sources)} pictures has sides of at least {SIDE} px")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    _write_atomically(out / "manifest.csv", text.getvalue().encode())
    for note in (begun, *out.glob("*/*.json")):
        note.unlink()
    return _count(out)


def _make_pair_files(rgb: RgbU8, stem: Path, settings: Settings) -> dict[str, str | int] | None:
    """Write a pair and its manifest entry; return None if the picture is too small."""
    if min(rgb.shape[:2]) < SIDE:
        return None
    top, left = find_crop(rgb, settings.crop)
    hr = rgb[top : top + SIDE, left : left + SIDE]
    cropped = crop_to_multiple(hr, settings.scale)
    lr = degrade(cropped, (cropped.shape[0] // settings.scale, cropped.shape[1] // settings.scale))
    row: dict[str, str | int] = {"top": top, "left": left}
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind, pixels in (("hr", hr), ("lr", lr)):
        data = encode(Picture(np.ascontiguousarray(pixels)), "png")
        _write_atomically(_pair_file(stem, kind), data)
        row[f"{kind}_sha256"] = hashlib.sha256(data).hexdigest()
    # Written last: if this file exists, the pair is complete.
    _write_atomically(stem.with_suffix(".json"), json.dumps(row).encode())
    return row


def _finished_pair(stem: Path) -> dict[str, str | int] | None:
    """Manifest entry of a pair that an interrupted run completed; otherwise None."""
    note = stem.with_suffix(".json")
    if not note.exists():
        return None
    row: dict[str, str | int] = json.loads(note.read_text())
    return row


def _finished(out: Path, settings: Settings) -> dict[str, int] | None:
    """Sizes of the splits if ``out`` is finished; None if not."""
    known = out / "settings.json"
    if not known.exists():
        return None
    theirs = Settings(**json.loads(known.read_text()))
    if theirs != settings:
        raise PrepareFailed(
            f"{out} was prepared as {theirs}, not as {settings}: use another folder"
        )
    return _count(out) if (out / "manifest.csv").exists() else None


def _count(out: Path) -> dict[str, int]:
    with (out / "manifest.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    return {split: splits.count(split) for split in ("train", "val", "test")}


def _fetch_rest(archive: Archive, partial: Path, had: int, show: Callable[[int], None]) -> None:
    headers = {"Range": f"bytes={had}-"} if had else {}
    with httpx.stream(
        "GET", archive.url, headers=headers, timeout=30, follow_redirects=True
    ) as answer:
        answer.raise_for_status()
        # A server that ignores the range sends the whole file.
        mode = "ab" if answer.status_code == 206 else "wb"
        with partial.open(mode) as file:
            for chunk in answer.iter_bytes(1 << 20):
                file.write(chunk)
                show(file.tell())


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _lazy_member(opened: zipfile.ZipFile, name: str) -> Callable[[], RgbU8]:
    return lambda: to_integer(decode(opened.read(name)).rgb, np.uint8)


def _lazy_file(file: Path) -> Callable[[], RgbU8]:
    return lambda: read_rgb(file)


def _pair_file(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}_{kind}.png")


def _write_atomically(file: Path, data: bytes) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, file)
