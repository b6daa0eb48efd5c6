"""Uploads are read in processes: what they give, what ends them, and what is left of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import anyio
import numpy as np
import pytest

from app.decoding import decoders as decoding
from app.decoding.decoders import Decoders
from superres.arrays import RgbU8
from superres.codecs import Header, Picture, decode, encode, probe, to_srgb, without_metadata
from superres.errors import BadImage, DeadlineExceeded, NotReady
from superres.forecast import forecast_decoding
from tests import heics
from tests.hostile import mutated, seeds
from tests.hostile_decoder import hostile
from tests.pictures import plain
from tests.serving import wait_until

MAX_BYTES = 2**28
MAX_PIXELS = 500_000


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fork_server(decoders: Decoders) -> int:
    assert decoders._server is not None
    return decoders._server.pid


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "FORK_SERVER", "tests.hostile_decoder")
        decoders = Decoders()
        decoders.start()
        yield decoders
        decoders.close()


@pytest.fixture
def no_idle(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only processes that are at work live."""
    monkeypatch.setattr(decoding, "MAX_IDLE", 0)
    while decoders._idle:
        decoders._idle.pop().close()
    wait_until(lambda: not children(fork_server(decoders)))


async def read(decoders: Decoders, data: bytes, **options: bool) -> Picture:
    header = await decoders.probe(data, max_pixels=MAX_PIXELS)
    return await decoders.decode(data, header, max_bytes=MAX_BYTES, check=lambda: None, **options)


def read_here(data: bytes, **options: bool) -> Picture:
    probe(data, max_pixels=MAX_PIXELS)
    picture = decode(data)
    if options.get("strip_metadata"):
        picture = without_metadata(picture)
    return to_srgb(picture) if options.get("srgb") else picture


def outcome(read: Callable[[], Picture]) -> object:
    """What can be compared of a picture, or of the error."""
    try:
        picture = read()
    except BadImage as error:
        # Some messages of libraries have addresses of objects.
        return type(error), str(error).partition(" at 0x")[0]
    values = {field.name: getattr(picture, field.name) for field in fields(picture)}
    samples = values.pop("samples")
    return values, samples.dtype, samples.shape, samples.tobytes()


def test_a_picture_of_another_size_than_its_header_told_is_refused(decoders: Decoders):
    """Its limits were checked, and its memory was reserved, by the header."""
    data = plain(20, 10)
    turned = replace(probe(data), size=(20, 10))
    with pytest.raises(BadImage, match="header says 10x20, and its pixels are 20x10"):
        anyio.run(partial(decoders.decode, data, turned, max_bytes=MAX_BYTES, check=lambda: None))


@pytest.mark.filterwarnings("ignore")  # in this process they would be errors
@pytest.mark.parametrize(
    "options", [{}, {"srgb": True, "strip_metadata": True}], ids=["as it is", "converted"]
)
def test_a_process_gives_the_picture_or_the_error_that_decoding_here_gives(
    decoders: Decoders, options: dict[str, bool]
):
    files = [*seeds(), b"", b"not a picture", *map(mutated, range(40))]

    for data in files:
        there = outcome(lambda data=data: anyio.run(partial(read, decoders, data, **options)))
        assert there == outcome(lambda data=data: read_here(data, **options))


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("crash", r"crashed while .* \(SIGSEGV\)"),
        ("abort", r"crashed while .* \(SIGABRT\)"),
        ("fill", "asks for more memory than its pixels need"),
        ("spin", r"takes more than .* s of processor time"),
    ],
)
@pytest.mark.parametrize("operation", ["probe", "decode"])
def test_a_file_that_breaks_its_decoder_is_a_bad_image_and_others_beside_it_are_read(
    decoders: Decoders,
    no_idle: None,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    deed: str,
    message: str,
):
    monkeypatch.setattr(decoding, "DECODE_SECONDS", 0.3)
    pictures = []

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(good)
            with pytest.raises(BadImage, match=message):
                await read(decoders, hostile(**{operation: deed}))

    async def good() -> None:
        pictures.append(await read(decoders, plain()))

    anyio.run(both)
    assert len(pictures) == 3
    wait_until(lambda: not children(fork_server(decoders)))


def test_a_decoder_that_ends_or_fails_in_an_unforeseen_way_is_not_the_pictures_fault(
    decoders: Decoders,
):
    header = Header("hostile", (10, 20), 8)

    async def decode_it(deed: str) -> Picture:
        return await decoders.decode(
            hostile(decode=deed), header, max_bytes=MAX_BYTES, check=lambda: None
        )

    with pytest.raises(decoding.Busy):
        anyio.run(decode_it, "exit")
    with pytest.raises(BadImage):  # as in the codecs: whatever a decoder raises
        anyio.run(decode_it, "error")


