import numpy as np
import pytest

from tests.lazy import Lazy

keras = Lazy("keras")
ops = Lazy("keras.ops")
soap = Lazy("training.soap")


def descend(optimizer: "keras.optimizers.Optimizer", start: np.ndarray, gradient_of, steps: int):
    weights = keras.Variable(start)
    for _ in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor(gradient_of(weights.numpy()))], [weights])
    return weights.numpy()


@pytest.mark.slow
def test_inputs_that_are_alike_hardly_slow_it_where_adam_creeps():
    """Least squares on inputs as those of a 5x5 patch: neighbours correlate by 0.98."""
    random = np.random.default_rng(0)
    offsets = np.stack(np.mgrid[:5, :5], axis=-1).reshape(-1, 1, 2)
    alike = 0.98 ** np.abs(offsets - offsets.reshape(1, -1, 2)).sum(axis=-1)
    inputs = random.multivariate_normal(np.zeros(25), alike, 500).astype(np.float32)
    truth = random.normal(size=(25, 4)).astype(np.float32)

    def gradient(weights: np.ndarray) -> np.ndarray:
        return inputs.T @ (inputs @ (weights - truth)) / len(inputs)

    def error(optimizer: "keras.optimizers.Optimizer") -> float:
        start = np.zeros_like(truth)
        return float(np.abs(descend(optimizer, start, gradient, 300) - truth).mean())

    schedule = keras.optimizers.schedules.CosineDecay(0.03, 300)
    adam = error(keras.optimizers.Adam(schedule))
    ours = error(soap.Soap(schedule, frequency=5))
    assert ours < adam / 2


def test_a_bias_moves_as_by_adam():
    target = np.linspace(-1, 1, 7, dtype=np.float32)
    paths = [
        descend(optimizer, np.zeros(7, np.float32), lambda weights: weights - target, 20)
        for optimizer in (
            soap.Soap(1e-2),
            keras.optimizers.Adam(1e-2, beta_1=0.95, beta_2=0.95, epsilon=1e-8),
        )
    ]
    assert paths[0] == pytest.approx(paths[1], abs=1e-5)


def test_bases_stay_orthonormal_while_they_turn():
    random = np.random.default_rng(0)
    optimizer = soap.Soap(1e-2, frequency=3)
    descend(
        optimizer,
        np.zeros((3, 3, 2, 5), np.float32),
        lambda weights: random.normal(size=weights.shape).astype(np.float32),
        10,
    )
    bases = [v.numpy() for v in optimizer.variables if v.name.endswith("_basis")]
    assert [basis.shape for basis in bases] == [(18, 18), (5, 5)]
    for basis in bases:
        assert basis.T @ basis == pytest.approx(np.eye(len(basis)), abs=1e-5)
        assert np.abs(basis - np.eye(len(basis))).max() > 0.1


def test_kernels_of_a_shape_move_at_once_as_they_do_one_by_one():
    random = np.random.default_rng(0)
    shapes = [(3, 3, 3, 4), (4,), (3, 3, 4, 4), (4,), (3, 3, 4, 4), (4,)]
    starts = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    ends = []
    for at_once in (True, False):
        weights = [keras.Variable(start) for start in starts]
        optimizer = soap.Soap(1e-2, frequency=2)
        optimizer.build(weights)
        for _ in range(5):
            gradients = [ops.sin(3 * weight.value) for weight in weights]
            if at_once:
                optimizer._update(gradients, weights, 1e-2)
            else:
                for gradient, weight in zip(gradients, weights, strict=True):
                    optimizer.update_step(gradient, weight, 1e-2)
            optimizer.iterations.assign_add(1)
        ends.append([weight.numpy() for weight in weights])
    for one, other, start in zip(*ends, starts, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert np.abs(one - start).max() > 0.02
