"""Pytest plugin that keeps jaxtyping from importing JAX, which takes two seconds a process.

It would do so with the first function that it checks, to shorten JAX's own tracebacks. Loaded by
``addopts``, since conftest.py is too late for it.
"""

import sys

import pytest
from jaxtyping import jaxtyped

with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setitem(sys.modules, "jax", None)
    jaxtyped("context")
