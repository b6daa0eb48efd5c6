"""Prepared sets for tests, of pictures that are in memory."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from rich.progress import Progress

from superres.arrays import RgbU8
from training.prepare import prepare_manifest
from training.prepared import PreparedSet


def write_listed(
    folder: Path, pictures: Mapping[str, RgbU8], *, licence: str = "CC0", **columns: str
) -> Path:
    """Write pictures by file name, lossless, and a manifest of them beside them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", "source", "licence", *columns])
    writer.writeheader()
    for name, rgb in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        options = {"quality": 100, "subsampling": "4:4:4"} if name.endswith("avif") else {}
        Image.fromarray(rgb).save(folder / name, **options)
        writer.writerow({"file": name, "source": "a camera", "licence": licence, **columns})
    (folder / "manifest.csv").write_text(text.getvalue())
    return folder / "manifest.csv"


def prepare(manifest: Path, out: Path, where: str | None = None) -> PreparedSet:
    return prepare_manifest(manifest, out, where=where, progress=Progress(disable=True))


def prepared_set(folder: Path, *pictures: RgbU8) -> PreparedSet:
    """A prepared set of these pictures, in this order."""
    named = {f"{number:04}.png": rgb for number, rgb in enumerate(pictures)}
    return prepare(write_listed(folder / "pictures", named), folder / "prepared")
