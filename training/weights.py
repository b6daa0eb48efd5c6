"""Weights in files, by the path of each variable, and networks that are made of them."""

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
"""Of a run, those of its best validation; of an exported model, what its SavedModel is made of."""
RECORD = "record.json"

Weights = dict[str, np.ndarray]
"""By path, such as ``block1_1/kernel``."""


class WeightsMismatch(RuntimeError):
    """The weights are of another network, or not those that their record tells of."""


@dataclass(frozen=True)
class Design:
    """What decides how a network is built; its weights mean nothing to another one."""

    network: str
    scale: int
    skip: bool
    centred: bool

    @classmethod
    def of(cls, config: TrainingConfig | Mapping[str, Any]) -> "Design":
        """Of a config, or of one that was read from a card, whatever else is in it."""
        values = config if isinstance(config, Mapping) else dict(config)
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def build(self, *, precision: str, padding: networks.Padding = "same") -> keras.Model:
        """The network, with fresh weights."""
        return networks.build(
            self.network,
            scale=self.scale,
            skip=self.skip,
            centred=self.centred,
            precision=precision,
            padding=padding,
        )


def hash_weights(weights: Weights) -> str:
    """SHA-256 of paths, types, shapes and values, whatever the order and the file."""
    digest = hashlib.sha256()
    for path, array in sorted(weights.items()):
        digest.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_weights(file: Path, weights: Weights) -> None:
    """Write a file of weights whole."""
    partial = file.with_name(f".{file.name}.partial.npz")
    np.savez(partial, allow_pickle=False, **weights)
    os.replace(partial, file)


def load_weights(file: Path) -> Weights:
    """Read what :func:`save_weights` wrote.

    Raises:
        FileNotFoundError: no such file.
    """
    with np.load(file) as arrays:
        return dict(arrays)


def weights_of(network: keras.Model) -> Weights:
    """A network's weights."""
    return {v.path: keras.ops.convert_to_numpy(v) for v in network.variables}


def set_weights(network: keras.Model, weights: Weights) -> None:
    """Give a network its weights.

    Raises:
        WeightsMismatch: they are of another network; the message names what differs.
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
    """Begin with the weights of another run, of the same network at this or another scale.

    A layer whose shape depends on the scale keeps its fresh weights.

    Returns:
        The layers whose weights were taken.

    Raises:
        WeightsMismatch: the other run has another network, or one that sees or says something else.
    """
    for name in ("network", "skip", "centred"):
        ours, theirs = getattr(design, name), getattr(their_design, name)
        if ours != theirs:
            raise WeightsMismatch(f"the weights to start from are of {name} {theirs}, not {ours}")
    taken = []
    for layer in network.layers:
        if not layer.weights:
            continue
        found = [weights.get(variable.path) for variable in layer.weights]
        if all(
            array is not None and array.shape == tuple(variable.shape)
            for array, variable in zip(found, layer.weights, strict=True)
        ):
            layer.set_weights(found)
            taken.append(layer.name)
        elif design.scale == their_design.scale:
            raise WeightsMismatch(f"the weights to start from have another layer {layer.name}")
    return tuple(taken)


def recorded(folder: Path) -> tuple[Design, Weights]:
    """What the network of a run, or of an exported model, is, and its weights.

    Raises:
        FileNotFoundError: the run has no best weights yet, or it is neither of them.
        superres.errors.ModelMismatch: the model's card is not one.
        WeightsMismatch: the weights are not those that the record tells of.
    """
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"no {WEIGHTS} in {folder}: give a run that was validated, or an exported model"
        )
    weights = load_weights(folder / WEIGHTS)
    if (folder / CARD).exists():
        card = read_card(folder)
        config = card.training.config if card.training else (card.legacy or {})["config"]
        expected = card.weights_sha256
    else:
        record = read_record(folder)
        config, expected = record.config, record.weights_sha256
    if hash_weights(weights) != expected:
        raise WeightsMismatch(f"{folder / WEIGHTS} is not what the record beside it tells of")
    return Design.of(config), weights


def read_record(run: Path) -> TrainingRecord:
    """The record of a run.

    Raises:
        FileNotFoundError: it is no run, or it was not validated yet.
    """
    return TrainingRecord.model_validate_json((run / RECORD).read_text())


def trained_network(folder: Path, *, precision: str = "float32") -> keras.Model:
    """The network of a run, with its best weights, or of an exported model; as it is served.

    Raises:
        FileNotFoundError: as :func:`recorded`.
        superres.errors.ModelMismatch: as :func:`recorded`.
        WeightsMismatch: as :func:`recorded`.
    """
    design, weights = recorded(folder)
    network = design.build(precision=precision)
    set_weights(network, weights)
    return network
