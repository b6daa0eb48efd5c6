import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from superres.arrays import RgbU8
from superres.errors import BadImage
from tests.prepared import prepare, write_listed
from training.cli import cli
from training.prepare import PrepareFailed
from training.prepared import PreparedSet


@pytest.fixture(scope="module")
def pictures(coffee: RgbU8) -> dict[str, RgbU8]:
    """Of different sizes, one of them AVIF, in two splits."""
    return {
        "train/b.png": coffee[:70, :50],
        "train/a.avif": coffee[100:140, 200:280],
        "val/c.webp": coffee[:33, :31],
        "train/d.png": coffee[200:264, 100:164],
    }


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_set_holds_the_pixels_of_the_manifest_and_says_where_they_come_from(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures, licence="CC BY 4.0")
    made = prepare(manifest, tmp_path / "out")
    assert [picture.file for picture in made.description.pictures] == list(pictures)
    for index, picture in enumerate(made.description.pictures):
        file = manifest.parent / picture.file
        assert picture.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        with Image.open(file) as image:
            assert np.array_equal(made[index], np.asarray(image.convert("RGB")))
        assert made[index].shape == pictures[picture.file].shape
        assert tuple(made.sizes[index]) == made[index].shape[:2]
    assert made.description.name == "photos"
    assert made.description.manifest_sha256 == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert made.description.licences == {"CC BY 4.0": 4}
    assert made.description.sources == {"a camera": 4}
    pixels = (tmp_path / "out" / "pixels.bin").read_bytes()
    assert made.description.pixels_sha256 == hashlib.sha256(pixels).hexdigest()


def test_the_command_takes_a_split_which_may_be_the_first_folder(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures)
    command = ["prepare", "manifest", str(manifest), "--where", "split=train"]
    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "3 pictures" in " ".join(result.output.split())
    made = PreparedSet.open(tmp_path / "out").description
    assert [picture.file for picture in made.pictures] == [
        "train/b.png",
        "train/a.avif",
        "train/d.png",
    ]
    assert made.where == "split=train"


def test_a_column_of_the_manifest_chooses_pictures_too(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures, split="val", camera="old")
    assert len(prepare(manifest, tmp_path / "out", "split=val")) == 4
    with pytest.raises(PrepareFailed, match="has no pictures where split=train"):
        prepare(manifest, tmp_path / "other", "split=train")
    with pytest.raises(PrepareFailed, match="has no column 'lens'"):
        prepare(manifest, tmp_path / "other", "lens=long")


def test_the_columns_may_be_called_name_and_repo(tmp_path, coffee):
    manifest = write_listed(tmp_path, {"a.png": coffee[:20, :20]})
    manifest.write_text(manifest.read_text().replace("file,source", "name,repo"))
    assert prepare(manifest, tmp_path / "out").description.sources == {"a camera": 1}


def test_an_interrupted_call_goes_on_with_the_next_picture(tmp_path, pictures, monkeypatch):
    from training import prepare as module

    manifest = write_listed(tmp_path / "photos", pictures)
    expected = content(prepare(manifest, tmp_path / "at once").folder)
    real, read, out = module._read_listed, [], tmp_path / "in parts"

    def killed_at_the_third(file: Path) -> RgbU8:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(file.name)
        return real(file)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read_listed", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            prepare(manifest, out)
    with pytest.raises(FileNotFoundError, match="no prepared set"):
        PreparedSet.open(out)
    # As if it had been killed while it wrote the third picture, and what it noted of that.
    with (out / "pixels.bin").open("ab") as pixels, (out / "done.jsonl").open("a") as notes:
        pixels.write(b"half a picture")
        notes.write('{"file": "val/c.w')
    monkeypatch.setattr(module, "_read_listed", lambda file: read.append(file.name) or real(file))
    prepare(manifest, out)
    assert read == ["b.png", "a.avif", "c.webp", "d.png"]
    assert content(out) == expected


def test_two_calls_at_once_decode_each_picture_once(tmp_path, pictures, monkeypatch):
    from training import prepare as module

    manifest = write_listed(tmp_path / "photos", pictures)
    expected = content(prepare(manifest, tmp_path / "alone").folder)
    real, read = module._read_listed, []

    def slowly(file: Path) -> RgbU8:
        read.append(file.name)
        time.sleep(0.05)  # long enough for the other call to begin
        return real(file)

    monkeypatch.setattr(module, "_read_listed", slowly)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(prepare, [manifest] * 2, [tmp_path / "out"] * 2))
    assert sorted(read) == ["a.avif", "b.png", "c.webp", "d.png"]
    assert made[0].description == made[1].description
    assert content(tmp_path / "out") == expected


def test_a_picture_that_is_noted_without_all_its_pixels_is_decoded_again(
    tmp_path, pictures, monkeypatch
):
    manifest = write_listed(tmp_path / "photos", pictures)
    expected = content(prepare(manifest, tmp_path / "at once").folder)
    monkeypatch.setattr(
        "training.prepare._write_atomically", lambda file, data: file.write_bytes(data)
    )
    with monkeypatch.context() as patch:
        patch.setattr("training.prepare.hashlib.file_digest", None)  # stopped before set.json
        with pytest.raises(TypeError):
            prepare(manifest, tmp_path / "out")
    pixels = tmp_path / "out" / "pixels.bin"
    pixels.write_bytes(pixels.read_bytes()[:-100])
    prepare(manifest, tmp_path / "out")
    assert content(tmp_path / "out") == expected


def test_nothing_is_done_twice(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures)
    prepare(manifest, tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    (tmp_path / "photos" / "train" / "b.png").unlink()
    assert len(prepare(manifest, tmp_path / "out")) == 4
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == times


@pytest.mark.parametrize("finished", [True, False])
def test_another_manifest_or_split_needs_another_folder(tmp_path, pictures, monkeypatch, finished):
    manifest, out = write_listed(tmp_path / "photos", pictures), tmp_path / "out"
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr("training.prepare.hashlib.file_digest", None)
            with pytest.raises(TypeError):
                prepare(manifest, out, "split=train")
        else:
            prepare(manifest, out, "split=train")
    with pytest.raises(PrepareFailed, match=r"another where \(split=train\): use another folder"):
        prepare(manifest, out, "split=val")
    manifest.write_text(manifest.read_text().replace("a camera", "another"))
    with pytest.raises(PrepareFailed, match="another manifest_sha256"):
        prepare(manifest, out, "split=train")


def test_a_picture_without_a_licence_is_refused_before_anything_is_written(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures)
    manifest.write_text(manifest.read_text().replace("val/c.webp,a camera,CC0", "val/c.webp,x, "))
    with pytest.raises(PrepareFailed, match=r"states no licence for val/c\.webp"):
        prepare(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare(manifest, tmp_path / "out", "split=train")


def test_a_file_that_is_no_picture_is_named(tmp_path, pictures):
    manifest = write_listed(tmp_path / "photos", pictures)
    (tmp_path / "photos" / "train" / "d.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"d\.png"):
        prepare(manifest, tmp_path / "out")


def test_pixels_that_are_not_all_there_are_refused(tmp_path, pictures):
    made = prepare(write_listed(tmp_path / "photos", pictures), tmp_path / "out")
    pixels = made.folder / "pixels.bin"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"pixels\.bin has [\d,]+ bytes; [\d,]+ were expected"):
        PreparedSet.open(made.folder)
