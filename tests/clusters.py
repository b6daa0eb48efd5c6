"""A Ray cluster of a few nodes, all on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"object_store_memory": 200 * 2**20}


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
            head_node_args={"num_cpus": 0, "include_dashboard": False} | NODE,
        )
        try:
            root = str(Path(__file__).parents[1])
            ray.init(
                address=cluster.address,
                runtime_env={"env_vars": {"PYTHONPATH": root} | environment},
                log_to_driver=False,
            )
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster: Cluster, cpus: int = 1) -> object:
    """Another machine, so to speak."""
    return cluster.add_node(num_cpus=cpus, **NODE)
