import keras
import numpy as np
import pytest

from training.networks import build, centre, multiply_adds_per_pixel, receptive_field, srcnn_935


def test_srcnn_935_is_the_network_of_the_paper_on_rgb():
    network = srcnn_935(skip=False)
    assert network.count_params() == 36_483
    assert receptive_field(network) == 15
    assert multiply_adds_per_pixel(network) == 36_483 - 99  # all but the biases
    kernels = [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]
    assert kernels == [(9, 9, 3, 64), (3, 3, 64, 32), (5, 5, 32, 3)]


def test_with_the_skip_layers_of_zeros_give_bicubic_back():
    network = srcnn_935(skip=True)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    plane = np.random.default_rng(0).random((1, 20, 20, 3), np.float32)
    assert np.array_equal(np.asarray(network(plane)), plane)


def test_centred_filters_begin_alive():
    """On about half of the time: one that is never on can learn nothing."""
    network = srcnn_935(skip=True)
    centre(network)
    patches = keras.Model(network.input, network.get_layer("patches").output)
    noise = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    active = (np.asarray(patches(noise)) > 0).mean(axis=(0, 1, 2))
    assert 0.3 < active.min() < active.max() < 0.7


@pytest.mark.parametrize("skip", [True, False])
def test_bfloat16_keeps_weights_and_the_last_digits_in_float32(skip):
    network = build("srcnn_935", skip=skip, precision="bfloat16")
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.layers[1].compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"
    answers = np.asarray(network(np.random.default_rng(0).random((1, 32, 32, 3), np.float32)))
    assert np.abs(answers - answers.astype(keras.backend.standardize_dtype("bfloat16"))).max() > 0
