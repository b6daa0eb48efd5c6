"""Several devices for one run, two processes on loopback, and runs that are killed."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from superres.arrays import RgbU8
from tests.lazy import Lazy
from tests.runs import as_toml, small_config, write_pictures

devices = Lazy("training.devices")
keras = Lazy("keras")

both_backends = pytest.mark.parametrize("backend", ["tensorflow", "jax"])
slow = pytest.mark.slow
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, coffee: RgbU8) -> Path:
    """Three pictures, and configs of 12 steps by Adam and by SOAP."""
    folder = write_pictures(tmp_path_factory.mktemp("devices"), coffee)
    stage = {"steps": 12, "steps_per_validation": 3, "batch_size": 4, "loss": {"mse": 1.0}}
    for optimizer in ("adam", "soap"):
        config = small_config(name=optimizer, optimizer=optimizer, stages=[stage])
        (folder / f"{optimizer}.toml").write_text(as_toml(config))
    return folder


@pytest.fixture(scope="module")
def fit(folder: Path) -> Callable[..., list[str]]:
    """The words of a command that trains on so many devices."""

    def fit(optimizer: str, runs: Path, count: int = 1, *more: object) -> list[str]:
        words = ["fit", folder / f"{optimizer}.toml", "--data-root", folder, "--runs", runs]
        return [*map(str, words), "--workers", "0", "--devices", str(count), *map(str, more)]

    return fit


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start ``tests.devices`` on a backend with some arguments; what still runs is killed.

    What JAX compiles it keeps for the next process, or compiling would be most of the work.
    """
    processes = []
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }

    def start(backend: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.devices", *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            env=os.environ
            | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
            | cache
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


@pytest.fixture(scope="module")
def run(start: Start) -> Callable[..., None]:
    """The same, to its end."""

    def run(backend: str, *arguments: object, status: int = 0) -> None:
        process = start(backend, *arguments)
        _, errors = process.communicate()
        assert process.returncode == status, errors

    return run


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    run: Callable[..., None],
    fit: Callable[..., list[str]],
) -> Callable[[str], Path]:
    """Runs that nothing stopped, in a folder for each number of devices: Adam's and SOAP's.

    TensorFlow's strategies of two sizes do not get along in one process.
    """
    made: dict[str, Path] = {}

    def whole(backend: str) -> Path:
        if backend not in made:
            runs = tmp_path_factory.mktemp(backend)
            adam = [*fit("adam", runs / "1", 1), "then", *fit("adam", runs / "4", 4)]
            run(backend, *adam, "then", *fit("soap", runs / "4", 4))
            made[backend] = runs
        return made[backend]

    return whole


