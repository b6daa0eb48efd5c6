"""Several devices for one run: the CPU's logical ones, and two processes on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from superres.arrays import RgbU8
from tests.lazy import Lazy
from training.config import TrainingConfig, load_config

devices = Lazy("training.devices")
keras = Lazy("keras")

STEPS, STEPS_PER_VALIDATION = 12, 3
CONFIG = f"""
name = "tiny"
family = "tiny"
network = "srcnn_935"
skip = true
scale = 3
loss = "mse"
learning_rate = 1e-3
final_learning_rate = 1e-4
warmup_steps = 2
ema_momentum = 0.5
batch_size = 4
patch_size = 24
shrinks = [1.0]
steps = {STEPS}
steps_per_validation = {STEPS_PER_VALIDATION}
patience = 100
precision = "float32"
seed = 42
"""


@pytest.fixture
def smoke() -> TrainingConfig:
    return load_config("smoke")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, coffee: RgbU8) -> Path:
    """Folder of a few pictures, a config for each optimizer, and all runs."""
    place = tmp_path_factory.mktemp("devices")
    (place / "pictures").mkdir()
    for i in range(3):
        picture = Image.fromarray(coffee[i * 60 :, i * 60 :][:60, :75])
        picture.save(place / "pictures" / f"{i}.png")
    for optimizer in ("adam", "soap"):
        (place / f"{optimizer}.toml").write_text(CONFIG + f'optimizer = "{optimizer}"\n')
    return place


def fit(optimizer: str, run: str, devices: int, *more: str) -> str:
    """The command for a run of seconds."""
    return (
        f"fit --config {optimizer}.toml --data pictures --validation pictures --run {run} "
        f"--devices {devices} {' '.join(more)}"
    )


def start(place: Path, backend: str, *commands: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``tests.devices`` on a backend; it ends by itself."""
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.devices", *commands],
        cwd=place,
        env=os.environ
        | {"PYTHONPATH": root, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        | {"CUDA_VISIBLE_DEVICES": "-1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place: Path, backend: str, *commands: str, status: int = 0) -> None:
    """The same, to its end."""
    process = start(place, backend, *commands)
    _, errors = process.communicate()
    assert process.returncode == status, errors


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def runs(place: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of runs by each optimizer on one device and on four, all of one process.

    TensorFlow has a process use one number of devices and no other, but for one.
    """
    backend = request.param
    (place / backend).mkdir()
    run(
        place,
        backend,
        *(fit("adam", f"{backend}/{count}", count) for count in (1, 4)),
        *(f"soap {count} {backend}/{count}.npz" for count in (1, 4)),
    )
    return place / backend


def arrays(folder: Path) -> list[np.ndarray]:
    """Of the network, whose six come first, and of the optimizer."""
    with np.load(folder / "state.npz") as state:
        return [state[name] for name in state.files if name.isdigit()]


def history(folder: Path) -> list[dict[str, float]]:
    with np.load(folder / "state.npz") as state:
        return json.loads(str(state["history"]))


def assert_the_same(folder: Path, other: Path) -> None:
    assert history(folder) == history(other)
    assert all(np.array_equal(*pair) for pair in zip(arrays(folder), arrays(other), strict=True))


def test_more_devices_than_there_are_are_refused_and_a_batch_that_they_do_not_divide(smoke):
    there = len(keras.distribution.list_devices())
    many = smoke.model_copy(update={"batch_size": 64})
    with pytest.raises(ValueError, match=rf"devices is at most {there} \(.pu:0.*\), not 64"):
        devices.Devices(64, many)
    with pytest.raises(ValueError, match=r"batch_size is a multiple of the devices \(3\), not 2"):
        devices.Devices(3, smoke)


def test_what_a_backend_does_not_share_is_refused(smoke, monkeypatch):
    squashed = smoke.model_copy(update={"loss": load_config("upstream").loss})
    with pytest.raises(ValueError, match=r"sigmoid needs 1 device on tensorflow.*, not 2"):
        devices.Devices(2, squashed)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"is 1 on tensorflow, not 2: .* KERAS_BACKEND=jax"):
        devices.Devices(1, smoke)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="precision is float32 or bfloat16 with several proc"):
        devices.Devices(2, smoke.model_copy(update={"precision": "auto"}))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"several devices need tensorflow or jax; .* is torch"):
        devices.Devices(2, smoke)


def test_one_device_is_given_the_batches_as_they_are(smoke):
    one = devices.Devices(1, smoke)
    batches = iter([])
    assert one.batches(lambda: batches) is batches
    assert one.chief


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_several_devices_train_as_one_but_for_rounding(runs: Path):
    machine = json.loads((runs / "4" / "record.json").read_text())["machine"]
    assert machine.endswith(" cores, 4 devices")
    for ours, theirs in zip(history(runs / "4"), history(runs / "1"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["psnr_y"] == pytest.approx(theirs["psnr_y"], abs=1e-3)
    for array, expected in zip(arrays(runs / "4"), arrays(runs / "1"), strict=True):
        assert array == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_soap_on_several_devices_is_soap_on_one(runs: Path):
    """In float64: it takes the directions that have no gradient from rounding, and in float32 a
    batch in another order changes its weights as much as another number of devices.
    """
    one, four = (np.load(runs / f"{count}.npz") for count in (1, 4))
    assert one["arr_0"].shape == (5, 5, 3, 16)
    for name in one.files:
        assert four[name].dtype in (np.float64, np.int64, np.int32)
        assert four[name] == pytest.approx(one[name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_run_on_two_devices_goes_on_to_the_bit_and_on_one(place: Path):
    """On TensorFlow; the next test is JAX's."""
    whole, killed, with_one = (place / name for name in ("whole", "killed", "with-one"))
    run(place, "tensorflow", "kill 5", fit("soap", "killed", 2), status=-signal.SIGKILL)
    done = history(killed)
    assert len(done) == 1
    shutil.copytree(killed, with_one)

    run(
        place,
        "tensorflow",
        fit("soap", "whole", 2),
        fit("soap", "killed", 2, "--resume"),
        fit("soap", "with-one", 1, "--resume"),
    )
    assert_the_same(killed, whole)
    assert history(with_one)[:1] == done
    assert len(history(with_one)) == len(history(whole))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("runs", ["jax"], indirect=True)
def test_two_processes_of_which_one_was_killed_go_on_and_train_as_one(place: Path, runs: Path):
    def start_two(*commands: tuple[str, ...]) -> list[subprocess.Popen[str]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        return [
            start(
                place,
                "jax",
                *mine,
                XLA_FLAGS="--xla_force_host_platform_device_count=1",
                KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(process),
            )
            for process, mine in enumerate(commands)
        ]

    def finish(processes: list[subprocess.Popen[str]]) -> None:
        (shown, errors), (nothing, _) = (process.communicate() for process in processes)
        assert [process.returncode for process in processes] == [0, 0], errors
        assert f"step     {STEPS}" in shown
        assert "step" not in nothing

    broken = fit("adam", "two", 2)
    chief, other = start_two(("kill 5", broken), (broken,))
    _, errors = chief.communicate()
    assert chief.returncode == -signal.SIGKILL, errors
    other.communicate()
    assert other.returncode != 0
    assert len(history(place / "two")) == 1
    resumed = fit("adam", "two", 2, "--resume")
    finish(start_two((resumed,), (resumed,)))
    for array, expected in zip(arrays(place / "two"), arrays(runs / "1"), strict=True):
        assert array == pytest.approx(expected, abs=1e-6)
    logs = list((place / "two" / "tensorboard").iterdir())
    assert len(logs) == 2  # the chief's, before and after
