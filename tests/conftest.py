"""What many tests share: photographs from scikit-image's wheel, the shipped model, a server."""

import os
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
from tests.serving import serve_app, wait_until_ready

SHARED_DATA = Path(
    os.environ.get("SUPERRES_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
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
    """The published test sets, which this project does not carry."""
    folder = SHARED_DATA / "benchmarks"
    if not folder.is_dir():
        pytest.skip(f"the benchmark pictures are not in {folder} (set SUPERRES_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def service() -> Iterator[httpx.Client]:
    """The shipped model, served with the default settings, in bfloat16."""
    with serve_app(Settings(device="cpu", precision="bfloat16"), None) as client:
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
