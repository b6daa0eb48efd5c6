"""The Ray cluster that tests share."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head that does no work: a test file adds nodes by `add_node`, and removes them."""
    from tests.clusters import ray_cluster

    with ray_cluster() as cluster:
        yield cluster
