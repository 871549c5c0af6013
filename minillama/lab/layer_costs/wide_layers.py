"""Layers of one width and five kinds, and the bytes that a step reads."""

import jax
import jax.numpy as jnp

from minillama.gguf.kv_cache_types import CacheTypes
from minillama.lab.language import message
from minillama.model import Config, empty_cache
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer

PASS_TOKENS = 512  # of a prompt's pass (-ub)

# A width of 16384 channels of heads, as in DeepSeek-V2; the DeltaNet is that of Qwen3-Next, two value heads a key head.
# Their names are keys in the labs' code; figures and tables show them in the learner's language.
WIDE_LAYERS: dict[str, Layer] = {
    "MHA": Attention(128, 128, 128, 128, scale=128**-0.5),
    "GQA": Attention(128, 8, 128, 128, scale=128**-0.5),
    message("window"): Attention(128, 8, 128, 128, scale=128**-0.5, sliding_window=1024),
    message("latent"): LatentAttention(
        128, kv_lora_rank=512, rope_length=64, key_length=192, value_length=128, scale=192**-0.5
    ),
    message("recurrence"): DeltaNet(key_heads=64, value_heads=128, size=128, taps=4, grouped=True),
}


def one_layer(layer: Layer) -> Config:
    """A configuration of this layer alone."""
    return Config("llama", 1 << 20, 5120, (layer,), 1e-6, ropes=(), vocab_size=32000)


def allocated(layer: Layer, length: int) -> int:
    """Bytes of the engine's arrays for a text of this length, in f16.

    Counters are left out.
    """
    states = empty_cache(one_layer(layer), length, CacheTypes(), chunk=PASS_TOKENS).layers
    return sum(leaf.nbytes for leaf in jax.tree.leaves(states) if leaf.dtype != jnp.int32)


def bytes_read(layer: Layer, length: int) -> int:
    """Bytes of state that the step of token number `length` reads.

    The token's own keys are among them. Attention in f16, where a window reads its positions only; a recurrence in f32.
    """
    if isinstance(layer, LatentAttention):
        return 2 * length * layer.cached_length
    if isinstance(layer, DeltaNet):
        return 4 * (layer.value_channels * layer.size + layer.channels * (layer.taps - 1))
    assert isinstance(layer, Attention)
    seen = min(length, layer.sliding_window or length)
    return 2 * seen * layer.head_count_kv * (layer.key_length + layer.value_length)


def crossing(growing: Layer, other: Layer, most: int = 1 << 20) -> int | None:
    """The first length from which on `growing` reads more than `other`.

    None if it reads no more at `most`.
    """
    if bytes_read(growing, most) <= bytes_read(other, most):
        return None
    low, high = 0, most  # at low not more, at high more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bytes_read(growing, middle) > bytes_read(other, middle) else (middle, high)
    return high
