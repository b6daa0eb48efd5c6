"""The SOAP optimizer: Adam in the eigenbasis of Shampoo's preconditioner."""

import math
from typing import Any

import keras
from keras import ops


class Soap(keras.optimizers.Optimizer):
    """Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (2024), algorithm 3.

    Neighbouring pixels are strongly correlated, so the gradient of a filter lies mostly in a few
    directions. Adam scales each weight separately and moves slowly along the other directions.
    SOAP rotates the gradient of each kernel into the eigenbasis of its second moments, of the
    inputs and of the filters, and runs Adam there. A kernel is treated as a matrix [all but
    filters, filters]; biases use plain Adam.

    One QR iteration every ``frequency`` steps updates the basis. As long as kernels have fewer
    than a thousand inputs, it costs far less than the convolutions of a training step.

    Args:
        learning_rate: a number or a schedule; about three times the rate for Adam.
        beta_1: decay of the mean gradient.
        beta_2: decay of the mean squared gradient, in the eigenbasis.
        beta_basis: decay of the second moments that determine the basis.
        epsilon: added to the root of the mean squared gradient.
        frequency: steps between two updates of the basis.
        grouped: whether to update all kernels of a shape together, which takes a GPU hardly longer
            than one kernel. Several devices, which share each variable, need false. So does JAX
            0.10 on a CPU, where steps that overlap with the dispatch of the next step can
            deadlock.
        **kwargs: arguments of any Keras optimizer: ``use_ema``, ``ema_momentum`` and so on.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        *,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        beta_basis: float = 0.95,
        epsilon: float = 1e-8,
        frequency: int = 20,
        grouped: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name="soap", **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.beta_basis = beta_basis
        self.epsilon = epsilon
        self.frequency = frequency
        self.grouped = grouped

    def build(self, variables: list[keras.Variable]) -> None:
        """Create zero moments and identity bases for every variable."""
        if self.built:
            return
        super().build(variables)
        self._means = [self._state(v, "mean", tuple(v.shape)) for v in variables]
        self._squares = [self._state(v, "square", _matrix_shape(v.shape)) for v in variables]
        self._sides = [
            [
                (
                    self._state(v, f"{side}_moments", (length, length)),
                    self._state(v, f"{side}_basis", (length, length), keras.initializers.Identity),
                )
                for side, length in zip(("input", "filter"), _matrix_shape(v.shape), strict=True)
            ]
            if len(v.shape) > 1
            else []
            for v in variables
        ]

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: float
    ) -> None:
        """Update one variable."""
        self._update([gradient], [variable], learning_rate)

    def _backend_update_step(
        self,
        grads: list[keras.KerasTensor],
        trainable_variables: list[keras.Variable],
        learning_rate: float,
    ) -> None:
        if self.grouped:
            self._update(grads, trainable_variables, learning_rate)
        else:
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _update(
        self,
        gradients: list[keras.KerasTensor],
        variables: list[keras.Variable],
        learning_rate: float,
    ) -> None:
        """Update variables, grouped by shape."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, variable in enumerate(variables):
            groups.setdefault(tuple(variable.shape), []).append(place)
        gradient_groups = [
            ops.stack([ops.cast(gradients[place], variables[place].dtype) for place in places])
            for places in groups.values()
        ]
        numbers = [
            [self._get_variable_index(variables[place]) for place in places]
            for places in groups.values()
        ]
        means = [
            _update_averages([self._means[number] for number in group], gradient, self.beta_1)
            for group, gradient in zip(numbers, gradient_groups, strict=True)
        ]
        shapes = [_matrix_shape(shape) for shape in groups]
        gradient_groups, means = (
            [ops.reshape(one, (-1, *shape)) for one, shape in zip(stacked, shapes, strict=True)]
            for stacked in (gradient_groups, means)
        )
        bases = self._update_bases(numbers, gradient_groups)
        steps = ops.cast(self.iterations + 1, self.variables[-1].dtype)
        for places, group, gradient, mean, sides in zip(
            groups.values(), numbers, gradient_groups, means, bases, strict=True
        ):
            if sides:
                inputs, filters = sides
                gradient, mean = (_transposed(inputs) @ one @ filters for one in (gradient, mean))
            squares = [self._squares[number] for number in group]
            square = _update_averages(squares, ops.square(gradient), self.beta_2)
            step = (mean / (1 - self.beta_1**steps)) / (
                ops.sqrt(square / (1 - self.beta_2**steps)) + self.epsilon
            )
            if sides:
                step = inputs @ step @ _transposed(filters)
            step = step * ops.cast(learning_rate, step.dtype)
            for place, one in zip(places, ops.unstack(step, len(places)), strict=True):
                variable = variables[place]
                self.assign_sub(variable, ops.reshape(one, variable.shape))

    def _update_bases(
        self, numbers: list[list[int]], gradient_groups: list[keras.KerasTensor]
    ) -> list[list[keras.KerasTensor]]:
        """Update the second moments of each group and, every ``frequency`` steps, the bases.

        Returns:
            For each group, the stacked bases of inputs and filters; an empty list for biases.
        """
        moments, variables = [], []
        for group, gradient in zip(numbers, gradient_groups, strict=True):
            for side, matrix in enumerate(
                (gradient, _transposed(gradient)) if self._sides[group[0]] else ()
            ):
                followed = [self._sides[number][side][0] for number in group]
                moments.append(
                    _update_averages(followed, matrix @ _transposed(matrix), self.beta_basis)
                )
                variables.append([self._sides[number][side][1] for number in group])
        if not moments:
            return [[] for _ in numbers]
        bases = [ops.stack([basis.value for basis in same]) for same in variables]

        def rotate() -> list[keras.KerasTensor]:
            rotated = []
            for moment, basis in zip(moments, bases, strict=True):
                # Scaled, because gradients may be tiny. The last term ensures full rank.
                peak = ops.max(ops.abs(moment), axis=(1, 2), keepdims=True) + 1e-30
                rotated.append(ops.qr(moment / peak @ basis + 1e-7 * basis)[0])
            return rotated

        due = ops.equal(self.iterations % self.frequency, 0)
        bases = ops.cond(due, rotate, lambda: [basis + 0.0 for basis in bases])
        for same, rotated in zip(variables, bases, strict=True):
            for basis, one in zip(same, ops.unstack(rotated, len(same)), strict=True):
                basis.assign(one)
        sides = iter(bases)
        return [[next(sides), next(sides)] if self._sides[group[0]] else [] for group in numbers]

    def _state(
        self,
        variable: keras.Variable,
        name: str,
        shape: tuple[int, ...],
        initializer: Any = keras.initializers.Zeros,
    ) -> keras.Variable:
        path = variable.path.replace("/", "_")
        return self.add_variable(shape, initializer(), variable.dtype, name=f"{path}_{name}")


def _update_averages(
    averages: list[keras.Variable], values: keras.KerasTensor, beta: float
) -> keras.KerasTensor:
    """Update moving averages, and return them stacked like the values."""
    moved = beta * ops.stack([average.value for average in averages]) + (1 - beta) * values
    for average, one in zip(averages, ops.unstack(moved, len(averages)), strict=True):
        average.assign(one)
    return moved


def _transposed(matrices: keras.KerasTensor) -> keras.KerasTensor:
    return ops.swapaxes(matrices, -1, -2)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape [all but filters, filters] of a kernel; a bias keeps its shape.

    >>> _matrix_shape((9, 9, 3, 64)), _matrix_shape((64,))
    ((243, 64), (64,))
    """
    return tuple(shape) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])
