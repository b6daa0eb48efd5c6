"""Run as a process that sees four devices in the CPU: ``superres-train``, or SOAP by itself.

``python -m tests.devices fit ... then fit ...``, or ``soap COUNT FILE`` for SOAP by itself, in
float64; ``kill STEP then fit ...`` kills the process when that step of the run is done.
"""

import os
import signal
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


def kill_at(step: int) -> None:
    """Have the next ``fit`` killed when the loss of that step is written down."""
    from training import fit

    real = fit._RunContext.note

    def note(self: object, stage: str, number: int, loss: float) -> None:
        real(self, stage, number, loss)
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    fit._RunContext.note = note


def main() -> None:
    """Do one thing after another; ``then`` stands between them."""
    see_four_devices()
    for _, words in groupby(sys.argv[1:], lambda word: word == "then"):
        name, *arguments = words
        if name == "soap":
            np.savez(arguments[1], *train_by_soap(int(arguments[0])))
        elif name == "kill":
            kill_at(int(arguments[0]))
        elif name != "then":
            from training.cli import cli

            cli([name, *arguments], standalone_mode=False)


if __name__ == "__main__":
    if "soap" in sys.argv:
        os.environ["JAX_ENABLE_X64"] = "1"
    main()
