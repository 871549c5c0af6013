"""Rotary position embedding: angles from positions, and the rotation of queries and keys."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

from minillama.model.architectures import Pairs
from minillama.model.config import Rope, Scaling


def frequencies(rope: Rope) -> tuple[Float32[np.ndarray, "pairs"], float]:
    """Radians per position of each pair of channels, and the factor on cos and sin that the scaling asks for.

    YaRN: Peng et al. 2023, with llama.cpp's conventions.
    """
    half = rope.dimension_count // 2
    theta = rope.freq_base ** (-np.arange(half) / half)
    magnitude = rope.attn_factor
    if rope.scaling is Scaling.LINEAR:
        theta = theta / rope.factor
    elif rope.scaling is Scaling.YARN:
        ramp = (1 - _yarn_ramp(rope)) * rope.yarn_ext_factor  # 1: turn as trained, 0: stretch by the factor
        theta = theta / rope.factor * (1 - ramp) + theta * ramp
        log = 0.1 * math.log(rope.factor)
        magnitude *= (1 + log) / (1 + rope.yarn_log_multiplier * log if rope.yarn_log_multiplier else 1)
    return theta.astype(np.float32), magnitude


def _yarn_ramp(rope: Rope) -> np.ndarray:
    """0 for pairs that turn more than beta_fast times in the original context, 1 below beta_slow, linear between."""
    size = rope.dimension_count

    def pair_that_turns(times: float) -> float:
        return size * math.log(rope.original_context_length / (2 * math.pi * times)) / (2 * math.log(rope.freq_base))

    low = max(0, math.floor(pair_that_turns(rope.yarn_beta_fast)))
    high = min(size - 1, math.ceil(pair_that_turns(rope.yarn_beta_slow)))
    return np.clip((np.arange(size // 2) - low) / max(0.001, high - low), 0, 1)


def rotation(
    rope: Rope, factors: Float[Array, "pairs"] | None, positions: Int[Array, "B T"]
) -> tuple[Float[Array, "B T pairs"], Float[Array, "B T pairs"]]:
    """cos and sin of every position's angles; `factors` divide the frequencies (Llama 3, LongRoPE)."""
    theta, magnitude = frequencies(rope)
    speed = jnp.asarray(theta) if factors is None else jnp.asarray(theta) / factors
    angles = positions.astype(jnp.float32)[..., None] * speed[None, None]
    return jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude


def rotate(
    x: Float[Array, "B T heads H"], turn: tuple[Float[Array, "B T pairs"], Float[Array, "B T pairs"]], pairs: Pairs
) -> Float[Array, "B T heads H"]:
    """Rotate the first R channels of every head; the others pass through."""
    cos, sin = (a[:, :, None, :] for a in turn)
    half = cos.shape[-1]
    turning, still = x[..., : 2 * half], x[..., 2 * half :]
    if pairs is Pairs.ADJACENT:
        a, b = turning[..., 0::2], turning[..., 1::2]
        turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turning.shape)
    else:
        a, b = turning[..., :half], turning[..., half:]
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return jnp.concatenate([turned, still], axis=-1)
