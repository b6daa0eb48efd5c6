"""Import of a foreign ONNX network as a model: wrapped, probed, checked, scored."""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx

from superres.arrays import RgbU8
from superres.engines.onnxruntime import ONNX, OnnxRuntimeEngine, open_onnx
from superres.enhancer import Enhancer
from superres.errors import BadRequest
from superres.evaluation.proof import compare
from superres.importing.foreign import Colours, Form, middle, read_form, read_network
from superres.importing.graph import Middle, save_onnx, to_onnx
from superres.importing.probe import Mode, Network, distance, probe
from superres.importing.pytorch import SUFFIXES
from superres.models.card import (
    DatasetScores,
    Example,
    ModelCard,
    Scores,
    hash_files,
    write_card,
)

EXAMPLE_SIDE = 32
GIVEN = "given pictures"
"""Name, in the card, of the set on which an imported model was scored."""


def import_model(
    file: Path,
    models: Path,
    *,
    name: str,
    family: str,
    licence: str,
    source: str,
    scale: int | None = None,
    colours: Colours = "rgb",
    mode: Mode = "exact",
    pictures: Sequence[RgbU8] = (),
) -> ModelCard:
    """Make a model of an ONNX file in the models folder.

    Args:
        file: the ONNX file, or a PyTorch file.
        models: the models folder.
        name: of the model; there must be none of that name.
        family: of the model.
        licence: of the network, for the card.
        source: where the network comes from, for the card.
        scale: what its scale must be; none for the one that is found.
        colours: the order of the network's channels, which cannot be found by calling it.
        mode: how it is to be tiled.
        pictures: on which it is scored beside bicubic.

    Raises:
        BadRequest: the network cannot be served, or there is a model of that name.
        ModelMismatch: the wrapped network does not give the answers of the probe.
    """
    if (models / name).exists():
        raise BadRequest(f"{models / name} exists: take another name, or remove that model")
    model = read_network(file)
    form = read_form(model, colours)
    if file.suffix not in SUFFIXES:  # what spandrel reads takes 0 to 1
        form = _with_range(model, form)
    found = probe(_open(model, form), mode)
    if scale not in (None, found.scale):
        raise BadRequest(f"the network enlarges by {found.scale}, not by {scale}")
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".import-") as scratch:
        made = Path(scratch) / name
        made.mkdir()
        network = middle(model, form)
        save_onnx(
            network,
            made / ONNX,
            upscale=found.scale,
            multiple=found.multiple,
            opsets=model.opset_import,
        )
        parameters = sum(int(np.prod(one.dims)) for one in model.graph.initializer)
        legacy = {
            "source": source,
            "licence": licence,
            "file": file.name,
            "form": asdict(form),
            "tiling": {"mode": mode, "multiple": found.multiple},
        }
        card = ModelCard(
            name=name,
            family=family,
            network="imported",
            geometry=found.geometry,
            parameters=parameters,
            # Of convolutions, all of whose weights are used once for each input pixel.
            multiply_adds_per_output_pixel=parameters // found.scale**2,
            format=ONNX,
            files=hash_files(made / ONNX),
            example=_example(made),
            weights_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            training=None,
            legacy=legacy,
            reproducible=False,
            reason="imported from a file",
        )
        card = write_card(made, card)
        engine = OnnxRuntimeEngine(made, card, device="cpu")
        if pictures and found.scale > 1:
            scores = _score(Enhancer(engine, card.geometry), pictures, found.scale)
            card = write_card(made, card.model_copy(update={"scores": (scores,)}))
        made.rename(models / name)
    return card


def _with_range(model: onnx.ModelProto, form: Form) -> Form:
    """The form with the range of values whose answers are nearer to the picture."""
    wide = replace(form, largest=255)
    return wide if distance(_open(model, wide)) < distance(_open(model, form)) / 2 else form


def _open(model: onnx.ModelProto, form: Form) -> Network:
    """The network without rounding, clipping and padding."""
    network: Middle = middle(model, form)
    graph = to_onnx(
        network, upscale=1, multiple=1, dtype="float32", clip=False, opsets=model.opset_import
    )
    return open_onnx(graph.SerializeToString())


def _example(made: Path) -> Example:
    tile = np.random.default_rng(0).integers(0, 256, (EXAMPLE_SIDE, EXAMPLE_SIDE, 3), np.uint8)
    answers = open_onnx(made / ONNX / "f32.onnx")(tile[None] / np.float32(255))
    return Example(
        height=EXAMPLE_SIDE,
        width=EXAMPLE_SIDE,
        tile=base64.b64encode(tile.tobytes()).decode(),
        answer=base64.b64encode(answers.astype("<f4").tobytes()).decode(),
    )


def _score(enhancer: Enhancer, pictures: Sequence[RgbU8], scale: int) -> DatasetScores:
    compared = [compare(enhancer, picture, scale) for picture in pictures]

    def mean(scores: list[Scores]) -> Scores:
        names = Scores.__dataclass_fields__
        return Scores(
            **{one: float(np.mean([getattr(score, one) for score in scores])) for one in names}
        )

    return DatasetScores(
        dataset=GIVEN,
        pictures=len(compared),
        scale=scale,
        model=mean([one.sr_scores for one in compared]),
        bicubic=mean([one.bicubic_scores for one in compared]),
        wins_psnr_y=sum(one.gain_db > 0 for one in compared),
    )
