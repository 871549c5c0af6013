"""Tensors of RoPE factors that no checkpoint holds: llama3's and Gemma 4's."""

import math

import numpy as np

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight, constant_weight

NAME = "rope_freqs.weight"
NOT_TURNED = 1e30  # a frequency divided by this does not turn


def llama3_factors(config: FolderConfig, default_factor: float = 8.0) -> list[LazyWeight]:
    """Divisors of RoPE's frequencies: 1 for short waves, `factor` for long ones, smooth between them.

    Empty without `rope_type` llama3. Source: Llama 3.1's model card.
    """
    rope = config.global_rope
    if str(rope.get("rope_type", "")).lower() != "llama3":
        return []
    size = config.head_size
    base = np.float32(rope.get("rope_theta", 10000.0))
    frequencies = np.float32(1) / base ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    factor, low, high = (
        rope.get(key, default)
        for key, default in (
            ("factor", default_factor),
            ("low_freq_factor", 1.0),
            ("high_freq_factor", 4.0),
        )
    )
    context = rope.get("original_max_position_embeddings", 8192)
    factors = []
    for frequency in frequencies:
        wave = np.float32(2 * math.pi) / frequency
        if wave < context / high:
            factors.append(np.float32(1))
        elif wave > context / low:
            factors.append(np.float32(factor))
        else:
            smooth = (np.float32(context) / wave - np.float32(low)) / np.float32(high - low)
            factors.append(1 / ((1 - smooth) / np.float32(factor) + smooth))
    return [constant_weight(NAME, np.array(factors, np.float32))]


def proportional_factors(config: FolderConfig, head_size: int) -> list[LazyWeight]:
    """Gemma 4's global layers: the first part of the pairs turns, the others do not."""
    turned = int(head_size * config.global_rope.get("partial_rotary_factor", 0.25) / 2)
    values = [1.0] * turned + [NOT_TURNED] * (head_size // 2 - turned)
    return [constant_weight(NAME, np.array(values, np.float32))]
