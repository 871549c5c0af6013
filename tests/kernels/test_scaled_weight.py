"""Weights with a scale: every operation is that of the scaled matrix."""

import jax.numpy as jnp
import numpy as np

from minillama.kernels import Dense, embed, matmul, matmuls
from minillama.kernels.scaled_weight import ScaledWeight

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((3, 5, 4)).astype(np.float32)
X = jnp.asarray(RNG.standard_normal((2, 4)).astype(np.float32))


def test_a_matrix() -> None:
    weight = ScaledWeight(Dense(jnp.asarray(VALUES[0])), jnp.array([0.25], jnp.float32))
    whole = Dense(jnp.asarray(VALUES[0] * np.float32(0.25)))
    assert weight.shape == (5, 4)
    np.testing.assert_array_equal(np.asarray(matmul(X, weight)), np.asarray(matmul(X, whole)))
    np.testing.assert_array_equal(np.asarray(embed(jnp.array([4, 0]), weight)), 0.25 * VALUES[0][[4, 0]])
    assert weight.device_shard(jnp.int32(0), 1).shape == (5, 4)


def test_a_number_for_each_expert() -> None:
    stack = ScaledWeight(Dense(jnp.asarray(VALUES)), jnp.array([1.0, 2.0, 4.0], jnp.float32))
    for index, scale in enumerate((1, 2, 4)):
        expected = np.asarray(matmul(X, Dense(jnp.asarray(VALUES[index] * np.float32(scale)))))
        np.testing.assert_array_equal(np.asarray(matmul(X, stack.expert(jnp.int32(index)))), expected)


def test_several_matrices_with_and_without_a_scale() -> None:
    plain = [Dense(jnp.asarray(VALUES[i])) for i in range(3)]
    half = jnp.array([0.5], jnp.float32)
    expected = [np.asarray(matmul(X, weight)) for weight in plain]
    scaled, other = ScaledWeight(plain[0], half), ScaledWeight(plain[1], 4 * half)
    for order, factors in (([scaled, other, plain[2]], (0.5, 2, 1)), ([plain[0], other, plain[2]], (1, 2, 1))):
        for found, product, factor in zip(matmuls(X, order), expected, factors, strict=True):
            np.testing.assert_array_equal(np.asarray(found), product * np.float32(factor))
