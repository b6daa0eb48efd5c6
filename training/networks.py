"""Networks in Keras 3. Inputs and outputs are RGB in [0, 1], float32, NHWC."""

import keras
from keras import layers


def srcnn_935(*, skip: bool, precision: str = "float32") -> keras.Model:
    """SRCNN 9-3-5 with 64 and 32 filters, on RGB; 36,483 parameters.

    Dong et al., "Image Super-Resolution Using Deep Convolutional Networks" (2016),
    section 3.1 (patch extraction, non-linear mapping, reconstruction), with the 3x3
    mapping layer of section 4.3.3. It works on the bicubic plane.

    Args:
        skip: add the network's input to its output, so that the layers learn only the
            difference. The paper's network has none.
        precision: ``float32``, or ``bfloat16`` for the convolutions; weights stay
            float32, and so does what makes the last digits: the skip's sum, or
            without a skip the last convolution.

    Returns:
        Model from [n, h, w, 3] to [n, h, w, 3], float32. Borders are zero-padded, so
        the outer 7 px of an output are not to be used.
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    bicubic = keras.Input((None, None, 3), name="bicubic")
    x = layers.Conv2D(64, 9, padding="same", activation="relu", dtype=policy, name="patches")(
        bicubic
    )
    x = layers.Conv2D(32, 3, padding="same", activation="relu", dtype=policy, name="mapping")(x)
    x = layers.Conv2D(
        3, 5, padding="same", dtype=policy if skip else "float32", name="reconstruction"
    )(x)
    if skip:
        x = layers.Add(dtype="float32", name="skip")([x, bicubic])
    return keras.Model(bicubic, x, name="srcnn_935")


def build(network: str, *, skip: bool, precision: str) -> keras.Model:
    """Build a network by its function's name.

    Raises:
        KeyError: no such network.
    """
    return {"srcnn_935": srcnn_935}[network](skip=skip, precision=precision)


def centre(network: keras.Model) -> None:
    """Set the first layer's biases so that mid-grey comes out as zero.

    Pictures are all positive, so with biases of zero a filter's sum decides its sign on every
    patch, and those that a first step pushes below zero never come back: after 40,000 steps of
    Adam at 1e-3, 30 of SRCNN's 64 filters were dead, and 15 of 32 in its second layer.
    """
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv2D))
    kernel, _ = first.get_weights()
    first.set_weights([kernel, -0.5 * kernel.sum(axis=(0, 1, 2))])


def receptive_field(model: keras.Model) -> int:
    """Side of the input square that one output pixel depends on, px (stride 1).

    9-3-5 sees 1 + 8 + 2 + 4 = 15 px: a halo of 7.
    """
    return 1 + sum(
        layer.kernel_size[0] - 1 for layer in model.layers if isinstance(layer, layers.Conv2D)
    )


def multiply_adds_per_pixel(model: keras.Model) -> int:
    """Multiplications of the convolutions per pixel of the network's input plane."""
    return sum(
        int(layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2] * layer.filters)
        for layer in model.layers
        if isinstance(layer, layers.Conv2D)
    )
