"""Which URLs may be called back: those of the hosts that the operator allows, and no others.

The list is what keeps callers from making the service send requests into its own network. Names
on it are resolved when a request is sent, to whatever address they have then. By HTTPS, a name
that was made to point elsewhere gives nothing: the other host has no certificate for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from httpx import URL, InvalidURL

from superres.errors import BadRequest

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that may be called without encryption, since nobody can listen between."""
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 2048
"""Characters of a URL."""
_ENTRY = re.compile(r"(?:(https?)://)?(\[[0-9a-fA-F:.]+\]|[^\s\[\]/:@?#*\\]+)(?::(\d{1,5}))?")


@dataclass(frozen=True)
class CallbackHost:
    """A host that may be called."""

    host: str
    port: int | None
    """None for that of the scheme."""
    schemes: tuple[str, ...]

    def allows(self, url: URL) -> bool:
        """Whether the host, the port and the scheme are these."""
        if url.scheme not in self.schemes or url.host != self.host:
            return False
        port = DEFAULT_PORTS[url.scheme] if self.port is None else self.port
        return _port(url) == port


def read_hosts(setting: str) -> tuple[CallbackHost, ...]:
    """The hosts of ``SUPERRES_CALLBACK_HOSTS``: ``[http://]HOST[:PORT]``, separated by commas.

    Raises:
        BadRequest: it is something else.
    """
    return tuple(_read_host(entry) for entry in map(str.strip, setting.split(",")) if entry)


def check_callback(url: str, hosts: Sequence[CallbackHost]) -> None:
    """Return if a URL may be called.

    Raises:
        BadRequest: it may not; the message has no more of the URL than its host.
    """
    if not hosts:
        raise BadRequest(
            "callback: this service calls nobody, as SUPERRES_CALLBACK_HOSTS, with which its "
            "operator lists the hosts that it may call, is empty; GET /jobs/ID/events reports "
            "the end of a job, too"
        )
    if len(url) > MAX_URL:
        raise BadRequest(f"callback: a URL has at most {MAX_URL:,} characters, not {len(url):,}")
    try:
        parsed = URL(url)
        host = parsed.host
    except (InvalidURL, UnicodeError, ValueError):
        raise BadRequest("callback: it cannot be parsed as a URL") from None
    if parsed.scheme not in DEFAULT_PORTS or not host:
        raise BadRequest("callback: it is an absolute URL, as https://example.org/hook")
    if parsed.userinfo or parsed.fragment:
        raise BadRequest("callback: a URL here has no user, password or fragment")
    if any(one.allows(parsed) for one in hosts):
        return
    raise BadRequest(
        f"callback: this service does not call {parsed.scheme}://{host[:255]}:{_port(parsed)}; its "
        "operator allows hosts, and ports other than 443, by SUPERRES_CALLBACK_HOSTS"
    )


def _port(url: URL) -> int:
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _read_host(entry: str) -> CallbackHost:
    match = _ENTRY.fullmatch(entry)
    try:
        host = URL(f"https://{match[2]}").host if match else ""  # written as that of a callback
    except (InvalidURL, UnicodeError, ValueError):
        host = ""
    if match is None or not host:
        raise BadRequest(
            "SUPERRES_CALLBACK_HOSTS is [http://]HOST[:PORT], separated by commas, as "
            f"example.org, [::1]:8080 or http://internal:8080; not {entry[:200]!r}"
        )
    schemes = (match[1],) if match[1] else ("https", "http") if host in LOOPBACK else ("https",)
    return CallbackHost(host, int(match[3]) if match[3] else None, schemes)
