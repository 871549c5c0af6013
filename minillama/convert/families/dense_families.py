"""Families without experts: OLMo, Seed-OSS, EXAONE 4, Command R7B, StarCoder 2, Hunyuan and others."""

import numpy as np

from minillama.convert.families import common_keys as common
from minillama.convert.family_row import Family, Weights, integer, number, per_layer, word
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import ernie_tokenizer, hunyuan_tokenizer
from minillama.convert.weights.fused_weights import split_rows
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.convert.weights.rope_factors import llama3_factors
from minillama.errors import FormatError

_POST_NORM = {"post_attention_layernorm": "post_attention_norm"}
_HUNYUAN_CONTEXT = 256 * 1024  # config.json states 32768


def _olmo_pattern(config: FolderConfig) -> list[bool] | None:
    """OLMo 3: every fourth layer sees the whole context."""
    if config.find("sliding_window") is None:
        return None
    if config.find("layer_types") is not None:
        return common.whole_window_pattern(config)
    return [(layer + 1) % 4 != 0 for layer in range(config.own_layers)]


def _exaone_pattern(config: FolderConfig) -> list[bool] | None:
    """A list of kinds, a text such as LLLG, or the distance of global layers."""
    layers, pattern = config.own_layers, config.find("sliding_window_pattern")
    if config.find("sliding_window") is None:
        return None
    if config.find("layer_types") is not None:
        return common.whole_window_pattern(config)
    if isinstance(pattern, str):
        return [pattern[layer % len(pattern)] == "L" for layer in range(layers)]
    return [(layer + 1) % pattern != 0 for layer in range(layers)] if pattern else None


def _none_scaling(config: FolderConfig) -> str:
    return "none"


