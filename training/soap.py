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
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name="soap", **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.beta_basis = beta_basis
        self.epsilon = epsilon
        self.frequency = frequency

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
        index = self._get_variable_index(variable)
        steps = ops.cast(self.iterations + 1, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        mean = _follow(self._means[index], gradient, self.beta_1)
        shape = _matrix_shape(variable.shape)
        gradient, mean = ops.reshape(gradient, shape), ops.reshape(mean, shape)
        bases = [
            self._update_basis(moments, basis, matrix)
            for (moments, basis), matrix in zip(
                self._sides[index], (gradient, ops.transpose(gradient)), strict=False
            )
        ]
        if bases:
            inputs, filters = bases
            gradient, mean = (ops.transpose(inputs) @ g @ filters for g in (gradient, mean))
        square = _follow(self._squares[index], ops.square(gradient), self.beta_2)
        step = (mean / (1 - self.beta_1**steps)) / (
            ops.sqrt(square / (1 - self.beta_2**steps)) + self.epsilon
        )
        if bases:
            step = inputs @ step @ ops.transpose(filters)
        step = ops.reshape(step, variable.shape) * ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, step)

    def _update_basis(
        self, moments: keras.Variable, basis: keras.Variable, matrix: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Follow ``matrix @ matrix.T``, and now and then its eigenvectors, as columns."""
        now = _follow(moments, matrix @ ops.transpose(matrix), self.beta_basis)

        def iterate() -> keras.KerasTensor:
            # Scaled, since gradients may be tiny; the last term keeps the rank full.
            product = now / (ops.max(ops.abs(now)) + 1e-30) @ basis.value + 1e-7 * basis.value
            return ops.qr(product)[0]

        due = ops.equal(self.iterations % self.frequency, 0)
        turned = ops.cond(due, iterate, lambda: basis.value + 0.0)
        basis.assign(turned)
        return turned

    def _state(
        self,
        variable: keras.Variable,
        name: str,
        shape: tuple[int, ...],
        initializer: Any = keras.initializers.Zeros,
    ) -> keras.Variable:
        path = variable.path.replace("/", "_")
        return self.add_variable(shape, initializer(), variable.dtype, name=f"{path}_{name}")


def _follow(average: keras.Variable, value: keras.KerasTensor, beta: float) -> keras.KerasTensor:
    moved = beta * average.value + (1 - beta) * value
    average.assign(moved)
    return moved


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[all but filters, filters] of a kernel; a bias stays as it is.

    >>> _matrix_shape((9, 9, 3, 64)), _matrix_shape((64,))
    ((243, 64), (64,))
    """
    return tuple(shape) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])
