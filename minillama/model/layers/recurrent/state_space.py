"""The recurrence of Mamba-2: a memory that fades and gathers.

For a head with memory M [P, N], at first 0, and a token with input x [P], projections b and c [N] and decay a:

    M = a M + x bᵀ;  the result is M c

`by_token` computes just this. `by_chunk` computes many tokens with products of matrices (Dao and Gu 2024,
arXiv:2405.21060, section 6). Each is the reference implementation of the other.
"""

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float

CHUNK = 64  # tokens
FEW = 8  # tokens, up to here one by one

Inputs = Float[Array, "B T groups share P"]  # by group, and the heads that share it
Projections = Float[Array, "B T groups N"]
Numbers = Float[Array, "B T groups share"]
Memory = Float[Array, "B groups share P N"]


def state_space(
    x: Float[Array, "B T heads P"],
    b: Projections,
    c: Projections,
    log_decay: Float[Array, "B T heads"],
    memory: Float[Array, "B heads P N"],
) -> tuple[Float[Array, "B T heads P"], Float[Array, "B heads P N"]]:
    """Results of T tokens, and the memory after them.

    Head j reads group j // (heads / groups).
    log_decay: at most 0. A token with x and log_decay 0 leaves the memory as it is.
    """
    groups, size = b.shape[2], x.shape[1]
    split = (*x.shape[:2], groups, -1)
    form = by_token if size <= FEW else by_chunk
    grouped = memory.reshape(memory.shape[0], groups, -1, *memory.shape[2:])
    y, after = form(x.reshape(*split, x.shape[-1]), b, c, log_decay.reshape(split), grouped)
    return y.reshape(x.shape), after.reshape(memory.shape)


def by_token(x: Inputs, b: Projections, c: Projections, log_decay: Numbers, memory: Memory) -> tuple[Inputs, Memory]:
    """The recurrence itself."""
    found = []
    for t in range(x.shape[1]):
        decay = jnp.exp(log_decay[:, t])[..., None, None]
        memory = memory * decay + x[:, t][..., None] * b[:, t][:, :, None, None]
        found.append(jnp.sum(memory * c[:, t][:, :, None, None], axis=-1))
    return jnp.stack(found, axis=1), memory


def by_chunk(
    x: Inputs, b: Projections, c: Projections, log_decay: Numbers, memory: Memory, chunk: int = CHUNK
) -> tuple[Inputs, Memory]:
    """Chunk after chunk.

    Tokens of a chunk reach each other directly, and earlier ones through the memory.
    """
    tokens = x.shape[1]
    places = jnp.arange(chunk, dtype=jnp.int32)
    later, same = (
        compare(places[:, None], places[None])[None, :, :, None, None] for compare in (jnp.greater, jnp.equal)
    )
    pieces = [_in_chunks(a, chunk) for a in (x, b, c, log_decay)]

    def step(memory: Memory, piece: list[Array]) -> tuple[Memory, Inputs]:
        x, b, c, log_decay = piece
        faded = jnp.cumsum(log_decay, axis=1)  # since the chunk began
        # of token t since token s, [B t s groups share]: a sum, as the difference of two of `faded` may cancel
        since = jnp.cumsum(jnp.where(later, log_decay[:, :, None], 0.0), axis=1)
        weights = jnp.where(later | same, jnp.exp(since), 0.0) * jnp.einsum("BtGN,BsGN->BtsG", c, b)[..., None]
        y = jnp.einsum("BtsGR,BsGRP->BtGRP", weights, x)
        y = y + jnp.exp(faded)[..., None] * jnp.einsum("BGRPN,BtGN->BtGRP", memory, c)
        left = x * jnp.exp(since[:, -1])[..., None]  # of each token's input at the end
        memory = memory * jnp.exp(faded[:, -1])[..., None, None]
        return memory + jnp.einsum("BsGRP,BsGN->BGRPN", left, b), y

    memory, found = lax.scan(step, memory, pieces)
    return jnp.moveaxis(found, 0, 1).reshape(x.shape[0], -1, *x.shape[2:])[:, :tokens], memory


def _in_chunks(a: Float[Array, "B T *axes"], chunk: int) -> Float[Array, "chunks B _ *axes"]:
    """Chunks of tokens; the last one is filled with zeros."""
    padding = -a.shape[1] % chunk
    a = jnp.pad(a, ((0, 0), (0, padding), *((0, 0) for _ in a.shape[2:])))
    return jnp.moveaxis(a.reshape(a.shape[0], -1, chunk, *a.shape[2:]), 1, 0)
