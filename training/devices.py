"""Data parallelism: several devices that share each batch.

On TensorFlow, ``tf.distribute.MirroredStrategy`` uses the devices of one process. On JAX,
``keras.distribution.DataParallel`` uses the devices of one process, or of several processes on one
or more machines, which ``KERAS_DISTRIBUTION_JOB_ADDRESSES``, ``KERAS_DISTRIBUTION_NUM_PROCESSES``
and ``KERAS_DISTRIBUTION_PROCESS_ID`` connect. Every device holds all the weights; gradients are
averaged over the whole batch.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from training.config import TrainingConfig


class Devices:
    """The devices that train a run's network.

    Args:
        count: number of devices that share a batch, over all processes; GPUs if there are any.
        config: config of the run.

    Raises:
        ValueError: there are fewer devices, a stage's batch size is not a multiple of the count,
            or the backend does not support the request; the message says which.
    """

    def __init__(self, count: int, config: TrainingConfig) -> None:
        self.count = count
        self.processes = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1))
        self.process = 0
        self.strategy: Any = None
        """Distribution strategy of TensorFlow or Keras; None for one device."""
        backend = keras.backend.backend()
        if backend not in ("tensorflow", "jax"):
            raise ValueError(f"training needs tensorflow or jax; KERAS_BACKEND is {backend}")
        if backend == "jax":
            import jax

            # By default, a GPU rounds factors of float32 products to 10 bits, also in SOAP.
            jax.config.update("jax_default_matmul_precision", "highest")
        if count == 1 and self.processes == 1:
            return
        for stage in config.stages:
            if stage.batch_size % count:
                raise ValueError(
                    f"batch_size must be a multiple of the devices ({count}), "
                    f"not {stage.batch_size}"
                )
        if backend == "tensorflow":
            self.strategy = self._mirrored(count, config)
        else:
            self.strategy = self._data_parallel(count, config)

    def _mirrored(self, count: int, config: TrainingConfig) -> Any:
        import tensorflow as tf

        if self.processes > 1:
            # MultiWorkerMirroredStrategy does not work with Keras 3.15's optimizers.
            raise ValueError(
                f"KERAS_DISTRIBUTION_NUM_PROCESSES must be 1 on tensorflow, not {self.processes}: "
                "several processes need KERAS_BACKEND=jax"
            )
        if any(stage.loss.sigmoid for stage in config.stages):
            raise ValueError(
                f"a loss with sigmoid needs 1 device on tensorflow, not {count}: each device would "
                "apply it to its part of the batch; KERAS_BACKEND=jax applies it to the whole batch"
            )
        return tf.distribute.MirroredStrategy(_first(count))

    def _data_parallel(self, count: int, config: TrainingConfig) -> Any:
        if self.processes > 1:
            if config.precision == "auto":
                raise ValueError(
                    "precision must be float32 or bfloat16 with several processes, not auto: "
                    "they could choose differently"
                )
            keras.distribution.initialize()
            if count != len(keras.distribution.list_devices()):
                raise ValueError(
                    f"devices must be {len(keras.distribution.list_devices())}, the devices of all "
                    f"{self.processes} processes, not {count}"
                )
        strategy = keras.distribution.DataParallel(devices=_first(count), auto_shard_dataset=False)
        self.process = strategy.data_shard_id
        return strategy

    @property
    def one_gpu(self) -> bool:
        """Whether JAX trains on a single GPU."""
        jax = keras.backend.backend() == "jax" and self.strategy is None
        return jax and any(
            "gpu" in one or "cuda" in one for one in keras.distribution.list_devices()
        )

    @property
    def chief(self) -> bool:
        """Whether this process writes the files and shows progress."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which variables are created on every device."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def share(self, array: np.ndarray) -> np.ndarray:
        """This process's part of a batch."""
        part = len(array) // self.processes
        return array[self.process * part : (self.process + 1) * part]

    def agree(self, chiefs: bool) -> bool:
        """Broadcast the chief's decision. Processes that decide differently would deadlock."""
        if self.processes == 1:
            return chiefs
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return bool(broadcast_one_to_all(np.array(chiefs)))


def _first(count: int) -> list[str]:
    devices = keras.distribution.list_devices()
    if count > len(devices):
        raise ValueError(
            f"devices must be at most {len(devices)} ({', '.join(devices)}), not {count}"
        )
    return devices[:count]
