"""Provenance of a run: commit, package versions and machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import keras

from superres.models.card import (
    SessionRecord,
    TrainingPrecision,
)
from training.sampler import SAMPLER_VERSION

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = ("superres", "training", "pyproject.toml", "requirements")
"""Paths that a run depends on; models, docs and tests may differ from the commit."""
PACKAGES = ("keras", "numpy", "pillow", "scipy")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "fma")


def session(devices: int, precision: TrainingPrecision) -> SessionRecord:
    """Record of the code and the machine for a run that starts or resumes now."""
    commit, dirty = commit_and_dirty()
    backend = keras.backend.backend()
    packages = (*PACKAGES, *_distributions(backend))
    return SessionRecord(
        commit=commit,
        dirty=dirty,
        versions={"python": platform.python_version()} | {name: version(name) for name in packages},
        backend=backend,
        machine=machine(),
        flags=tuple(flag for flag in FLAGS if flag in _cpu_flags()),
        devices=devices,
        sampler_version=SAMPLER_VERSION,
        precision=precision,
    )


def commit_and_dirty(repository: Path = REPOSITORY) -> tuple[str, bool | None]:
    """The commit, and whether code differs from it.

    In an image, the commit that it was built from, and None; elsewhere outside a Git clone,
    ``unknown`` and None.
    """
    commit = _git(repository, "rev-parse", "HEAD")
    changed = _git(repository, "status", "--porcelain", "--", *CODE)
    if commit is None or changed is None:
        image = repository / "COMMIT"
        return image.read_text().strip() if image.is_file() else "unknown", None
    return commit, bool(changed)


def machine() -> str:
    """Name and cores of the processor, and the accelerators."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
    accelerators = [device for device in keras.distribution.list_devices() if "cpu" not in device]
    return ", ".join([f"{name}, {os.cpu_count()} cores", *accelerators])


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.split(":", 1)[1].split())
    return set()


def _distributions(backend: str) -> tuple[str, ...]:
    if backend == "jax":
        return ("jax", "jaxlib")
    from importlib.metadata import packages_distributions

    return tuple(sorted(set(packages_distributions()["tensorflow"])))


def _git(repository: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(repository), *arguments],  # noqa: S607 - from the PATH
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
