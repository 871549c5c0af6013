"""Rotary position embedding: angles from positions, and the rotation of queries and keys."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Float32, Int
from minillama.model.architectures import RopeStyle
from minillama.model.config import Rope, Scaling

CosSin = tuple[Float[Array, "B T _"], Float[Array, "B T _"]]  # of each pair of channels


def frequencies(rope: Rope) -> tuple[Float32[np.ndarray, "pairs"], float]:
    """Radians per position of each channel pair, and the scaling's factor on cos and sin.

    YaRN: Peng et al. 2023, with llama.cpp's conventions.
    """
    half, magnitude = rope.dimension_count // 2, rope.attn_factor
    with np.errstate(all="ignore"):  # numbers of a hostile file overflow; the logits are then not finite
        theta = rope.freq_base ** (-np.arange(half) / half)
        if rope.scaling is Scaling.YARN:
            ramp = 1 - _yarn_ramp(rope)  # 1: rotate as trained, 0: divide by the factor
            theta = theta / rope.factor * (1 - ramp) + theta * ramp
            stretch = math.log(max(rope.factor, 1.0))
            magnitude *= (1 + 0.1 * stretch) / (1 + 0.1 * rope.log_multiplier * stretch)
        elif rope.scaling is not Scaling.NONE:
            theta = theta / rope.factor
        return theta.astype(np.float32), magnitude


def _yarn_ramp(rope: Rope) -> np.ndarray:
    """The YaRN ramp of each pair: 0 above beta_fast rotations, 1 below beta_slow, linear between."""
    size = rope.dimension_count

    def pair_with_rotations(times: float) -> float:
        return size * math.log(rope.original_context_length / (2 * math.pi * times)) / (2 * math.log(rope.freq_base))

    low = max(0, math.floor(pair_with_rotations(rope.beta_fast)))
    high = min(size - 1, math.ceil(pair_with_rotations(rope.beta_slow)))
    return np.clip((np.arange(size // 2) - low) / max(0.001, high - low), 0, 1)


def rope_cos_sin(rope: Rope, factors: Float[Array, "pairs"] | None, positions: Int[Array, "B T"]) -> CosSin:
    """cos and sin of every position's angles; `factors` divide the frequencies (Llama 3, LongRoPE)."""
    theta, magnitude = frequencies(rope)
    speed = jnp.asarray(theta) if factors is None else jnp.asarray(theta) / factors
    angles = positions.astype(jnp.float32)[..., None] * speed[None, None]
    return jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude


def apply_rope(x: Float[Array, "B T heads H"], cos_sin: CosSin, style: RopeStyle) -> Float[Array, "B T heads H"]:
    """Rotate the first R channels of every head; the others pass through."""
    cos, sin = (a[:, :, None, :] for a in cos_sin)
    half = cos.shape[-1]
    rotated, passed = x[..., : 2 * half], x[..., 2 * half :]
    if style is RopeStyle.INTERLEAVED:
        a, b = rotated[..., 0::2], rotated[..., 1::2]
        rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(rotated.shape)
    else:
        a, b = rotated[..., :half], rotated[..., half:]
        rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return jnp.concatenate([rotated, passed], axis=-1)
