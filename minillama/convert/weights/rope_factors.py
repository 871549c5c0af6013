"""Tensors of RoPE factors that no checkpoint holds: llama3's and Gemma 4's."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight, constant_weight
from minillama.errors import FormatError, quoted

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
    base, factor, low, high, context = (
        _above_0(rope, key, default)
        for key, default in (
            ("rope_theta", 10000.0),
            ("factor", default_factor),
            ("low_freq_factor", 1.0),
            ("high_freq_factor", 4.0),
            ("original_max_position_embeddings", 8192),
        )
    )
    frequencies = np.float32(1) / np.float32(base) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
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
    part = _above_0(config.global_rope, "partial_rotary_factor", 0.25)
    turned = min(int(head_size * part / 2), head_size // 2)
    values = [1.0] * turned + [NOT_TURNED] * (head_size // 2 - turned)
    return [constant_weight(NAME, np.array(values, np.float32))]


def _above_0(rope: Mapping[str, Any], key: str, default: float) -> float:
    """A setting of RoPE that is a number above 0."""
    found = rope.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e30:
        raise FormatError(f"config.json: RoPE's {key} is {quoted(found)}; expected a number above 0")
    return found
