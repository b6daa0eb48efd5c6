"""The service on a Ray cluster of several nodes, all on this machine, in float32.

A node has one processor, so a replica one thread. The tests share the cluster, which grows from one
to the next, since it takes its time to start.
"""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import ProxyLocation

from app.access import make_key
from app.cluster import APPLICATION, ENVIRONMENT, Devices, Front
from benchmarks.load import photograph
from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.registry import DEFAULT_MODELS
from tests.clusters import add_node, ray_cluster
from tests.pictures import encoded
from tests.serving import free_port, serve_process, wait_until_ready
from tests.storage import new_database, postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECONDS = 10
"""Of each measurement."""

KEY, ENTRY = make_key("tests", admin=True, limit="100000/minute")

Deploy = Callable[..., None]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all nodes have: without the model for x4, at first."""
    models = tmp_path_factory.mktemp("models")
    for name in ("srcnn-x2", "srcnn-x3"):
        shutil.copytree(DEFAULT_MODELS / name, models / name)
    return models


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Cluster]:
    with (
        postgres() as server,
        ray_cluster(
            SUPERRES_API_KEYS=ENTRY,
            SUPERRES_MODELS=str(models),
            SUPERRES_PRECISION="float32",
            SUPERRES_DEVICE="cpu",
            SUPERRES_JOBS=str(tmp_path_factory.mktemp("jobs")),
            SUPERRES_JOBS_DATABASE=new_database(server),
            **ENVIRONMENT,
        ) as cluster,
    ):
        add_node(cluster)
        yield cluster
        serve.shutdown()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    port = free_port()
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options={"port": port})
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def deploy(client: httpx.Client) -> Deploy:
    def deploy(*, fronts: int = 1, **options: object) -> None:
        """The app, with a given number of replicas that own a device, or other options."""
        devices = Devices.options(**{"autoscaling_config": None} | options)
        serve.run(Front.options(num_replicas=fronts).bind(devices.bind()), name=APPLICATION)
        wait_until_ready(client)

    return deploy


@contextmanager
def plain_service() -> Iterator[httpx.Client]:
    """The service of one machine, with one thread."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        with serve_process(precision="float32", device="cpu") as (client, _):
            yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    with plain_service() as client:
        yield client


def calls(
    client: httpx.Client, callers: int, until: float, *, side: int = 300, query: str = ""
) -> list[tuple[float, int, float]]:
    """When each of a few callers' calls began, its status and its seconds."""
    content = photograph(side, side)

    def ask(_: int) -> list[tuple[float, int, float]]:
        made = []
        while (began := time.monotonic()) < until:
            status = client.post(f"/enhance?{query}", content=content).status_code
            made.append((began, status, time.monotonic() - began))
        return made

    with ThreadPoolExecutor(callers) as pool:
        return sorted(call for part in pool.map(ask, range(callers)) for call in part)


