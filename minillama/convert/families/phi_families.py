"""Phi-2 and Phi-3 (also Phi-3.5 and Phi-4)."""

import math

import numpy as np

from minillama.convert.families import common_keys as common
from minillama.convert.family_row import Family, Weights, flag, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import phi3_tokenizer
from minillama.convert.weights.lazy_weight import constant_weight
from minillama.errors import FormatError


def _rotated(config: FolderConfig) -> int:
    return int(config.rope.get("partial_rotary_factor", 1.0) * config.size("hidden_size")) // config.heads


def _attention_factor(config: FolderConfig) -> float | None:
    """The factor of attention in a context that is longer than the original one."""
    if not config.rope.get("long_factor"):
        return None
    original = config.rope.get("original_max_position_embeddings") or config.need("original_max_position_embeddings")
    scale = config.size("max_position_embeddings") / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def long_and_short_factors(config: FolderConfig, rotated: int) -> Weights:
    """RoPE's factors for contexts longer and not longer than the original one; empty without them."""
    found = [config.rope.get(name) for name in ("long_factor", "short_factor")]
    if not any(found):
        return []
    for factors in found:
        if not isinstance(factors, list) or len(factors) != rotated // 2:
            raise FormatError(f"config.json: RoPE's long_factor and short_factor need {rotated // 2} numbers each")
    names = ("rope_factors_long.weight", "rope_factors_short.weight")
    return [constant_weight(name, np.array(factors, np.float32)) for name, factors in zip(names, found, strict=True)]


FAMILIES = (
    Family(
        "phi2",
        ("PhiForCausalLM",),
        (
            integer("context_length", "n_positions", "max_position_embeddings"),
            common.WIDTH,
            integer("feed_forward_length", lambda config: 4 * config.size("hidden_size", "n_embd")),
            common.LAYERS,
            common.HEADS,
            integer("attention.head_count_kv", lambda config: config.heads),
            number("attention.layer_norm_epsilon", "layer_norm_epsilon", "layer_norm_eps"),
            integer("rope.dimension_count", _rotated),
            common.FILE_TYPE,
            flag("tokenizer.ggml.add_bos_token", lambda config: False),
        ),
    ),
    Family(
        "phi3",
        ("Phi3ForCausalLM", "Phi4ForCausalLMV"),
        (
            integer("context_length", "n_positions", "max_position_embeddings"),
            integer(
                "rope.scaling.original_context_length",
                lambda config: (
                    config.rope.get("original_max_position_embeddings")
                    or config.need("original_max_position_embeddings")
                ),
            ),
            common.WIDTH,
            integer("feed_forward_length", lambda config: config.size("intermediate_size")),
            common.LAYERS,
            common.HEADS,
            common.KV_HEADS,
            common.RMS_EPSILON,
            integer("rope.dimension_count", _rotated),
            common.ROPE_BASE,
            common.FILE_TYPE,
            integer("attention.sliding_window", lambda config: config.find("sliding_window") or 0),
            number("rope.scaling.attn_factor", _attention_factor),
        ),
        extra=lambda config: long_and_short_factors(config, _rotated(config)),
        vocabulary=phi3_tokenizer,
    ),
)
