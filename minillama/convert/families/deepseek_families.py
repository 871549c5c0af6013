"""DeepSeek V2 and V3, and GLM-4.7-Flash: keys and values from one small latent vector (MLA)."""

from minillama.convert.families.common_keys import COMMON, VOCABULARY_SIZE
from minillama.convert.families.glm_families import with_predicting_layers
from minillama.convert.family_row import Family, Weights, flag, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import glm_moe_tokenizer
from minillama.convert.weights.latent_attention import split_latent_projection
from minillama.convert.weights.lazy_weight import LazyWeight


def _key_size(config: FolderConfig) -> int:
    """Size of the only key head, which attention on the latent vector has."""
    return config.size("kv_lora_rank") + config.size("qk_rope_head_dim")


def _dense_layers(config: FolderConfig) -> int:
    found = config.find("first_k_dense_replace")
    if found is None:
        return 0 if config.find("n_routed_experts") else config.own_layers
    return found


def _yarn_multiplier(config: FolderConfig) -> float | None:
    """A tenth of what config.json states: older files have it so, and llama.cpp expects it."""
    found = config.rope.get("mscale_all_dim")
    return None if found is None else 0.1 * found


_CHANGED = {
    "attention.head_count_kv": integer("attention.head_count_kv", lambda config: 1),
    "attention.layer_norm_rms_epsilon": number(
        "attention.layer_norm_rms_epsilon", lambda config: config.find("rms_norm_eps") or 1e-6
    ),
}
KEYS = (
    *(_CHANGED.get(key.name, key) for key in COMMON),  # the sizes of a head in them are replaced below
    integer("leading_dense_block_count", _dense_layers),
    VOCABULARY_SIZE,
    integer("attention.q_lora_rank", "q_lora_rank"),
    integer("attention.kv_lora_rank", "kv_lora_rank"),
    integer("attention.key_length", _key_size),
    integer("attention.value_length", "kv_lora_rank"),
    integer(
        "attention.key_length_mla", lambda config: config.size("qk_nope_head_dim") + config.size("qk_rope_head_dim")
    ),
    integer("attention.value_length_mla", lambda config: config.size("v_head_dim")),
    integer("expert_feed_forward_length", "moe_intermediate_size", "intermediate_size"),
    integer("expert_count", "n_routed_experts"),
    integer("expert_shared_count", lambda config: config.find("n_shared_experts") or 0),
    number("expert_weights_scale", "routed_scaling_factor"),
    flag("expert_weights_norm", lambda config: config.find("norm_topk_prob") or None),
    integer("rope.dimension_count", lambda config: config.size("qk_rope_head_dim")),
    number("rope.scaling.yarn_log_multiplier", _yarn_multiplier),
)


def _untied(name: str, config: FolderConfig) -> str | None:
    """Names without a tied output, and without layers past the model's."""
    if name == "lm_head.weight" and config.find("tie_word_embeddings"):
        return None
    layer = name.removeprefix("model.layers.").partition(".")[0]
    past = name.startswith("model.layers.") and layer.isdecimal() and int(layer) >= config.layers
    return None if past else name


def _latent(weight: LazyWeight, config: FolderConfig) -> Weights:
    return split_latent_projection(weight, config.kv_heads, config.size("qk_nope_head_dim"), config.size("v_head_dim"))


_ROW = dict(  # noqa: C408
    name_of=_untied, changes=((r"kv_b_proj\.weight$", _latent),), experts=("down_proj", "gate_proj", "up_proj")
)

FAMILIES = (
    Family("deepseek2", ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"), KEYS, **_ROW),
    Family(
        "deepseek2",
        ("Glm4MoeLiteForCausalLM",),
        (
            *KEYS,
            integer("nextn_predict_layers", lambda config: config.layers - config.own_layers or None),
        ),
        adjust=with_predicting_layers,
        vocabulary=glm_moe_tokenizer,
        **_ROW,
    ),
)
