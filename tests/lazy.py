"""Modules that are imported when a test first uses them, so that collecting tests stays quick."""

import importlib

HEAVY = ("jax", "keras", "ray", "tensorflow")
"""Packages that take seconds to import; collecting tests must not import them."""


class Lazy:
    """Stands for a module: imports it when one of its attributes is first read.

    To patch the module, give its dotted name: ``monkeypatch.setattr("training.fit.crops", ...)``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        # Pytest looks for __wrapped__, __test__ and _mock_name in every object of a test file.
        if attribute.startswith("__") or attribute == "_mock_name":
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
