"""Several devices for one run: the CPU's logical ones, and two processes on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from superres.arrays import RgbU8
from tests.lazy import Lazy
from training.config import TrainingConfig, load_config

devices = Lazy("training.devices")
keras = Lazy("keras")

both_backends = pytest.mark.parametrize("backend", ["tensorflow", "jax"])
Start = Callable[..., subprocess.Popen[str]]
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


@pytest.fixture
def arguments(tmp_path: Path, coffee: RgbU8) -> list[str]:
    """Of ``superres-train`` for a run of seconds, in need of an optimizer and a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(coffee[i * 60 :, i * 60 :][:60, :75]).save(folder / f"{i}.png")
    for optimizer in ("adam", "soap"):
        (tmp_path / f"{optimizer}.toml").write_text(CONFIG + f'optimizer = "{optimizer}"\n')
    return ["fit", "--data", str(folder), "--validation", str(folder)]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``tests.devices`` on a backend with some arguments; what still runs is killed."""
    processes = []

    def start(backend: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.devices", *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            env=os.environ
            | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Callable[..., None]:
    """The same, to its end."""

    def run(backend: str, *arguments: object) -> None:
        process = start(backend, *arguments)
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    return run


def kill_after_a_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    while not (folder / "state.npz").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 1 <= len(history(folder)) < STEPS // STEPS_PER_VALIDATION


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
    place = devices.Devices(1, smoke)
    batches = iter([])
    assert place.batches(lambda: batches) is batches
    assert place.chief


@pytest.mark.slow
@pytest.mark.timeout(1200)
@both_backends
def test_several_devices_train_as_one_but_for_rounding(backend: str, run, arguments, tmp_path):
    for count in (1, 2, 4):
        run(
            backend,
            *(*arguments, "--config", tmp_path / "adam.toml"),
            *("--run", tmp_path / f"{count}", "--devices", count),
        )
    machine = json.loads((tmp_path / "4" / "record.json").read_text())["machine"]
    assert machine.endswith(" cores, 4 devices")
    one = tmp_path / "1"
    for count in (2, 4):
        several = tmp_path / f"{count}"
        for ours, theirs in zip(history(several), history(one), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["psnr_y"] == pytest.approx(theirs["psnr_y"], abs=1e-3)
        for array, expected in zip(arrays(several), arrays(one), strict=True):
            assert array == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@both_backends
def test_soap_on_several_devices_is_soap_on_one(backend: str, run, tmp_path):
    """In float64: it takes the directions that have no gradient from rounding, and in float32 a
    batch in another order changes its weights as much as another number of devices.
    """
    for count in (1, 2, 4):
        run(backend, "soap", count, tmp_path / f"{count}.npz")
    one, two, four = (np.load(tmp_path / f"{count}.npz") for count in (1, 2, 4))
    assert one["arr_0"].shape == (5, 5, 3, 16)
    for name in one.files:
        assert two[name].dtype in (np.float64, np.int64, np.int32)
        assert two[name] == pytest.approx(one[name], abs=1e-6)
        assert four[name] == pytest.approx(one[name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@both_backends
def test_a_killed_run_on_two_devices_goes_on_to_the_bit_and_on_one(
    backend: str, start, run, arguments, tmp_path
):
    arguments += ["--config", str(tmp_path / "soap.toml")]
    whole, killed, with_one = (tmp_path / name for name in ("whole", "killed", "with-one"))
    run(backend, *arguments, "--run", whole, "--devices", 2)
    kill_after_a_checkpoint(killed, start(backend, *arguments, "--run", killed, "--devices", 2))
    shutil.copytree(killed, with_one)

    run(backend, *arguments, "--run", killed, "--devices", 2, "--resume")
    assert_the_same(killed, whole)
    done = history(with_one)
    run(backend, *arguments, "--run", with_one, "--resume")
    assert history(with_one)[: len(done)] == done
    assert len(history(with_one)) == len(history(whole))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_train_as_one_and_go_on_to_the_bit_when_one_was_killed(
    start, run, arguments, tmp_path
):
    def start_two(folder: str, *more: object) -> list[subprocess.Popen[str]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        return [
            start(
                *("jax", *arguments, "--config", tmp_path / "adam.toml"),
                *("--run", tmp_path / folder, "--devices", 2, *more),
                XLA_FLAGS="--xla_force_host_platform_device_count=1",
                KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(process),
            )
            for process in range(2)
        ]

    def finish(processes: list[subprocess.Popen[str]]) -> None:
        (shown, _), (nothing, _) = (process.communicate() for process in processes)
        assert [process.returncode for process in processes] == [0, 0]
        assert f"step     {STEPS}" in shown
        assert "step" not in nothing

    finish(start_two("whole"))
    run("jax", *arguments, "--config", tmp_path / "adam.toml", "--run", tmp_path / "one")
    for array, expected in zip(arrays(tmp_path / "whole"), arrays(tmp_path / "one"), strict=True):
        assert array == pytest.approx(expected, abs=1e-6)
    assert len(list((tmp_path / "whole" / "tensorboard").iterdir())) == 1

    chief, other = start_two("killed")
    kill_after_a_checkpoint(tmp_path / "killed", chief)
    other.communicate()
    assert other.returncode != 0
    finish(start_two("killed", "--resume"))
    assert_the_same(tmp_path / "killed", tmp_path / "whole")
