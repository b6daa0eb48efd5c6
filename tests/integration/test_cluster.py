"""The service on a Ray cluster of several nodes, all on this machine, in float32.

A node has one processor, so a replica one thread. Where the network is not the point, the devices
are paced: they start at once, and leave the processors to the rest.
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
from pydantic import SecretStr

from app.access import make_key
from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.models.registry import DEFAULT_MODELS
from tests.lazy import Lazy
from tests.pictures import encoded
from tests.serving import free_port, serve_process, wait_until_ready
from tests.soak import slow, soak
from tests.storage import new_database, postgres

app_cluster = Lazy("app.cluster.serve")
clusters = Lazy("tests.clusters")
load = Lazy("benchmarks.load")
ray_serve = Lazy("ray.serve")

pytestmark = pytest.mark.xdist_group("cluster")

KEY, ENTRY = make_key("tests", admin=True, limit="100000/minute")

Deploy = Callable[..., None]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all nodes have: without the model for x4, at first."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(DEFAULT_MODELS / "srcnn-x3", models / "srcnn-x3")
    return models


@pytest.fixture(scope="module")
def secrets() -> Iterator[dict[str, SecretStr]]:
    """What the front gets as arguments; the cluster's other processes have none of it."""
    with postgres() as server:
        given = {"SUPERRES_API_KEYS": ENTRY, "SUPERRES_JOBS_DATABASE": new_database(server)}
        yield {name: SecretStr(value) for name, value in given.items()}