def ensembles_a_second(*clients: httpx.Client) -> float:
    """Of small pictures, where the devices' share is largest: all else is on the same two cores."""

    def ask(client: httpx.Client, seconds: float) -> int:
        until = time.monotonic() + seconds
        made = calls(client, 4 // len(clients), until, side=150, query="ensemble=true")
        assert {status for _, status, _ in made} == {200}
        return len(made)

    with ThreadPoolExecutor(len(clients)) as pool:
        sum(pool.map(partial(ask, seconds=2), clients))  # the replicas' first tiles
        started = time.monotonic()
        made = sum(pool.map(partial(ask, seconds=2 * SECONDS), clients))
        return made / (time.monotonic() - started)


def test_a_new_model_is_loaded_by_the_front_and_the_devices(
    deploy: Deploy, client: httpx.Client, models: Path, coffee: RgbU8
):
    deploy(num_replicas=1)
    content = encoded(coffee[:60, :80])
    assert client.post("/enhance?model=srcnn-x4", content=content).status_code == 422
    shutil.copytree(DEFAULT_MODELS / "srcnn-x4", models / "srcnn-x4")
    assert client.post("/admin/reload").status_code == 200
    answer = client.post("/enhance?model=srcnn-x4&scale=4", content=content)
    assert answer.headers["x-model"].startswith("srcnn-x4@")


def test_the_cluster_answers_as_one_machine_does_byte_for_byte(
    deploy: Deploy, client: httpx.Client, plain: httpx.Client, coffee: RgbU8
):
    deploy(num_replicas=1)
    eight = encoded(coffee)
    sixteen = encode(Picture(coffee[:100, :120].astype(np.uint16) * 257), "png")
    for content, query in [
        (eight, "scale=3"),
        (eight, "scale=2.5&format=jpeg"),
        (encoded(coffee[:200, :200]), "scale=3&proof=true&ensemble=true&format=webp"),
        (sixteen, "scale=3&format=tiff"),
    ]:
        here, there = (one.post(f"/enhance?{query}", content=content) for one in (plain, client))
        assert there.status_code == here.status_code == 200, there.text
        assert there.content == here.content
        timed = {"server-timing", "date", "server", "x-request-id"}
        for name in here.headers.keys() - timed:
            assert there.headers[name] == here.headers[name], name
    for path in ("/enhance?scale=9", "/nothing"):
        here, there = (one.post(path, content=eight) for one in (plain, client))
        about = [answer.json() | {"request_id": ""} for answer in (here, there)]
        assert about[0] == about[1]


def test_on_one_node_it_takes_hardly_longer(
    deploy: Deploy, client: httpx.Client, plain: httpx.Client
):
    deploy(num_replicas=1)
    content = photograph(667, 667)  # 4 megapixels
    took: dict[httpx.Client, list[float]] = {plain: [], client: []}
    for _ in range(4):
        for one, seconds in took.items():
            started = time.perf_counter()
            one.post("/enhance", content=content).raise_for_status()
            seconds.append(time.perf_counter() - started)
    ratio = np.median(took[client][1:]) / np.median(took[plain][1:])
    print(f"the cluster takes {ratio:.2f} times as long")
    assert ratio <= 1.2


def test_a_job_is_done_by_one_of_two_fronts_and_known_to_both(
    deploy: Deploy, client: httpx.Client, coffee: RgbU8
):
    deploy(fronts=2, num_replicas=1)
    accepted = client.post("/enhance", content=encoded(coffee), headers={"Prefer": "respond-async"})
    job = accepted.headers["location"]
    with client.stream("GET", f"{job}/events") as events:
        told = [line for line in events.iter_lines() if line]
    assert '"state":"done"' in told[-1]
    expected = client.post("/enhance", content=encoded(coffee)).content
    fronts = set()
    for _ in range(16):  # Serve asks now the one, now the other
        assert client.get(f"{job}/result").content == expected
        fronts |= set(re.findall(r"process_start_time_seconds [\d.]+", client.get("/metrics").text))
    assert len(fronts) == 2


def test_two_replicas_carry_more_than_one(
    cluster: Cluster, deploy: Deploy, client: httpx.Client, plain: httpx.Client
):
    """As far as this machine goes: two services without a cluster show how far that is."""
    add_node(cluster)
    replicas, services = [], []
    with plain_service() as other:
        for _ in range(2):  # by turns, since a machine has slow minutes
            for count in (1, 2):
                deploy(num_replicas=count)
                replicas.append(ensembles_a_second(client))
                services.append(ensembles_a_second(*(plain, other)[:count]))
    of_replicas, of_services = (max(made[1::2]) / max(made[0::2]) for made in (replicas, services))
    print(f"two replicas make {of_replicas:.2f} times what one does, services {of_services:.2f}")
    # The target of 0.85 needs cores for the front and the callers: README tells what was reached.
    assert of_replicas >= 0.7 * min(of_services, 2)


def test_a_node_that_dies_under_load_loses_no_request(
    cluster: Cluster, deploy: Deploy, client: httpx.Client
):
    victim = next(iter(cluster.worker_nodes))  # each has a replica
    add_node(cluster)  # where the lost one can go
    deploy(num_replicas=2)
    started = time.monotonic()
    killed = started + SECONDS
    threading.Timer(SECONDS, cluster.remove_node, (victim, False)).start()
    made = calls(client, 4, killed + 40)
    assert {status for _, status, _ in made} == {200}
    before = [seconds for began, _, seconds in made if began + seconds < killed]
    during = [seconds for began, _, seconds in made if began < killed + 25]
    after = [seconds for began, _, seconds in made if began > killed + 25]
    p99 = [float(np.percentile(seconds, 99)) for seconds in (before, during, after)]
    print("p99, s: before {:.2f}, around {:.2f}, after {:.2f}".format(*p99))
    assert p99[2] < 1.5 * p99[0]


def test_where_too_many_tiles_wait_the_request_is_told_to_come_back(
    deploy: Deploy, client: httpx.Client
):
    deploy(num_replicas=1, max_ongoing_requests=1, max_queued_requests=1)
    answer = client.post("/enhance", content=photograph(667, 667))
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:superres:problem:busy"
    assert "too many tiles wait for a device" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    time.sleep(int(answer.headers["retry-after"]))
    assert client.post("/enhance", content=photograph(40, 40)).status_code == 200  # one tile


def test_waiting_tiles_call_for_more_replicas(
    cluster: Cluster, deploy: Deploy, client: httpx.Client
):
    add_node(cluster)
    deploy(
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 2,
            "target_ongoing_requests": 2,
            "upscale_delay_s": 1,
        }
    )

    def replicas() -> int:
        deployment = serve.status().applications[APPLICATION].deployments[Devices.name]
        return deployment.replica_states.get("RUNNING", 0)

    assert replicas() == 1
    until = time.monotonic() + 90
    while replicas() < 2 and time.monotonic() < until:
        assert {status for _, status, _ in calls(client, 4, time.monotonic() + 2)} == {200}
    assert replicas() == 2
