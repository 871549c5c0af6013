"""Find where a running sum in descending order reaches a target, without sorting."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

_TINY = jnp.finfo(jnp.float32).tiny  # the least target: the search then ends at a positive weight


def first_reaching(weights: Float[Array, "M"], key: Float[Array, "M"], target: Float[Array, ""]) -> Int[Array, ""]:
    """Position where the running sum of weights, by descending key, reaches a target.

    Of equal keys the first position comes first. target: at most the sum of the weights, which are 0 or more.
    """
    size = weights.shape[0]
    target = jnp.maximum(target, _TINY)
    ordered = _ordered(key)
    threshold = _largest_reaching(ordered, weights, target, bits=32)
    rest = target - jnp.sum(jnp.where(ordered > threshold, weights, 0))
    ties = ordered == threshold
    place = jnp.arange(size, dtype=jnp.uint32)
    from_the_end = jnp.where(ties, jnp.uint32(size) - place, 0)
    least = _largest_reaching(from_the_end, weights, rest, bits=size.bit_length())
    return jnp.max(jnp.where(ties & (from_the_end >= least), place, 0)).astype(jnp.int32)


def _ordered(key: Float[Array, "M"]) -> UInt32[Array, "M"]:
    """Integers in the order of numbers."""
    bits = lax.bitcast_convert_type(jnp.where(key == 0, 0.0, key), jnp.uint32)  # -0.0 becomes 0.0
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _largest_reaching(
    keys: UInt32[Array, "M"], weights: Float[Array, "M"], target: Float[Array, ""], bits: int
) -> UInt32[Array, ""]:
    """The largest threshold at or above which the weights sum to the target.

    0 if there is none. One bit after another: the sum falls as the threshold rises, also as floats round it.
    """

    def narrow(step: Int[Array, ""], threshold: UInt32[Array, ""]) -> UInt32[Array, ""]:
        higher = threshold | jnp.uint32(1) << (bits - 1 - step).astype(jnp.uint32)
        reached = jnp.sum(jnp.where(keys >= higher, weights, 0)) >= target
        return jnp.where(reached, higher, threshold)

    return lax.fori_loop(0, bits, narrow, jnp.uint32(0))
