"""Find where a running sum in descending order reaches a target, without sorting.

A radix search: a pass adds the weights by the next 11 bits of their keys, and the next pass goes on around the target.
Weights are whole numbers: their sums are exact, whatever their order, on every device.
"""

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int, UInt32

ONE = 2.0**31  # the weight of probability 1
_DIGITS = (11, 11, 10)  # bits of a key that a pass sorts by
_BLOCK = 256


def shares(probs: Float[Array, "M"]) -> UInt32[Array, "M"]:
    """Probabilities as weights; those below 2**-32 have none."""
    return jnp.round(probs * ONE).astype(jnp.uint32)


def first_reaching(weights: UInt32[Array, "M"], key: Float[Array, "M"], target: Float[Array, ""]) -> Int[Array, ""]:
    """Position where the running sum of weights, by descending key, reaches a target.

    Of equal keys the first position comes first. The target is limited to 1 up to the sum of the weights: the position
    has a weight.
    """
    return _first_reaching(weights, _ordered(key), target)[0]


def best_reaching(weights: UInt32[Array, "M"], key: Float[Array, "M"], target: Float[Array, ""]) -> Bool[Array, "M"]:
    """Mask of the positions before `first_reaching`, by descending key, and that position."""
    ordered = _ordered(key)
    position, threshold = _first_reaching(weights, ordered, target)
    is_tie = (ordered == threshold) & (jnp.arange(len(key), dtype=jnp.int32) <= position)
    return (ordered > threshold) | is_tie


def first_in_order(weights: UInt32[Array, "M"], target: Float[Array, ""]) -> Int[Array, ""]:
    """Position where the running sum of weights, in their own order, reaches a target.

    It is limited as in `first_reaching`.
    """
    return _first_in_order(weights, _limited(target, jnp.sum(weights, dtype=jnp.uint32)))


def _first_reaching(
    weights: UInt32[Array, "M"], ordered: UInt32[Array, "M"], target: Float[Array, ""]
) -> tuple[Int[Array, ""], UInt32[Array, ""]]:
    """The position and its key."""
    found, rest, bits_left = jnp.uint32(0), jnp.uint32(0), 32
    for bits in _DIGITS:
        is_first, bits_left, size = bits_left == 32, bits_left - bits, 1 << bits
        group = (ordered >> bits_left) - (found << bits)  # huge outside of the groups that are left
        place = jnp.minimum(jnp.uint32(size - 1) - group, jnp.uint32(size)).astype(jnp.int32)  # the largest keys first
        sums = jnp.zeros(size, jnp.uint32).at[place].add(weights, mode="drop")
        if is_first:
            rest = _limited(target, jnp.sum(sums, dtype=jnp.uint32))
        reached, before = _reach(sums, rest)
        found = found << bits | jnp.uint32(size - 1) - reached.astype(jnp.uint32)
        rest = rest - before
    return _first_in_order(jnp.where(ordered == found, weights, 0), rest), found


def _first_in_order(weights: UInt32[Array, "M"], target: UInt32[Array, ""]) -> Int[Array, ""]:
    blocks = jnp.pad(weights, (0, -len(weights) % _BLOCK)).reshape(-1, _BLOCK)
    block, before = _reach(jnp.sum(blocks, axis=1, dtype=jnp.uint32), target)
    return block * _BLOCK + _reach(blocks[block], target - before)[0]


def _reach(sums: UInt32[Array, "G"], target: UInt32[Array, ""]) -> tuple[Int[Array, ""], UInt32[Array, ""]]:
    """The first place where the running sum reaches a target, and the sum before it."""
    running = jnp.cumsum(sums, dtype=jnp.uint32)
    place = jnp.argmax(running >= target).astype(jnp.int32)
    return place, running[place] - sums[place]


def _limited(target: Float[Array, ""], total: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """A target rounded up, from 1 to a total below 2**32."""
    whole = jnp.clip(jnp.ceil(target), 1.0, 2.0**32 - 256).astype(jnp.uint32)
    return jnp.minimum(whole, total)


def _ordered(key: Float[Array, "M"]) -> UInt32[Array, "M"]:
    """Integers in the order of numbers."""
    bits = lax.bitcast_convert_type(jnp.where(key == 0, 0.0, key), jnp.uint32)  # -0.0 becomes 0.0
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
