"""What many tests share: photographs from scikit-image's wheel, the shipped model, services."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from skimage import data

from app.settings import Settings
from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.client import Client
from superres.engines.base import Engine, Precision
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from tests.engines import SharpenEngine
from tests.lazy import HEAVY
from tests.needs import benchmark_pictures
from tests.serving import link_models, serve_app, wait_until_ready

SERVED = ("srcnn-x2", "srcnn-x3", "srcnn-x4")
"""Models of the shared services; those tests that are about all shipped models load all."""

RUNTIME = os.environ.get("SUPERRES_RUNTIME", "auto")
"""What runs the networks: of the services, which read the variable, and of the fixtures."""
PRECISIONS: tuple[Precision, ...] = (
    ("float32",) if RUNTIME == "onnxruntime" else ("float32", "bfloat16")
)
"""What that computes in; the shared service uses the last of them."""

GROUPS = {
    "service": "shipped model",
    "srcnn": "shipped model",
    "srcnn_in_each_precision": "shipped model",
    "chromium": "browser",
    "firefox": "firefox",
    "fake_service": "fake service",
}
"""Fixture that is slow to make -> xdist group of the tests that use it; the first found counts."""

collect_ignore = ["clusters.py"]
"""It imports Ray, and has no doctests."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long bytes make no name that can be read, and some, as profiles, have the time in them."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


def pytest_configure() -> None:
    """Let ``srcnn`` be the default model, as most services of the tests have no other.

    A test of ``auto`` asks for it.
    """
    os.environ["SUPERRES_DEFAULT_MODEL"] = "srcnn"


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test an xdist group: what it is marked with, else by GROUPS, else its file.

    A test that uses TensorFlow in another way marks itself for the group "shipped model", so that
    TensorFlow starts in one process for the services and in one for ``tests/training``.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        fixtures = getattr(item, "fixturenames", ())
        file = item.nodeid.partition("::")[0]
        by_file = "training" if file.startswith("tests/training/") else file
        groups = (group for fixture, group in GROUPS.items() if fixture in fixtures)
        item.add_marker(pytest.mark.xdist_group(next(groups, by_file)))


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


@pytest.fixture(scope="session")
def srcnn() -> Enhancer:
    """The shipped model for x3, in float32."""
    return load_model("srcnn", scale=3, precision="float32", device="cpu", runtime=RUNTIME)


@pytest.fixture(scope="session")
def srcnn_as_served() -> Enhancer:
    """The same in the precision of the shared service, whose answers it gives to the bit."""
    return load_model("srcnn", scale=3, precision=PRECISIONS[-1], device="cpu", runtime=RUNTIME)


@pytest.fixture(scope="session", params=PRECISIONS)
def srcnn_in_each_precision(request: pytest.FixtureRequest) -> Enhancer:
    """The same in both precisions, for what can differ between them."""
    return load_model("srcnn", scale=3, precision=request.param, device="cpu", runtime=RUNTIME)


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    """Folder of the published test sets; see :func:`tests.needs.benchmark_pictures`."""
    return benchmark_pictures()


@pytest.fixture(scope="session")
def served_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the models in SERVED."""
    return link_models(tmp_path_factory.mktemp("models"), *SERVED)


@pytest.fixture(scope="session")
def service(served_models: Path) -> Iterator[httpx.Client]:
    """A service with those models, in bfloat16, otherwise with the default settings."""
    settings = Settings(device="cpu", precision=PRECISIONS[-1], models=served_models)
    with serve_app(settings, None) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def fake_service(served_models: Path) -> Iterator[httpx.Client]:
    """The same without TensorFlow: its models sharpen instead, which takes no time."""
    cards = read_cards(served_models)
    engines = {card.name: SharpenEngine(card.geometry) for card in cards}
    with serve_app(Settings(device="cpu", models=served_models), engines) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def client(fake_service: httpx.Client) -> Client:
    """Of that service; its answers too are held to the OpenAPI."""
    return Client(http=fake_service)


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[httpx.Client]]:
    """Serve with other settings, or with engines in place of those of the models folder."""

    @contextmanager
    def serve(
        engines: Mapping[str, Engine] | None = None, **settings: Any
    ) -> Iterator[httpx.Client]:
        with serve_app(Settings(device="cpu", **settings), engines) as client:
            if engines is not None:
                wait_until_ready(client)
            yield client

    return serve
