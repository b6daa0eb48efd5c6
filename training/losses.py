"""Losses on [n, h, w, 3] in [0, 1]; the halo has been cropped before they see it."""

from collections.abc import Callable

import keras
from keras import ops


def l1(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Mean absolute error."""
    return ops.mean(ops.abs(hr - sr))


def mse(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Mean squared error: what PSNR is the logarithm of."""
    return ops.mean(ops.square(hr - sr))


LOSSES: dict[str, Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]] = {
    "l1": l1,
    "mse": mse,
}
