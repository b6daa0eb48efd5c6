"""How a process gets to a Ray cluster; needs the extra ``cluster``."""

import logging
import os

import ray


def connect(*, logs: bool) -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, else of this machine, else make it one.

    What is started there gets this process's settings, and Ray Serve's. Nothing is sent to Ray's
    makers.

    Args:
        logs: whether what is logged there is shown here, too.
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
