"""Packing of a config's pictures into ZIP files, for a machine without a network."""

import zipfile
from pathlib import Path

from training.config import TrainingConfig
from training.prepare import manifest_rows


def pack(config: TrainingConfig, root: Path, out: Path, *, largest: int) -> list[Path]:
    """Write ``part-1.zip``, ``part-2.zip`` and so on. Unpacked in one folder, they are a data root.

    The parts contain unchanged files and complete manifests, so that the hashes in the config
    still match.

    Args:
        config: the config whose training and validation pictures are packed.
        root: the data root.
        out: the folder for the parts; it is created if it does not exist.
        largest: largest size of a part, MiB. A larger file gets its own part.

    Raises:
        FileNotFoundError: a manifest or a picture is missing.
        training.prepare.PrepareFailed: a manifest has no matching rows.
    """
    files: dict[Path, None] = {}  # an ordered set
    for one in config.all_pictures:
        manifest = root / one.name / "manifest.csv"
        files[manifest] = None
        rows = manifest_rows(manifest.read_text(), manifest, one.where)
        files |= dict.fromkeys(manifest.parent / row["file"] for row in rows)
    parts: list[list[Path]] = []
    room = 0
    for file in files:
        size = file.stat().st_size + 1024  # room for the two ZIP headers
        if size > room:
            parts.append([])
            room = largest * 2**20
        parts[-1].append(file)
        room -= size
    out.mkdir(parents=True, exist_ok=True)
    made = [out / f"part-{number}.zip" for number in range(1, len(parts) + 1)]
    for part, members in zip(made, parts, strict=True):
        with zipfile.ZipFile(part, "w") as opened:  # pictures are already compressed
            for file in members:
                opened.write(file, file.relative_to(root))
    return made
