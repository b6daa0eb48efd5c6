"""Several devices that share each batch, by Keras's own means on the backend in use.

On TensorFlow that is ``tf.distribute.MirroredStrategy``: the devices of one process. On JAX it is
``keras.distribution.DataParallel``: those of one process, or of several that
``KERAS_DISTRIBUTION_JOB_ADDRESSES``, ``KERAS_DISTRIBUTION_NUM_PROCESSES`` and
``KERAS_DISTRIBUTION_PROCESS_ID`` bring together, on one machine or on many. Every device holds all
the weights; gradients are averaged over the whole batch.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from training.config import TrainingConfig


class Devices:
    """Where a run's network is trained.

    Args:
        count: how many devices share a batch, those of all processes; GPUs if there are any.
        config: of the run.

    Raises:
        ValueError: there are fewer devices, a stage's batch does not divide by them, or what is
            asked for is not to be had of the backend; the message says which.
    """

    def __init__(self, count: int, config: TrainingConfig) -> None:
        self.count = count
        self.processes = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1))
        self.process = 0
        self.strategy: Any = None
        """TensorFlow's or Keras's; none for one device."""
        backend = keras.backend.backend()
        if backend not in ("tensorflow", "jax"):
            raise ValueError(f"training needs tensorflow or jax; KERAS_BACKEND is {backend}")
        if backend == "jax":
            import jax

            # A GPU would round the factors of float32 products to 10 bits: SOAP's bases too.
            jax.config.update("jax_default_matmul_precision", "highest")
        if count == 1 and self.processes == 1:
            return
        for stage in config.stages:
            if stage.batch_size % count:
                raise ValueError(
                    f"batch_size is a multiple of the devices ({count}), not {stage.batch_size}"
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
                f"KERAS_DISTRIBUTION_NUM_PROCESSES is 1 on tensorflow, not {self.processes}: "
                "several processes need KERAS_BACKEND=jax"
            )
        if any(stage.loss.sigmoid for stage in config.stages):
            raise ValueError(
                "a loss with sigmoid needs 1 device on tensorflow, where each would take it of "
                f"its own share, not {count}; KERAS_BACKEND=jax takes it of the whole batch"
            )
        return tf.distribute.MirroredStrategy(_first(count))

    def _data_parallel(self, count: int, config: TrainingConfig) -> Any:
        if self.processes > 1:
            if config.precision == "auto":
                raise ValueError(
                    "precision is float32 or bfloat16 with several processes, not auto: "
                    "each would choose by its own clock"
                )
            keras.distribution.initialize()
            if count != len(keras.distribution.list_devices()):
                raise ValueError(
                    f"devices is {len(keras.distribution.list_devices())}, all those of the "
                    f"{self.processes} processes, not {count}"
                )
        strategy = keras.distribution.DataParallel(devices=_first(count), auto_shard_dataset=False)
        self.process = strategy.data_shard_id
        return strategy

    @property
    def one_gpu(self) -> bool:
        """Whether the network is on a single GPU, by JAX."""
        jax = keras.backend.backend() == "jax" and self.strategy is None
        return jax and any(
            "gpu" in one or "cuda" in one for one in keras.distribution.list_devices()
        )

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """In it, variables are made on every device."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def share(self, array: np.ndarray) -> np.ndarray:
        """This process's part of a batch."""
        part = len(array) // self.processes
        return array[self.process * part : (self.process + 1) * part]

    def agree(self, chiefs: bool) -> bool:
        """What the chief says: processes that differ on whether to go on would wait for ever."""
        if self.processes == 1:
            return chiefs
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return bool(broadcast_one_to_all(np.array(chiefs)))


def _first(count: int) -> list[str]:
    devices = keras.distribution.list_devices()
    if count > len(devices):
        raise ValueError(f"devices is at most {len(devices)} ({', '.join(devices)}), not {count}")
    return devices[:count]
