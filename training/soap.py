"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

import math
from typing import Any

import keras
from keras import ops


class Soap(keras.optimizers.Optimizer):
    """Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (2024), algorithm 3.

    The pixels of a patch are so alike that the gradient of a filter is nearly all in a few
    directions, and Adam, which scales each weight by itself, creeps along the others. This
    turns every kernel's gradient into the eigenbasis of its own second moments, both of the
    inputs and of the filters, and runs Adam there. A kernel is taken as a matrix, [all but
    filters, filters]; biases get plain Adam.

    The basis is followed by one QR iteration every ``frequency`` steps, which costs far less
    than the convolutions of a training step as long as kernels have under a thousand inputs.

    Args:
        learning_rate: a number or a schedule; about three times Adam's.
        beta_1: of the mean gradient.
        beta_2: of the mean squared gradient, in the eigenbasis.
        beta_basis: of the second moments that the basis comes from.
        epsilon: added to the root of the mean squared gradient.
        frequency: steps between two updates of the basis.
        grouped: move all kernels of a shape at once, for which a GPU takes hardly longer than for
            one. Several devices, which share each variable, need false; and on JAX's CPU (0.10)
            steps that are computed while the next one is given can wait for each other for ever.
        **kwargs: as of any Keras optimizer: ``use_ema``, ``ema_momentum`` and so on.
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
        """Make the moments of every variable, all zero, and bases of unit vectors."""
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
        """Move one variable."""
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
        """Move variables, all of a shape at once."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, variable in enumerate(variables):
            groups.setdefault(tuple(variable.shape), []).append(place)
        slopes = [
            ops.stack([ops.cast(gradients[place], variables[place].dtype) for place in places])
            for places in groups.values()
        ]
        numbers = [
            [self._get_variable_index(variables[place]) for place in places]
            for places in groups.values()
        ]
        means = [
            _follow([self._means[number] for number in group], slope, self.beta_1)
            for group, slope in zip(numbers, slopes, strict=True)
        ]
        shapes = [_matrix_shape(shape) for shape in groups]
        slopes, means = (
            [ops.reshape(one, (-1, *shape)) for one, shape in zip(stacked, shapes, strict=True)]
            for stacked in (slopes, means)
        )
        bases = self._update_bases(numbers, slopes)
        steps = ops.cast(self.iterations + 1, self.variables[-1].dtype)
        for places, group, slope, mean, sides in zip(
            groups.values(), numbers, slopes, means, bases, strict=True
        ):
            if sides:
                inputs, filters = sides
                slope, mean = (_transposed(inputs) @ one @ filters for one in (slope, mean))
            squares = [self._squares[number] for number in group]
            square = _follow(squares, ops.square(slope), self.beta_2)
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
        self, numbers: list[list[int]], slopes: list[keras.KerasTensor]
    ) -> list[list[keras.KerasTensor]]:
        """Follow the second moments of each group, and now and then their eigenvectors.

        Returns:
            For each group, the bases of inputs and filters, stacked; nothing for biases.
        """
        moments, variables = [], []
        for group, slope in zip(numbers, slopes, strict=True):
            for side, matrix in enumerate(
                (slope, _transposed(slope)) if self._sides[group[0]] else ()
            ):
                followed = [self._sides[number][side][0] for number in group]
                moments.append(_follow(followed, matrix @ _transposed(matrix), self.beta_basis))
                variables.append([self._sides[number][side][1] for number in group])
        if not moments:
            return [[] for _ in numbers]
        bases = [ops.stack([basis.value for basis in same]) for same in variables]

        def turn() -> list[keras.KerasTensor]:
            turned = []
            for moment, basis in zip(moments, bases, strict=True):
                # Scaled, since gradients may be tiny; the last term keeps the rank full.
                peak = ops.max(ops.abs(moment), axis=(1, 2), keepdims=True) + 1e-30
                turned.append(ops.qr(moment / peak @ basis + 1e-7 * basis)[0])
            return turned

        due = ops.equal(self.iterations % self.frequency, 0)
        bases = ops.cond(due, turn, lambda: [basis + 0.0 for basis in bases])
        for same, turned in zip(variables, bases, strict=True):
            for basis, one in zip(same, ops.unstack(turned, len(same)), strict=True):
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


def _follow(
    averages: list[keras.Variable], values: keras.KerasTensor, beta: float
) -> keras.KerasTensor:
    """Move each average towards its value; the averages, stacked as the values are."""
    moved = beta * ops.stack([average.value for average in averages]) + (1 - beta) * values
    for average, one in zip(averages, ops.unstack(moved, len(averages)), strict=True):
        average.assign(one)
    return moved


def _transposed(matrices: keras.KerasTensor) -> keras.KerasTensor:
    return ops.swapaxes(matrices, -1, -2)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[all but filters, filters] of a kernel; a bias stays as it is.

    >>> _matrix_shape((9, 9, 3, 64)), _matrix_shape((64,))
    ((243, 64), (64,))
    """
    return tuple(shape) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])
