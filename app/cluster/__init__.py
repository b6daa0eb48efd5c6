"""The service and folders on a Ray cluster. It needs the extra ``cluster``."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Give ``app.cluster:application``, the import path of older copies of serve.yaml.

    It is loaded only when it is asked for: the service and the folders import different parts of
    Ray.
    """
    if name == "application":
        return importlib.import_module("app.cluster.serve").application
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