def state(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Facts of a checkpoint less its times, and its arrays."""
    with np.load(folder / "state.npz") as saved:
        facts = json.loads(str(saved["facts"]))
        for name in ("seconds", "waited", "sessions"):
            del facts[name]
        return facts, {name: saved[name] for name in saved.files if name != "facts"}


def assert_same(folder: Path, other: Path) -> None:
    (facts, arrays), (other_facts, other_arrays) = state(folder), state(other)
    assert facts == other_facts
    assert all(np.array_equal(arrays[name], other_arrays[name]) for name in other_arrays)
    assert (folder / "steps.csv").read_bytes() == (other / "steps.csv").read_bytes()


def assert_close(folder: Path, other: Path) -> None:
    """But for rounding."""
    (facts, arrays), (other_facts, other_arrays) = state(folder), state(other)
    for ours, theirs in zip(facts["history"], other_facts["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["clean_psnr_y"] == pytest.approx(theirs["clean_psnr_y"], abs=1e-3)
    for name, array in arrays.items():
        assert array == pytest.approx(other_arrays[name], abs=1e-5)


@pytest.mark.slow
def test_more_devices_than_there_are_are_refused_and_a_batch_that_they_do_not_divide():
    there = len(keras.distribution.list_devices())
    many = small_config(stages=[{"batch_size": 64}])
    with pytest.raises(ValueError, match=rf"devices must be at most {there} \(.pu:0.*\), not 64"):
        devices.Devices(64, many)
    with pytest.raises(
        ValueError, match=r"batch_size must be a multiple of the devices \(3\), not 2"
    ):
        devices.Devices(3, small_config())


@pytest.mark.slow
def test_what_a_backend_does_not_share_is_refused(monkeypatch):
    config = small_config()
    squashed = small_config(stages=[{"loss": {"mse": 1.0, "sigmoid": True}}])
    with pytest.raises(ValueError, match=r"sigmoid needs 1 device on tensorflow.*, not 2"):
        devices.Devices(2, squashed)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"must be 1 on tensorflow, not 2: .* KERAS_BACKEND=jax"):
        devices.Devices(1, config)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="precision must be float32 or bfloat16 with several"):
        devices.Devices(2, small_config(precision="auto"))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"training needs tensorflow or jax; .* is torch"):
        devices.Devices(1, config)


@slow
@pytest.mark.timeout(1200)
@both_backends
def test_several_devices_train_as_one_but_for_rounding(backend: str, whole):
    runs = whole(backend)
    assert_close(runs / "4" / "adam", runs / "1" / "adam")
    record = json.loads((runs / "4" / "adam" / "record.json").read_text())
    assert record["sessions"][0]["devices"] == 4


@slow
@pytest.mark.timeout(1200)
@both_backends
def test_soap_on_several_devices_is_soap_on_one(backend: str, run, tmp_path):
    """In float64: it takes the directions that have no gradient from rounding, and in float32 a
    batch in another order changes its weights as much as another number of devices.
    """
    run(backend, *("soap", 1, tmp_path / "1.npz"), "then", *("soap", 4, tmp_path / "4.npz"))
    one, four = (np.load(tmp_path / f"{count}.npz") for count in (1, 4))
    assert one["arr_0"].shape == (5, 5, 3, 16)
    for name in one.files:
        assert four[name].dtype in (np.float64, np.int64, np.int32)
        assert four[name] == pytest.approx(one[name], abs=1e-6)


@slow
@pytest.mark.timeout(1200)
def test_a_run_on_four_devices_that_was_killed_goes_on_to_the_bit_and_on_one(
    run, fit, whole, tmp_path
):
    """On TensorFlow; the next test is JAX's."""
    killed, alone = tmp_path / "killed" / "soap", tmp_path / "alone" / "soap"
    first = fit("soap", tmp_path / "killed", 4)
    run("tensorflow", "kill", 5, "then", *first, status=-signal.SIGKILL)
    shutil.copytree(killed, alone)
    done = state(alone)[0]["history"]
    assert len(done) == 1
    four, one = (
        fit("soap", tmp_path / name, count, "--resume")
        for name, count in (("killed", 4), ("alone", 1))
    )
    run("tensorflow", *four, "then", *one)
    assert_same(killed, whole("tensorflow") / "4" / "soap")
    assert state(alone)[0]["history"][:1] == done
    assert len(state(alone)[0]["history"]) == 4


@slow
@pytest.mark.timeout(1200)
def test_two_processes_of_which_one_was_killed_go_on_and_train_as_one(start, fit, whole, tmp_path):
    def start_two(*commands: list[object]) -> list[subprocess.Popen[str]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        return [
            start(
                "jax",
                *mine,
                XLA_FLAGS="--xla_force_host_platform_device_count=1",
                KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(process),
            )
            for process, mine in enumerate(commands)
        ]

    folder, broken = tmp_path / "adam", fit("adam", tmp_path, 2)
    chief, other = start_two(["kill", 5, "then", *broken], broken)
    _, errors = chief.communicate()
    assert chief.returncode == -signal.SIGKILL, errors
    other.communicate()
    assert other.returncode != 0
    assert len(state(folder)[0]["history"]) == 1

    resumed = [*broken, "--resume"]
    both = start_two(resumed, resumed)
    (shown, errors), (nothing, _) = (one.communicate() for one in both)
    assert [one.returncode for one in both] == [0, 0], errors
    assert "step     12" in shown
    assert "step" not in nothing
    assert_close(folder, whole("jax") / "1" / "adam")
    assert len(list((folder / "tensorboard").iterdir())) == 2  # the chief's, before and after


@slow
@pytest.mark.timeout(1200)
def test_a_run_of_jax_goes_on_on_tensorflow_as_on_jax_and_is_exported(run, fit, whole, tmp_path):
    first = fit("adam", tmp_path, 1)
    run("jax", "kill", 5, "then", *first, status=-signal.SIGKILL)
    models = tmp_path / "models"
    export = ["export", tmp_path / "adam", "--models", models, "--draft"]
    run("tensorflow", *first, "--resume", "then", *export)
    assert_close(tmp_path / "adam", whole("jax") / "1" / "adam")
    record = json.loads((models / "small-x3" / "card.json").read_text())["training"]
    assert [one["backend"] for one in record["sessions"]] == ["jax", "tensorflow"]


@slow
@pytest.mark.timeout(1200)
@both_backends
def test_a_run_that_is_killed_three_times_ends_with_the_same_weights(
    backend: str, run, fit, whole, tmp_path
):
    """On JAX, whose threads may add in another order, within 0.02 dB."""
    expected, killed = whole(backend) / "1" / "adam", tmp_path / "adam"
    steps = sorted(random.sample(range(4, 12), 3))
    print(f"killed at steps {steps}")
    for number, step in enumerate(steps):
        command = fit("adam", tmp_path, 1, *(["--resume"] if number else []))
        run(backend, "kill", step, "then", *command, status=-signal.SIGKILL)
    run(backend, *fit("adam", tmp_path, 1, "--resume"))
    if backend == "tensorflow":
        assert_same(killed, expected)
    ours, theirs = (
        json.loads((folder / "record.json").read_text())["validation"]["clean"]["psnr_y"]
        for folder in (killed, expected)
    )
    assert ours == pytest.approx(theirs, abs=0.02)
