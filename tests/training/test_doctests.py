import doctest
import importlib
import inspect
import pkgutil

import training


def test_the_examples_in_docstrings_hold():
    """Here and not by pytest, which would import Keras when it collects them."""
    names = [module.name for module in pkgutil.iter_modules(training.__path__)]
    modules = [importlib.import_module(f"training.{name}") for name in names]
    results = {module: doctest.testmod(module) for module in modules}
    assert not any(result.failed for result in results.values())
    with_examples = {module for module in modules if ">>>" in inspect.getsource(module)}
    assert with_examples
    assert with_examples == {module for module, result in results.items() if result.attempted}
