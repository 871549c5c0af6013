"""Families with experts: gpt-oss, ERNIE 4.5, MiniMax-M2, LFM2 with experts."""

from minillama.convert.families import common_keys as common
from minillama.convert.families.dense_families import LFM2_CHANGES, lfm2_kv_heads
from minillama.convert.family_row import Family, Weights, integer
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import ernie_tokenizer
from minillama.convert.weights.fused_weights import split_alternating_experts, transposed_experts
from minillama.convert.weights.lazy_weight import LazyWeight


def _gpt_oss_name(name: str, config: FolderConfig) -> str:
    name = f"{name}.weight" if name.endswith("sinks") else name
    return name.replace("_proj_bias", "_proj.bias")


def _gate_and_up(weight: LazyWeight, config: FolderConfig) -> Weights:
    """Gate and up in alternating rows; the matrices are stored transposed."""
    bias = weight.name.endswith(".bias")
    gate, up = split_alternating_experts(weight if bias else transposed_experts(weight))
    path, suffix = weight.name.removesuffix(".bias").removesuffix("gate_up_proj"), "bias" if bias else "weight"
    return [gate.renamed(f"{path}gate_proj.{suffix}"), up.renamed(f"{path}up_proj.{suffix}")]


def _down(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return transposed_experts(weight).renamed(f"{weight.name}.weight")


def _ernie_moe_name(name: str, config: FolderConfig) -> str | None:
    predicts = ("model.mtp_block.", "model.mtp_emb_norm.", "model.mtp_hidden_norm.", "model.mtp_linear_proj.")
    name = name.replace("ernie.", "model.")
    return None if name.startswith(predicts) else name


def _ernie_shared_size(config: FolderConfig) -> int | None:
    if not config.find("moe_num_shared_experts"):
        return None
    return config.size("intermediate_size") // config.kv_heads


def _lfm2_name(name: str, config: FolderConfig) -> str:
    return name.replace(".expert_bias", ".expert_bias.bias") if name.endswith(".expert_bias") else name


_LFM2_KV_HEADS = integer("attention.head_count_kv", lfm2_kv_heads)

FAMILIES = (
    Family(
        "gpt-oss",
        ("GptOssForCausalLM",),
        (*common.COMMON, common.WINDOW, integer("expert_feed_forward_length", "intermediate_size")),
        names={"post_attention_layernorm": "post_attention_norm"},
        name_of=_gpt_oss_name,
        changes=((r"experts\.gate_up_proj(\.bias)?$", _gate_and_up), (r"experts\.down_proj$", _down)),
    ),
    Family(
        "ernie4_5-moe",
        ("Ernie4_5_MoeForCausalLM",),
        (
            *common.COMMON,
            integer("expert_count", "moe_num_experts"),
            integer("expert_used_count", "moe_k"),
            integer("interleave_moe_layer_step", "moe_layer_interval"),
            integer("leading_dense_block_count", "moe_layer_start_index"),
            integer("expert_feed_forward_length", "moe_intermediate_size"),
            integer("expert_shared_count", "moe_num_shared_experts"),
            integer("expert_shared_feed_forward_length", _ernie_shared_size),
        ),
        name_of=_ernie_moe_name,
        experts=("gate_proj", "up_proj", "down_proj"),
        vocabulary=ernie_tokenizer,
    ),
    Family(
        "minimax-m2",
        ("MiniMaxM2ForCausalLM",),
        (
            *common.COMMON,
            integer("expert_feed_forward_length", "intermediate_size"),
            integer("rope.dimension_count", lambda config: config.size("rotary_dim")),
        ),
        experts=("w1", "w2", "w3"),
    ),
    Family(
        "lfm2moe",
        ("Lfm2MoeForCausalLM",),
        (
            *(_LFM2_KV_HEADS if key is common.KV_HEADS else key for key in common.COMMON),
            integer("expert_feed_forward_length", "moe_intermediate_size"),
            integer("leading_dense_block_count", "num_dense_layers"),
            integer("expert_gating_func", lambda config: common.SIGMOID),
            common.VOCABULARY_SIZE,
            integer("shortconv.l_cache", "conv_L_cache"),
        ),
        name_of=_lfm2_name,
        changes=LFM2_CHANGES,
        experts=("w1", "w2", "w3"),
    ),
)