@pytest.mark.parametrize("deed", ["spin", "sleep"])
@pytest.mark.parametrize("operation", ["probe", "decode"])
def test_a_process_is_killed_when_nobody_waits_for_it_any_more(
    decoders: Decoders, no_idle: None, operation: str, deed: str
):
    server = fork_server(decoders)

    async def leave() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, decoders, hostile(**{operation: deed}))
            await anyio.to_thread.run_sync(wait_until, lambda: children(server))
            tasks.cancel_scope.cancel()

    anyio.run(leave)
    wait_until(lambda: not children(server))


def test_what_the_check_raises_ends_the_process(decoders: Decoders, no_idle: None):
    server = fork_server(decoders)
    header = Header("hostile", (10, 20), 8)

    def check() -> None:
        if children(server):
            raise DeadlineExceeded("the request had 1 s")

    async def decode_it() -> None:
        await decoders.decode(hostile(decode="sleep"), header, max_bytes=MAX_BYTES, check=check)

    with pytest.raises(DeadlineExceeded):
        anyio.run(decode_it)
    wait_until(lambda: not children(server))


def test_a_fork_server_that_was_killed_takes_its_children_along_and_is_replaced(
    decoders: Decoders,
):
    server = fork_server(decoders)

    def kill() -> None:
        wait_until(lambda: children(server))
        os.kill(server, signal.SIGKILL)

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, kill)
            with pytest.raises(NotReady):
                await decoders.probe(hostile(probe="sleep"), max_pixels=MAX_PIXELS)

    anyio.run(both)
    assert anyio.run(read, decoders, plain()).size == decode(plain()).size


def test_a_fork_server_ends_with_its_service_and_so_do_its_children(decoders: Decoders):
    """However the service ends: the kernel closes its connections."""
    program = (
        "import anyio, sys; from app.decoding import decoders as d; "
        "d.FORK_SERVER = 'tests.hostile_decoder'; "
        "one = d.Decoders(); one.start(); print(one._server.pid, flush=True); "
        "from tests.hostile_decoder import hostile; "
        "anyio.run(lambda: one.probe(hostile(probe='sleep'), max_pixels=9))"
    )
    service = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    server = int(service.stdout.readline())
    wait_until(lambda: children(server))
    child = children(server)[0]
    service.kill()
    service.communicate()
    wait_until(lambda: not Path(f"/proc/{server}").exists())
    wait_until(lambda: not Path(f"/proc/{child}").exists())


def test_the_fork_server_has_one_thread_few_imports_and_no_secrets(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SUPERRES_API_KEYS", "secret")
    decoders = Decoders()
    decoders.start()
    try:
        anyio.run(read, decoders, plain())
        process = Path(f"/proc/{fork_server(decoders)}")
        maps, status = (process / "maps").read_text(), (process / "status").read_text()
        assert b"SUPERRES_" not in (process / "environ").read_bytes()
        assert "Threads:\t1\n" in status
        for name in ("tensorflow", "scipy", "sqlalchemy", "uvloop", "greenlet"):
            assert f"/{name}/" not in maps
        memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        assert memory < 150  # MB; 60 when this was written
    finally:
        decoders.close()


def test_samples_are_mapped_not_copied(decoders: Decoders):
    picture = anyio.run(read, decoders, plain())
    assert not picture.samples.flags.owndata
    picture.samples[0, 0] = 1  # as those that are decoded here
    assert isinstance(picture.samples, np.ndarray)


def test_a_process_reads_a_hundred_uploads_and_is_replaced(
    decoders: Decoders, no_idle, monkeypatch
):
    monkeypatch.setattr(decoding, "MAX_IDLE", 1)
    server, seen = fork_server(decoders), []

    async def read_many() -> None:
        for _ in range(110):
            await decoders.probe(plain(), max_pixels=MAX_PIXELS)
            seen.extend(children(server))

    anyio.run(read_many)
    assert 2 <= len(set(seen)) <= 3


def test_a_process_that_was_killed_while_idle_is_not_given_an_upload(decoders: Decoders):
    anyio.run(read, decoders, plain())
    assert decoders._idle
    server = fork_server(decoders)
    for pid in children(server):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not children(server))
    assert anyio.run(read, decoders, plain()).size == (10, 20)


@pytest.mark.parametrize("name", ["heif", "avif", "jxl"])
def test_decoders_that_could_start_threads_work_within_the_limits_and_leave_none(
    decoders: Decoders, coffee: RgbU8, name: str
):
    data = heics.heic(coffee) if name == "heif" else encode(Picture(coffee), name)
    header = probe(data)
    most = forecast_decoding(header, len(data))
    options = {"max_bytes": most, "check": lambda: None}
    picture = anyio.run(partial(decoders.decode, data, header, **options))
    assert (picture.samples == decode(data).samples).all()
    assert len(os.listdir(f"/proc/{fork_server(decoders)}/task")) == 1
