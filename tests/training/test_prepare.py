"""DIV2K's download against a local server with its layout, and its faults."""

import csv
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from superres.codecs import decode
from superres.resample import degrade
from tests.pictures import encoded
from training.cli import cli
from training.prepare import (
    Archive,
    PrepareFailed,
    download,
    find_crop,
    prepare_archive,
    prepare_folder,
    prepare_manifest,
)


def photograph(number: int) -> np.ndarray:
    """A generated picture, 540x600 px, with its most detail at the bottom right."""
    small = np.random.default_rng(number).integers(0, 256, (9, 10, 3), np.uint8)
    large = np.asarray(Image.fromarray(small).resize((600, 540), Image.Resampling.BICUBIC))
    noisy = large.copy()
    noisy[-60:, -60:] ^= np.random.default_rng(number).integers(0, 64, (60, 60, 3), np.uint8)
    return noisy


class Server:
    """Serves DIV2K_train_HR.zip; each request first takes a fault off the list."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers["Range"]
                server.ranges.append(wanted)
                fault = server.faults.pop(0) if server.faults else None
                if fault in ("503", "404"):
                    self.send_error(int(fault))
                    return
                first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                if fault == "no range":
                    first = 0
                body = server.data[first:]
                self.send_response(206 if first else 200)
                promised = len(body)
                if fault == "dropped":
                    body = body[: len(body) // 2]
                elif fault == "short":
                    body = body[: len(body) // 2]
                    promised = len(body)
                elif fault == "garbled":
                    body = bytes(len(body))
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=[0.01], daemon=True).start()

    def archive(self, **changes) -> Archive:
        url = f"http://127.0.0.1:{self._http.server_port}/cvl/DIV2K/DIV2K_train_HR.zip"
        md5 = hashlib.md5(self.data).hexdigest()
        return Archive(
            **(
                {"url": url, "size": len(self.data), "md5": md5, "licence": "of the archive"}
                | changes
            )
        )

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def div2k() -> bytes:
    """20 pictures as DIV2K has them, and one that is too small."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(1, 21):
            archive.writestr(f"DIV2K_train_HR/{number:04}.png", encoded(photograph(number)))
        archive.writestr("DIV2K_train_HR/0021.png", encoded(photograph(21)[:300]))
    return out.getvalue()


@pytest.fixture
def server(div2k: bytes) -> Iterator[Server]:
    server = Server(div2k)
    yield server
    server.close()


def fetch(archive: Archive, file: Path, **options) -> None:
    download(archive, file, progress=Progress(disable=True), patience_s=0, **options)


@pytest.mark.parametrize(
    ("faults", "requests"),
    [([], 1), (["dropped"], 2), (["short"], 2), (["503", "dropped", "503", "short"], 5)],
)
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, faults, requests):
    server.faults = list(faults)
    fetch(server.archive(), tmp_path / "div2k.zip")
    assert (tmp_path / "div2k.zip").read_bytes() == server.data
    assert len(server.ranges) == requests
    resumed = [wanted for wanted in server.ranges if wanted]
    assert len(resumed) == sum(fault in ("dropped", "short") for fault in faults) + (
        1 if len(faults) == 4 else 0
    )


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.faults = ["dropped", "no range"]
    fetch(server.archive(), tmp_path / "div2k.zip")
    assert (tmp_path / "div2k.zip").read_bytes() == server.data


def test_a_wrong_hash_is_named_and_the_file_removed(server, tmp_path):
    server.faults = ["garbled"]
    with pytest.raises(PrepareFailed, match=r"MD5 \w+; .* were expected. It was removed"):
        fetch(server.archive(), tmp_path / "div2k.zip")
    assert list(tmp_path.iterdir()) == []
    fetch(server.archive(), tmp_path / "div2k.zip")
    assert (tmp_path / "div2k.zip").exists()


def test_a_server_that_stays_down_is_given_up(server, tmp_path):
    server.faults = ["503"] * 9
    with pytest.raises(PrepareFailed, match=r"HTTP 503, 3 times in a row"):
        fetch(server.archive(), tmp_path / "div2k.zip", attempts=3)


def test_a_file_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    server.faults = ["404"] * 9
    with pytest.raises(PrepareFailed, match="HTTP 404"):
        fetch(server.archive(), tmp_path / "div2k.zip")
    assert len(server.ranges) == 1


def prepare(server: Server, out: Path, crop="corner", scale=3) -> dict[str, int]:
    return prepare_archive(
        server.archive(), out, crop=crop, scale=scale, progress=Progress(disable=True)
    )


