"""A Ray cluster of a few nodes, all on this machine's loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"object_store_memory": 200 * 2**20}
HEAD = "127.0.0.2"
"""Each node has a loopback address of its own; in the place of 127.0.0.1 Ray would take another."""
ADDRESSES = (f"127.0.0.{number}" for number in range(3, 255))


@contextmanager
def ray_cluster(**environment: str) -> Iterator[Cluster]:
    """A head that does no work, and this process connected to it; nodes are added by `add_node`.

    Args:
        environment: variables of the processes on it.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "node_ip_address": HEAD,
            }
            | NODE,
        )
        try:
            root = str(Path(__file__).parents[1])
            ray.init(
                address=cluster.address,
                _node_ip_address=HEAD,
                runtime_env={"env_vars": {"PYTHONPATH": root} | environment},
                log_to_driver=False,
            )
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster: Cluster, cpus: int = 1) -> object:
    """Another machine, so to speak."""
    return cluster.add_node(num_cpus=cpus, node_ip_address=next(ADDRESSES), **NODE)
