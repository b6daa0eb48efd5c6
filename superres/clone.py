"""The parts of the project that a clone has beside the library, and a wheel has not.

``pip install`` does not install ``app`` and ``training``. The library finds them by name when it
runs; none of its modules imports them.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from superres.errors import BadRequest

_ROOT = Path(__file__).resolve().parents[1]
"""The clone's folder; of an installed package, ``site-packages``."""


def has(module: str) -> bool:
    """Whether a module, as ``app.commands``, is in the clone that the library is in.

    In ``site-packages``, a package named ``app`` is another project's.
    """
    file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return (_ROOT / "pyproject.toml").is_file() and file.is_file()


def part(module: str, what: str) -> Any:
    """A module of the clone.

    Args:
        module: as ``app.commands``.
        what: names what needs it, for the message.

    Raises:
        BadRequest: there is no clone.
    """
    if not has(module):
        raise BadRequest(
            f"{what} needs a clone of the project, where `make install` sets it up: "
            "a package that pip installed has no service and no training"
        )
    return import_module(module)


def train() -> NoReturn:
    """Run ``superres-train``."""
    try:
        training = part("training.cli", "superres-train")
    except BadRequest as error:
        raise SystemExit(f"error: {error}") from None
    training.main()
    raise SystemExit(0)
