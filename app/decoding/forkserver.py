"""The process that decodes: it forks a child for each upload, and kills it when it is told to.

It has imported what decoding needs and nothing else, and has one thread, so that a fork takes a
millisecond and is safe. A child reads one upload and exits: what a picture breaks, fills or leaks
is gone with it. ``multiprocessing`` has a fork server, too; its children import the program's main
module, and report neither to another process nor by a descriptor.

The service sends a :class:`app.decoding.shared.Task` with two descriptors: a connection for the
answer, and the upload. The child answers with :data:`DONE` and the descriptor of its result. If it
ends otherwise, this process answers with the number of the signal that ended it, or with
:data:`FAILED`. If the service closes the connection before, the child is killed.
"""

import ctypes
import gc
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
FAILED = 255
"""Answer of one byte if no child could be started, or if it did not end by a signal."""


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
        sent, descriptors, *_ = socket.recv_fds(control, Task.LENGTH, 2)
        if not sent:
            self._closed = True
            return
        connection, upload = socket.socket(fileno=descriptors[0]), descriptors[1]
        try:
            pid = os.fork()
        except OSError:
            connection.send(bytes([FAILED]))
            connection.close()
        else:
            if pid == 0:
                self._work(sent, connection, upload)
            self._children[connection] = pid
            self._selector.register(connection, selectors.EVENT_READ, self._kill)
        os.close(upload)

    def _kill(self, connection: socket.socket) -> None:
        """Kill the child whose connection the service has closed."""
        if pid := self._children.get(connection):
            self._selector.unregister(connection)
            os.kill(pid, signal.SIGKILL)

    def _reap(self, ended: socket.socket) -> None:
        ended.recv(4096)
        connections = {pid: connection for connection, pid in self._children.items()}
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = connections[pid]
            del self._children[connection]
            if connection in self._selector.get_map():
                self._selector.unregister(connection)
            if status:
                with suppress(OSError):  # nobody waits for it
                    connection.send(bytes([os.WTERMSIG(status) or FAILED]))
            connection.close()

    def _work(self, sent: bytes, connection: socket.socket, upload: int) -> NoReturn:
        """What a child does."""
        try:
            if sys.platform == "linux":  # if this server is killed, so are its children
                pr_set_pdeathsig = 1
                ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (self._control, *self._children):
                other.close()
            os.dup2(0, 2)  # /dev/null: libraries write there what a picture says
            task = Task.from_bytes(sent)
            _limit(task)
            data = read_file(upload)
            try:
                result: Header | Picture | Exception = _do(task, data)
            except Exception as error:
                result = error
            socket.send_fds(connection, [bytes([DONE])], [write_result(result)])
            os._exit(0)
        finally:
            os._exit(1)


def _limit(task: Task) -> None:
    import resource

    signal.setitimer(signal.ITIMER_PROF, task.max_seconds)  # SIGPROF, which ends a process
    if task.operation == "probe":  # others do not wait for a long one, which is Python code
        signal.signal(signal.SIGVTALRM, lambda *_: os.nice(19))
        signal.setitimer(signal.ITIMER_VIRTUAL, task.max_seconds / 5)
    if sys.platform == "linux":
        # Private memory alone: neither the libraries nor the files of upload and result.
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        limit = used + task.max_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _do(task: Task, data: bytes) -> Header | Picture:
    if task.operation == "probe":
        return probe(data, max_pixels=task.max_pixels)
    picture = decode(data, max_pixels=task.max_pixels)
    if task.strip_metadata:
        picture = without_metadata(picture)
    return to_srgb(picture) if task.srgb else picture


def _import_all() -> None:
    """Import what decoders import when they are first used."""
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
