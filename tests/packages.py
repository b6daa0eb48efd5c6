"""Environments that have some of the packages that are installed here, by links."""

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def link_locked_packages(lock: Path, to: Path) -> None:
    """Fill a folder with links to those packages of a lock file that are installed here."""
    versions = re.findall(
        r"^([a-z0-9.-]+)(?:\[.*?\])?==(\S+)", lock.read_text(), flags=re.MULTILINE
    )
    for name, version in versions:
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another system
            continue
        if package.version == version:  # else of another Python
            _link(package, to)


def link_required_packages(requirements: Iterable[str], to: Path, extra: str = "") -> None:
    """Fill a folder with links to the packages that requirements name, and to what those need.

    ``extra`` is that of the package whose requirements these are.
    """
    waiting = [(Requirement(text), extra) for text in requirements]
    linked = set()
    while waiting:
        requirement, asked = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": asked}):
            continue
        for wanted in ("", *requirement.extras):
            if (requirement.name, wanted) in linked:
                continue
            linked.add((requirement.name, wanted))
            package = distribution(requirement.name)
            _link(package, to)
            waiting += [(Requirement(text), wanted) for text in package.requires or ()]


def _link(package: Distribution, to: Path) -> None:
    for file in package.files or ():
        installed = Path(str(file.locate()))
        if ".." in file.parts:  # a command
            continue
        # A package as a whole; of a namespace, its file.
        whole = installed.parents[len(file.parts) - 2] if len(file.parts) > 1 else installed
        if (whole / "__init__.py").exists():
            link, source = to / file.parts[0], whole
        else:
            link, source = to / file, installed
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
