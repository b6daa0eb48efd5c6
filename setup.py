"""Puts the models into the wheel; everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Copies ``models/`` to ``superres/shipped_models``; an editable install reads ``models/``."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "superres", "shipped_models")
            rmtree(target, ignore_errors=True)  # of a build before
            copytree("models", target)


setup(cmdclass={"build_py": BuildWithModels})
