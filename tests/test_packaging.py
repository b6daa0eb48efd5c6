"""The wheel, and what the lock files install."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from importlib.util import find_spec
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from setuptools import find_packages

from superres.arrays import RgbU8
from superres.models.registry import DEFAULT_MODELS
from tests.packages import link_required_packages

REPOSITORY = Path(__file__).parents[1]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "superres",
    "app",
    "training",
    "models",
)


def locked(name: str) -> dict[str, str]:
    """Packages of a lock file, each with its marker."""
    lock = (REPOSITORY / "requirements" / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==[^ ]+(.*) \\$", lock, flags=re.MULTILINE))


def test_pyproject_lists_every_package_of_the_library():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found = find_packages(str(REPOSITORY), include=["superres", "superres.*"])
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(found)


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("cpu", {"tensorflow", "tensorflow-cpu"}),
        ("onnx", set()),
        ("cluster", {"tensorflow", "tensorflow-cpu"}),
        ("gpu", {"tensorflow"}),
        ("cluster-gpu", {"tensorflow"}),
        ("train", set()),  # installed beside each of them
        ("dev", set()),
    ],
)
def test_no_lock_installs_two_tensorflows(lock: str, expected: set[str]):
    packages = locked(lock)
    assert packages.keys() & {"tensorflow", "tensorflow-cpu"} == expected
    if len(expected) == 2:  # each for other machines
        assert (
            packages["tensorflow"] == " ; platform_machine != 'x86_64' or sys_platform != 'linux'"
        )
        assert packages["tensorflow-cpu"] == (
            " ; platform_machine == 'x86_64' and sys_platform == 'linux'"
        )


def test_the_small_install_has_one_runtime_and_nothing_of_tensorflow():
    packages = locked("onnx").keys()
    assert "onnxruntime" in packages
    assert not packages & {"keras", "h5py", "grpcio", "onnx", "openvino", "torch"}
    assert packages - locked("cpu").keys() == {"onnxruntime"}


@pytest.mark.parametrize("lock", ["cpu", "onnx", "gpu", "cluster", "cluster-gpu"])
def test_serving_installs_nothing_of_training_and_tests(lock: str):
    assert not locked(lock).keys() & {"matplotlib", "pytest", "scikit-image", "tensorboardx"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since a build leaves files in the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", folder, folder / "source"], check=True)
    (wheel,) = folder.glob("superres-*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_has_the_library_and_the_models_and_nothing_else(wheel: Path):
    with ZipFile(wheel) as file:
        names = [Path(name) for name in file.namelist()]
    tops = {name.parts[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"superres"}
    models = {name for name in names if name.parts[:2] == ("superres", "shipped_models")}
    shipped = {file.relative_to(DEFAULT_MODELS) for file in DEFAULT_MODELS.rglob("*.*")}
    assert {Path(*name.parts[2:]) for name in models} == shipped


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "packages",
    [
        pytest.param("linked", marks=pytest.mark.slow),
        pytest.param("downloaded", marks=pytest.mark.soak),
    ],
)
def test_where_only_the_wheel_is_installed_the_command_and_the_client_work(
    wheel: Path, tmp_path: Path, chelsea: RgbU8, packages: str
):
    """With what the wheel requires and no other package: linked from here, or downloaded."""
    venv, links = tmp_path / "venv", tmp_path / "packages"
    links.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet"]
    if packages == "linked":
        (dist_info,) = (path for path in ZipPath(wheel).iterdir() if path.name.endswith("-info"))
        requires = PathDistribution(dist_info).requires or ()
        runtime = "tensorflow" if find_spec("tensorflow") else "onnx"
        link_required_packages(requires, links, extra=runtime)
        subprocess.run([*pip, "--no-deps", wheel], check=True)
    else:
        versions = tmp_path / "constraints.txt"
        lock = (REPOSITORY / "requirements" / "cpu.lock").read_text()
        versions.write_text("\n".join(re.findall(r"^([a-z0-9].*) \\$", lock, flags=re.MULTILINE)))
        subprocess.run([*pip, "--constraint", versions, f"{wheel}[tensorflow]"], check=True)
    environment = {name: value for name, value in os.environ.items() if "SUPERRES" not in name}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        return subprocess.run(
            [venv / "bin" / program, *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(links), "COLUMNS": "300"},
            capture_output=True,
            text=True,
        )

    Image.fromarray(chelsea[:60, :80]).save(tmp_path / "photo.jpg")
    enhanced = run("superres", "enhance", "photo.jpg", "-o", "larger.png")
    assert enhanced.returncode == 0, enhanced.stderr
    with Image.open(tmp_path / "larger.png") as image:
        assert image.size == (240, 180)
        assert np.std(np.asarray(image)) > 10
    assert "edsr-lite-photo-x3" in run("superres", "models").stdout
    serving = run("superres", "serve", "--port", "0")
    assert (serving.returncode, serving.stdout) == (1, "")
    assert "superres serve needs a clone of the project" in serving.stderr
    assert "superres-train needs a clone of the project" in run("superres-train", "fit", "x").stderr
    imports = (
        "import superres.client; from importlib.util import find_spec;"
        "print(find_spec('app'), superres.__file__)"
    )
    imported = run("python", "-c", imports)
    assert imported.stdout.startswith(f"None {venv}"), imported.stderr
