"""Run as a process that sees four devices in the CPU: some commands, one after the other.

Each argument is a command: ``"fit ..."`` as of ``superres-train``, ``"soap COUNT FILE"`` for SOAP
by itself, in float64 from then on, or ``"kill STEP"`` for a kill -9 of this process at that step.
"""

import os
import shlex
import signal
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
    keras.config.set_dtype_policy("float64")  # the default is not set again by floatx
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
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


def kill_at(step: int) -> None:
    """Have the next ``fit`` killed when that step is done."""
    from training import fit

    real = fit._Keeper.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None) -> None:
        real(self, batch, logs)
        if self.state.step + batch + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)

    fit._Keeper.on_train_batch_end = on_train_batch_end


def main() -> None:
    see_four_devices()
    from training.cli import cli

    for command in sys.argv[1:]:
        name, *arguments = shlex.split(command)
        if name == "soap":
            count, file = arguments
            np.savez(file, *train_by_soap(int(count)))
        elif name == "kill":
            kill_at(int(arguments[0]))
        else:
            cli([name, *arguments], standalone_mode=False)


if __name__ == "__main__":
    main()
