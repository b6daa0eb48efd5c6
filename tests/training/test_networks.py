from typing import get_args

import numpy as np
import pytest

from superres.arrays import RgbU8, to_float, to_integer
from superres.resample import upsample
from tests.lazy import Lazy
from training.config import TrainingConfig, load_config

keras = Lazy("keras")
networks = Lazy("training.networks")
benchmark = Lazy("benchmarks.networks")
NAMES = get_args(TrainingConfig.model_fields["network"].annotation)


def test_a_config_can_name_every_network_and_no_other():
    assert set(NAMES) == set(networks.NETWORKS)


def test_the_benchmark_trains_each_candidate_by_the_recipe_with_a_constant_and_a_falling_rate():
    recipe = load_config(benchmark.RECIPE)
    for name in benchmark.CANDIDATES:
        config = benchmark.comparable(recipe, name, seed=1, batch_size=2, steps=(30, 10))
        assert (config.network, config.degradations) == (name, recipe.degradations)
        assert [(stage.steps, stage.constant) for stage in config.stages] == [
            (30, True),
            (10, False),
        ]


def test_srcnn_935_is_the_network_of_the_paper_on_rgb():
    network = networks.srcnn_935(skip=False)
    assert network.count_params() == 36_483
    assert networks.receptive_field(network) == 15
    assert networks.multiply_adds_per_pixel(network) == 36_483 - 99  # all but the biases
    kernels = [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]
    assert kernels == [(9, 9, 3, 64), (3, 3, 64, 32), (5, 5, 32, 3)]


def test_with_the_skip_layers_of_zeros_give_bicubic_back():
    network = networks.srcnn_935(skip=True)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    plane = np.random.default_rng(0).random((1, 20, 20, 3), np.float32)
    assert np.array_equal(np.asarray(network(plane)), plane)


def test_centred_filters_begin_alive():
    """On about half of the time: one that is never on can learn nothing."""
    network = networks.srcnn_935(skip=True)
    patches = keras.Model(network.input, network.get_layer("patches").output)
    noise = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    active = (np.asarray(patches(noise)) > 0).mean(axis=(0, 1, 2))
    assert 0.3 < active.min() < active.max() < 0.7


def test_bfloat16_holds_centred_pixels_exactly():
    network = networks.srcnn_935(skip=True)
    centred = keras.Model(network.input, network.layers[1].output)
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    seen = keras.ops.cast(centred(to_float(pixels)), "bfloat16")
    exact = (pixels.astype(np.float32) - 128) / 128
    assert np.array_equal(np.asarray(keras.ops.cast(seen, "float32")), exact)


