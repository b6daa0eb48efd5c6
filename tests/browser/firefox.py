"""Starts Firefox for Playwright, as a program of its own.

Playwright drives Firefox by WebDriver BiDi, and wants two things that Firefox 153 lacks: a command
that sets media features, without which it gives up, and downloads that have a name. This process
between the two answers that command, names downloads by their address, and passes all else on. It
can go once Debian's Firefox has both.
"""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

UNKNOWN = "emulation.setMediaFeaturesOverride"
DOWNLOAD = "browsingContext.download"
LISTENS = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")


def write_starter(folder: Path, executable: str) -> Path:
    """Write a program for Playwright to start in place of Firefox."""
    starter = folder / "firefox"
    # By path: another folder is the working directory.
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{executable}" "$@"\n')
    starter.chmod(0o755)
    return starter


def with_download_named(message: str) -> str:
    """A message, with a name for the download that it tells of."""
    if DOWNLOAD not in message:
        return message
    event = json.loads(message)
    if event.get("method", "").startswith(DOWNLOAD):
        event["params"].setdefault("download", event["params"]["url"])
    return json.dumps(event)


async def main(*command: str) -> int:
    """Run Firefox, with the address that it tells replaced by the one of this process."""
    process = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    assert process.stderr is not None
    firefox = ""

    async def relay(driver: ServerConnection) -> None:
        async with connect(f"{firefox}/session", max_size=None) as browser:

            async def answers() -> None:
                async for message in browser:
                    await driver.send(with_download_named(str(message)))

            answering = asyncio.create_task(answers())
            async for message in driver:
                asked = json.loads(message)
                if asked["method"] == UNKNOWN:
                    done = {"type": "success", "id": asked["id"], "result": {}}
                    await driver.send(json.dumps(done))
                else:
                    await browser.send(message)
            answering.cancel()

    async with serve(relay, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async for line in process.stderr:
            if told := LISTENS.search(line):
                firefox = told[1].decode()
                line = line.replace(told[1], b"ws://127.0.0.1:%d" % port)
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
