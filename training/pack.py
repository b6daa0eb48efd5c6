"""A config's pictures in parts, to be carried to a machine that reaches no network."""

import zipfile
from pathlib import Path

from training.config import TrainingConfig
from training.prepare import manifest_rows


def pack(config: TrainingConfig, root: Path, out: Path, *, largest: int) -> list[Path]:
    """Write ``part-1.zip``, ``part-2.zip`` and so on; unpacked in one folder they are a data root.

    They hold the files as they are, and whole manifests, so that the config's hashes still hold.

    Args:
        config: whose pictures are taken: to learn from, and of validation.
        root: the folder of the sets.
        out: where the parts go; made if need be.
        largest: MiB of a part. A file that is larger has one of its own.

    Raises:
        FileNotFoundError: a manifest or a picture is missing.
        training.prepare.PrepareFailed: a manifest has no such rows.
    """
    files: dict[Path, None] = {}  # in order, each once
    for one in config.all_pictures:
        manifest = root / one.name / "manifest.csv"
        files[manifest] = None
        rows = manifest_rows(manifest.read_text(), manifest, one.where)
        files |= dict.fromkeys(manifest.parent / row["file"] for row in rows)
    parts: list[list[Path]] = []
    room = 0
    for file in files:
        size = file.stat().st_size + 1024  # its two headers
        if size > room:
            parts.append([])
            room = largest * 2**20
        parts[-1].append(file)
        room -= size
    out.mkdir(parents=True, exist_ok=True)
    made = [out / f"part-{number}.zip" for number in range(1, len(parts) + 1)]
    for part, members in zip(made, parts, strict=True):
        with zipfile.ZipFile(part, "w") as opened:  # pictures are compressed already
            for file in members:
                opened.write(file, file.relative_to(root))
    return made
