"""The fork server with one more format, whose files say what their decoder does wrong.

A file is ``HOSTILE``, what reading its header does, a space, and what decoding it does. Tests set
``app.decoding.decoders.FORK_SERVER`` to this module.
"""

import hashlib
import os
import signal
import time
from collections.abc import Callable

import numpy as np

from app.decoding import forkserver
from superres.codecs import FORMATS, Header, Picture
from superres.codecs.format import Format

MAGIC = b"HOSTILE"


def _fill() -> None:
    kept = []
    while True:
        kept.append(np.empty(10_000_000, np.uint8))  # no page of it is touched


def _spin() -> None:
    """In C, where no handler of Python's interrupts it."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


DEEDS: dict[bytes, Callable[[], object]] = {
    b"nothing": lambda: None,
    b"fill": _fill,
    b"spin": _spin,
    b"sleep": lambda: time.sleep(600),
    b"crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"abort": os.abort,
    b"exit": lambda: os._exit(3),
    b"error": lambda: {}["missing"],
}


def hostile(*, probe: str = "nothing", decode: str = "nothing") -> bytes:
    """A file whose header and whose pixels do that."""
    return b"HOSTILE%s %s" % (probe.encode(), decode.encode())


def _probe(file, max_pixels):
    DEEDS[file.read().removeprefix(MAGIC).split()[0]]()
    return Header("hostile", (10, 20), 8)


def _decode(data, max_pixels):
    DEEDS[data.split()[1]]()
    return Picture(np.zeros((10, 20, 3), np.uint8))


HOSTILE = Format(
    name="hostile",
    label="hostile",
    magic=(MAGIC,),
    suffixes=(),
    media_type="image/x-hostile",
    probe=_probe,
    decode=_decode,
)

if __name__ == "__main__":
    # Children start slowly, so that tests kill the server also before a child is ready.
    os.register_at_fork(after_in_child=lambda: time.sleep(0.02))
    FORMATS[HOSTILE.name] = HOSTILE
    forkserver.main()