def test_pairs_are_cropped_split_and_listed_with_their_hashes(server, tmp_path):
    counts = prepare(server, tmp_path)
    assert sum(counts.values()) == 20
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == counts
    for row in rows:
        stem = tmp_path / row["split"] / row["pair"]
        hr, lr = (stem.with_name(f"{stem.name}_{kind}.png").read_bytes() for kind in ("hr", "lr"))
        assert hashlib.sha256(hr).hexdigest() == row["hr_sha256"]
        assert hashlib.sha256(lr).hexdigest() == row["lr_sha256"]
        expected = photograph(int(row["original"].removesuffix(".png")))[:512, :512]
        assert np.array_equal(decode(hr).rgb, expected)
        assert np.array_equal(decode(lr).rgb, degrade(expected[:510, :510], (170, 170)))
    assert len(list((tmp_path / "train").iterdir())) == 2 * counts["train"]


def test_the_command_prepares_div2k(server, tmp_path, monkeypatch):
    monkeypatch.setattr("training.prepare.DIV2K", server.archive())
    arguments = ["prepare", "div2k", "--out", str(tmp_path / "div2k"), "--scale", "2"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0
    assert "{'train': 15, 'val': 3, 'test': 2}" in " ".join(done.output.split())
    assert json.loads((tmp_path / "div2k" / "settings.json").read_text()) == {
        "source": server.archive().url,
        "crop": "corner",
        "scale": 2,
        "licence": "of the archive",
    }


def test_nothing_is_done_twice(server, tmp_path):
    prepare(server, tmp_path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    prepare(server, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == files
    assert len(server.ranges) == 1


def test_an_interrupted_run_goes_on_with_the_next_picture(server, tmp_path, monkeypatch):
    from training import prepare as module

    real, made = module._make_pair_files, []

    def power_cut(*arguments):
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_pair_files", power_cut)
        with pytest.raises(KeyboardInterrupt):
            prepare(server, tmp_path)
    done = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*_hr.png")}
    assert len(done) == 7
    assert sum(prepare(server, tmp_path).values()) == 20
    assert all(file.stat().st_mtime_ns == time for file, time in done.items())


def test_other_settings_need_another_folder(server, tmp_path):
    prepare(server, tmp_path)
    with pytest.raises(PrepareFailed, match=r"was prepared as .*crop='corner'.*use another"):
        prepare(server, tmp_path, crop="center")


def test_a_folder_of_photographs_is_prepared_alike_and_can_be_learned_from(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(8):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encoded(photograph(number)))
    counts = prepare_folder(
        tmp_path / "photos",
        tmp_path / "out",
        crop="detail",
        scale=2,
        licence="CC0",
        progress=Progress(disable=True),
    )
    assert counts == {"train": 6, "val": 1, "test": 1}
    manifest = tmp_path / "out" / "manifest.csv"
    learned = prepare_manifest(
        manifest, tmp_path / "set", where="split=train", progress=Progress(disable=True)
    )
    assert {learned[index].shape for index in range(len(learned))} == {(512, 512, 3)}
    assert learned.description.licences == {"CC0": 6}


def test_a_folder_that_changes_before_it_is_done_needs_another_output(tmp_path, monkeypatch):
    """Its pictures would get other numbers and splits than those that are there."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.png").write_bytes(encoded(photograph(number)))

    def prepare_them() -> dict[str, int]:
        return prepare_folder(
            photos, out, crop="corner", scale=3, licence="", progress=Progress(disable=True)
        )

    with monkeypatch.context() as patch:
        patch.setattr("training.prepare.csv.DictWriter", None)  # stopped before the manifest
        with pytest.raises(TypeError):
            prepare_them()
    (photos / "0-earlier.png").write_bytes(encoded(photograph(9)))
    with pytest.raises(PrepareFailed, match="was begun with other pictures"):
        prepare_them()
    (photos / "0-earlier.png").unlink()
    assert sum(prepare_them().values()) == 4
    assert not list(out.glob("sources.json"))


def test_crops_are_where_they_are_said_to_be():
    picture = photograph(1)
    assert find_crop(picture, "corner") == (0, 0)
    assert find_crop(picture, "center") == (14, 44)
    assert find_crop(picture, "detail") == (0, 64)


def test_a_folder_of_small_pictures_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(photograph(1)[:100]))
    with pytest.raises(PrepareFailed, match="none of 1 pictures has sides of at least 512 px"):
        prepare_folder(
            tmp_path / "photos",
            tmp_path / "out",
            crop="corner",
            scale=3,
            licence="",
            progress=Progress(disable=True),
        )
