"""The command with standard input and output, and on a folder that it watches."""

import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.batch.plan import plan
from superres.batch.watch import SETTLE_S, Settling, watch
from superres.codecs import decode, probe
from tests.commands import INSTALLED, superres
from tests.pictures import encoded, plain
from tests.serving import wait_until

BICUBIC = ("--model", "bicubic")


def piped(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [INSTALLED, "enhance", *map(str, arguments), *BICUBIC]
    return subprocess.run(command, input=given, capture_output=True)


@pytest.mark.slow
def test_a_picture_goes_through_a_pipe_and_nothing_else_is_in_its_output(chelsea):
    jpeg = encoded(chelsea[:40, :60], "JPEG")
    run = piped("-", "-o", "-", "--scale", 2, "--metadata", "strip", given=jpeg)
    assert run.returncode == 0, run.stderr
    assert probe(run.stdout).source_format == "jpeg"
    assert probe(run.stdout).size == (80, 120)
    assert run.stderr.startswith(b"- -> - (120x80)")
    assert decode(run.stdout).rgb.shape == (80, 120, 3)
    broken = piped("-", "-o", "-", given=b"hello")
    assert (broken.returncode, broken.stdout) == (1, b"")
    assert broken.stderr.startswith(b"error: not a picture in a format that is read here")


class Piped(io.TextIOWrapper):
    """Standard input or output, of which a test sees the bytes."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), write_through=True)


def in_process(monkeypatch, *arguments: object, given: bytes = b""):
    monkeypatch.setattr("sys.stdin", Piped(given))
    return superres("enhance", *arguments, *BICUBIC)


def test_a_stream_and_a_file_go_together(tmp_path: Path, monkeypatch):
    made = tmp_path / "made.webp"
    run = in_process(monkeypatch, "-", "-o", made, "--width", 60, given=plain(40, 20))
    assert run.returncode == 0, run.stderr
    assert probe(made.read_bytes()).size == (30, 60)
    again = in_process(monkeypatch, "-", "-o", made, given=plain())
    assert again.returncode == 1
    assert "is there already: use --force" in again.stderr
    assert in_process(monkeypatch, "-", "-o", made, "--force", given=plain()).returncode == 0
    dry = in_process(monkeypatch, "-", "-o", "-", "--dry-run", given=plain())
    assert (dry.returncode, dry.stdout) == (0, "")
    assert "- -> - (60x30)" in dry.stderr


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_dry_run_of_a_stream_refuses_what_the_run_refuses(tmp_path: Path, monkeypatch, dry_run):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    long = in_process(
        monkeypatch, "-", "-o", "-", "--format", "webp", *dry_run, given=plain(9000, 1)
    )
    assert (long.returncode, long.stdout) == (1, "")
    assert "webp holds at most 16383 px a side; the output has 27000" in long.stderr
    for name, says in (("file/made.png", "is not a folder"), ("folder.png", "is a folder, which")):
        run = in_process(
            monkeypatch, "-", "-o", tmp_path / name, "--force", *dry_run, given=b"never read"
        )
        assert run.returncode == 1
        assert says in " ".join(run.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-", "other.png", "-o", "out"], "- is one picture; there are 2 inputs"),
        (["-", "-o", "-", "--resume"], "does not go with --resume"),
        (["-", "-o", "folder"], "a result ends in"),
        (["-o", "out"], "there is nothing to enhance: name pictures or folders, - or --watch DIR"),
        (["x", "--watch", "y", "-o", "out"], "--watch DIR is instead of other inputs"),
        (
            ["--watch", "nowhere", "-o", "out"],
            "is for a folder of this machine; nowhere is not one",
        ),
        (["--watch", ".", "-o", "."], "would be put into . and be enhanced again"),
        (["--watch", ".", "-o", "out", "--dry-run"], "does not go with --cluster or --dry-run"),
    ],
)
def test_what_does_not_go_together_is_told(monkeypatch, tmp_path: Path, arguments, says):
    monkeypatch.chdir(tmp_path)
    run = in_process(monkeypatch, *arguments, given=plain())
    assert run.returncode == 1
    assert says in run.stderr


FILES = [Path("a"), Path("b")]
looks = st.lists(
    st.tuples(
        st.floats(0.1, 3),
        st.dictionaries(st.sampled_from(FILES), st.tuples(*[st.integers(0, 2)] * 3)),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(looks)
def test_a_file_is_taken_once_when_it_has_not_changed_for_long_enough(steps):
    settling, now = Settling(), 0.0
    history: list[tuple[float, dict[Path, tuple[int, int, int]]]] = []
    taken: dict[Path, tuple[int, int, int]] = {}
    for seconds, stamps in steps:
        now += seconds
        history.append((now, stamps))
        for known in set(taken) - set(stamps):
            del taken[known]
        settled = settling.settled(stamps, now)
        for file, stamp in stamps.items():
            since = now
            for when, seen in reversed(history):
                if seen.get(file) != stamp:
                    break
                since = when
            expected = now - since >= SETTLE_S and taken.get(file) != stamp
            assert (file in settled) == expected
            if expected:
                taken[file] = stamp


def test_what_is_still_written_is_not_taken(tmp_path: Path, monkeypatch):
    """The look at the files is real; the clock is the test's, and goes on with each look."""
    folder, picture = tmp_path / "in", encoded_in_parts()
    folder.mkdir()
    clock = iter(range(1000))
    monkeypatch.setattr("superres.batch.watch.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("superres.batch.watch.POLL_S", 0)
    stop, looked = threading.Event(), []

    def planned():
        looked.append((folder / "a.png").stat().st_size)
        return plan([folder], tmp_path / "out", None, recursive=False)

    parts = iter(picture)

    class Writing(threading.Event):
        """A pause between two looks, in which the file grows."""

        def wait(self, timeout=None):
            if part := next(parts, None):
                with (folder / "a.png").open("ab") as file:
                    file.write(part)
            return False

    stop = Writing()
    jobs = next(watch(folder, False, planned, stop))
    assert [job.source.name for job in jobs] == ["a.png"]
    assert looked == [sum(map(len, picture))]


def encoded_in_parts() -> list[bytes]:
    whole = plain(300, 300)
    return [whole[at : at + 40] for at in range(0, len(whole), 40)]


@contextmanager
def watching(folder: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [INSTALLED, "enhance", "--watch", folder, "-o", out, "-r", *BICUBIC]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_watched_folder_is_enhanced_until_ctrl_c(tmp_path: Path, chelsea):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "first.png").write_bytes(plain())
    with watching(folder, out) as process:
        wait_until(lambda: (out / "first.png").exists())
        (folder / "sub" / "second").write_bytes(encoded(chelsea[:20, :30], "JPEG"))
        (folder / "broken.png").write_bytes(plain()[:50])
        (folder / "notes.txt").write_text("hello")
        wait_until(lambda: (out / "sub" / "second.jpg").exists())
        (folder / "first.png").write_bytes(plain(50, 50))  # made again
        wait_until(lambda: probe(out / "first.png").size == (150, 150))
        (folder / "broken.png").write_bytes(plain(30, 30))
        wait_until(lambda: (out / "broken.png").exists())
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, told
    assert "broken.png: the picture" in told
    assert "ended: 4 made, 1 failed" in told
    (out / "first.png").write_bytes(b"somebody's")
    os.utime(folder / "first.png", (time.time(), time.time()))
    with watching(folder, out) as process:
        for line in process.stderr:
            if b"1 of 3 failed" in line:
                break
        assert b"is there already" in next(process.stderr)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1].decode()
    assert (out / "first.png").read_bytes() == b"somebody's"
    assert "2 done already" in told
