"""superres: a photograph goes in, a larger and sharper one comes out.

>>> from pathlib import Path
>>> from superres import decode, encode, load_model
>>> picture = decode(Path("photo.jpg").read_bytes())        # doctest: +SKIP
>>> larger = load_model("srcnn", scale=3).enhance(picture, 3)  # doctest: +SKIP
>>> Path("photo-x3.png").write_bytes(encode(larger, "png"))    # doctest: +SKIP
"""

from pathlib import Path

from superres.codecs import Picture, decode, encode
from superres.engines import load_engine
from superres.engines.base import PrecisionChoice, Runtime
from superres.enhancer import Enhancer
from superres.evaluation.metrics import psnr, ssim
from superres.models.card import ModelCard
from superres.models.registry import (
    COMPARED_MODEL,
    DEFAULT_MODELS,
    DEFAULT_SCALE,
    all_cards,
    choose,
)

__all__ = [
    "Enhancer",
    "ModelCard",
    "Picture",
    "decode",
    "encode",
    "load_model",
    "psnr",
    "ssim",
]


def load_model(
    model: str = COMPARED_MODEL,
    *,
    scale: float = DEFAULT_SCALE,
    models: Path = DEFAULT_MODELS,
    precision: PrecisionChoice = "auto",
    device: str = "auto",
    runtime: Runtime = "auto",
) -> Enhancer:
    """Load the model that a family or a name, and a scale, ask for.

    Args:
        model: a family (``srcnn``), a name (``srcnn-x3``) or ``bicubic``.
        scale: what it will be used at; chooses within a family.
        models: the models folder.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``int8``.
        device: ``auto``, ``cpu`` or ``gpu:N``.
        runtime: ``auto``, ``tensorflow`` or ``onnxruntime``.

    Raises:
        ModelMissing: no such model.
        ModelMismatch: it is not what its card says.
        EngineError: no such device, or the runtime is not installed.
    """
    card = choose(all_cards(models), model, scale)
    engine = load_engine(
        models / card.name, card, precision=precision, device=device, runtime=runtime
    )
    return Enhancer(engine, card.geometry)
