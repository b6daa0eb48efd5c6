"""Build the site into artefacts/site: ``python -m docsite``. Any fault ends it with status 1."""

import subprocess
import sys

from docsite.assemble import REPOSITORY, assemble
from docsite.hosts import external_resources

PAGES = REPOSITORY / "artefacts" / "docs"
SITE = REPOSITORY / "artefacts" / "site"
"""Both as zensical.toml names them."""


def main() -> None:
    """Assemble the pages, build the site strictly, and check that it loads nothing from outside."""
    _stop_at(assemble(PAGES))
    build = (sys.executable, "-m", "zensical", "build", "--strict", "--clean")
    if subprocess.run(build, cwd=REPOSITORY).returncode:
        raise SystemExit(1)
    _stop_at(external_resources(SITE))
    print(SITE / "index.html")


def _stop_at(faults: list[str]) -> None:
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
