"""Connects a process to a Ray cluster."""

import logging
import os
from collections.abc import Mapping

import ray
from pydantic import SecretStr

from app.settings import Settings

PREFIX = "SUPERRES_"


def public_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that every process on the cluster gets: Ray Serve's, and settings.

    Ray shows them on its dashboard and writes them to its logs. So secrets are not among them, and
    neither is what is no setting, such as a caller's own key.
    """
    names = _names(secret=False)
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in names or name.startswith("RAY_SERVE_")
    }


def secret_settings(environment: Mapping[str, str]) -> dict[str, SecretStr]:
    """The variables that only the front gets, as arguments."""
    names = _names(secret=True)
    return {name: SecretStr(value) for name, value in environment.items() if name.upper() in names}


def _names(*, secret: bool) -> set[str]:
    """Names of the variables of all settings that are secrets, or of all that are not."""
    fields = Settings.model_fields.items()
    return {
        f"{PREFIX}{name.upper()}"
        for name, field in fields
        if (field.annotation is SecretStr) == secret
    }


def connect(*, logs: bool) -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, or else of this machine, or else start one.

    Processes that are started there get this process's settings but secrets, and Ray Serve's. Ray's
    usage statistics are off.

    Args:
        logs: whether this process shows the logs of the cluster's processes.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        runtime_env={"env_vars": public_settings(os.environ)},
        include_dashboard=False,
        log_to_driver=logs,
        logging_level=logging.WARNING,
    )
