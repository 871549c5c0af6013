"""GLM-4, GLM-4.5 (glm4moe), and the older ChatGLM."""

from dataclasses import replace

from minillama.convert.families import common_keys as common
from minillama.convert.family_row import Family, flag, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import chatglm_tokenizer, glm4_tokenizer, glm_moe_tokenizer


def _rotated(config: FolderConfig) -> int:
    return int(config.head_size * config.rope.get("partial_rotary_factor", 0.5))


def with_predicting_layers(config: FolderConfig) -> FolderConfig:
    """The layers of multi-token prediction follow the others."""
    return replace(config, layers=config.own_layers + int(config.find("num_nextn_predict_layers") or 0))


def _without_transformer(name: str, config: FolderConfig) -> str | None:
    return None if name.endswith(".rotary_pos_emb.inv_freq") else name.removeprefix("transformer.")


def _chatglm_rotated(config: FolderConfig) -> int:
    head = config.find("attention_dim") or config.size("hidden_size") // config.heads
    return int(head * config.rope.get("partial_rotary_factor", 0.5))


FAMILIES = (
    Family(
        "glm4",
        ("Glm4ForCausalLM",),
        (*common.COMMON, integer("rope.dimension_count", _rotated)),
        names={"post_mlp_layernorm": "post_ffw_norm"},
        vocabulary=glm4_tokenizer,
    ),
    Family(
        "glm4moe",
        ("Glm4MoeForCausalLM",),
        (
            *common.COMMON,
            integer("rope.dimension_count", _rotated),
            integer("expert_feed_forward_length", "moe_intermediate_size"),
            integer("expert_shared_count", "n_shared_experts"),
            integer("leading_dense_block_count", "first_k_dense_replace"),
            integer("expert_gating_func", lambda config: common.SIGMOID),
            number("expert_weights_scale", "routed_scaling_factor"),
            flag("expert_weights_norm", "norm_topk_prob"),
            integer("nextn_predict_layers", "num_nextn_predict_layers"),
        ),
        names={"post_attention_layernorm": "post_attention_norm"},
        experts=("down_proj", "gate_proj", "up_proj"),
        adjust=with_predicting_layers,
        vocabulary=glm_moe_tokenizer,
    ),
    Family(
        "chatglm",
        ("GlmForCausalLM", "ChatGLMModel", "ChatGLMForConditionalGeneration"),
        (
            integer("context_length", lambda config: config.find("seq_length", "hidden_size")),
            common.WIDTH,
            integer("feed_forward_length", "ffn_hidden_size", "intermediate_size"),
            common.LAYERS,
            common.HEADS,
            integer("attention.head_count_kv", "multi_query_group_num", "num_key_value_heads", "num_attention_heads"),
            number("attention.layer_norm_rms_epsilon", lambda config: config.find("layernorm_epsilon") or 1e-5),
            common.FILE_TYPE,
            integer("rope.dimension_count", _chatglm_rotated),
            flag("tokenizer.ggml.add_bos_token", lambda config: False),
            number("rope.freq_base", lambda config: 10000 * (config.find("rope_ratio") or 1)),
        ),
        name_of=_without_transformer,
        vocabulary=chatglm_tokenizer,
    ),
)
