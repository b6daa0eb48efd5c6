"""Connects a process to a Ray cluster."""

import logging
import os

import ray


def connect(*, logs: bool) -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, or else of this machine, or else start one.

    Processes that are started there get this process's settings, and Ray Serve's. Ray's usage
    statistics are off.

    Args:
        logs: whether this process shows the logs of the cluster's processes.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    prefixes = ("SUPERRES_", "RAY_SERVE_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    ray.init(
        runtime_env={"env_vars": settings},
        include_dashboard=False,
        log_to_driver=logs,
        logging_level=logging.WARNING,
    )
