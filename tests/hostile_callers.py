"""64 callers who mean harm, in a process of their own: ``python -m tests.hostile_callers PORT``.

Each repeats its deed until the process is killed. The process prints a line once all slow readers
have the first bytes of their answers. When it ends, it has printed how many answers it got.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import suppress

import numpy as np

from tests.hostile import many_chunks, many_directories, many_scans
from tests.pictures import encoded, plain

CALLERS = {
    "directories": 14,
    "chunks": 12,
    "scans": 4,
    "stalled bodies": 12,
    "slow readers": 10,
    "watchers": 12,
}
CHEAP = "POST /enhance?scale=1&fallback=always"
"""Little work once the picture is decoded, so that it is admitted."""
ANSWERS: Counter[str] = Counter()


class Callers:
    def __init__(self, port: int) -> None:
        self._port = port
        self._slow_readers = 0
        self._bodies = {
            "directories": many_directories(16_000),
            "chunks": many_chunks(300_000),
            "scans": many_scans(4000, side=1000),
        }
        noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
        self._large = encoded(noise)

    async def send(
        self, target: str, body: bytes, length: int | None = None, *headers: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        length = len(body) if length is None else length
        lines = [f"{target} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        await writer.drain()
        return reader, writer

    async def read_to_the_end(self, target: str, body: bytes, kind: str) -> None:
        reader, writer = await self.send(target, body)
        try:
            status = (await reader.readline()).split()[1].decode()
            ANSWERS[f"{kind} {status}"] += 1
            while await reader.read(65_536):
                pass
        finally:
            writer.close()

    async def stall(self) -> None:
        _, writer = await self.send("POST /enhance", b"\x89PNG", 1_000_000)
        try:
            await asyncio.sleep(3600)
        finally:
            writer.close()

    async def read_slowly(self, number: int) -> None:
        await asyncio.sleep(0.2 * number)
        target = "POST /enhance?scale=4&format=tiff&fallback=always"
        reader, writer = await self.send(target, self._large)
        try:
            if b" 200 " not in await reader.readline():
                await asyncio.sleep(0.5)
                return
            self._slow_readers += 1
            if self._slow_readers == CALLERS["slow readers"]:
                print("all slow readers read", flush=True)
            while await reader.read(64):
                await asyncio.sleep(0.1)
        finally:
            writer.close()

    async def watch(self) -> None:
        reader, writer = await self.send("POST /enhance", plain(), None, "Prefer: respond-async")
        location = b""
        while line := (await reader.readline()).strip():
            if line.lower().startswith(b"location:"):
                location = line.split(b":", 1)[1].strip()
        writer.close()
        await self.read_to_the_end(f"GET {location.decode()}/events", b"", "watchers")

    async def repeat(self, kind: str, number: int) -> None:
        while True:
            with suppress(OSError, IndexError, asyncio.IncompleteReadError):
                if kind == "stalled bodies":
                    await self.stall()
                elif kind == "slow readers":
                    await self.read_slowly(number)
                elif kind == "watchers":
                    await self.watch()
                else:
                    await self.read_to_the_end(CHEAP, self._bodies[kind], kind)
            await asyncio.sleep(0.05)


async def main() -> None:
    os.nice(10)  # callers are other machines: what they compute is not taken from the service
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    callers = Callers(int(sys.argv[1]))
    tasks = [
        asyncio.create_task(callers.repeat(kind, number))
        for kind, count in CALLERS.items()
        for number in range(count)
    ]
    await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    print(", ".join(f"{count} of {kind}" for kind, count in sorted(ANSWERS.items())), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
