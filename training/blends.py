"""Models between two others: the weighted mean of their weights.

A network that was fine-tuned from another one can be moved back towards it: the mean of their
weights changes a picture less than the fine-tuned one does (Wortsman et al., "Robust fine-tuning
of zero-shot models", 2022).
"""

from pathlib import Path

from superres.models.card import BlendRecord, ModelCard, ParentRecord, read_card
from training.config import load_blends
from training.export import ExportFailed, check_record, check_tree, install
from training.weights import mean_weights, recorded


def blend(name: str, models: Path) -> ModelCard:
    """Make a committed blend of two exported models, and export it beside them.

    Args:
        name: the name of the blend and of its model.
        models: the models folder.

    Raises:
        ExportFailed: there is no such blend, a model of it cannot be reproduced, or the code
            differs from its commit.
        ModelMissing: a model of it is not in the folder.
    """
    blends = load_blends()
    if name not in blends:
        raise ExportFailed(f"no blend {name!r}: there are {', '.join(blends)}")
    check_tree()
    wanted = blends[name]
    found, records = [], []
    for parent, share in wanted.shares.items():
        card = read_card(models / parent)
        if card.training is None:
            raise ExportFailed(f"{parent} cannot be made again: {card.reason}")
        check_record(card.training)
        found.append(recorded(models / parent))
        records.append(
            ParentRecord(
                name=parent,
                share=share,
                weights_sha256=card.weights_sha256,
                config_sha256=card.training.config_sha256,
            )
        )
    (design, first), (other, second) = found
    if design != other:
        raise ExportFailed(f"{name}: {design} and {other} cannot be mixed")
    mixed = mean_weights(first, second, *wanted.shares.values())
    record = BlendRecord(config=vars(design), parents=tuple(records))
    facts = {
        "name": name,
        "family": wanted.family,
        "training": None,
        "blend": record,
        "reproducible": True,
        "reason": "",
    }
    return install(facts, design, mixed, models)
