"""No picture is both learned from and scored on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.needs import benchmark_pictures, shared_data
from training.dataset import picture_files

ALIKE = 0.97
"""Correlation of two signatures from which on they are taken to show the same."""


def signatures(files: list[Path]) -> np.ndarray:
    """16x16 of each picture's luma, scaled so that a product of two is their correlation."""
    rows = []
    for file in files:
        with Image.open(file) as image:
            luma = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), float)
        rows.append((luma - luma.mean()).ravel())
    return np.array([row / np.linalg.norm(row) for row in rows])


def benchmark_files() -> list[Path]:
    folder = benchmark_pictures()
    return picture_files([folder / name / "x3" for name in ("Set5", "Set14", "BSD100")])


def folder_files(name: str) -> list[Path]:
    """The training pictures may be AVIF, which the service does not read."""
    files = sorted(f for f in shared_data(name).iterdir() if f.suffix in (".avif", ".webp"))
    assert files
    return files


def assert_disjoint(parts: dict[str, list[Path]]) -> None:
    files = [file for part in parts.values() for file in part]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    seen = signatures(files)
    alike = (seen @ seen.T > ALIKE) & (owner[:, None] < owner[None])
    assert [(files[i], files[j]) for i, j in np.argwhere(alike)] == []


def test_a_picture_is_known_again_when_it_is_small_and_two_pictures_are_told_apart():
    """The small side of each pair was made from the large one."""
    files = picture_files([benchmark_pictures() / "Set14" / "x3"])
    large, small = (
        signatures([file for file in files if file.stem.endswith(side)]) for side in ("hr", "lr")
    )
    assert np.array_equal(large @ small.T > ALIKE, np.eye(len(large)))


@pytest.mark.slow
def test_photos512_are_split_without_a_picture_in_two_parts_or_in_a_benchmark():
    parts = {name: folder_files(f"photos512/{name}") for name in ("train", "val", "test")}
    assert_disjoint(parts | {"benchmarks": benchmark_files()})


@pytest.mark.soak
def test_photos_have_no_picture_of_a_benchmark_nor_of_photos512_val_and_test():
    parts = {name: folder_files(name) for name in ("photos", "photos512/val", "photos512/test")}
    assert_disjoint(parts | {"benchmarks": benchmark_files()})
