"""Files that are there whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from superres.paths import identity, is_inside, write_whole


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path):
    name = "界" * 83 + ".png"
    assert len(name.encode()) == 253
    write_whole(tmp_path / name, b"content")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_links_that_lead_in_a_circle_are_paths_like_others(tmp_path: Path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert is_inside(tmp_path / "one", tmp_path)
    assert not is_inside(tmp_path, tmp_path / "one")
    assert identity(tmp_path / "one") != identity(tmp_path / "three")


@pytest.mark.parametrize(
    ("number", "written"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_file_system_that_cannot_sync_folders_still_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, written: bool
):
    """But a disk that failed is an error. Both are injected."""
    fsync = os.fsync

    def fsync_files_only(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync_files_only)
    if written:
        write_whole(tmp_path / "folder" / "file", b"content")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            write_whole(tmp_path / "folder" / "file", b"content")
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"
