"""Optimiser: Muon for the matrices, AdamW for the embedding and norms."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from network import Weights

BETA1, BETA2, EPSILON, MOMENTUM, DECAY = 0.9, 0.98, 1e-8, 0.95, 0.05


class OptimiserState(NamedTuple):
    """State of the optimiser.

    mean: running means of the gradients of all tensors. square: those of the squares, only for AdamW.
    """

    step: Int[Array, ""]
    mean: Weights
    square: Weights


def uses_muon(name: str) -> bool:
    return name.startswith("blk.") and "norm" not in name


def initial_state(weights: Weights) -> OptimiserState:
    mean = {name: jnp.zeros_like(weight) for name, weight in weights.items()}
    square = {name: jnp.zeros_like(weight) for name, weight in weights.items() if not uses_muon(name)}
    return OptimiserState(jnp.int32(0), mean, square)


def orthogonal(matrix: Float[Array, "O I"]) -> Float[Array, "O I"]:
    """Nearest matrix with singular values near 1, by five Newton-Schulz steps (Jordan 2024)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (jnp.linalg.norm(x) + jnp.float32(1e-7))
    a, b, c = (jnp.float32(value) for value in (3.4445, -4.7750, 2.0315))
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def update(
    weights: Weights, gradients: Weights, state: OptimiserState, rate: Float[Array, ""]
) -> tuple[Weights, OptimiserState, Float[Array, ""]]:
    """One step with gradient clipping to norm 1; also returns the norm."""
    norm = jnp.sqrt(sum((jnp.sum(jnp.square(g)) for g in gradients.values()), start=jnp.float32(0)))
    scale = jnp.minimum(jnp.float32(1), jnp.float32(1) / (norm + jnp.float32(1e-6)))
    step = state.step + jnp.int32(1)
    count = step.astype(jnp.float32)
    new, means, squares = {}, {}, {}
    for name, weight in weights.items():
        gradient = gradients[name] * scale
        if uses_muon(name):
            means[name] = jnp.float32(MOMENTUM) * state.mean[name] + gradient
            # This factor scales Muon's step to the size of AdamW's, so that both use one learning rate (Liu 2025).
            size = jnp.float32(0.2 * max(weight.shape) ** 0.5)
            move = size * orthogonal(gradient + jnp.float32(MOMENTUM) * means[name])
        else:
            means[name] = jnp.float32(BETA1) * state.mean[name] + jnp.float32(1 - BETA1) * gradient
            squares[name] = jnp.float32(BETA2) * state.square[name] + jnp.float32(1 - BETA2) * jnp.square(gradient)
            mean = means[name] / (jnp.float32(1) - jnp.float32(BETA1) ** count)
            square = squares[name] / (jnp.float32(1) - jnp.float32(BETA2) ** count)
            move = mean / (jnp.sqrt(square) + jnp.float32(EPSILON))
        decay = jnp.float32(0 if "norm" in name else DECAY)
        new[name] = weight - rate * (move + decay * weight)
    return new, OptimiserState(step, means, squares), norm
