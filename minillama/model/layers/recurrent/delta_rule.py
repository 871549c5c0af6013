"""The gated delta rule: a memory that each token changes, and that queries read.

For a head with memory M [values, keys], at first 0, and a token with query q, key k, value v:

    M' = decay M;  d = beta (v - M' k);  M = M' + d kᵀ;  the result is M q

`by_token` computes just this. `by_chunk` computes many tokens with products of matrices (Yang et al. 2024,
arXiv:2412.06464, section 3). Each is the reference implementation of the other.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float
from minillama.kernels import cpu_kernels_error, target_platform
from minillama.model.layer_kinds import DeltaNet

CHUNK = 64  # tokens
FEW = 16  # tokens, up to here one by one

Vectors = Float[Array, "B T heads size"]
Numbers = Float[Array, "B T heads"]
Memory = Float[Array, "B heads size size"]


def delta_rule(
    qkv: Float[Array, "B T C"], log_decay: Numbers, beta: Numbers, memory: Memory, layer: DeltaNet, epsilon: float
) -> tuple[Vectors, Memory]:
    """Results of the queries of T tokens, and the memory after them.

    qkv: queries, keys and values of all heads, side by side. Queries and keys are divided by sqrt(sum of squares +
    epsilon), and the results by sqrt(size). log_decay: at most 0.
    A token with beta and log_decay 0 leaves the memory as it is.
    """
    form = on_cpu = partial(_by_products, layer, epsilon)
    if cpu_kernels_error() is None:
        on_cpu = partial(_by_kernel, layer, epsilon)
    if target_platform() == "cpu":
        return on_cpu(qkv, log_decay, beta, memory)
    return lax.platform_dependent(qkv, log_decay, beta, memory, cpu=on_cpu, default=form)


def _by_kernel(
    layer: DeltaNet, epsilon: float, qkv: Array, log_decay: Array, beta: Array, memory: Array
) -> tuple[Vectors, Memory]:
    """The CPU kernel, where there is one for this size."""
    from minillama.kernels.cpu.delta_rule import delta_rule_op

    if not delta_rule_op.fits(layer.size):
        return _by_products(layer, epsilon, qkv, log_decay, beta, memory)
    constants = {"key_heads": layer.key_heads, "epsilon": epsilon, "grouped": layer.grouped}
    return delta_rule_op.delta_rule(qkv, jnp.exp(log_decay), beta, memory, **constants)


def _by_products(
    layer: DeltaNet, epsilon: float, qkv: Array, log_decay: Array, beta: Array, memory: Array
) -> tuple[Vectors, Memory]:
    parts = jnp.split(qkv, (layer.key_channels, 2 * layer.key_channels), axis=-1)
    q, k, v = (part.reshape(*qkv.shape[:2], -1, layer.size) for part in parts)
    q, k = unit_length(q, epsilon) * layer.size**-0.5, unit_length(k, epsilon)
    share = layer.value_heads // layer.key_heads
    q, k = (jnp.repeat(x, share, axis=2) if layer.grouped else jnp.tile(x, (1, 1, share, 1)) for x in (q, k))
    form = by_token if v.shape[1] <= FEW else by_chunk
    return form(q, k, v, log_decay, beta, memory)


def unit_length(x: Float[Array, "*batch size"], epsilon: float) -> Float[Array, "*batch size"]:
    """x / sqrt(sum(x²) + ε)."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)


def by_token(
    q: Vectors, k: Vectors, v: Vectors, log_decay: Numbers, beta: Numbers, memory: Memory
) -> tuple[Vectors, Memory]:
    """The rule, token after token."""

    def step(memory: Memory, token: tuple[Array, ...]) -> tuple[Memory, Array]:
        q, k, v, log_decay, beta = token
        memory = memory * jnp.exp(log_decay)[:, :, None, None]
        d = (v - jnp.einsum("BHVK,BHK->BHV", memory, k)) * beta[:, :, None]
        memory = memory + d[:, :, :, None] * k[:, :, None, :]
        return memory, jnp.einsum("BHVK,BHK->BHV", memory, q)

    tokens = tuple(x.swapaxes(0, 1) for x in (q, k, v, log_decay, beta))
    memory, found = lax.scan(step, memory, tokens)
    return found.swapaxes(0, 1), memory


