"""The sample pictures of the page."""

from pathlib import Path

import pytest

from app.web import samples
from app.web.samples import SAMPLES, read_sample
from superres.arrays import RgbU8
from superres.evaluation.metrics import psnr

FOLDER = Path(samples.__file__).with_name("photographs")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_a_small_file_with_a_source_and_a_licence(name):
    assert (FOLDER / f"{name}.jpg").stat().st_size < 150_000
    (row,) = (line for line in (FOLDER / "README.md").read_text().splitlines() if name in line[:20])
    assert row.endswith(("| CC0 1.0 |", "| public domain |"))
    assert read_sample(name).dtype == "uint8"


def test_there_is_no_photograph_besides_the_samples():
    assert {file.stem for file in FOLDER.glob("*.jpg")} == set(SAMPLES)


def test_a_sample_looks_like_the_photograph_that_it_was_made_from(coffee: RgbU8, chelsea: RgbU8):
    assert psnr(coffee, read_sample("coffee"), data_range=255, shave=0) > 40
    assert psnr(chelsea, read_sample("chelsea"), data_range=255, shave=0) > 40
