from pathlib import Path

import numpy as np
import pytest

from superres.arrays import RgbU8, to_float
from tests.lazy import Lazy
from tests.needs import shared_data
from training.config import LossConfig, load_config

losses = Lazy("training.losses")
REAL_WEIGHTS = "vgg19/vgg19_block1-3_float32.npz"


@pytest.fixture
def pictures(coffee: RgbU8) -> tuple[np.ndarray, np.ndarray]:
    """Two truths, and noisy copies."""
    hr = to_float(np.stack([coffee[:64, :80], coffee[100:164, 100:180]]))
    noise = np.random.default_rng(0).normal(0, 0.05, hr.shape).astype(np.float32)
    return hr, (hr + noise).clip(0, 1)


@pytest.fixture
def vgg19_weights(tmp_path: Path) -> Path:
    """Small random weights in the file format of the real ones."""
    random = np.random.default_rng(0)
    arrays, channels = {}, 3
    for block, (convolutions, filters) in enumerate([(2, 64), (2, 128), (4, 256)], start=1):
        for number in range(1, convolutions + 1):
            name, shape = f"block{block}_conv{number}", (3, 3, channels, filters)
            arrays[f"{name}__kernel"] = random.normal(0, 0.05, shape).astype(np.float32)
            arrays[f"{name}__bias"] = random.normal(0, 1, filters).astype(np.float32)
            channels = filters
    np.savez(tmp_path / "vgg19.npz", **arrays)
    return tmp_path / "vgg19.npz"


def test_l1_and_mse_are_the_means_they_are_named_for():
    hr, sr = np.zeros((2, 4, 4, 3), np.float32), np.full((2, 4, 4, 3), 0.5, np.float32)
    assert float(losses.l1(hr, sr)) == 0.5
    assert float(losses.mse(hr, sr)) == 0.25


def test_ssim_is_tensorflows(pictures):
    import tensorflow as tf

    ours, theirs = (
        np.asarray(losses.ssim(*pictures)),
        np.asarray(tf.image.ssim(*pictures, max_val=1.0)),
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert 0.1 < ours.min() < ours.max() < 0.99


def test_features_are_vgg19s_up_to_block3_conv3(pictures, vgg19_weights):
    features = losses.vgg19_features(vgg19_weights, precision="float32")
    names = [layer.name for layer in features.layers if "conv" in layer.name]
    assert names[-1] == "block3_conv3"
    assert len(names) == 7
    assert features.trainable_variables == []
    made = np.asarray(features(pictures[0]))
    assert made.shape == (2, 16, 20, 256)
    with np.load(vgg19_weights) as arrays:
        kernel = next(layer for layer in features.layers if layer.name == "block3_conv3").kernel
        assert np.array_equal(np.asarray(kernel), arrays["block3_conv3__kernel"])


def test_the_upstream_loss_is_the_sum_of_its_terms(pictures, vgg19_weights):
    config = load_config("upstream").loss
    features = losses.vgg19_features(vgg19_weights, precision="float32")

    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    hr, sr = pictures
    expected = (
        0.8 * sigmoid(float(losses.mse(hr, sr)))
        + 0.1 * (1 - (1 + float(np.mean(losses.ssim(hr, sr)))) / 2)
        + 0.1 * sigmoid(float(losses.mse(features(hr), features(sr))))
    )
    loss = losses.build_loss(config, vgg19_weights=vgg19_weights, precision="float32")
    assert float(loss(hr, sr)) == pytest.approx(expected, rel=1e-5)


def test_a_name_is_short_for_one_term(pictures):
    assert LossConfig(mse=1) == load_config("srcnn-x3").loss
    loss = losses.build_loss(load_config("srcnn-x3").loss, vgg19_weights=None, precision="float32")
    assert float(loss(*pictures)) == pytest.approx(float(losses.mse(*pictures)))


def test_features_of_the_real_weights_reach_into_the_hundreds(pictures):
    weights = shared_data(REAL_WEIGHTS)
    features = np.asarray(losses.vgg19_features(weights, precision="float32")(pictures[0]))
    assert 100 < features.max() < 20_000


def test_upstreams_sigmoid_leaves_the_vgg19_term_no_gradient_at_all(pictures):
    """Its features differ by far more than the 17 at which float32's sigmoid is 1."""
    import tensorflow as tf

    weights = shared_data(REAL_WEIGHTS)
    term = load_config("upstream").loss.model_copy(update={"mse": 0, "ssim": 0})
    loss = losses.build_loss(term, vgg19_weights=weights, precision="float32")
    hr, sr = (tf.constant(one) for one in pictures)
    with tf.GradientTape() as tape:
        tape.watch(sr)
        value = loss(hr, sr)
    assert float(value) == np.float32(term.vgg19)
    assert not np.asarray(tape.gradient(value, sr)).any()


def test_the_fast_upstream_config_is_upstream_without_that_term():
    whole, fast = (load_config(name).model_dump() for name in ("upstream", "upstream-no-vgg19"))
    whole["loss"]["vgg19"] = 0.0
    assert {key for key in whole if whole[key] != fast[key]} == {"name", "family"}
