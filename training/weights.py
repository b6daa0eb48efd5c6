"""Weight files, by the path of each variable, and networks with these weights."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from superres.models.card import CARD, TrainingRecord, read_card
from training import networks
from training.config import TrainingConfig

WEIGHTS = "weights.npz"
"""File of the weights of a run's best validation, or of an exported model's SavedModel."""
RECORD = "record.json"

Weights = dict[str, np.ndarray]
"""Arrays by path, such as ``block1_1/kernel``."""


class WeightsMismatch(RuntimeError):
    """The weights are of another network, or do not match their record."""


@dataclass(frozen=True)
class Design:
    """The parameters that define a network. Weights are only valid for the same design."""

    network: str
    scale: int
    skip: bool
    centred: bool

    @classmethod
    def of(cls, config: TrainingConfig | Mapping[str, Any]) -> "Design":
        """Make the design of a config, which may be a mapping read from a card."""
        values = config if isinstance(config, Mapping) else dict(config)
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def build(self, *, precision: str, padding: networks.Padding = "same") -> keras.Model:
        """Build the network, with newly initialised weights."""
        return networks.build(
            self.network,
            scale=self.scale,
            skip=self.skip,
            centred=self.centred,
            precision=precision,
            padding=padding,
        )


def hash_weights(weights: Weights) -> str:
    """SHA-256 of paths, types, shapes and values; order and file format do not matter."""
    digest = hashlib.sha256()
    for path, array in sorted(weights.items()):
        digest.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_weights(file: Path, weights: Weights) -> None:
    """Write a weight file atomically."""
    partial = file.with_name(f".{file.name}.partial.npz")
    np.savez(partial, allow_pickle=False, **weights)
    os.replace(partial, file)


def load_weights(file: Path) -> Weights:
    """Read a file of :func:`save_weights`.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    with np.load(file) as arrays:
        return dict(arrays)


def weights_of(network: keras.Model) -> Weights:
    """The weights of a network."""
    return {v.path: keras.ops.convert_to_numpy(v) for v in network.variables}


def set_weights(network: keras.Model, weights: Weights) -> None:
    """Assign weights to a network.

    Raises:
        WeightsMismatch: the weights are of another network; the message lists the differences.
    """
    ours = {variable.path: tuple(variable.shape) for variable in network.variables}
    theirs = {path: array.shape for path, array in weights.items()}
    if ours != theirs:
        differ = sorted(path for path, _ in ours.items() ^ theirs.items())
        raise WeightsMismatch(f"the weights are of another network: {', '.join(set(differ))}")
    for variable in network.variables:
        variable.assign(weights[variable.path])


def take_weights(
    network: keras.Model, design: Design, weights: Weights, their_design: Design
) -> tuple[str, ...]:
    """Copy the weights of a run of the same network or a shallower one, at this or another scale.

    A layer whose shape depends on the scale keeps its own weights if the scales differ. Blocks
    that only the deeper network has begin as the identity.

    Returns:
        The names of the layers that were copied.

    Raises:
        WeightsMismatch: ``network``, ``skip`` or ``centred`` differ, or a layer does.
    """
    added = networks.added_blocks(design.network, their_design.network)
    if added is None:
        raise WeightsMismatch(
            f"the weights to start from are of network {their_design.network}, which is neither "
            f"{design.network} nor the same with fewer blocks"
        )
    for name in ("skip", "centred"):
        ours, theirs = getattr(design, name), getattr(their_design, name)
        if ours != theirs:
            raise WeightsMismatch(f"the weights to start from are of {name} {theirs}, not {ours}")
    copied = []
    for layer in network.layers:
        if not layer.weights:
            continue
        block, _, place = layer.name.partition("_")
        if block in added:
            if place == "2":  # the block's last convolution, whose bias is zero
                layer.kernel.assign(keras.ops.zeros_like(layer.kernel))
            continue
        found = [weights.get(variable.path) for variable in layer.weights]
        if all(
            array is not None and array.shape == tuple(variable.shape)
            for array, variable in zip(found, layer.weights, strict=True)
        ):
            layer.set_weights(found)
            copied.append(layer.name)
        elif design.scale == their_design.scale:
            raise WeightsMismatch(f"the weights to start from have another layer {layer.name}")
    return tuple(copied)


def recorded(folder: Path) -> tuple[Design, Weights]:
    """The design and the weights of a run or of an exported model.

    Raises:
        FileNotFoundError: the folder has no weights: the run was not validated yet, or the folder
            is neither a run nor a model.
        superres.errors.ModelMismatch: the model's card is invalid.
        WeightsMismatch: the weights do not match the record.
    """
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"no {WEIGHTS} in {folder}: give a run with a validation, or an exported model"
        )
    weights = load_weights(folder / WEIGHTS)
    if (folder / CARD).exists():
        card = read_card(folder)
        if card.training is None:
            raise WeightsMismatch(f"{folder / CARD} has no record of a training")
        config, expected = card.training.config, card.weights_sha256
    else:
        record = read_record(folder)
        config, expected = record.config, record.weights_sha256
    if hash_weights(weights) != expected:
        raise WeightsMismatch(f"{folder / WEIGHTS} does not match the hash in the record beside it")
    return Design.of(config), weights


def read_record(run: Path) -> TrainingRecord:
    """Read the record of a run.

    Raises:
        FileNotFoundError: the folder is not a run, or the run was not validated yet.
    """
    return TrainingRecord.model_validate_json((run / RECORD).read_text())


def trained_network(folder: Path, *, precision: str = "float32") -> keras.Model:
    """The network of a run, with its best weights, or of an exported model.

    It is built with ``padding="same"``.

    Raises:
        FileNotFoundError: as in :func:`recorded`.
        superres.errors.ModelMismatch: as in :func:`recorded`.
        WeightsMismatch: as in :func:`recorded`.
    """
    design, weights = recorded(folder)
    network = design.build(precision=precision)
    set_weights(network, weights)
    return network
