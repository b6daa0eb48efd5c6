"""A Ray cluster of a few nodes, all on this machine's loopback."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from app.cluster.serve import Device
from superres.arrays import TileBatch
from superres.engines.base import PrecisionChoice
from superres.models.card import ModelCard

NODE = {"object_store_memory": 200 * 2**20}
HEAD = "127.0.0.2"
"""Each node has a loopback address of its own; in the place of 127.0.0.1 Ray would take another."""
ADDRESSES = (f"127.0.0.{number}" for number in range(3, 255))
TILE_S = 0.2
"""Seconds that a paced device takes for a tile."""


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """A head that does no work; nodes are added by `add_node`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": HEAD}
        cluster = Cluster(initialize_head=True, head_node_args=head | NODE)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@contextmanager
def connected(cluster: Cluster, **environment: str) -> Iterator[None]:
    """This process as a driver of the cluster.

    Args:
        cluster: a running one.
        environment: variables of the processes that are started for it there.
    """
    root = str(Path(__file__).parents[1])
    ray.init(
        address=cluster.address,
        _node_ip_address=HEAD,
        runtime_env={"env_vars": {"PYTHONPATH": root} | environment},
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


def add_node(cluster: Cluster) -> object:
    """Another machine, so to speak, with one processor."""
    return cluster.add_node(num_cpus=1, node_ip_address=next(ADDRESSES), **NODE)


def remove_nodes(cluster: Cluster) -> None:
    """All but the head."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)


class _PacedEngine:
    """In the place of a network: takes its time, and gives the tiles back."""

    precision = "float32"
    device = "a pause"

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def predict(self, tiles: TileBatch) -> TileBatch:
        time.sleep(TILE_S * len(tiles))
        return tiles


class PacedDevice(Device):
    """A device of a known speed, that starts at once and costs no processor."""

    def _load(self, card: ModelCard, precision: PrecisionChoice) -> _PacedEngine:
        engine = _PacedEngine(card)
        self._engines.append(engine)
        return engine
