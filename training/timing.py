"""Estimates of training time on this machine, from a few timed steps."""

import time

import keras
import numpy as np

from superres.models.card import TrainingPrecision
from training import networks
from training.config import StageConfig, TrainingConfig
from training.devices import Devices
from training.losses import build_loss
from training.steps import Trainer, build_optimizer
from training.weights import Design

BFLOAT16_TIME_RATIO = 0.95
"""Ratio of times below which bfloat16 is chosen over float32, so that noise in the timing does not
choose the less exact precision."""
TRIAL_BATCH = 2
"""Batch size of a trial. It is small because bfloat16 can be 14 times slower than float32."""


def faster_precision(config: TrainingConfig) -> TrainingPrecision:
    """Time a few steps of the first stage in each precision, and return the faster precision."""
    float32, bfloat16 = (
        seconds_per_step(config, config.stages[0], precision, batch_size=TRIAL_BATCH)
        for precision in ("float32", "bfloat16")
    )
    return "bfloat16" if bfloat16 < BFLOAT16_TIME_RATIO * float32 else "float32"


def seconds_per_step(
    config: TrainingConfig, stage: StageConfig, precision: str, *, batch_size: int | None = None
) -> float:
    """Time of a training step on noise, s: the minimum of three, after a warm-up step.

    A VGG19 term is not included.
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
    keras.utils.clear_session()  # frees the network and the optimizer
    return min(seconds[1:])
