"""A sheet of degraded crops beside their ground truth, for a visual check of degradations."""

from collections.abc import Sequence

from PIL import Image

from training.degrade import Degradations
from training.prepared import PreparedSet
from training.sampler import Sampling, batch

SCALE = 3
PATCH = 144
COLUMNS = 5
_GAP = 8
"""Gap between two pairs, px; the gap inside a pair is half of it."""


def draw_sheet(
    sets: Sequence[PreparedSet],
    degradations: Degradations,
    *,
    shrinks: tuple[float, ...],
    crops: int,
    seed: int,
) -> Image.Image:
    """Draw degraded crops, enlarged by 3 with nearest neighbour, each beside its ground truth.

    Args:
        sets: prepared sets to draw crops from.
        degradations: degradations of the crops; ``clean`` is ignored.
        shrinks: factors to shrink pictures by first.
        crops: number of crops.
        seed: seed of the crops and of the degradations.
    """
    sampling = Sampling(
        scale=SCALE,
        domain="lr",
        halo=0,
        patch_size=PATCH,
        batch_size=crops,
        shrinks=(shrinks,) * len(sets),
        degradations=degradations.model_copy(update={"clean": 0.0}),
    )
    planes, truths = batch(sets, sampling, seed, 0)
    across, down = 2 * PATCH + _GAP // 2 + _GAP, PATCH + _GAP
    size = (COLUMNS * across - _GAP, -(-crops // COLUMNS) * down - _GAP)
    sheet = Image.new("RGB", size, "white")
    for index in range(crops):
        row, column = divmod(index, COLUMNS)
        left, top = column * across, row * down
        plane = Image.fromarray(planes[index]).resize((PATCH, PATCH), Image.Resampling.NEAREST)
        sheet.paste(plane, (left, top))
        sheet.paste(Image.fromarray(truths[index]), (left + PATCH + _GAP // 2, top))
    return sheet
