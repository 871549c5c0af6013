"""A function of each of B texts."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Result = TypeVar("Result")


def each_text(function: Callable[..., Result], *batched: Any) -> Result:
    """`function` of each text; a single one runs without the cost of `vmap`."""
    return jax.vmap(function)(*batched) if _batch_size(batched) > 1 else _alone(function, batched)


def one_by_one(function: Callable[..., Result], *batched: Any) -> Result:
    """`function` of one text after another.

    A branch that a text does not take costs it nothing.
    """
    return lax.map(lambda text: function(*text), batched) if _batch_size(batched) > 1 else _alone(function, batched)


def _alone(function: Callable[..., Result], batched: tuple[Any, ...]) -> Result:
    result = function(*jax.tree.map(lambda leaf: leaf[0], batched))
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), result)


def _batch_size(batched: tuple[Any, ...]) -> int:
    return len(jax.tree.leaves(batched)[0])
