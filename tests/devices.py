"""Run as a process that sees four devices in the CPU: ``superres-train``, or SOAP by itself.

``python -m tests.devices fit ... then fit ...``, or ``python -m tests.devices soap COUNT FILE``.
"""

import os
import sys
from itertools import groupby

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

    from tests.runs import small_config
    from training.devices import Devices
    from training.losses import mse
    from training.soap import Soap
    from training.steps import Trainer

    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    place = Devices(count, small_config(stages=[{"batch_size": 4}]))
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
        trainer = Trainer(network, optimizer, mse, place)
        random = np.random.default_rng(0)
        for _ in range(12):
            trainer.step(random.random((4, 14, 14, 3)), random.random((4, 8, 8, 3)))
    return list(trainer.variables().values())


def main() -> None:
    """Do one thing after another; ``then`` stands between them."""
    for _, words in groupby(sys.argv[1:], lambda word: word == "then"):
        command = list(words)
        if command == ["then"]:
            continue
        if command[0] == "soap":
            np.savez(command[2], *train_by_soap(int(command[1])))
            continue
        from training.cli import cli

        cli(command, standalone_mode=False)


if __name__ == "__main__":
    see_four_devices()
    if "soap" in sys.argv:
        os.environ["JAX_ENABLE_X64"] = "1"
    main()