@pytest.fixture(scope="module")
def nodes(
    cluster, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[Callable[[int], None]]:
    """The cluster, connected to: have it grow to so many nodes."""

    def grow(count: int) -> None:
        while len(cluster.worker_nodes) < count:
            clusters.add_node(cluster)

    settings = {
        "SUPERRES_MODELS": str(models),
        "SUPERRES_PRECISION": "float32",
        "SUPERRES_DEVICE": "cpu",
        "SUPERRES_JOBS": str(tmp_path_factory.mktemp("jobs")),
        # By default, Serve hears of what waits every ten seconds.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    }
    with clusters.connected(cluster, **settings, **app_cluster.ENVIRONMENT):
        grow(1)
        yield grow
        ray_serve.shutdown()
    clusters.remove_nodes(cluster)


@pytest.fixture(scope="module")
def front(nodes) -> Iterator[httpx.Client]:
    """A caller of the service on the cluster."""
    port = free_port()
    ray_serve.start(proxy_location="HeadOnly", http_options={"port": port})
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def deploy(secrets: dict[str, SecretStr], front: httpx.Client) -> Deploy:
    def deploy(*, fronts: int = 1, paced: bool = False, **options: object) -> None:
        """The app, with a given number of replicas that own a device, or other options."""
        if paced:
            options |= {"func_or_class": clusters.PacedDevice, "health_check_period_s": 1}
        devices = app_cluster.Devices.options(**{"autoscaling_config": None} | options)
        app = app_cluster.Front.options(num_replicas=fronts).bind(devices.bind(), secrets)
        ray_serve.run(app, name=app_cluster.APPLICATION)
        wait_until_ready(front)

    return deploy


def running_devices() -> int:
    application = ray_serve.status().applications[app_cluster.APPLICATION]
    return application.deployments[app_cluster.Devices.name].replica_states.get("RUNNING", 0)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def plain_service(models: Path) -> Iterator[httpx.Client]:
    """The service of one machine, with one thread."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        with serve_process(precision="float32", device="cpu", models=models) as (client, _):
            yield client


@pytest.fixture(scope="module")
def plain(models: Path) -> Iterator[httpx.Client]:
    with plain_service(models) as client:
        yield client


@contextmanager
def calling(
    client: httpx.Client, callers: int, side: int, query: str = ""
) -> Iterator[list[tuple[float, int, float]]]:
    """Call until the block is left: when each call began, its status and its seconds."""
    content = load.photograph(side, side)
    stop = threading.Event()
    made: list[tuple[float, int, float]] = []

    def ask() -> None:
        while not stop.is_set():
            began = time.monotonic()
            status = client.post(f"/enhance?{query}", content=content).status_code
            made.append((began, status, time.monotonic() - began))

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(ask) for _ in range(callers)]
        try:
            yield made
        finally:
            stop.set()
        for call in calls:
            call.result()


def rate(*clients: httpx.Client, seconds: float, side: int, query: str = "") -> float:
    """Answers a second that eight callers get in all."""

    def ask(client: httpx.Client) -> int:
        with calling(client, 8 // len(clients), side, query) as made:
            time.sleep(1)  # the replicas' first tiles
            before = len(made)
            time.sleep(seconds)
            after = len(made)
        assert {status for _, status, _ in made} == {200}
        return after - before

    with ThreadPoolExecutor(len(clients)) as pool:
        return sum(pool.map(ask, clients)) / seconds


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_new_model_is_loaded_by_the_front_and_the_devices(
    deploy: Deploy, front: httpx.Client, models: Path, coffee: RgbU8
):
    deploy(num_replicas=1)
    content = encoded(coffee[:60, :80])
    assert front.post("/enhance?model=srcnn-x4", content=content).status_code == 422
    shutil.copytree(DEFAULT_MODELS / "srcnn-x4", models / "srcnn-x4")
    assert front.post("/admin/reload").status_code == 200
    answer = front.post("/enhance?model=srcnn-x4&scale=4", content=content)
    assert answer.headers["x-model"].startswith("srcnn-x4@")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_cluster_answers_as_one_machine_does_byte_for_byte(
    deploy: Deploy, front: httpx.Client, plain: httpx.Client, coffee: RgbU8
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
        here, there = (one.post(f"/enhance?{query}", content=content) for one in (plain, front))
        assert there.status_code == here.status_code == 200, there.text
        assert there.content == here.content
        timed = {"server-timing", "date", "server", "x-request-id"}
        timed.add("etag")  # the two have other settings
        for name in here.headers.keys() - timed:
            assert there.headers[name] == here.headers[name], name
    for path in ("/enhance?scale=9", "/nothing"):
        here, there = (one.post(path, content=eight) for one in (plain, front))
        about = [answer.json() | {"request_id": ""} for answer in (here, there)]
        assert about[0] == about[1]


@pytest.mark.parametrize(("rounds", "most"), [soak(6, 1.2)])
def test_on_one_node_it_takes_hardly_longer(
    deploy: Deploy,
    front: httpx.Client,
    plain: httpx.Client,
    rounds: int,
    most: float,
    record_property: Record,
):
    deploy(num_replicas=1)
    content = load.photograph(667, 667)  # 4 megapixels
    took: dict[httpx.Client, list[float]] = {plain: [], front: []}
    for _ in range(rounds):
        for one, seconds in took.items():
            started = time.perf_counter()
            one.post("/enhance", content=content).raise_for_status()
            seconds.append(time.perf_counter() - started)
    ratio = float(np.median(took[front][1:]) / np.median(took[plain][1:]))
    record_property("times as long as one machine", round(ratio, 2))
    assert ratio <= most


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_job_is_done_by_one_of_two_fronts_and_known_to_both(
    deploy: Deploy, front: httpx.Client, coffee: RgbU8
):
    deploy(fronts=2, num_replicas=1)
    assert httpx.get(front.base_url.join("/models")).status_code == 401  # it knows the keys
    accepted = front.post("/enhance", content=encoded(coffee), headers={"Prefer": "respond-async"})
    job = accepted.headers["location"]
    with front.stream("GET", f"{job}/events") as events:
        told = [line for line in events.iter_lines() if line]
    assert '"state":"done"' in told[-1]
    expected = front.post("/enhance", content=encoded(coffee)).content
    fronts: set[str] = set()

    def both_answered() -> bool:  # Serve asks now the one, now the other
        assert front.get(f"{job}/result").content == expected
        text = front.get("/metrics").text
        fronts.update(re.findall(r"process_start_time_seconds [\d.]+", text))
        return len(fronts) == 2

    wait_for(both_answered)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_replicas_carry_more_than_one(
    nodes, deploy: Deploy, front: httpx.Client, plain: httpx.Client, models: Path, record_property
):
    """As far as this machine goes: two services without a cluster show how far that is.

    Of small pictures, where the devices' share is largest: all else is on the same cores.
    """
    nodes(2)
    ensembles = partial(rate, seconds=20, side=150, query="ensemble=true")
    replicas, services = [], []
    with plain_service(models) as other:
        for _ in range(2):  # by turns, since a machine has slow minutes
            for count in (1, 2):
                deploy(num_replicas=count)
                replicas.append(ensembles(front))
                services.append(ensembles(*(plain, other)[:count]))
    of_replicas, of_services = (max(made[1::2]) / max(made[0::2]) for made in (replicas, services))
    record_property("two replicas over one", round(of_replicas, 2))
    record_property("two services over one", round(of_services, 2))
    # The target of 0.85 needs cores for the front and the callers; docs/how-to/cluster.md has
    # what was reached.
    assert of_replicas >= 0.7 * min(of_services, 2)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_paced_replicas_carry_more_than_one(
    nodes, deploy: Deploy, front: httpx.Client, record_property: Record
):
    """Twice as much, were there nothing but devices."""
    nodes(2)
    made = []
    for count in (1, 2) * 2:
        deploy(paced=True, num_replicas=count)
        made.append(rate(front, seconds=4, side=60))
    ratio = sum(made[1::2]) / sum(made[0::2])
    record_property("two paced replicas over one", round(ratio, 2))
    assert ratio >= 1.4


@pytest.mark.parametrize(("paced", "seconds", "most"), [slow(True, 3, 3), soak(False, 15, 1.5)])
def test_a_node_that_dies_under_load_loses_no_request(
    cluster,
    nodes,
    deploy: Deploy,
    front: httpx.Client,
    paced: bool,
    seconds: int,
    most: float,
    record_property: Record,
):
    nodes(2)
    deploy(paced=paced, num_replicas=2)  # one on each
    victim = next(iter(cluster.worker_nodes))
    nodes(3)  # where the lost one can go
    with calling(front, 4, 60 if paced else 300) as made:
        time.sleep(seconds)
        killed = time.monotonic()
        cluster.remove_node(victim, allow_graceful=False)
        wait_for(lambda: running_devices() < 2)
        wait_for(lambda: running_devices() == 2)
        whole = time.monotonic()
        time.sleep(seconds)
    assert {status for _, status, _ in made} == {200}
    before = [taken for began, _, taken in made if began + taken < killed]
    during = [taken for began, _, taken in made if killed < began + taken and began < whole]
    after = [taken for began, _, taken in made if began > whole]
    p99 = [float(np.percentile(taken, 99)) for taken in (before, during, after)]
    for name, figure in zip(("before", "meanwhile", "after"), p99, strict=True):
        record_property(f"p99 {name}, s", round(figure, 2))
    record_property("seconds until there were two again", round(whole - killed, 1))
    assert p99[2] < most * p99[0]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_where_too_many_tiles_wait_the_request_is_told_to_come_back(
    deploy: Deploy, front: httpx.Client
):
    deploy(paced=True, num_replicas=1, max_ongoing_requests=1, max_queued_requests=1)
    answer = front.post("/enhance", content=load.photograph(667, 667))
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:superres:problem:busy"
    assert "too many tiles wait for a device" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    time.sleep(int(answer.headers["retry-after"]))
    assert front.post("/enhance", content=load.photograph(40, 40)).status_code == 200  # one tile


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_waiting_tiles_call_for_more_replicas(nodes, deploy: Deploy, front: httpx.Client):
    nodes(2)
    autoscaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 1,
    }
    deploy(paced=True, autoscaling_config=autoscaling)
    wait_for(lambda: running_devices() == 1)
    with calling(front, 6, side=60) as made:
        wait_for(lambda: running_devices() == 2)
    assert {status for _, status, _ in made} == {200}
