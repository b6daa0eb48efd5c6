"""What many tests share: photographs from scikit-image's wheel, the shipped model, a server."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from skimage import data

from app.client import Client
from app.settings import Settings
from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.card import ModelCard
from superres.engine import Engine
from superres.registry import DEFAULT_MODELS, choose, read_cards
from tests.lazy import HEAVY
from tests.needs import benchmark_pictures
from tests.serving import serve_app, wait_until_ready

SERVED = ("srcnn-x2", "srcnn-x3", "srcnn-x4")
"""Models of the shared service; those tests that are about all shipped models load all."""

collect_ignore = ["clusters.py"]
"""It imports Ray, and has no doctests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its xdist group: the service or network that it shares, else its file."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        shared = {"service", "client", "srcnn"} & set(getattr(item, "fixturenames", ()))
        group = "shipped model" if shared else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """Refuse test files that import heavy packages when they are collected."""
    if imported := [name for name in HEAVY if name in sys.modules]:
        raise pytest.UsageError(
            f"collecting the tests imported {', '.join(imported)}; use tests.lazy.Lazy"
        )


@pytest.fixture(scope="session")
def coffee() -> RgbU8:
    """A photograph, 400x600."""
    return np.asarray(data.coffee())


@pytest.fixture(scope="session")
def chelsea() -> RgbU8:
    """A photograph of a cat, 300x451."""
    return np.asarray(data.chelsea())


@pytest.fixture(scope="session")
def srcnn_card() -> ModelCard:
    """Of the shipped model for x3."""
    return choose(read_cards(DEFAULT_MODELS), "srcnn", 3)


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def srcnn(request: pytest.FixtureRequest) -> Enhancer:
    """The shipped model, in each precision."""
    return load_model("srcnn", scale=3, precision=request.param, device="cpu")


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    """Folder of the published test sets; see :func:`tests.needs.benchmark_pictures`."""
    return benchmark_pictures()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with three shipped models, in bfloat16, otherwise with the default settings."""
    models = tmp_path_factory.mktemp("models")
    for name in SERVED:
        (models / name).symlink_to(DEFAULT_MODELS / name)
    with serve_app(Settings(device="cpu", precision="bfloat16", models=models), None) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def client(service: httpx.Client) -> Client:
    """Of that service; its answers too are held to the OpenAPI."""
    return Client(http=service)


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[httpx.Client]]:
    """Serve with other settings, or with engines in place of the SavedModels."""

    @contextmanager
    def serve(
        engines: Mapping[str, Engine] | None = None, **settings: Any
    ) -> Iterator[httpx.Client]:
        with serve_app(Settings(device="cpu", **settings), engines) as client:
            if engines is not None:
                wait_until_ready(client)
            yield client

    return serve
