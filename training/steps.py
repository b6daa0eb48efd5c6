"""The training step on each backend, and the learning rate over the stages of a run."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from training.config import StageConfig, TrainingConfig
from training.devices import Devices
from training.losses import Loss
from training.soap import Soap

OPTIMIZERS = {"adam": keras.optimizers.Adam, "soap": Soap}


class StagedRate(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by the step of a run, counted over all its stages."""

    def __init__(self, stages: Sequence[StageConfig]) -> None:
        self.stages = stages

    def __call__(self, step: Any) -> Any:
        """Learning rate after ``step`` steps."""
        step = ops.cast(step, "float32")
        rate, first = ops.zeros(()), 0
        for stage in self.stages:
            rate = ops.where(step >= first, _rate(stage, step - first), rate)
            first += stage.steps
        return rate

    def get_config(self) -> dict[str, Any]:
        """Config, which Keras requires."""
        return {"stages": self.stages}


def _rate(stage: StageConfig, done: Any) -> Any:
    final = stage.final_learning_rate or stage.learning_rate
    fall = (done - stage.warmup_steps) / (stage.steps - stage.warmup_steps)
    rate = stage.learning_rate + (final - stage.learning_rate) * ops.clip(fall, 0.0, 1.0)
    if stage.warmup_steps:
        rise = stage.learning_rate * (done + 1) / stage.warmup_steps
        rate = ops.where(done < stage.warmup_steps, rise, rate)
    return rate


def build_optimizer(
    config: TrainingConfig, network: keras.Model, place: Devices
) -> keras.optimizers.Optimizer:
    """Build the config's optimizer for a network, with a moving average of the weights."""
    own: dict[str, Any] = {}
    if config.optimizer == "soap":
        own = {"frequency": config.basis_steps, "grouped": place.one_gpu}
    optimizer = OPTIMIZERS[config.optimizer](
        StagedRate(config.stages),
        **own,
        weight_decay=config.weight_decay or None,
        use_ema=True,
        ema_momentum=config.ema_momentum,
    )
    optimizer.build(network.trainable_variables)
    return optimizer


class Trainer:
    """A network, its optimizer and the training step.

    ``step`` takes (planes, hr) and returns the loss before the update, as an array of the backend.
    The computation may continue while the next batch is made.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss,
        place: Devices,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.place = place
        backend = keras.backend.backend()
        self._state: Any = None
        self._step = self._tensorflow(loss) if backend == "tensorflow" else self._jax(loss)

    def step(self, planes: np.ndarray, hr: np.ndarray) -> Any:
        """Train on one batch of uint8, or of floats in [0, 1]."""
        return self._step(planes, hr)

    def variables(self) -> dict[str, np.ndarray]:
        """All variables that a step changes, by path."""
        self._settle()
        return {
            path: keras.ops.convert_to_numpy(variable) for path, variable in self._named().items()
        }

    def assign(self, arrays: dict[str, np.ndarray]) -> None:
        """Restore the values that :meth:`variables` returned.

        Raises:
            ValueError: the paths differ.
        """
        named = self._named()
        if named.keys() != arrays.keys():
            raise ValueError(f"variables differ: {', '.join(sorted(named.keys() ^ arrays.keys()))}")
        for path, variable in named.items():
            variable.assign(arrays[path])
        self._state = None

    def averages(self) -> dict[str, np.ndarray]:
        """The exponential moving averages of the weights, by path."""
        self._settle()
        # Keras stores them in the order of the weights, under names without paths.
        averages = self.optimizer._model_variables_moving_average
        return {
            weight.path: keras.ops.convert_to_numpy(average)
            for weight, average in zip(self.network.trainable_variables, averages, strict=True)
        }

    def _named(self) -> dict[str, keras.Variable]:
        named = {variable.path: variable for variable in self.network.variables}
        # Their own paths contain a counter of the optimizers that Keras has created.
        named |= {f"optimizer/{variable.name}": variable for variable in self.optimizer.variables}
        if len(named) < len(self.network.variables) + len(self.optimizer.variables):
            raise ValueError("two variables have the same path")
        return named

    def _tensorflow(self, loss: Loss) -> Callable[[np.ndarray, np.ndarray], Any]:
        import tensorflow as tf

        network, optimizer, strategy = self.network, self.optimizer, self.place.strategy
        count = self.place.count

        def replica(planes: tf.Tensor, hr: tf.Tensor) -> tf.Tensor:
            planes, hr = _to_float(planes), _to_float(hr)
            with tf.GradientTape() as tape:
                value = loss(hr, network(planes, training=True)) / count
            weights = network.trainable_variables
            optimizer.apply(tape.gradient(value, [w.value for w in weights]))
            return value

        # No XLA: it makes a step slower on TensorFlow's CPU.
        if strategy is None:
            compiled = tf.function(replica)
            return lambda planes, hr: compiled(tf.constant(planes), tf.constant(hr))

        @tf.function
        def shared(planes: Any, hr: Any) -> tf.Tensor:
            values = strategy.run(replica, (planes, hr))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

        def step(*batch: np.ndarray) -> tf.Tensor:
            parts = [tf.split(array, count) for array in batch]
            return shared(
                *(
                    strategy.experimental_distribute_values_from_function(
                        lambda context, part=part: part[context.replica_id_in_sync_group]
                    )
                    for part in parts
                )
            )

        return step

    def _jax(self, loss: Loss) -> Callable[[np.ndarray, np.ndarray], Any]:
        import jax

        network, optimizer, place = self.network, self.optimizer, self.place

        def objective(weights: Any, others: Any, planes: Any, hr: Any) -> tuple[Any, Any]:
            sr, others = network.stateless_call(weights, others, planes, training=True)
            return loss(hr, sr), others

        def move(state: Any, planes: Any, hr: Any) -> tuple[Any, Any]:
            planes, hr = _to_float(planes), _to_float(hr)
            weights, others, memory = state
            slope = jax.value_and_grad(objective, has_aux=True)
            (value, others), gradients = slope(weights, others, planes, hr)
            weights, memory = optimizer.stateless_apply(memory, gradients, weights)
            return (weights, others, memory), value

        compiled = jax.jit(move, donate_argnums=0)

        def put(array: np.ndarray) -> Any:
            if place.strategy is None:
                return array
            sharding = place.strategy.get_data_layout(array.shape).backend_layout
            return jax.make_array_from_process_local_data(sharding, place.share(array))

        def step(planes: np.ndarray, hr: np.ndarray) -> Any:
            if self._state is None:
                # Copied, because a step donates the memory of its arguments.
                self._state = jax.tree.map(
                    lambda variable: variable.value.copy(),
                    (
                        network.trainable_variables,
                        network.non_trainable_variables,
                        optimizer.variables,
                    ),
                    is_leaf=lambda leaf: isinstance(leaf, keras.Variable),
                )
            self._state, value = compiled(self._state, put(planes), put(hr))
            return value

        return step

    def _settle(self) -> None:
        """Copy JAX's state, which steps pass on, to the variables."""
        if self._state is None:
            return
        groups = (
            self.network.trainable_variables,
            self.network.non_trainable_variables,
            self.optimizer.variables,
        )
        for variables, values in zip(groups, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._state = None


def _to_float(pixels: Any) -> Any:
    # On the device, so that only a quarter of the bytes are transferred.
    if keras.backend.standardize_dtype(pixels.dtype) != "uint8":
        return pixels
    return ops.cast(pixels, "float32") / 255.0
