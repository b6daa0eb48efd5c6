"""What many tests share: photographs from scikit-image's wheel, and the shipped model."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.card import ModelCard
from superres.registry import DEFAULT_MODELS, choose, read_cards

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
