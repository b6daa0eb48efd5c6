"""Pictures in parts, to be carried."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.runs import as_toml, small_config
from training.cli import cli

SIDE = 450  # of noise: 0.6 MB, so that three fit into 2 MiB and four do not


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    random = np.random.default_rng(0)
    rows = ["file,source,licence"]
    for split, count in (("train", 5), ("val", 1), ("test", 1)):
        (root / "photos" / split).mkdir(parents=True)
        for number in range(count):
            name = f"{split}/{number}.png"
            noise = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(noise).save(root / "photos" / name)
            rows.append(f"{name},noise,CC0")
    (root / "photos" / "manifest.csv").write_text("\n".join(rows))
    return root


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_parts_are_small_and_together_what_a_config_reads(root: Path, tmp_path: Path):
    config = small_config(
        data=[{"name": "photos", "where": "split=train", "shrinks": [1.0]}],
        validation={"name": "photos", "where": "split=val", "choose_by": "clean"},
    )
    (tmp_path / "small.toml").write_text(as_toml(config))
    words = ["pack", tmp_path / "small.toml", "--data-root", root, "--out", tmp_path / "parts"]
    shown = CliRunner().invoke(cli, [*map(str, words), "--largest", "2"])
    assert shown.exit_code == 0, shown.output
    parts = sorted((tmp_path / "parts").iterdir())
    assert [part.name for part in parts] == ["part-1.zip", "part-2.zip"]
    assert all(part.stat().st_size <= 2 * 2**20 for part in parts)
    for part in parts:
        with zipfile.ZipFile(part) as opened:
            opened.extractall(tmp_path / "there")
    expected = {
        name: digest
        for name, digest in contents(root).items()
        if not name.startswith("photos/test")
    }
    assert contents(tmp_path / "there") == expected
