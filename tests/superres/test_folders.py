"""Folders: what is taken for a picture, what is left out and told, what cannot be read."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.batch.folders import kind_of
from superres.batch.plan import is_file, plan
from superres.codecs import FORMATS
from tests.commands import superres
from tests.pictures import encoded, plain

OTHERS = {
    "letter": (b"Dear Ann,\n\ttwo cups.\n", "text"),
    "film.dat": (b"\0\0\0\x18ftypisom", "video"),
    "clip.avi": (b"RIFF\x00\x00\x00\x00AVI LIST", "video"),
    "a.pdf": (b"%PDF-1.7", "PDF"),
    "nothing": (b"", "empty"),
    "noise.bin": (bytes(range(7, 250)), "of an unknown kind"),
}


@pytest.fixture
def folder(tmp_path: Path, chelsea) -> Path:
    """Pictures under names that say so, say something else, or nothing; and other files."""
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    jpeg = encoded(chelsea[:20, :30], "JPEG")
    for name, content in {
        "a.jfif": jpeg, "b.jpe": jpeg, "c": plain(), "d.txt": plain(), "IMG.1234": jpeg,
        "e.JPG": jpeg, "sub/f.bmp": encoded(chelsea[:9, :9], "BMP"), ".hidden.png": plain(),
        **{name: content for name, (content, _) in OTHERS.items()},
    }.items():  # fmt: skip
        (inside / name).write_bytes(content)
    return inside


def test_the_content_tells_what_is_a_picture(folder: Path, tmp_path: Path):
    planned = plan([folder], tmp_path / "out", None, recursive=True)
    targets = {job.source.name: job.target.name for job in planned.jobs}
    assert targets == {
        "a.jfif": "a.jpg", "b.jpe": "b.jpg", "c": "c.png", "d.txt": "d.txt.png",
        "IMG.1234": "IMG.1234.jpg", "e.JPG": "e.JPG", "f.bmp": "f.png",
    }  # fmt: skip
    assert planned.skipped.files == {
        "text": 1, "video": 2, "PDF": 1, "empty": 1, "of an unknown kind": 1,
    }  # fmt: skip
    assert planned.skipped.others == {"hidden": 1}


def test_the_command_tells_what_it_left_out(folder: Path, tmp_path: Path):
    run = superres("enhance", folder, "-o", tmp_path / "out", "--model", "bicubic")
    assert run.returncode == 0, run.stderr
    assert (
        "6 skipped: no picture that is read here (2 video, 1 PDF, 1 text, 1 of an unknown kind, "
        "1 empty); 1 hidden left out; 1 subfolder not looked into: --recursive does"
    ) in run.stderr
    again = superres("enhance", folder, "-o", tmp_path / "out", "--model", "bicubic", "-r",
                     "--resume")  # fmt: skip
    assert again.returncode == 0
    assert "1 hidden left out" in again.stderr
    assert "subfolder" not in again.stderr


def test_a_folder_of_other_files_is_told_as_such(tmp_path: Path):
    (tmp_path / "notes").write_text("hello")
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*: 1 skipped: .* \(1 text\)"):
        plan([tmp_path], tmp_path / "out", None, recursive=True)


@contextmanager
def nobody() -> Iterator[None]:
    """As a user for whom the permissions of files count."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("only", [False, True])
def test_a_folder_that_cannot_be_read_is_a_failure(only: bool):
    with tempfile.TemporaryDirectory() as temporary:
        root, locked = Path(temporary), Path(temporary, "in", "locked")
        locked.mkdir(parents=True)
        (locked / "unseen.png").write_bytes(plain())
        if not only:
            (root / "in" / "seen.png").write_bytes(plain())
        root.chmod(0o777)
        locked.chmod(0)
        try:
            with nobody():
                run = superres(
                    "enhance", root / "in", "-o", root / "out", "-r", "--model", "bicubic"
                )
                flat = superres("enhance", root / "in", "-o", root / "flat", "--model", "bicubic")
        finally:
            locked.chmod(0o700)
        assert run.returncode == 1
        assert f"1 of {1 if only else 2} failed" in run.stderr
        assert f"{locked}: this folder cannot be read: Permission denied" in run.stderr
        assert (root / "out" / "seen.png").exists() != only
        assert flat.returncode == (1 if only else 0)


def test_a_picture_that_cannot_be_read_fails_and_is_not_skipped():
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o777)
        for name in ("seen.png", "without-suffix"):
            (root / name).write_bytes(plain())
        (root / "without-suffix").chmod(0)
        with nobody():
            run = superres("enhance", root, "-o", root / "out", "--model", "bicubic")
    assert run.returncode == 1
    assert "1 of 2 failed" in run.stderr
    assert "Permission denied" in run.stderr


@pytest.mark.parametrize("suffix", [*(s for row in FORMATS.values() for s in row.suffixes), ".jp2"])
def test_an_output_that_ends_as_a_picture_is_a_file(tmp_path: Path, suffix: str):
    source = tmp_path / "a"
    source.write_bytes(plain())
    big = tmp_path / f"big{suffix}"
    assert is_file([source], big)
    assert not is_file([source, source], big)
    assert not is_file([source], tmp_path / "v1.5")
    run = superres("enhance", source, "-o", big, "--model", "bicubic")
    written = {s for row in FORMATS.values() if row.encode for s in row.suffixes}
    assert run.returncode == (0 if suffix in written else 1)
    assert big.is_file() == (suffix in written)
    if suffix not in written:
        assert f"not in '{suffix}'" in run.stderr


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=600))
def test_each_file_is_a_picture_or_has_a_kind(content: bytes):
    kind = kind_of(content[:512])
    assert kind is None or kind
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"):
        assert kind_of((magic + content)[:512]) is None