def _cohere_rotated(config: FolderConfig) -> int:
    return int(config.need("rotary_pct") * (config.size("hidden_size") // config.heads))


def _zero_bias(weight: LazyWeight, config: FolderConfig) -> Weights:
    """No tensor: biases are zero in every checkpoint, and llama.cpp has none."""
    if any(np.any(values) for values in weight.pieces()):
        raise FormatError(f"{weight.name} is not zero, which llama.cpp has no place for")
    return []


def _alpha_scaled(config: FolderConfig) -> bool:
    return config.rope.get("rope_type") in ("dynamic", "xdrope")


def _hunyuan_base(config: FolderConfig) -> float:
    """RoPE's base, enlarged for a long context (NTK-aware scaling with alpha)."""
    base, size = config.rope.get("rope_theta", 10000.0), config.head_size
    return base * config.rope.get("alpha", 50) ** (size / (size - 2)) if _alpha_scaled(config) else base


def _hunyuan_context(config: FolderConfig) -> object:
    return _HUNYUAN_CONTEXT if config.rope.get("rope_type") == "dynamic" else config.find("max_position_embeddings")


def _dynamic_only(value: object):
    return lambda config: value if config.rope.get("rope_type") == "dynamic" else None


def _if_alpha(value: object):
    return lambda config: value if _alpha_scaled(config) else None


_HUNYUAN_CHANGED = {
    "context_length": integer("context_length", _hunyuan_context),
    "rope.freq_base": number("rope.freq_base", _hunyuan_base),
}


def _untied(name: str, config: FolderConfig) -> str | None:
    return None if name == "lm_head.weight" and config.find("tie_word_embeddings") else name


def _ernie_name(name: str, config: FolderConfig) -> str:
    return name.replace("ernie.", "model.")


def _ernie_attention(weight: LazyWeight, config: FolderConfig) -> Weights:
    sizes = [count * config.head_size for count in (config.heads, config.kv_heads, config.kv_heads)]
    parts = split_rows(weight, *sizes)
    return [
        part.renamed(weight.name.replace("qkv_proj", new))
        for part, new in zip(parts, ("q_proj", "k_proj", "v_proj"), strict=True)
    ]


def _ernie_gate_and_up(weight: LazyWeight, config: FolderConfig) -> Weights:
    half = weight.shape[0] // 2
    gate, up = split_rows(weight, half, half)
    return [
        gate.renamed(weight.name.replace("up_gate_proj", "gate_proj")),
        up.renamed(weight.name.replace("up_gate_proj", "up_proj")),
    ]


def _lfm2_hidden(config: FolderConfig) -> int:
    """Size of the MLPs, which the model's class derives from the stated one."""
    size = config.size("block_ff_dim", "intermediate_size")
    if config.values.get("block_auto_adjust_ff_dim"):
        size = int((config.find("block_ffn_dim_multiplier") or 1) * int(2 * size / 3))
        multiple = config.size("block_multiple_of")
        size = multiple * -(-size // multiple)
    return size


def lfm2_kv_heads(config: FolderConfig) -> list[int]:
    """Heads of attention layers; 0 in layers with a short convolution."""
    return [0 if kind == "conv" else config.kv_heads for kind in config.layer_types[: config.own_layers]]


def short_convolution(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return weight.reshaped(weight.shape[0], weight.shape[-1])


LFM2_CHANGES = ((r"conv\.conv\.weight$", short_convolution),)

FAMILIES = (
    Family(
        "olmo2",
        ("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
        (
            *common.COMMON,
            integer("attention.sliding_window", "sliding_window"),
            per_layer("attention.sliding_window_pattern", _olmo_pattern),
        ),
        names=_POST_NORM,
    ),
    Family("seed_oss", ("SeedOssForCausalLM",), common.COMMON, names=_POST_NORM),
    Family(
        "exaone4",
        ("Exaone4ForCausalLM",),
        (
            *common.COMMON,
            common.VOCABULARY_SIZE,
            integer("attention.sliding_window", "sliding_window"),
            per_layer("attention.sliding_window_pattern", _exaone_pattern),
        ),
        names=_POST_NORM,
        extra=lambda config: llama3_factors(config, 16.0),
    ),
    Family(
        "cohere2",
        ("Cohere2ForCausalLM",),
        (
            *common.COMMON,
            number("logit_scale", "logit_scale"),
            common.WINDOW,
            common.VOCABULARY_SIZE,
            integer("rope.dimension_count", _cohere_rotated),
            word("rope.scaling.type", _none_scaling),
        ),
        changes=((r"\.bias$", _zero_bias),),
    ),
    Family("starcoder2", ("Starcoder2ForCausalLM",), common.COMMON),
    Family(
        "hunyuan-dense",
        ("HunYuanDenseV1ForCausalLM",),
        (
            *(_HUNYUAN_CHANGED.get(key.name, key) for key in common.COMMON if key is not common.EXPERTS),
            word("rope.scaling.type", _if_alpha("none")),
            number("rope.scaling.factor", _if_alpha(1.0)),
            integer("rope.scaling.original_context_length", _dynamic_only(_HUNYUAN_CONTEXT)),
        ),
        name_of=_untied,
        vocabulary=hunyuan_tokenizer,
    ),
    Family(
        "ernie4_5",
        ("Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM"),
        common.COMMON,
        name_of=_ernie_name,
        changes=((r"qkv_proj\.weight$", _ernie_attention), (r"up_gate_proj\.weight$", _ernie_gate_and_up)),
        vocabulary=ernie_tokenizer,
    ),
    Family(
        "lfm2",
        ("Lfm2ForCausalLM", "LFM2ForCausalLM"),
        (
            *(
                {
                    "attention.head_count_kv": integer("attention.head_count_kv", lfm2_kv_heads),
                    "feed_forward_length": integer("feed_forward_length", _lfm2_hidden),
                }.get(key.name, key)
                for key in common.COMMON
            ),
            common.VOCABULARY_SIZE,
            integer("shortconv.l_cache", "conv_L_cache"),
        ),
        changes=LFM2_CHANGES,
    ),
)
