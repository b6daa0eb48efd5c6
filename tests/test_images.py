"""The images and docker-compose.yml on a Docker engine: ``make test-containers``.

They test the tracked files as they are, in a clone. The images are built by ``make images``.
"""

import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.compose import Project, clone, engine_missing
from tests.pictures import encoded
from tests.runs import as_toml, small_config
from tests.serving import free_port, wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]
TARGETS = ("cpu", "slim", "train", "cluster")
OLD_JOBS = Path(__file__).parent / "jobs-0.1"
"""Folder of jobs of version 0.1: one that is done, and two that wait."""
METADATA = {"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "USER", "VOLUME", "ARG"}
"""Instructions of a Dockerfile that make no layer."""
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone whose images have been built."""
    if reason := engine_missing():
        pytest.skip(f"no Docker engine answers: {reason}")
    project = Project(clone(tmp_path_factory.mktemp("project") / "clone"))
    project.run("make", "images", f"BASE={os.environ.get('BASE', '')}")
    return project


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A picture of 120x80 pixels."""
    y, x = np.mgrid[0:80, 0:120]
    return encoded(np.stack([x * 2, y * 3, (x * y) % 256], axis=-1).astype(np.uint8))


def wait_for(client: httpx.Client, job: str) -> httpx.Response:
    """The result of a job, once it is done."""
    wait_until(lambda: client.get(job).json()["state"] in ("done", "failed"), seconds=300)
    return client.get(f"{job}/result")


class Load:
    """Threads that send pictures one after another, until they are stopped.

    Args:
        client: of the service.
        picture: what is sent.
        threads: how many.
    """

    def __init__(self, client: httpx.Client, picture: bytes, threads: int) -> None:
        self._client, self._picture = client, picture
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self.ends: Counter[str] = Counter()
        """How the requests ended: a status; ``cut``; or ``late``, which is cut and began when the
        service was being stopped, perhaps when its container had ended and its port had not."""
        self.stopping = False
        self._futures = [self._pool.submit(self._send) for _ in range(threads)]

    def _send(self) -> None:
        while not self._end.is_set():
            late = self.stopping
            try:
                answer = self._client.post("/enhance?model=srcnn", content=self._picture)
                known = not late or answer.status_code in (200, 503)
                self.ends[("" if known else "late ") + str(answer.status_code)] += 1
            except httpx.TransportError as error:
                self.ends["late" if late else f"cut: {error!r}"] += 1
                time.sleep(0.1)

    def wait(self, answers: int) -> None:
        """Wait for as many more answers."""
        wanted = self.ends["200"] + answers
        wait_until(lambda: self.ends["200"] >= wanted, seconds=300)

    def stop_service(self, project: Project, *services: str) -> float:
        """Stop services, and then this: the seconds that they took to stop."""
        self.stopping = True
        started = time.monotonic()
        project.compose("stop", *services)
        seconds = time.monotonic() - started
        self.stop()
        return seconds

    def stop(self) -> None:
        self._end.set()
        for future in self._futures:
            future.result()
        self._pool.shutdown()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_has_what_it_needs_and_its_size_is_bounded(
    project: Project, target: str, record_property
):
    image = project.inspect(f"superres:{target}")
    megabytes = image["Size"] / 1e6
    record_property("megabytes", round(megabytes))
    assert megabytes <= {"cpu": 1500, "slim": 750, "train": 1900, "cluster": 2400}[target]
    assert image["Config"]["User"] == "10001:10001"
    labels = image["Config"]["Labels"]
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.version"][0].isdigit()

    def inside(*command: str) -> str:
        entry = ("--entrypoint", command[0], f"superres:{target}")
        return project.docker("run", "--rm", "--network=none", *entry, *command[1:])

    assert inside("cat", "COMMIT") == commit
    assert not inside("sh", "-c", "ls /opt/venv/bin | grep -xE 'pip.*' || true")
    sbom = json.loads(inside("cat", "sbom.cdx.json"))
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "superres"
    listed = {component["name"].lower().replace("_", "-") for component in sbom["components"]}
    installed = inside("sh", "-c", "ls -d /opt/venv/lib/python*/site-packages/*.dist-info")
    assert {"numpy", "onnxruntime" if target == "slim" else "tensorflow-cpu"} <= listed
    assert abs(len(listed) - len(installed.split())) <= 1  # superres itself


@pytest.mark.parametrize("file", ["app/main.py", "superres/enhancer.py"])
def test_a_changed_line_of_code_makes_new_layers_of_less_than_a_megabyte(
    project: Project, file: str, record_property
):
    with (project.folder / file).open("a") as code:
        code.write("# A changed line.\n")
    try:
        started = time.monotonic()
        project.run("make", "images", "IMAGES=cpu", f"BASE={os.environ.get('BASE', '')}")
        record_property("seconds", round(time.monotonic() - started, 1))
        format_ = ("--no-trunc", "--human=false", "--format={{.Size}} {{.CreatedBy}}")
        steps = [
            line.split(maxsplit=2)
            for line in project.docker("history", *format_, "superres:cpu").splitlines()
        ]
        sizes = [int(size) for size, *by in reversed(steps) if not METADATA.intersection(by[:1])]
        changed = project.inspect("superres:cpu")["RootFS"]["Layers"]
    finally:
        project.run("git", "checkout", "--", file)
        project.run("make", "images", "IMAGES=cpu", f"BASE={os.environ.get('BASE', '')}")
    before = project.inspect("superres:cpu")["RootFS"]["Layers"]
    new = sum(size for layer, size in zip(changed, sizes, strict=True) if layer not in before)
    record_property("bytes", new)
    assert 0 < new < 1e6


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[httpx.Client]:
    with project.up("api") as client:
        yield client


def test_compose_runs_the_service_with_no_right_that_it_does_not_need(
    project: Project, service: httpx.Client
):
    (container,) = project.containers("api")
    host = project.inspect(container)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    status = dict(
        line.split(":\t") for line in project.inside("api", "cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd")} == {0}
    assert status["NoNewPrivs"] == "1"
    written = project.compose("exec", "-T", "api", "touch", "/app/one", check=False)
    assert written == ""
    version = service.get("/version").json()
    assert version["commit"] == project.run("git", "rev-parse", "HEAD").stdout.strip()


def test_a_picture_and_a_job_are_enhanced(service: httpx.Client, picture: bytes):
    answer = service.post("/enhance?model=srcnn&scale=2&proof=true", content=picture)
    assert answer.status_code == 200
    assert answer.headers["x-output-size"] == "240x160"
    job = service.post("/enhance?model=srcnn&scale=2", content=picture, headers=ASYNC)
    assert job.status_code == 202
    assert wait_for(service, job.headers["location"]).status_code == 200


def test_a_health_check_costs_little(project: Project, service: httpx.Client, record_property):
    kind, *check = project.inspect("superres:cpu")["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    program = (
        "import resource, subprocess, sys\n"
        "for _ in range(10): subprocess.run(sys.argv[1:], check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print((used.ru_utime + used.ru_stime) / 10)\n"
    )
    seconds = float(project.inside("api", "python", "-c", program, *check))
    record_property("cpu_seconds", round(seconds, 3))
    assert seconds < 0.1


def test_a_stop_under_load_answers_all_that_was_begun(
    project: Project, service: httpx.Client, picture: bytes, record_property
):
    (container,) = project.containers("api")
    load = Load(service, picture, threads=6)
    load.wait(6)
    seconds = load.stop_service(project, "api")
    record_property("seconds", round(seconds, 1))
    record_property("ends", dict(load.ends))
    assert load.ends.keys() <= {"200", "503", "late"}
    assert project.inspect(container)["State"]["ExitCode"] == 0
    project.compose("start", "api")
    wait_until(lambda: project.is_healthy("api"), seconds=300)


def test_any_user_of_group_0_can_run_it_on_a_read_only_root(project: Project):
    run = ("run", "--detach", "--user=4321:0", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL")
    container = project.docker(*run, "-e=SUPERRES_WITHOUT_KEYS=true", "superres:slim")
    try:
        state = lambda: project.inspect(container)["State"]  # noqa: E731
        wait_until(lambda: state()["Health"]["Status"] == "healthy", seconds=300)
        assert "other users can look into" not in project.docker("logs", container)
    finally:
        project.docker("rm", "--force", "--volumes", container)


def test_a_start_that_fails_for_good_ends_and_says_why(project: Project):
    run = ("run", "--detach", "-e=SUPERRES_WITHOUT_KEYS=true", "-e=SUPERRES_DEVICE=gpu:0")
    container = project.docker(*run, "superres:cpu")
    try:
        assert project.docker("wait", container) == "1"
        assert "the models cannot be served: " in project.docker("logs", container)
    finally:
        project.docker("rm", "--force", "--volumes", container)


def test_jobs_of_the_last_release_are_still_there_after_an_upgrade(
    project: Project, tmp_path: Path
):
    """Those of version 0.1, in a volume; of a later version, the service refuses them."""
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.executescript((OLD_JOBS / "jobs.sql").read_text())
    database.execute("UPDATE jobs SET created = ?1, ended = ended + ?1 - created", (time.time(),))
    database.commit()
    jobs = [f"{row[0]}" for row in database.execute("SELECT id FROM jobs")]
    database.close()
    files = {file.name: file.read_bytes() for file in OLD_JOBS.iterdir()}
    files["jobs.sqlite"] = (tmp_path / "jobs.sqlite").read_bytes()
    volume = f"{project.name}-old"
    project.fill_volume(volume, files)
    mount = f"--volume={volume}:/var/lib/superres"
    port = free_port()
    settings = ("-e=SUPERRES_WITHOUT_KEYS=true", f"-p=127.0.0.1:{port}:8000")
    start = ("run", "--detach", mount, *settings, "superres:slim")
    container = project.docker(*start)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            wait_until(lambda: answers(client), seconds=300)
            results = [wait_for(client, f"/jobs/{job}") for job in jobs]
        assert [result.status_code for result in results] == [200] * 3
        (kept,) = OLD_JOBS.glob("*.result")
        assert kept.read_bytes() in [result.content for result in results]
        project.docker("rm", "--force", container)
        newer = (
            "import sqlite3; d = sqlite3.connect('/var/lib/superres/jobs.sqlite'); "
            "d.execute('UPDATE schema_version SET version = 99'); d.commit()"
        )
        entry = ("--entrypoint=python", "superres:slim", "-c", newer)
        project.docker("run", "--rm", mount, *entry)
        container = project.docker(*start)
        assert project.docker("wait", container) == "1"
        logs = project.run("docker", "logs", container)
        assert "has tables of version 99" in " ".join((logs.stdout + logs.stderr).split())
    finally:
        project.docker("rm", "--force", container, check=False)
        project.docker("volume", "rm", "--force", volume)


@pytest.fixture(scope="module")
def data(project: Project) -> Path:
    """The folder of data of the clone, with photographs; another user owns the models."""
    folder = project.folder / "data" / "photographs"
    folder.mkdir(parents=True)
    for file in (project.folder / "app" / "web" / "photographs").glob("*.jpg"):
        with Image.open(file) as photograph:
            large = photograph.resize((540, 540))
        for i in range(3):
            large.rotate(90 * i).save(folder / f"{file.stem}-{i}.png")
    if os.geteuid() == 0:
        project.run("chown", "--recursive", "1234:1234", "models")
    return folder.parent


def write_config(data: Path, name: str, **changes: object) -> None:
    config = small_config(
        name=name,
        family=name,
        data=[{"name": "photos", "where": "split=train", "shrinks": [1.0]}],
        validation={"name": "photos", "where": "split=val", "choose_by": "clean"},
        stages=[changes, {}],
    )
    (data / f"{name}.toml").write_text(as_toml(config))


def test_a_folder_of_photographs_becomes_a_served_model(
    project: Project, service: httpx.Client, data: Path, picture: bytes
):
    def train(*arguments: str) -> str:
        return project.compose("run", "--rm", "-T", "train", *arguments)

    write_config(data, "mine")
    train("prepare", "folder", "/data/photographs", "--out", "runs/sets/photos")
    train("fit", "/data/mine.toml", "--data-root", "runs/sets")
    train("export", "runs/mine", "--draft")
    owner = (project.folder / "models").stat().st_uid
    for made in ("runs", "runs/mine", "models/mine-x3", "models/mine-x3/card.json"):
        assert (project.folder / made).stat().st_uid == owner
    project.compose("kill", "--signal", "HUP", "api")
    wait_until(lambda: '"mine-x3"' in service.get("/models").text)
    answer = service.post("/enhance?model=mine", content=picture)
    assert (answer.status_code, answer.headers["x-model"][:8]) == (200, "mine-x3@")


def test_training_that_is_stopped_writes_a_checkpoint(project: Project, data: Path):
    """``docker stop`` sends SIGTERM to the first process of the container."""
    write_config(data, "long", steps=1_000_000, steps_per_validation=1_000_000)
    run = ("run", "--detach", "-T", "train", "fit", "/data/long.toml", "--data-root", "runs/sets")
    container = project.compose(*run).split()[-1]
    try:
        steps = project.folder / "runs" / "long" / "steps.csv"
        wait_until(lambda: steps.exists() and steps.stat().st_size > 200, seconds=300)
        project.docker("stop", "--time", "120", container)
        assert "stopped at step" in project.docker("logs", container)
        assert project.inspect(container)["State"]["ExitCode"] != 137
    finally:
        project.docker("rm", "--force", container)


def test_a_cluster_goes_on_without_a_node_and_stops_without_losing_a_picture(
    project: Project, picture: bytes, record_property
):
    project = Project(project.folder)  # with a port beside the other's
    with project.up("head", "worker") as client:
        workers = project.containers("worker")
        assert len(workers) == 2
        load = Load(client, picture, threads=4)
        load.wait(8)
        titles = ("sh", "-c", "cat /proc/[0-9]*/cmdline")
        at_work = next(one for one in workers if "Device" in project.docker("exec", one, *titles))
        project.docker("kill", at_work)
        load.wait(16)
        assert load.ends.keys() == {"200"}
        seconds = load.stop_service(project, "head", "worker")
        record_property("seconds", round(seconds, 1))
        record_property("ends", dict(load.ends))
        # Serve's proxy answers 404 to those who come when the application has been removed.
        assert load.ends.keys() <= {"200", "503", "late", "late 404"}


def answers(client: httpx.Client) -> bool:
    """Whether the service is ready."""
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
