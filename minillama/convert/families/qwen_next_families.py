"""Qwen3-Next and Qwen 3.5, with Gated DeltaNet in three of four layers.

There may be more layers, which predict several tokens ahead (multi-token prediction, MTP).
"""

import re
from dataclasses import replace

from minillama.convert.families.common_keys import rope_sections
from minillama.convert.families.qwen_families import FUSED_EXPERTS, QWEN_EXPERTS, QWEN_MOE_KEYS
from minillama.convert.family_row import Family, Weights, integer, per_layer
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.convert.weights.mamba_layers import minus_exp
from minillama.convert.weights.value_head_order import split_interleaved_heads, tile_value_heads

_MTP_LAYER = re.compile(r"(?:model\.)?mtp\.layers\.(\d+)\.")
_MTP_PARTS = {
    "mtp.fc": "eh_proj",
    "mtp.pre_fc_norm_embedding": "enorm",
    "mtp.pre_fc_norm_hidden": "hnorm",
    "mtp.norm": "shared_head.norm",
}


def mtp_name(name: str, config: FolderConfig) -> str:
    """Name of a tensor; those of multi-token prediction (`mtp.`) get the names of further layers."""
    name = re.sub(r"\.dt_bias$", ".dt_proj.bias", name)
    if match := _MTP_LAYER.match(name):
        return f"model.layers.{config.own_layers + int(match[1])}.{name[match.end() :]}"
    path, _, suffix = name.removeprefix("model.").rpartition(".")
    return f"model.layers.{config.own_layers}.{_MTP_PARTS[path]}.{suffix}" if path in _MTP_PARTS else name


def _count_predicting_layers(config: FolderConfig) -> FolderConfig:
    """The layers of multi-token prediction in the checkpoint follow the others."""
    found = [int(match[1]) for name in config.tensor_names if (match := _MTP_LAYER.match(name))]
    return replace(config, layers=config.own_layers + max(found, default=-1) + 1)


def _predicting_layers(config: FolderConfig) -> int | None:
    return config.layers - config.own_layers or None


def _recurrent_layers(config: FolderConfig) -> list[bool] | None:
    if config.find("layer_types") is None:
        return None
    kinds = config.layer_types[: config.own_layers]
    return [kind == "linear_attention" for kind in kinds] + [False] * (config.layers - config.own_layers)


def _rotated(config: FolderConfig) -> int:
    return int(config.head_size * config.rope.get("partial_rotary_factor", 0.25))


def decay(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """A from the logarithm that the checkpoint has."""
    return weight.each(minus_exp)


def plus_one(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """A norm that multiplies by 1 + weight."""
    return weight.each(lambda values: values + values.dtype.type(1))


def convolution(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return weight.squeezed()


def interleaved_heads(weight: LazyWeight, config: FolderConfig) -> Weights:
    return split_interleaved_heads(weight, config)


NEXT_KEYS = (
    *QWEN_MOE_KEYS,
    integer("nextn_predict_layers", _predicting_layers),
    integer("ssm.conv_kernel", lambda config: config.size("linear_conv_kernel_dim")),
    integer("ssm.state_size", lambda config: config.size("linear_key_head_dim")),
    integer("ssm.group_count", lambda config: config.size("linear_num_key_heads")),
    integer("ssm.time_step_rank", lambda config: config.size("linear_num_value_heads")),
    integer(
        "ssm.inner_size", lambda config: config.size("linear_value_head_dim") * config.size("linear_num_value_heads")
    ),
    per_layer("attention.recurrent_layers", _recurrent_layers),
    integer("full_attention_interval", lambda config: config.find("full_attention_interval") or 4),
    integer("rope.dimension_count", _rotated),
)
NEXT_CHANGES = (
    (r"\.A_log$", decay),
    (r"conv1d", convolution),
    (r"(?<!linear_attn\.)norm\.weight$", plus_one),
    (r"in_proj_qkvz\.weight$", interleaved_heads),
    *FUSED_EXPERTS,
)
QWEN35_KEYS = (
    *NEXT_KEYS, per_layer("rope.dimension_sections", lambda config: rope_sections(config) or [11, 11, 10, 0])
)  # fmt: skip
QWEN35_CHANGES = ((r"linear_attn\.", tile_value_heads), *NEXT_CHANGES)
PRE_FFN_NORM = {"post_attention_layernorm": "post_attention_norm"}


FAMILIES = (
    Family(
        "qwen3next", ("Qwen3NextForCausalLM",), NEXT_KEYS, names=PRE_FFN_NORM, name_of=mtp_name,
        changes=NEXT_CHANGES, experts=QWEN_EXPERTS, adjust=_count_predicting_layers,
    ),
    Family(
        "qwen35", ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"), QWEN35_KEYS, names=PRE_FFN_NORM,
        name_of=mtp_name, changes=QWEN35_CHANGES, experts=QWEN_EXPERTS, adjust=_count_predicting_layers,
    ),
    Family(
        "qwen35moe", ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"), QWEN35_KEYS, names=PRE_FFN_NORM,
        name_of=mtp_name, changes=QWEN35_CHANGES, experts=QWEN_EXPERTS, adjust=_count_predicting_layers,
    ),
)  # fmt: skip
