"""Losses on [n, h, w, 3] in [0, 1], without a halo."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops

from training.config import LossConfig

Loss = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]

FEATURES = "block3_conv3"
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def build_loss(config: LossConfig, *, vgg19_weights: Path | None, precision: str) -> Loss:
    """Build the loss of a config, a function of (hr, sr).

    Args:
        config: the weights of the terms.
        vgg19_weights: weights for a VGG19 term; see :func:`vgg19_features`.
        precision: precision of VGG19, ``float32`` or ``bfloat16``.
    """
    squash = ops.sigmoid if config.sigmoid else (lambda term: term)
    features = vgg19_features(vgg19_weights, precision=precision) if config.vgg19 else None

    def loss(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
        total = 0.0
        if config.l1:
            total += config.l1 * l1(hr, sr)
        if config.mse:
            total += config.mse * squash(mse(hr, sr))
        if config.fft:
            total += config.fft * fft(hr, sr)
        if config.ssim:
            total += config.ssim * (1 - ops.mean(ssim(hr, sr))) / 2
        if features is not None:
            total += config.vgg19 * squash(mse(features(hr), features(sr)))
        return total

    return loss


def l1(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Mean absolute error."""
    return ops.mean(ops.abs(hr - sr))


def mse(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Mean squared error."""
    return ops.mean(ops.square(hr - sr))


def fft(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Mean absolute difference of Fourier coefficients, over real and imaginary parts.

    The coefficients are of each channel's two-dimensional orthonormal real transform, so that the
    loss does not depend on the patch size (after Cho et al., "Rethinking Coarse-to-Fine Approach
    in Single Image Deblurring" (2021), section 3.3).
    """
    difference = ops.transpose(ops.cast(hr - sr, "float32"), (0, 3, 1, 2))
    height, width = difference.shape[2:]
    rows = [ops.swapaxes(part, -1, -2) for part in ops.rfft(difference)]
    parts = ops.stack(ops.fft(tuple(rows)))
    return ops.mean(ops.abs(parts)) / math.sqrt(height * width)


def ssim(hr: keras.KerasTensor, sr: keras.KerasTensor) -> keras.KerasTensor:
    """Structural similarity of each picture of a batch, [n] (Wang et al., 2004).

    The same as ``tf.image.ssim``: an 11x11 Gaussian window with sigma 1.5, without padding;
    mean over pixels and channels.
    """
    hr, sr = ops.cast(hr, "float32"), ops.cast(sr, "float32")
    mean_hr, mean_sr = _blur(hr), _blur(sr)
    products = mean_hr * mean_sr
    squares = ops.square(mean_hr) + ops.square(mean_sr)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * products + c1) / (squares + c1)
    covariance = 2 * (_blur(hr * sr) - products)
    variance = _blur(ops.square(hr) + ops.square(sr)) - squares
    return ops.mean(luminance * (covariance + c2) / (variance + c2), axis=(1, 2, 3))


def vgg19_features(weights: Path | None, *, precision: str) -> keras.Model:
    """VGG19 up to block3_conv3 (Simonyan and Zisserman, 2015), frozen.

    Args:
        weights: an NPZ file with ``LAYER__kernel`` (HWIO) and ``LAYER__bias``; None downloads
            Keras's ImageNet weights.
        precision: ``float32`` or ``bfloat16``.

    Returns:
        Model from RGB in [0, 1] to float32 features. It preprocesses pictures as Caffe does: 0 to
        255, BGR, minus the mean. So features reach the hundreds.
    """
    vgg = keras.applications.VGG19(
        include_top=False, weights=None if weights else "imagenet", input_shape=(None, None, 3)
    )
    if weights:
        with np.load(weights) as arrays:
            for layer in vgg.layers:
                if f"{layer.name}__kernel" in arrays:
                    layer.set_weights(
                        [arrays[f"{layer.name}__kernel"], arrays[f"{layer.name}__bias"]]
                    )
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    pictures = keras.Input((None, None, 3))
    x = ops.flip(pictures, axis=-1) * 255.0 - np.array(_CAFFE_MEAN_BGR, np.float32)
    for layer in vgg.layers[1:]:
        same = layer.__class__.from_config(layer.get_config() | {"dtype": policy})
        x = same(x)
        same.set_weights(layer.get_weights())
        if layer.name == FEATURES:
            break
    model = keras.Model(pictures, ops.cast(x, "float32"), name=f"vgg19_{FEATURES}")
    model.trainable = False
    return model


def _blur(pictures: keras.KerasTensor) -> keras.KerasTensor:
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    gauss = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    gauss = (gauss / gauss.sum()).astype(np.float32)
    for shape in ((_SSIM_WINDOW, 1, 1, 1), (1, _SSIM_WINDOW, 1, 1)):
        kernel = np.repeat(gauss.reshape(shape), 3, axis=2)
        pictures = ops.depthwise_conv(pictures, kernel, padding="valid")
    return pictures
