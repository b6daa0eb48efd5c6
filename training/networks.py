"""Networks in Keras 3. Inputs and outputs are RGB in [0, 1], float32, NHWC.

Each network is built with unpadded convolutions (``valid``: for serving and most of training, so
that neither a result nor the loss sees padding) or with zero-padded convolutions (``same``: for
training on patches of which no margin is lost). The weights are the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import keras
import numpy as np
from keras import layers, ops

Padding = Literal["same", "valid"]
FOLD = 2
"""Side of the squares that a folded network treats as one pixel, px."""


def srcnn_935(
    *,
    scale: int = 3,
    skip: bool,
    centred: bool = True,
    precision: str = "float32",
    padding: Padding = "same",
) -> keras.Model:
    """SRCNN 9-3-5 with 64 and 32 filters, on RGB; 36,483 parameters.

    Dong et al., "Image Super-Resolution Using Deep Convolutional Networks" (2016),
    section 3.1 (patch extraction, non-linear mapping, reconstruction), with the 3x3
    mapping layer of section 4.3.3. Its input is the bicubic plane.

    Args:
        scale: not used, because the plane already has the output size.
        skip: whether to add the input to the output, so that the layers learn only the
            difference. The paper's network has no skip.
        centred: whether to apply :func:`_centred` to the pixels; otherwise they range from 0 to 1.
        precision: ``float32``, or ``bfloat16`` for the convolutions. Weights stay float32, and
            so does the last operation: the sum of the skip or, without a skip, the last
            convolution.
        padding: padding of the convolutions.

    Returns:
        Model from [n, h, w, 3] to [n, h, w, 3], float32. With ``valid``, height and width of the
        output are 14 px smaller. With ``same``, its outer 7 px must not be used.
    """
    del scale
    policy = _policy(precision)
    convolution = partial(layers.Conv2D, padding=padding)
    bicubic = keras.Input((None, None, 3), name="bicubic")
    x = convolution(64, 9, activation="relu", dtype=policy, name="patches")(
        _centred(bicubic) if centred else bicubic
    )
    x = convolution(32, 3, activation="relu", dtype=policy, name="mapping")(x)
    x = convolution(3, 5, dtype=policy if skip else "float32", name="reconstruction")(x)
    if skip:
        plane = Inner(7)(bicubic) if padding == "valid" else bicubic
        x = layers.Add(dtype="float32", name="skip")([x, plane])
    return keras.Model(bicubic, x, name="srcnn_935")


def edsr(
    *,
    blocks: int,
    filters: int,
    width: int = 0,
    scale: int,
    skip: bool = True,
    centred: bool = True,
    precision: str = "float32",
    padding: Padding = "same",
) -> keras.Model:
    """EDSR: residual blocks on the LR picture, then enlargement.

    Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (2017),
    section 3.1: blocks of two 3x3 convolutions without normalisation. Differences from the paper:
    one sub-pixel convolution serves every scale, and the blocks learn the difference from bicubic.

    Args:
        blocks: number of residual blocks, each of two convolutions.
        filters: number of filters of each convolution.
        width: width of each :class:`WideConv2D`, or 0 for plain convolutions.
        scale: 2 to 4.
        skip: whether to add bicubic to the output.
        centred: as in :func:`srcnn_935`.
        precision: ``float32``, or ``bfloat16`` for the convolutions; weights, bicubic and the
            last sum stay float32.
        padding: padding of the convolutions.

    Returns:
        Model from [n, h, w, 3] to [n, h * scale, w * scale, 3], float32. With ``valid``, the
        output lacks the part of the outer 2 + 2 * blocks px of the input at each side. With
        ``same``, that part of the output must not be used.
    """
    policy = _policy(precision)
    small = keras.Input((None, None, 3), name="lr")

    kind = partial(WideConv2D, width=width) if width else layers.Conv2D

    def convolution(filters: int, name: str, **kwargs: Any) -> layers.Conv2D:
        return kind(filters, 3, padding=padding, dtype=policy, name=name, **kwargs)

    def inner(x: keras.KerasTensor, margin: int) -> keras.KerasTensor:
        return Inner(margin, dtype=policy)(x) if padding == "valid" else x

    x = _centred(small) if centred else small
    x = _residual_blocks(x, blocks, filters, policy, convolution, inner)
    x = layers.Activation("linear", dtype="float32")(convolution(3 * scale**2, "subpixels")(x))
    answer = _enlarged(small, x, scale, skip, padding, 2 + 2 * blocks)
    return keras.Model(small, answer, name="edsr")


def _residual_blocks(
    x: keras.KerasTensor,
    blocks: int,
    filters: int,
    policy: str,
    convolution: Callable[..., layers.Layer],
    inner: Callable[[keras.KerasTensor, int], keras.KerasTensor],
) -> keras.KerasTensor:
    """The body of EDSR: a convolution with a ReLU, then blocks that add to their input."""
    x = convolution(filters, "head", activation="relu")(x)
    for block in range(1, blocks + 1):
        branch = convolution(filters, f"block{block}_1", activation="relu")(x)
        # With a small gain, each block begins near the identity, and so does the network.
        gain = keras.initializers.VarianceScaling(0.1)
        branch = convolution(filters, f"block{block}_2", kernel_initializer=gain)(branch)
        x = layers.Add(dtype=policy)([inner(x, 2), branch])
    return x


def edsr_folded(
    *,
    blocks: int,
    filters: int,
    scale: int,
    skip: bool = True,
    centred: bool = True,
    precision: str = "float32",
    padding: Padding = "same",
) -> keras.Model:
    """EDSR after space-to-depth by 2: each 2x2 px square becomes one pixel of 12 channels.

    A convolution then covers twice the distance at a quarter of the cost (the inverse of Shi et
    al. (2016), section 3.2). The output depends on the grid of squares: the sides of the input
    must be even, and tiles must begin on even pixels, which they do because the halo is even.

    Args:
        blocks: as in :func:`edsr`.
        filters: as in :func:`edsr`.
        scale: as in :func:`edsr`.
        skip: as in :func:`edsr`.
        centred: as in :func:`edsr`.
        precision: as in :func:`edsr`.
        padding: as in :func:`edsr`.

    Returns:
        Model from [n, h, w, 3] to [n, h * scale, w * scale, 3], float32. With ``valid``, the
        output lacks the part of the outer 2 * (2 + 2 * blocks) px of the input at each side.
    """
    policy = _policy(precision)
    small = keras.Input((None, None, 3), name="lr")

    def convolution(filters: int, name: str, **kwargs: Any) -> layers.Conv2D:
        return layers.Conv2D(filters, 3, padding=padding, dtype=policy, name=name, **kwargs)

    def inner(x: keras.KerasTensor, margin: int, dtype: str) -> keras.KerasTensor:
        return Inner(margin, dtype=dtype)(x) if padding == "valid" else x

    x = Fold(FOLD, dtype="float32")(_centred(small) if centred else small)
    x = _residual_blocks(x, blocks, filters, policy, convolution, partial(inner, dtype=policy))
    x = convolution(3 * (FOLD * scale) ** 2, "subpixels")(x)
    x = PixelShuffle(FOLD * scale, dtype="float32")(layers.Activation("linear", dtype="float32")(x))
    if skip:
        bicubic = BicubicSubpixels(scale, dtype="float32")(small)
        bicubic = inner(bicubic, FOLD * (2 + 2 * blocks), "float32")
        bicubic = PixelShuffle(scale, dtype="float32")(bicubic)
        x = layers.Add(dtype="float32", name="skip")([x, bicubic])
    return keras.Model(small, x, name="edsr_folded")


def plain(
    *,
    depth: int,
    filters: int,
    width: int = 0,
    scale: int,
    skip: bool = True,
    centred: bool = True,
    precision: str = "float32",
    padding: Padding = "same",
) -> keras.Model:
    """A plain chain of 3x3 convolutions on the LR picture, then enlargement.

    Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks" (2016),
    section 3.1, with the sub-pixel convolution of Shi et al. With a ``width``, layers are trained
    as in Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution" (SESR,
    2022), section 3.1: each layer except the first and the last adds its input before the ReLU.

    Args:
        depth: number of layers with a ReLU.
        filters: number of filters of each of these layers.
        width: width of each :class:`WideConv2D`, or 0 for plain convolutions.
        scale: as in :func:`edsr`.
        skip: as in :func:`edsr`.
        centred: as in :func:`edsr`.
        precision: as in :func:`edsr`.
        padding: as in :func:`edsr`.

    Returns:
        Model from [n, h, w, 3] to [n, h * scale, w * scale, 3], float32. With ``valid``, the
        output lacks the part of the outer depth + 1 px of the input at each side.
    """
    policy = _policy(precision)
    small = keras.Input((None, None, 3), name="lr")

    def convolution(filters: int, name: str, *, middle: bool = False, **kwargs: Any) -> Any:
        kwargs |= {"padding": padding, "dtype": policy, "name": name}
        if not width:
            # Keras's default would halve the variance at every ReLU.
            return layers.Conv2D(filters, 3, kernel_initializer="he_normal", **kwargs)
        # A small gain where the identity is added, as in EDSR.
        gain = keras.initializers.VarianceScaling(0.1 if middle else 2.0)
        return WideConv2D(
            filters, 3, width=width, identity=middle, kernel_initializer=gain, **kwargs
        )

    x = convolution(filters, "head", activation="relu")(_centred(small) if centred else small)
    for number in range(2, depth + 1):
        x = convolution(filters, f"middle{number}", middle=True, activation="relu")(x)
    x = layers.Activation("linear", dtype="float32")(convolution(3 * scale**2, "subpixels")(x))
    return keras.Model(small, _enlarged(small, x, scale, skip, padding, depth + 1), name="plain")


def span(
    *,
    blocks: int,
    filters: int,
    scale: int,
    skip: bool = True,
    centred: bool = True,
    precision: str = "float32",
    padding: Padding = "same",
) -> keras.Model:
    """SPAN: blocks with an attention map that is computed from their own features.

    Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution" (2024),
    section 3. Differences from the paper: training also uses single convolutions, and the network
    learns the difference from bicubic.

    Args:
        blocks: number of blocks, each of three convolutions.
        filters: number of filters of each convolution.
        scale: as in :func:`edsr`.
        skip: as in :func:`edsr`.
        centred: as in :func:`edsr`.
        precision: as in :func:`edsr`.
        padding: as in :func:`edsr`.

    Returns:
        Model from [n, h, w, 3] to [n, h * scale, w * scale, 3], float32. With ``valid``, the
        output lacks the part of the outer 3 + 3 * blocks px of the input at each side.
    """
    policy = _policy(precision)
    small = keras.Input((None, None, 3), name="lr")

    def convolution(filters: int, name: str, **kwargs: Any) -> layers.Conv2D:
        return layers.Conv2D(filters, 3, padding=padding, dtype=policy, name=name, **kwargs)

    def inner(x: keras.KerasTensor, margin: int) -> keras.KerasTensor:
        return Inner(margin, dtype=policy)(x) if padding == "valid" else x

    x = head = convolution(filters, "head")(_centred(small) if centred else small)
    ends = []
    for block in range(1, blocks + 1):
        first = convolution(filters, f"block{block}_1", activation="silu")(x)
        last = convolution(filters, f"block{block}_2", activation="silu")(first)
        last = convolution(filters, f"block{block}_3")(last)
        total = layers.Add(dtype=policy)([last, inner(x, 3)])
        attention = layers.Activation("sigmoid", dtype=policy)(last)
        attention = layers.Rescaling(1.0, offset=-0.5, dtype=policy)(attention)
        x = layers.Multiply(dtype=policy)([total, attention])
        ends.append(x)
    tail = convolution(filters, "tail")(x)
    reach = 3 * blocks + 1  # px lost at each side from the head to the tail
    features = [inner(head, reach), tail, inner(ends[0], reach - 3), inner(first, 3)]
    x = layers.Concatenate(dtype=policy)(features)
    x = layers.Conv2D(filters, 1, dtype=policy, name="fuse")(x)
    x = layers.Activation("linear", dtype="float32")(convolution(3 * scale**2, "subpixels")(x))
    return keras.Model(small, _enlarged(small, x, scale, skip, padding, reach + 2), name="span")


def _enlarged(
    small: keras.KerasTensor,
    subpixels: keras.KerasTensor,
    scale: int,
    skip: bool,
    padding: Padding,
    margin: int,
) -> keras.KerasTensor:
    """Enlarge by pixel shuffle, after adding bicubic if there is a skip."""
    if skip:
        bicubic = BicubicSubpixels(scale, dtype="float32")(small)
        if padding == "valid":
            bicubic = Inner(margin, dtype="float32")(bicubic)
        subpixels = layers.Add(dtype="float32", name="skip")([subpixels, bicubic])
    return PixelShuffle(scale, dtype="float32")(subpixels)


class WideConv2D(layers.Conv2D):
    """A convolution whose kernel is a product of two kernels, optionally plus the identity.

    As in ECBSR (Zhang et al., "Edge-oriented Convolution Block for Real-time Super Resolution on
    Mobile Devices", 2021) and SESR: a k x k convolution to ``width`` channels followed directly by
    a 1x1 convolution to ``filters`` channels equals one k x k convolution, but has other
    gradients. The two kernels are multiplied, which costs little in training and nothing in an
    exported model, where the product is a constant.

    Args:
        filters: output channels.
        kernel_size: size of the first kernel.
        width: channels between the two kernels.
        identity: whether to add the input to the output.
        **kwargs: arguments of ``Conv2D``; ``kernel_initializer`` is for the first kernel.
    """

    def __init__(
        self, filters: int, kernel_size: Any, *, width: int, identity: bool = False, **kwargs: Any
    ) -> None:
        # Keras's default also depends on the number of outputs, which here is the width.
        kwargs.setdefault("kernel_initializer", keras.initializers.VarianceScaling(1.0))
        super().__init__(filters, kernel_size, **kwargs)
        self.width = width
        self.identity = identity

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the two kernels, always in float32, and the bias."""
        inputs = input_shape[-1]
        self.expand = self.add_weight(
            name="expand",
            shape=(*self.kernel_size, inputs, self.width),
            initializer=self.kernel_initializer,
            autocast=False,
        )
        self.project = self.add_weight(
            name="project",
            shape=(self.width, self.filters),
            initializer=keras.initializers.VarianceScaling(1.0),
            autocast=False,
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.built = True

    @property
    def kernel(self) -> keras.KerasTensor:
        """The product of the two kernels, in the precision of the convolution."""
        kernel = ops.matmul(self.expand, self.project)
        if self.identity:
            at_centre = np.zeros(kernel.shape, np.float32)
            at_centre[tuple(side // 2 for side in self.kernel_size)] = np.eye(self.filters)
            kernel = kernel + at_centre
        return ops.cast(kernel, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Config for Keras, which needs it to clone a network."""
        return {**super().get_config(), "width": self.width, "identity": self.identity}


class Fold(layers.Layer):
    """[n, h, w, c] -> [n, h / block, w / block, block * block * c]: space to depth."""

    def __init__(self, block: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block = block

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Move the pixels of each square into the channels."""
        block, (_, height, width, channels) = self.block, ops.shape(x)
        x = ops.reshape(x, (-1, height // block, block, width // block, block, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height // block, width // block, block * block * channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Output shape; h and w may be unknown, so Keras cannot infer it on JAX."""
        batch, *sides, channels = input_shape
        squares = (side and side // self.block for side in sides)
        return (batch, *squares, channels and channels * self.block**2)


class Inner(layers.Layer):
    """Crops ``margin`` px at each side of [n, h, w, c].

    The same as ``layers.Cropping2D``, whose gradient is several times slower on TensorFlow's CPU.
    """

    def __init__(self, margin: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.margin = margin

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Crop."""
        batch, height, width, channels = ops.shape(x)
        less = 2 * self.margin
        corner = (0, self.margin, self.margin, 0)
        return ops.slice(x, corner, (batch, height - less, width - less, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Output shape; h and w may be unknown, so Keras cannot infer it on JAX."""
        batch, *sides, channels = input_shape
        less = 2 * self.margin
        return (batch, *(side and side - less for side in sides), channels)


class BicubicSubpixels(layers.Layer):
    """[n, h, w, 3] -> [n, h, w, scale * scale * 3]: bicubic as a fixed convolution.

    Its weights are Pillow's. Away from the borders it equals :func:`superres.resample.upsample`
    up to rounding; at the borders it depends on the padding of the input.
    """

    def __init__(self, scale: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        taps = _bicubic_taps(scale)
        kernel = np.zeros((5, 5, 3, scale, scale, 3), np.float32)
        for channel in range(3):
            kernel[:, :, channel, :, :, channel] = np.einsum("ya,xb->yxab", taps, taps)
        self.fixed_kernel = kernel.reshape(5, 5, 3, -1)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Compute the weighted sums of 5x5 neighbours."""
        return ops.conv(x, self.fixed_kernel, padding="same")


class PixelShuffle(layers.Layer):
    """[n, h, w, scale * scale * 3] -> [n, h * scale, w * scale, 3]: depth to space.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network" (2016), section 3.2.
    """

    def __init__(self, scale: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Arrange the sub-pixels of each pixel as a square."""
        scale, (_, height, width, _) = self.scale, ops.shape(x)
        x = ops.reshape(x, (-1, height, width, scale, scale, 3))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height * scale, width * scale, 3))


class PairedConv2D(layers.Conv2D):
    """A convolution that computes two columns at once, with the same weights and outputs.

    A CPU multiplies 16 numbers at once, and a pixel of 3 channels uses few of these lanes. In
    NHWC, [h, w, c] and [h, w / 2, 2 c] have the same memory layout. The wider kernel contains the
    original kernel twice, once for each of the two columns, padded with zeros. The width must be
    even, and that of the kernel odd.
    """

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Convolve, without padding."""
        batch, height, width, channels = ops.shape(x)
        span = self.kernel_size[1] + 1
        shifted = [
            ops.pad(self.kernel, ((0, 0), (first, 1 - first), (0, 0), (0, 0))) for first in (0, 1)
        ]
        kernel = ops.stack(shifted, axis=-2)
        kernel = ops.reshape(
            kernel, (self.kernel_size[0], span // 2, 2 * channels, 2 * self.filters)
        )
        pairs = ops.reshape(x, (batch, height, width // 2, 2 * channels))
        answers = ops.conv(pairs, kernel, padding="valid") + ops.tile(self.bias, 2)
        size = (height - self.kernel_size[0] + 1, width - self.kernel_size[1] + 1)
        return ops.reshape(self.activation(answers), (batch, *size, self.filters))


def paired(model: keras.Model) -> keras.Model:
    """Copy a network, with :class:`PairedConv2D` for wide kernels on few channels.

    Args:
        model: a network built with ``padding="valid"``; the copy has its own variables.

    Returns:
        The same network, for tiles of even width.
    """

    def clone(layer: layers.Layer) -> layers.Layer:
        wide = isinstance(layer, layers.Conv2D) and layer.kernel_size[1] >= 5
        kind = PairedConv2D if wide and 3 in layer.kernel.shape[2:] else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _bicubic_taps(scale: int) -> np.ndarray:
    """Weights of five neighbours in a row for each of the ``scale`` sub-pixels: [5, scale].

    Keys's kernel with a = -0.5, as in Pillow.
    """
    places = (np.arange(scale) + 0.5) / scale - 0.5
    distance = np.abs(np.arange(-2, 3)[:, None] - places)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _centred(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Map pixel values of 0 to 255 to -128/128 to 127/128.

    With mid-grey at zero, a filter is active on about half of all patches, for any sum of its
    weights; with positive pixels only, many filters became inactive for ever after a first large
    step. bfloat16 represents these values exactly, unlike pixels divided by 255.
    """
    return layers.Rescaling(255 / 128, offset=-1, dtype="float32")(pixels)


def _policy(precision: str) -> str:
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


class Build(Protocol):
    """A function that builds a network."""

    def __call__(
        self, *, scale: int, skip: bool, centred: bool, precision: str, padding: Padding
    ) -> keras.Model:
        """Build the network, with newly initialised weights."""
        ...


@dataclass(frozen=True)
class Architecture:
    """How to build a network, and what its input is."""

    build: Build
    domain: Literal["hr", "lr"]
    """Input of the network. ``hr``: pre-upsampling, the input is the bicubic plane. ``lr``:
    post-upsampling, the input is the LR picture, which the network enlarges by its scale."""
    multiple: int = 1
    """Number that the sides of the input and the origins of tiles must be multiples of, px."""

    def upscale(self, scale: int) -> int:
        """Output pixels per input pixel, along a side."""
        return scale if self.domain == "lr" else 1


NETWORKS = {
    "srcnn_935": Architecture(srcnn_935, "hr"),
    "edsr_2x8": Architecture(partial(edsr, blocks=2, filters=8), "lr"),
    "edsr_4x64": Architecture(partial(edsr, blocks=4, filters=64), "lr"),
    "edsr_5x32": Architecture(partial(edsr, blocks=5, filters=32), "lr"),
    "edsr_6x48": Architecture(partial(edsr, blocks=6, filters=48), "lr"),
    "edsr_12x32": Architecture(partial(edsr, blocks=12, filters=32), "lr"),
    "edsr_12x32_wide": Architecture(partial(edsr, blocks=12, filters=32, width=128), "lr"),
    "edsr_16x32": Architecture(partial(edsr, blocks=16, filters=32), "lr"),
    "edsr_20x32": Architecture(partial(edsr, blocks=20, filters=32), "lr"),
    "edsr_folded_10x64": Architecture(partial(edsr_folded, blocks=10, filters=64), "lr", FOLD),
    "plain_24x32": Architecture(partial(plain, depth=24, filters=32), "lr"),
    "plain_24x32_wide": Architecture(partial(plain, depth=24, filters=32, width=128), "lr"),
    "span_6x28": Architecture(partial(span, blocks=6, filters=28), "lr"),
}
"""Architectures by the name that configs use."""


def build(
    network: str,
    *,
    scale: int,
    skip: bool,
    centred: bool = True,
    precision: str,
    padding: Padding = "same",
) -> keras.Model:
    """Build a network by its name in :data:`NETWORKS`, with newly initialised weights.

    Raises:
        KeyError: no such network.
    """
    return NETWORKS[network].build(
        scale=scale, skip=skip, centred=centred, precision=precision, padding=padding
    )


def added_blocks(network: str, other: str) -> tuple[str, ...] | None:
    """Names of the blocks that an EDSR network has and another lacks.

    Args:
        network: name of a network.
        other: name of the network that may be a shallower one of the same kind.

    Returns:
        Empty for the same network; ``None`` if ``network`` is not ``other`` with more blocks.

    >>> added_blocks("edsr_20x32", "edsr_16x32")
    ('block17', 'block18', 'block19', 'block20')
    """
    if network == other:
        return ()
    if other not in NETWORKS:
        return None
    ours, theirs = NETWORKS[network].build, NETWORKS[other].build
    if not (isinstance(ours, partial) and isinstance(theirs, partial)):
        return None
    if not (ours.func is theirs.func is edsr and "width" not in ours.keywords):
        return None
    depth, their_depth = ours.keywords["blocks"], theirs.keywords["blocks"]
    if ours.keywords | {"blocks": their_depth} != theirs.keywords or depth < their_depth:
        return None
    return tuple(f"block{number}" for number in range(their_depth + 1, depth + 1))


def receptive_field(model: keras.Model) -> int:
    """Side of the input square that one output pixel depends on, px (stride 1).

    SRCNN 9-3-5 has 1 + 8 + 2 + 4 = 15 px, so a halo of 7 px. A folded network counts in squares.
    """
    return _fold(model) * (1 + sum(layer.kernel_size[0] - 1 for layer in _chain(model)))


def halo(model: keras.Model) -> int:
    """Input pixels at each side that an output pixel (or square, if folded) depends on."""
    fold = _fold(model)
    return (receptive_field(model) - fold) // 2


def multiply_adds_per_pixel(model: keras.Model) -> int:
    """Multiply-adds of the convolutions per pixel of the network's input plane."""
    return sum(math.prod(layer.kernel.shape) for layer in _chain(model)) // _fold(model) ** 2


def _fold(model: keras.Model) -> int:
    return next((layer.block for layer in model.layers if isinstance(layer, Fold)), 1)


def _chain(model: keras.Model) -> list[layers.Conv2D]:
    """All convolutions; in each of these networks, one path passes through all of them."""
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
