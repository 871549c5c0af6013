"""Random tokens for the gated delta rule, and the engine's chunked form of it."""

from dataclasses import astuple, dataclass

import jax.numpy as jnp
import numpy as np

from minillama.array_types import Float
from minillama.model.layers.recurrent.delta_rule import by_chunk


@dataclass(frozen=True)
class DeltaText:
    """The inputs of one head for T tokens: g in (0, 1] keeps, beta in (0, 1) writes."""

    q: Float[np.ndarray, "T K"]
    k: Float[np.ndarray, "T K"]
    v: Float[np.ndarray, "T V"]
    g: Float[np.ndarray, "T"]
    beta: Float[np.ndarray, "T"]

    def part(self, first: int, last: int | None = None) -> tuple[np.ndarray, ...]:
        """The inputs of some tokens, in the order of the rule's arguments."""
        return tuple(each[first:last] for each in astuple(self))


def delta_text(seed: int, tokens: int, size: int = 8, values: int | None = None) -> DeltaText:
    """Random tokens with keys of length 1.

    values: the size of a value; None for that of a key.
    """
    random = np.random.default_rng(seed)
    q, k = random.standard_normal((2, tokens, size))
    q, k = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (q, k))
    v = random.standard_normal((tokens, size if values is None else values))
    return DeltaText(q, k, v, random.uniform(0.7, 0.999, tokens), random.uniform(0.1, 0.95, tokens))


def chunked(text: DeltaText, memory: Float[np.ndarray, "V K"]) -> tuple[np.ndarray, np.ndarray]:
    """Results of the queries and the memory after the text, by the engine's chunked form."""
    heads = [jnp.asarray(each[None, :, None], jnp.float32) for each in (text.q, text.k, text.v)]
    numbers = [jnp.asarray(each[None, :, None], jnp.float32) for each in (np.log(text.g), text.beta)]
    found, after = by_chunk(*heads, *numbers, jnp.asarray(memory[None, None], jnp.float32))
    return np.asarray(found[0, :, 0]), np.asarray(after[0, 0])
