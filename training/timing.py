"""How long a run takes on the machine at hand, by a few timed steps."""

import time

import keras
import numpy as np

from superres.engines.base import Precision
from training import networks
from training.config import StageConfig, TrainingConfig
from training.devices import Devices
from training.losses import build_loss
from training.steps import Trainer, build_optimizer
from training.weights import Design

CLEARLY = 0.95
"""bfloat16 is taken where it needs less than this share of float32's time: of two that are about
as fast, the more exact one, whatever chance says."""
TRIAL_BATCH = 2
"""Of a trial of precisions: bfloat16 can be 14 times slower, and a trial should end."""


def faster_precision(config: TrainingConfig) -> Precision:
    """Time a few steps of the first stage in each precision, and name the faster."""
    float32, bfloat16 = (
        seconds_per_step(config, config.stages[0], precision, batch_size=TRIAL_BATCH)
        for precision in ("float32", "bfloat16")
    )
    return "bfloat16" if bfloat16 < CLEARLY * float32 else "float32"


def seconds_per_step(
    config: TrainingConfig, stage: StageConfig, precision: str, *, batch_size: int | None = None
) -> float:
    """Time of a training step on noise, s: the best of three, after one that is not counted.

    A VGG19 term is left out.
    """
    replicate = stage.borders == "replicate"
    network = Design.of(config).build(precision=precision, padding="valid" if replicate else "same")
    loss = build_loss(
        stage.loss.model_copy(update={"vgg19": 0.0}), vgg19_weights=None, precision=precision
    )
    alone = config.model_copy(update={"precision": precision})
    place = Devices(1, alone)
    trainer = Trainer(network, build_optimizer(config, network, place), loss, place)
    upscale = networks.NETWORKS[config.network].upscale(config.scale)
    side = stage.patch_size or 512 // upscale * upscale
    plane = side // upscale + (2 * networks.halo(network) if replicate else 0)
    random = np.random.default_rng(0)
    planes, hr = (
        random.random((batch_size or stage.batch_size, size, size, 3), np.float32)
        for size in (plane, side)
    )
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        float(trainer.step(planes, hr))
        seconds.append(time.perf_counter() - began)
    keras.utils.clear_session()  # else the network and the optimizer stay in memory
    return min(seconds[1:])
