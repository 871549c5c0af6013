"""A small model of every architecture: a common shape, and the numbers that differ."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minillama.gguf.display_names import format_parameters
from minillama.random_models.frequency_divisors import FirstPairsRotate, StretchedLowFrequencies
from minillama.random_models.model_shape import ModelShape
from minillama.random_models.vocabularies.tiny_vocabularies import tiny_vocabulary

WIDTH, KV_HEADS = 256, 2


def tiny_shape(architecture: str) -> ModelShape:
    """The small model of an architecture; KeyError for an unknown one."""
    row = dict(TINY[architecture])
    shape = ModelShape(
        f"tiny-{architecture}", f"Tiny {architecture}", "", architecture,
        layers=row.pop("layers", 4), embedding=WIDTH, heads=4, kv_heads=row.pop("kv_heads", KV_HEADS), head_size=64,
        feed_forward=512, context=2048, epsilon=1e-5, rope_base=row.pop("rope_base", 10000.0),
        tied=row.pop("tied", False), vocabulary=tiny_vocabulary(architecture),
        rope_factors=row.pop("rope_factors", None), file_type=row.pop("file_type", "Q4_0"), keys=row,
    )  # fmt: skip
    return replace(shape, size_label=format_parameters(shape.parameters).replace(" ", ""))


_EXPERTS = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 256}
_SHARED = {**_EXPERTS, "expert_shared_feed_forward_length": 256}
_ALL_EXPERTS = {"feed_forward_length": 256}  # where llama.cpp reads the size of experts from this key
_SIGMOID = {**_EXPERTS, "expert_gating_func": 2}
_ROUTED = {
    **_SIGMOID, "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_norm": True,
    "expert_weights_scale": 2.5,
}  # fmt: skip
_YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 512,
}  # fmt: skip
_WINDOW = {"attention.sliding_window": 128}
_SCALES = {"embedding_scale": 2.0, "residual_scale": 0.22, "attention.scale": 1 / 64, "logit_scale": 3.0}
_SECTIONS = {"rope.dimension_sections": [12, 10, 10, 0]}
_DELTA_NET = {
    "full_attention_interval": 4, "rope.dimension_count": 16, "ssm.group_count": 2, "ssm.time_step_rank": 4,
    "ssm.state_size": 64, "ssm.inner_size": 256, "ssm.conv_kernel": 4,
}  # fmt: skip
_QWEN_35 = {**_DELTA_NET, "rope.dimension_sections": [4, 2, 2, 0]}
_MAMBA2 = {
    "ssm.group_count": 2, "ssm.time_step_rank": 8, "ssm.state_size": 64, "ssm.inner_size": 512, "ssm.conv_kernel": 4,
}  # fmt: skip
_ONE_ATTENTION = {"attention.head_count_kv": [0, 0, KV_HEADS, 0]}
_LATENT = {
    "attention.key_length": 160, "attention.value_length": 128, "attention.key_length_mla": 96,
    "attention.value_length_mla": 64, "attention.q_lora_rank": 128, "attention.kv_lora_rank": 128,
    "rope.dimension_count": 32, "rope.scaling.yarn_log_multiplier": 0.1, "expert_group_count": 4,
    "expert_group_used_count": 2,
}  # fmt: skip
_GEMMA4 = {
    **_WINDOW, "attention.sliding_window_pattern": [True, False, True, False], "attention.key_length_swa": 32,
    "attention.value_length_swa": 32, "rope.dimension_count_swa": 32, "rope.freq_base_swa": 10000.0,
    "attention.head_count_kv": [2, 1, 2, 1], "attention.shared_kv_layers": 2, "final_logit_softcapping": 30.0,
    "embedding_length_per_layer_input": 64,
}  # fmt: skip

# Fields of a shape (layers, kv_heads, tied, rope_base, rope_factors, file_type), and metadata by its keys.
TINY: Mapping[str, Mapping[str, Any]] = {
    "llama": {"rope_base": 5e5, "rope_factors": StretchedLowFrequencies(32.0, 1.0, 4.0, 512)},
    "mistral3": {
        **_YARN, "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
        "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.1,
    },
    "smollm3": {"tied": True, "rope_base": 5e6},
    "qwen2": {"tied": True, "rope_base": 1e6},
    "qwen3": {"tied": True, "rope_base": 1e6},
    "qwen2vl": {**_SECTIONS, "rope_base": 1e6},
    "qwen3vl": {**_SECTIONS, "tied": True, "rope_base": 5e6},
    "qwen3vlmoe": {**_SECTIONS, **_EXPERTS, "rope_base": 5e6},
    "qwen2moe": {**_SHARED, "rope_base": 1e6},
    "qwen3moe": {**_EXPERTS, "rope_base": 1e6},
    "qwen3next": {**_DELTA_NET, **_SHARED, "rope_base": 1e7},
    "qwen35": {**_QWEN_35, "tied": True, "rope_base": 1e7},
    "qwen35moe": {**_QWEN_35, **_SHARED, "rope_base": 1e7},
    "chatglm": {"rope.dimension_count": 32},
    "glm4": {"rope.dimension_count": 32},
    "glm4moe": {**_ROUTED, "rope.dimension_count": 32, "rope_base": 1e6},
    "gemma": {"kv_heads": 1, "tied": True},
    "gemma2": {**_WINDOW, "tied": True, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3": {**_WINDOW, "tied": True, "layers": 6, "rope_base": 1e6},
    "gemma4": {**_GEMMA4, "tied": True, "rope_base": 1e6, "rope_factors": FirstPairsRotate(0.25)},
    "phi2": {"kv_heads": 4, "rope.dimension_count": 32},
    "phi3": {"kv_heads": 4},
    "granite": {**_SCALES, "tied": True},
    "granitemoe": {**_SCALES, **_SHARED, **_ALL_EXPERTS, "tied": True},
    "granitehybrid": {
        **_SCALES, **_SHARED, **_ALL_EXPERTS, **_MAMBA2, **_ONE_ATTENTION, "rope.scaling.finetuned": False,
        "tied": True,
    },
    "nemotron_h": {
        **_MAMBA2, "attention.head_count_kv": [0, KV_HEADS, 0, 0], "feed_forward_length": [0, 0, 0, 512],
        "attention.layer_norm_epsilon": 1e-5,
    },
    "lfm2": {**_ONE_ATTENTION, "shortconv.l_cache": 3, "tied": True, "rope_base": 1e6},
    "lfm2moe": {
        **_SIGMOID, **_ONE_ATTENTION, "shortconv.l_cache": 3, "leading_dense_block_count": 1, "tied": True,
        "rope_base": 1e6,
    },
    "minicpm": {"embedding_scale": 12.0, "residual_scale": 0.35, "logit_scale": 1.0, "tied": True},
    "ernie4_5": {"tied": True, "rope_base": 5e5},
    "ernie4_5-moe": {
        **_SHARED, "leading_dense_block_count": 1, "interleave_moe_layer_step": 1, "rope_base": 5e5,
    },
    "olmo2": {"kv_heads": 4, "rope_base": 5e5},
    "hunyuan-dense": {"tied": True},
    "seed_oss": {"rope_base": 1e7},
    "exaone4": {"tied": True, "rope_base": 1e6, "rope_factors": StretchedLowFrequencies(16.0, 1.0, 4.0, 512)},
    "cohere2": {**_WINDOW, "logit_scale": 0.25, "tied": True, "rope_base": 5e4},
    "starcoder2": {"tied": True, "rope_base": 1e5},
    "gpt-oss": {**_YARN, **_WINDOW, **_EXPERTS, "rope_base": 1.5e5, "file_type": "MXFP4_MOE"},
    "deepseek2": {**_LATENT, **_YARN, **_ROUTED, "kv_heads": 1},
    "minimax-m2": {**_SIGMOID, **_ALL_EXPERTS, "rope.dimension_count": 32, "rope_base": 5e6},
}  # fmt: skip
