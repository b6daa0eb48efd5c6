"""The process that forks those that read uploads, and kills them on request.

It has imported what decoding needs and nothing else, and has one thread, so that a fork is quick
and safe. ``multiprocessing`` has a fork server, too, but its children import the program's main
module first, and its pools kill no process that is at work.

For each child the service sends two connections. One is the child's: it takes a
:class:`app.decoding.shared.Task` with the descriptor of the upload, answers with one byte and the
descriptor of the result, and takes the next. The other is this process's: when the service closes
it, the child is killed, and when the child ends, the service gets the number of the signal, or
:data:`FAILED`.
"""

import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

import numpy as np

from app.decoding.shared import Task, read_file, write_result
from superres.codecs import (
    FORMATS,
    OUTPUT_FORMATS,
    Header,
    Picture,
    decode,
    encode,
    probe,
    to_srgb,
    without_metadata,
)

DONE = 0
"""Answer of a child that takes another task."""
LAST = 1
"""Answer of a child that ends."""
FAILED = 255
"""Sent if no child could be started, or if it did not end by a signal."""
TASKS = 100
"""Tasks of a child; then what they leaked is freed."""


class ForkServer:
    """Starts, kills and reaps the children.

    Args:
        control: connection to the service; when it is closed, the server ends.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._start)
        ended, self._wakeup = socket.socketpair()
        for end in (ended, self._wakeup):
            end.setblocking(False)
        self._selector.register(ended, selectors.EVENT_READ, self._reap)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._closed = False

    def run(self) -> None:
        """Serve until the service has ended."""
        while not self._closed:
            for key, _ in self._selector.select():
                key.data(key.fileobj)
        for pid in self._children.values():
            os.kill(pid, signal.SIGKILL)

    def _start(self, control: socket.socket) -> None:
        sent, descriptors, *_ = socket.recv_fds(control, 1, 2)
        if not sent:
            self._closed = True
            return
        connection, lifeline = (socket.socket(fileno=one) for one in descriptors)
        server = os.getpid()
        with connection:
            try:
                pid = os.fork()
            except OSError:
                lifeline.send(bytes([FAILED]))
                lifeline.close()
                return
            if pid == 0:
                lifeline.close()
                self._work(connection, server)
        self._children[lifeline] = pid
        self._selector.register(lifeline, selectors.EVENT_READ, self._kill)

    def _kill(self, lifeline: socket.socket) -> None:
        """Kill a child: the service has closed its lifeline."""
        if pid := self._children.get(lifeline):
            self._selector.unregister(lifeline)
            os.kill(pid, signal.SIGKILL)

    def _reap(self, ended: socket.socket) -> None:
        ended.recv(4096)
        lifelines = {pid: lifeline for lifeline, pid in self._children.items()}
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            lifeline = lifelines[pid]
            del self._children[lifeline]
            if lifeline in self._selector.get_map():
                self._selector.unregister(lifeline)
            with suppress(OSError):  # nobody waits for it
                lifeline.send(bytes([os.WTERMSIG(status) or FAILED]))
            lifeline.close()

    def _work(self, connection: socket.socket, server: int) -> NoReturn:
        """What a child of that server does."""
        try:
            if sys.platform == "linux":  # if this server is killed, so are its children
                pr_set_pdeathsig = 1
                ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
            if os.getppid() != server:  # it was killed before that
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGVTALRM, lambda *_: os.nice(19))
            priority = os.nice(0)
            for other in (self._control, *self._children):
                other.close()
            os.dup2(0, 2)  # /dev/null: libraries write there what a picture says
            answer = DONE
            for number in range(TASKS):
                sent, descriptors, *_ = socket.recv_fds(connection, Task.LENGTH, 1)
                if not sent:
                    break
                result = _do(Task.from_bytes(sent), descriptors[0])
                if number == TASKS - 1 or os.nice(0) != priority:
                    answer = LAST
                socket.send_fds(connection, [bytes([answer])], [result])
                os.close(result)
                if answer == LAST:
                    break
            os._exit(0)
        finally:
            os._exit(1)


def _do(task: Task, upload: int) -> int:
    """Do a task; the descriptor of its result."""
    _limit(task)
    data = read_file(upload)
    try:
        return write_result(_read(task, data))
    except Exception as error:
        return write_result(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(task: Task) -> None:
    import resource

    signal.setitimer(signal.ITIMER_PROF, task.max_seconds)  # SIGPROF, which ends a process
    if task.operation == "probe":  # others do not wait for a long one, which is Python code
        signal.setitimer(signal.ITIMER_VIRTUAL, task.max_seconds / 5)  # SIGVTALRM
    if sys.platform == "linux":
        # Private memory alone: neither the libraries nor the files of upload and result.
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + task.max_bytes, resource.RLIM_INFINITY))


def _read(task: Task, data: bytes) -> Header | Picture:
    if task.operation == "probe":
        return probe(data, max_pixels=task.max_pixels)
    picture = decode(data, max_pixels=task.max_pixels)
    if task.strip_metadata:
        picture = without_metadata(picture)
    return to_srgb(picture) if task.srgb else picture


def _import_all() -> None:
    """Import what decoders import when they are first used."""
    for row in FORMATS.values():
        for module in row.imports:
            importlib.import_module(module)
    for output_format in OUTPUT_FORMATS:
        for dtype in (np.uint8, np.uint16):
            decode(encode(Picture(np.zeros((8, 8, 3), dtype)), output_format))


def main() -> None:
    """Serve on the connection whose descriptor is the argument."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _import_all()
    gc.collect()
    gc.freeze()  # or each child's collection would copy all pages
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
