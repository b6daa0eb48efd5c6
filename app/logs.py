"""Logs: one line an event, for people or as JSON, with what is known of its request.

The code logs by the standard library. What is bound by :mod:`structlog.contextvars` (the request's
id, method and, once it is known, route) is added to every line of a request, whichever thread or
library wrote it. Tracebacks have no local variables: those hold callers' pictures and keys. What a
decoder says of a picture is its caller's alone, and in no line.
"""

import logging
import sys
import warnings
from typing import Literal, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

LogFormat = Literal["console", "json"]

CLIENTS = ("httpcore", "httpx")
"""Packages whose log lines have the URLs that are called."""
DECODERS = ("PIL", "imagecodecs", "tifffile")
"""Packages whose warnings and log lines quote the picture."""


def configure(log_format: LogFormat) -> None:
    """Send every logger's lines, uvicorn's too, to stdout in this format.

    On stderr is what native libraries say past Python, in no format at all.
    """
    logging.captureWarnings(True)
    for name in DECODERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in CLIENTS:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=rf"({'|'.join(DECODERS)})(\.|$)")
    root = logging.getLogger()
    root.handlers = [make_handler(log_format, sys.stdout)]
    root.setLevel(logging.INFO)


def make_handler(log_format: LogFormat, stream: TextIO) -> logging.Handler:
    """A handler that writes lines in this format to a stream."""
    known: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_colours,
    ]
    render: list[Processor] = [
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]
    if log_format == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=known,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    return handler


def _without_colours(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Uvicorn says some things twice, once in colours."""
    event.pop("color_message", None)
    return event
