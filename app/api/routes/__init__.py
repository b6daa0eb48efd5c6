"""The routes: one module for each resource, with its ``router`` and its ``ACCESS``.

``ACCESS`` says who may call: ``open`` everybody, ``key`` who has a key, ``admin`` who has an
administrator's.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules() -> list[ModuleType]:
    """All modules of routes, by name."""
    return [import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__)]