@pytest.mark.parametrize("skip", [True, False])
def test_bfloat16_keeps_weights_and_the_last_digits_in_float32(skip):
    network = networks.build("srcnn_935", scale=3, skip=skip, precision="bfloat16")
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.get_layer("patches").compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"
    answers = np.asarray(network(np.random.default_rng(0).random((1, 32, 32, 3), np.float32)))
    assert np.abs(answers - answers.astype(keras.backend.standardize_dtype("bfloat16"))).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_training_without_padding_sees_what_is_served_less_its_halo(name):
    served, trained = (
        networks.build(name, scale=3, skip=True, precision="float32", padding=padding)
        for padding in ("same", "valid")
    )
    trained.set_weights(served.get_weights())
    halo = networks.halo(served)
    planes = np.random.default_rng(0).random((2, 2 * halo + 6, 2 * halo + 8, 3), np.float32)
    upscale = networks.NETWORKS[name].upscale(3)
    expected = np.asarray(served(planes))[:, halo * upscale :, halo * upscale :]
    expected = expected[:, : 6 * upscale, : 8 * upscale]
    assert np.asarray(trained(planes)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_columns_at_a_time_are_the_same_network(name: str):
    network = networks.build(name, scale=3, skip=True, precision="float32", padding="valid")
    network.set_weights(
        [np.random.default_rng(1).normal(0, 0.05, w.shape) for w in network.weights]
    )
    margins = 2 * networks.halo(network)
    planes = np.random.default_rng(0).random((2, margins + 6, margins + 8, 3), np.float32)
    wide = networks.paired(network)
    kinds = [type(layer) for layer in wide.layers if hasattr(layer, "kernel")]
    assert kinds.count(networks.PairedConv2D) == (2 if name == "srcnn_935" else 0)
    assert np.asarray(wide(planes)) == pytest.approx(np.asarray(network(planes)), abs=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_edsr_of_zeros_gives_bicubic_away_from_the_border(scale: int, coffee: RgbU8):
    network = networks.build("edsr_5x32", scale=scale, skip=True, precision="float32")
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    small = coffee[100:160, 200:280] // 2 + 64  # so that nothing overshoots and is clipped
    answer = np.asarray(network(to_float(small)[None]))[0].clip(0, 1)
    size, inner = (60 * scale, 80 * scale), (slice(2 * scale, -2 * scale),) * 2
    assert answer[inner] == pytest.approx(upsample(to_float(small), size)[inner], abs=1e-5)
    levels = to_integer(answer, np.uint8).astype(int) - upsample(small, size)
    assert np.abs(levels[inner]).max() <= 1


def test_edsr_is_a_chain_of_3x3_convolutions_and_additions():
    network = networks.build("edsr_4x64", scale=3, skip=True, precision="float32")
    kernels = [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]
    assert kernels == [(3, 3, 3, 64), *[(3, 3, 64, 64)] * 8, (3, 3, 64, 27)]
    assert network.count_params() == 312_795
    assert networks.receptive_field(network) == 21
    assert networks.multiply_adds_per_pixel(network) == 9 * (3 * 64 + 8 * 64 * 64 + 64 * 27)


@pytest.mark.parametrize(
    ("name", "convolutions", "halo"),
    [
        ("edsr_6x48", 14, 14),
        ("edsr_16x32", 34, 34),
        ("plain_24x32", 25, 25),
        ("span_6x28", 22, 21),  # of which one is 1x1
    ],
)
def test_candidates_have_the_depth_of_their_names(name: str, convolutions: int, halo: int):
    network = networks.build(name, scale=3, skip=True, precision="float32")
    kernels = [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]
    assert len(kernels) == convolutions
    assert networks.halo(network) == halo


def test_span_weighs_the_answer_of_a_block_by_itself():
    """Wan et al., equation 4, with weights at random, in NumPy."""
    network = networks.span(blocks=1, filters=4, scale=2)
    seen = [network.get_layer(name).output for name in ("head", "block1_3")]
    inside = keras.Model(network.input, [*seen, network.get_layer("tail").input])
    picture = np.random.default_rng(0).random((1, 12, 12, 3), np.float32)
    head, last, weighed = (np.asarray(one) for one in inside(picture))
    assert weighed == pytest.approx((last + head) * (1 / (1 + np.exp(-last)) - 0.5), abs=1e-6)


@pytest.mark.parametrize("name", ["edsr_12x32", "plain_24x32"])
def test_a_wide_network_answers_as_the_network_that_it_collapses_to(name: str):
    wide, narrow = (
        networks.build(one, scale=3, skip=True, precision="float32")
        for one in (f"{name}_wide", name)
    )
    random = np.random.default_rng(1)
    wide.set_weights([w + random.normal(0, 0.02, w.shape) for w in wide.get_weights()])
    assert wide.count_params() > 4 * narrow.count_params()
    for layer in narrow.layers:
        if layer.weights:
            factors = {
                weight.name: np.asarray(weight) for weight in wide.get_layer(layer.name).weights
            }
            kernel = np.einsum("ijcw,wf->ijcf", factors["expand"], factors["project"])
            if layer.name.startswith("middle"):
                kernel[1, 1] += np.eye(32)
            layer.set_weights([kernel, factors["bias"]])
    picture = random.random((1, 20, 24, 3), np.float32)
    assert np.asarray(wide(picture)) == pytest.approx(np.asarray(narrow(picture)), abs=1e-4)
    assert networks.halo(wide) == networks.halo(narrow)
    assert networks.multiply_adds_per_pixel(wide) == networks.multiply_adds_per_pixel(narrow)


def test_bfloat16_multiplies_the_factors_of_a_kernel_in_float32():
    layer = networks.WideConv2D(4, 3, width=16, identity=True, dtype="mixed_bfloat16")
    layer.build((None, None, None, 4))
    exact = np.asarray(layer.expand) @ np.asarray(layer.project)
    exact[1, 1] += np.eye(4)
    expected = keras.ops.cast(exact.astype(np.float32), "bfloat16")
    assert layer.kernel.dtype.name == "bfloat16"
    assert np.array_equal(
        *(np.asarray(keras.ops.cast(k, "float32")) for k in (layer.kernel, expected))
    )


def test_a_folded_network_sees_as_far_as_its_halo_from_tiles_that_begin_on_even_pixels():
    network = networks.edsr_folded(blocks=1, filters=4, scale=3)
    random = np.random.default_rng(1)
    network.set_weights([random.normal(0, 0.1, w.shape) for w in network.weights])
    halo = networks.halo(network)
    assert halo == 2 * 4  # four convolutions, on squares of two
    plane = random.random((1, 40, 44, 3), np.float32)
    whole = np.asarray(network(plane))[0]

    def difference(top: int, left: int) -> float:
        """Between the whole's core of 8x8 px and a tile's."""
        side = 8 + 2 * halo
        tile = plane[:, top - halo :, left - halo :][:, :side, :side]
        core = slice(3 * halo, 3 * (halo + 8))
        ours = np.asarray(network(tile))[0, core, core]
        return float(np.abs(whole[3 * top :, 3 * left :][:24, :24] - ours).max())

    assert difference(12, 18) < 1e-5
    assert difference(13, 18) > 1e-3
    changed = plane.copy()
    changed[0, 12 - halo] = 1 - changed[0, 12 - halo]  # the farthest row that it sees
    assert np.abs(np.asarray(network(changed))[0, 36:] - whole[36:]).max() > 1e-6


def test_a_folded_network_of_zeros_gives_bicubic_away_from_the_border(coffee: RgbU8):
    network = networks.edsr_folded(blocks=1, filters=4, scale=3)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    small = coffee[100:160, 200:280] // 2 + 64
    answer = np.asarray(network(to_float(small)[None]))[0]
    expected = upsample(to_float(small), (180, 240))
    assert answer[6:-6, 6:-6] == pytest.approx(expected[6:-6, 6:-6], abs=1e-5)


def test_what_is_cropped_has_a_shape_where_sides_are_unknown():
    """As they are when a network is built, and JAX's tracing can't tell it."""
    assert networks.Inner(7).compute_output_shape((None, None, 38, 3)) == (None, None, 24, 3)
