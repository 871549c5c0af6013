"""Settings that config.json may leave out, as transformers' configuration classes fill them in.

llama.cpp's converter reads config.json through these classes. Only the settings that a converter uses are here.
"""

from collections.abc import Mapping
from typing import Any

_GEMMA = {"head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "rope_theta": 10000.0}
_DELTA_NET = {
    "head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "rms_norm_eps": 1e-6,
}  # fmt: skip

# model_type -> settings
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "rms_norm_eps": 1e-6, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2},
    "ministral3": {"head_dim": 128},
    "qwen2": {"rms_norm_eps": 1e-6},
    "qwen3": {"head_dim": 128, "rms_norm_eps": 1e-6},
    "qwen3_vl_text": {"head_dim": 128, "rope_theta": 5e5},
    "qwen3_5_text": _DELTA_NET,
    "qwen3_5_moe_text": _DELTA_NET,
    "qwen3_next": _DELTA_NET,
    "gemma": _GEMMA,
    "gemma2": {
        **_GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208, "hidden_size": 2304,
        "intermediate_size": 9216, "num_hidden_layers": 26, "max_position_embeddings": 131072, "sliding_window": 4096,
        "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
    },
    "gemma4_text": {
        **_GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 512,
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 256, "max_position_embeddings": 131072,
    },
    "phi": {"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "max_position_embeddings": 2048},
    "phi3": {"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    "smollm3": {"num_key_value_heads": 4, "rope_theta": 2e6},
    "olmo3": {"sliding_window": 4096, "rope_theta": 5e5},
    "seed_oss": {"head_dim": 128, "num_key_value_heads": 8},
    "ernie4_5": {"head_dim": 128, "rope_theta": 5e5},
    "glm": {"head_dim": 128, "partial_rotary_factor": 0.5},
    "glm4": {"head_dim": 128, "partial_rotary_factor": 0.5},
    "glm4_moe": {"partial_rotary_factor": 0.5, "num_nextn_predict_layers": 1, "first_k_dense_replace": 1},
    "cohere2": {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "sliding_window": 4096, "rotary_pct": 1.0},
    "deepseek_v3": {
        "rms_norm_eps": 1e-6, "num_experts_per_tok": 8, "norm_topk_prob": True, "scoring_func": "sigmoid",
    },
    "glm4_moe_lite": {"scoring_func": "sigmoid"},
    "minimax_m2": {"head_dim": 128, "num_key_value_heads": 8, "rope_theta": 5e6},
    "lfm2": {"norm_eps": 1e-5, "rope_theta": 1e6, "conv_L_cache": 3, "block_auto_adjust_ff_dim": True,
             "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256},
    "lfm2_moe": {"norm_eps": 1e-5, "rope_theta": 1e6, "conv_L_cache": 3, "num_dense_layers": 2},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128},
}  # fmt: skip

# Classes that state the size of a head, the width divided by the heads, when the file leaves it out.
STATE_HEAD_SIZE = {"llama", "mistral", "cohere2", "qwen3_vl_moe_text"}
# Classes whose head_dim is the size of a head's rotated part.
ROTATED_HEAD_SIZE = {"deepseek_v2", "deepseek_v3"}
WITHOUT_DEFAULT_ROPE = {"nemotron_h", "minicpm"}


def add_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of their `model_type`; a setting that is there stays."""
    kind = str(values.get("model_type"))
    filled = {**DEFAULTS.get(kind, {}), **{key: value for key, value in values.items() if value is not None}}
    heads, width = filled.get("num_attention_heads"), filled.get("hidden_size")
    if isinstance(heads, int) and heads > 0:
        filled.setdefault("num_key_value_heads", heads)
        if isinstance(width, int) and kind in STATE_HEAD_SIZE:
            filled.setdefault("head_dim", width // heads)
    if kind in ROTATED_HEAD_SIZE and "qk_rope_head_dim" in filled:
        filled.setdefault("head_dim", filled["qk_rope_head_dim"])
    kinds = filled.get("layers_block_type") or filled.get("hybrid_override_pattern")
    if isinstance(kinds, list | str):
        filled.setdefault("num_hidden_layers", len(kinds))
    if kind not in WITHOUT_DEFAULT_ROPE:
        filled.setdefault("rope_theta", 10000.0)
    return filled
