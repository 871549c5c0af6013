"""Models whose caches grow in four ways, as configurations without weights.

The sizes are those of the published files.
"""

import jax
import jax.numpy as jnp

from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, empty_cache
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer

PASS_TOKENS = 512  # of a prompt's pass (-ub)

_LLAMA = Attention(head_count=32, head_count_kv=8, key_length=64, value_length=64, scale=64**-0.5)
_GEMMA = Attention(head_count=4, head_count_kv=1, key_length=256, value_length=256, scale=256**-0.5)
_GEMMA_LOCAL = Attention(4, 1, 256, 256, scale=256**-0.5, sliding_window=512)
_DEEPSEEK = LatentAttention(16, kv_lora_rank=512, rope_length=64, key_length=192, value_length=128, scale=192**-0.5)
_QWEN = Attention(8, 2, 256, 256, scale=256**-0.5, has_gate=True)
_QWEN_DELTA = DeltaNet(key_heads=16, value_heads=16, size=128, taps=4, grouped=False)


def _config(architecture: str, context: int, width: int, layers: tuple[Layer, ...]) -> Config:
    return Config(architecture, context, width, layers, 1e-6, ropes=(), vocab_size=32000)


CACHE_MODELS = {
    "Llama 3.2 1B": _config("llama", 131072, 2048, (_LLAMA,) * 16),
    "Gemma 3 1B": _config("gemma3", 32768, 1152, ((*(_GEMMA_LOCAL,) * 5, _GEMMA) * 5)[:26]),
    "DeepSeek V2 Lite": _config("deepseek2", 163840, 2048, (_DEEPSEEK,) * 27),
    "Qwen3.5 0.8B": _config("qwen35", 262144, 1024, (*(_QWEN_DELTA,) * 3, _QWEN) * 6),
}


def allocated_bytes(config: Config, positions: int, types: CacheTypes) -> int:
    """Bytes of the arrays that the engine makes for a text, counters left out."""
    layers = empty_cache(config, positions, types, chunk=PASS_TOKENS).layers
    return sum(leaf.nbytes for leaf in jax.tree.leaves(layers) if leaf.dtype != jnp.int32)
