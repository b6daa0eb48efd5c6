"""Whether a service is ready, by the standard library alone.

Containers run this file every few seconds, as ``python -IS superres/health.py``: a check must not
cost what the import of NumPy and all else costs. So nothing of this package is imported here.
"""

import http.client
import json
import sys
from contextlib import closing, suppress
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 5.0
"""Seconds to wait for the answer."""


def why_not_ready(url: str = DEFAULT_URL) -> str | None:
    """The reason why the service at an address is not ready; None if it is ready."""
    try:
        parts = urlsplit(url)
        https = parts.scheme == "https"
        connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
        with closing(connect(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", f"{parts.path.rstrip('/')}/readyz")
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer from {url}: {error}"
    if status == 200:
        return None
    with suppress(ValueError, KeyError, TypeError):  # a proxy says it in words of its own
        return str(json.loads(body)["detail"])
    return f"{url} answers {status}"


if __name__ == "__main__":
    sys.exit(why_not_ready(*sys.argv[1:]))
