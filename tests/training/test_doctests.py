import doctest
import importlib
import pkgutil

import training


def test_the_examples_in_docstrings_hold():
    """Here and not by pytest, which would import Keras when it collects them."""
    names = [module.name for module in pkgutil.iter_modules(training.__path__)]
    modules = [importlib.import_module(f"training.{name}") for name in names]
    results = {module.__name__: doctest.testmod(module) for module in modules}
    assert not any(result.failed for result in results.values())
    with_examples = {name for name, result in results.items() if result.attempted}
    assert with_examples == {"training.dataset", "training.prepare", "training.soap"}
