"""Run as a process that sees four devices in the CPU: ``superres-train``, or SOAP by itself.

``python -m tests.devices fit ...``, or ``python -m tests.devices soap COUNT FILE``.
"""

import os
import sys
from collections.abc import Iterator

import numpy as np


def see_four_devices() -> None:
    """In the CPU; JAX is told by a variable, TensorFlow by a call before its first use."""
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one] * 4)


def train_by_soap(count: int) -> list[np.ndarray]:
    """Twelve steps on noise, in float64; what the network and the optimizer hold then."""
    import keras

    from training.config import load_config
    from training.devices import Batches, Devices
    from training.soap import Soap

    def batches() -> Iterator[Batches]:
        random = np.random.default_rng(0)
        while True:
            yield random.random((4, 14, 14, 3)), random.random((4, 8, 8, 3))

    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    place = Devices(count, load_config("smoke").model_copy(update={"batch_size": 4}))
    with place.scope():
        network = keras.Sequential(
            [
                keras.Input((None, None, 3)),
                keras.layers.Conv2D(16, 5, activation="relu"),
                keras.layers.Conv2D(3, 3),
            ]
        )
        optimizer = Soap(1e-3, frequency=5, use_ema=True, ema_momentum=0.9)
        optimizer.build(network.trainable_variables)
        network.compile(optimizer, "mse", jit_compile=keras.backend.backend() == "jax")
        network.fit(place.batches(batches), steps_per_epoch=12, shuffle=False, verbose=0)
    return [keras.ops.convert_to_numpy(v) for v in [*network.variables, *optimizer.variables]]


if __name__ == "__main__":
    see_four_devices()
    if sys.argv[1] == "soap":
        os.environ["JAX_ENABLE_X64"] = "1"
        np.savez(sys.argv[3], *train_by_soap(int(sys.argv[2])))
    else:
        from training.cli import main

        main()
