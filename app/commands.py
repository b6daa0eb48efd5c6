"""What the ``superres`` command can do where the service is: serve, key, and work on a cluster."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from superres.errors import BadRequest

if TYPE_CHECKING:
    from app.cluster.batch import ClusterBatchRunner
    from app.settings import Settings

commands = typer.Typer()


@commands.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    without_keys: Annotated[
        bool,
        typer.Option(
            "--without-keys", help="Listen beyond this machine though everybody may then call."
        ),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="On the Ray cluster of RAY_ADDRESS, else of this machine."),
    ] = False,
) -> None:
    """Serve the HTTP API. Settings are environment variables: see docs/reference/settings.md."""
    from app.access import read_keys
    from app.drain import END_S, serve
    from app.logs import configure
    from app.main import create_app

    settings = _read_settings()
    keys = read_keys(settings.api_keys.get_secret_value(), settings.rate_limit)
    if not (keys or without_keys or settings.without_keys or _is_loopback(host)):
        raise BadRequest(
            f"on {host}, others than this machine could call, and there are no keys: set "
            "SUPERRES_API_KEYS (`superres key NAME` makes one), or, if something else decides "
            "who may call, say --without-keys or set SUPERRES_WITHOUT_KEYS=true"
        )
    if without_keys:
        settings = settings.model_copy(update={"without_keys": True})
        os.environ["SUPERRES_WITHOUT_KEYS"] = "true"  # read by the front of a cluster
    if cluster:
        with _needs_cluster():
            from app.cluster.serve import serve_on_cluster
        serve_on_cluster(host, port)
        return
    app = create_app(settings)
    configure(settings.log_format)
    serve(app, app.state.drain, host=host, port=port, end_s=END_S)


@commands.command("key")
def key_command(
    name: Annotated[str, typer.Argument(help="Whose it is: in logs, and as owner of jobs.")],
    admin: Annotated[bool, typer.Option("--admin", help="Good for /admin, too.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="As 120/minute. Default: SUPERRES_RATE_LIMIT.")
    ] = None,
) -> None:
    """Make an API key. It is shown once: the service knows only its hash."""
    from app.access import make_key

    key, entry = make_key(name, admin=admin, limit=limit)
    print(f"The key, for {name} alone; it is not shown again:\n  {key}")
    print(f"For SUPERRES_API_KEYS, beside the others, separated by commas:\n  {entry}")


def cluster_batch_runner() -> "type[ClusterBatchRunner]":
    """What does the batches of ``superres enhance --cluster``.

    Raises:
        BadRequest: the extra ``cluster`` is not installed.
    """
    with _needs_cluster():
        from app.cluster.batch import ClusterBatchRunner
    return ClusterBatchRunner


def _read_settings() -> "Settings":
    """The settings of the environment.

    Raises:
        BadRequest: one is invalid. What it is set to may be a secret, and is not in the message.
    """
    from app.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        reasons = (
            f"SUPERRES_{one['loc'][0]}".upper() + f": {one['msg']}" for one in error.errors()
        )
        raise BadRequest("; ".join(reasons)) from None


@contextmanager
def _needs_cluster() -> Iterator[None]:
    """Around the import of what needs Ray."""
    try:
        yield
    except ImportError as error:
        raise BadRequest(
            f"--cluster needs the extra cluster ({error}): make install EXTRA=cluster"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