def by_chunk(
    q: Vectors, k: Vectors, v: Vectors, log_decay: Numbers, beta: Numbers, memory: Memory
) -> tuple[Vectors, Memory]:
    """The same, chunk after chunk.

    In a chunk that begins with M0, with g the decay from its beginning to a token, the d of all tokens solve

        d_t + sum over s < t of beta_t (g_t / g_s) (k_t·k_s) d_s = beta_t (v_t - g_t M0 k_t)

    so d = u - w M0ᵀ, with u and w the solutions of beta v and beta g k: these do not depend on M0. Quotients are
    sums of the logarithms between, since the difference of two long sums would have lost its digits.
    """
    time = v.shape[1]
    q, k, v, log_decay, beta = (_chunks(x) for x in (q, k, v, log_decay, beta))  # [B, chunks, heads, CHUNK, ...]
    quotients = jnp.exp(sums_between(log_decay))  # of token t by token s; 0 for later s
    decay, rest = jnp.exp(jnp.cumsum(log_decay, axis=-1))[..., None], quotients[..., -1, :, None]
    inverse = unit_lower_inverse(jnp.tril(beta[..., None] * quotients * jnp.einsum("BNHTK,BNHSK->BNHTS", k, k), -1))
    u = inverse @ (beta[..., None] * v)
    w = inverse @ (beta[..., None] * decay * k)
    scores = quotients * jnp.einsum("BNHTK,BNHSK->BNHTS", q, k)

    def step(memory: Memory, chunk: tuple[Array, ...]) -> tuple[Memory, Array]:
        u, w, scores, q, k, decay = chunk
        d = u - jnp.einsum("BHTK,BHVK->BHTV", w, memory)
        found = jnp.einsum("BHTK,BHVK->BHTV", q, memory) + scores @ d
        return memory * decay[:, :, -1:] + jnp.einsum("BHTV,BHTK->BHVK", d, k), found

    chunks = tuple(x.swapaxes(0, 1) for x in (u, w, scores, q * decay, k * rest, decay))
    memory, found = lax.scan(step, memory, chunks)  # [chunks, B, heads, CHUNK, size]
    found = found.transpose(1, 0, 3, 2, 4)
    return found.reshape(found.shape[0], -1, *found.shape[3:])[:, :time], memory


def _chunks(x: Float[Array, "B T heads *size"]) -> Float[Array, "B chunks heads CHUNK *size"]:
    """Cut into chunks.

    Tokens of zeros follow the last one, and leave the memory as it is.
    """
    batch, time, heads, *size = x.shape
    padding = -time % CHUNK
    x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0) for _ in x.shape[2:])))
    return x.reshape(batch, -1, CHUNK, heads, *size).swapaxes(2, 3)


def sums_between(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n n"]:
    """At [t, s] the sum of x[s+1..t]; minus infinity where s is later."""
    size = x.shape[-1]
    rows = jnp.broadcast_to(x[..., :, None], (*x.shape, size))
    sums = jnp.cumsum(jnp.tril(rows, -1), axis=-2)
    is_later = jnp.triu(jnp.ones((size, size), bool), 1).reshape((1,) * (x.ndim - 1) + (size, size))
    return jnp.where(is_later, -jnp.inf, sums)


def unit_lower_inverse(a: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    """(I + a)⁻¹ of a strictly lower triangular matrix; n is a power of two.

    The inverses X and Y of two diagonal blocks with C below the first give the one of both: X, -Y C X, Y.
    """
    size, batch = a.shape[-1], a.shape[:-2]
    inverse = jnp.ones((*batch, size, 1, 1), a.dtype)  # of each diagonal block
    width = 1
    while width < size:
        pairs = size // (2 * width)
        blocks = a.reshape(*batch, pairs, 2, width, pairs, 2, width)
        below = jnp.einsum("...iwjx,ij->...iwx", blocks[..., 1, :, :, 0, :], jnp.eye(pairs, dtype=a.dtype))
        first, second = inverse[..., 0::2, :, :], inverse[..., 1::2, :, :]
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        lower = jnp.concatenate([-second @ below @ first, second], axis=-1)
        inverse = jnp.concatenate([upper, lower], axis=-2)
        width *= 2
    return inverse[..., 0, :, :]
