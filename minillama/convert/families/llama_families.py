"""Llama, and families with a few more settings: Mistral, Mixtral, SmolLM3, Granite, MiniCPM."""

from dataclasses import replace

from minillama.convert.families.common_keys import COMMON, ROTATED, VOCABULARY_SIZE
from minillama.convert.families.phi_families import long_and_short_factors
from minillama.convert.family_row import Family, Weights, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import llama_tokenizer, sentencepiece_tokenizer
from minillama.convert.weights.fused_weights import split_experts, split_rows
from minillama.convert.weights.head_order import with_adjacent_pairs
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.convert.weights.rope_factors import llama3_factors
from minillama.errors import UnsupportedError


def query_pairs(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return with_adjacent_pairs(weight, config.heads)


def key_pairs(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return with_adjacent_pairs(weight, config.kv_heads)


ADJACENT_PAIRS = (
    (r"q_proj\.(weight|bias)$", query_pairs),
    (r"k_proj\.(weight|bias)$", key_pairs),
)
LLAMA_KEYS = (*COMMON, VOCABULARY_SIZE, ROTATED)


def _ministral(config: FolderConfig) -> FolderConfig:
    if config.values.get("model_type") == "mistral4":
        raise UnsupportedError("mistral4 is not supported; supported is Ministral 3 (ministral3)")
    return config


def _ministral_rope(name: str):
    """A RoPE setting of Ministral 3, which other models of this architecture do not have."""
    return lambda config: config.rope.get(name) if config.values.get("model_type") == "ministral3" else None


def granite_experts(weight: LazyWeight, config: FolderConfig) -> Weights:
    """Gate and up of all experts, in one tensor."""
    layer = weight.name.rpartition("block_sparse_moe.")[0]
    gate, up = split_experts(weight)
    return [
        gate.renamed(f"{layer}block_sparse_moe.experts.w1.weight"),
        up.renamed(f"{layer}block_sparse_moe.experts.w3.weight"),
    ]


def _dense(config: FolderConfig) -> bool:
    return not config.find("num_local_experts")


def granite_shared_input(weight: LazyWeight, config: FolderConfig) -> Weights:
    """Gate and up of the shared expert; without other experts it is the layer's MLP."""
    half = config.size("shared_intermediate_size")
    layer = weight.name.rpartition("shared_mlp.")[0]
    part = "mlp" if _dense(config) else "mlp.shared_expert"
    gate, up = split_rows(weight, half, half)
    return [gate.renamed(f"{layer}{part}.gate_proj.weight"), up.renamed(f"{layer}{part}.up_proj.weight")]


def granite_shared_output(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return (
        weight.renamed(weight.name.replace("shared_mlp.output_linear", "mlp.down_proj")) if _dense(config) else weight
    )


GRANITE_EXPERTS = (
    (r"block_sparse_moe\.input_linear\.weight$", granite_experts),
    (r"shared_mlp\.input_linear\.weight$", granite_shared_input),
    (r"shared_mlp\.output_linear\.weight$", granite_shared_output),
)


def without_head_size(config: FolderConfig) -> FolderConfig:
    """Settings without head_dim, which Granite ignores."""
    return replace(config, values={key: value for key, value in config.values.items() if key != "head_dim"})


def _scale(*settings: str):
    return lambda config: config.find(*settings) or None


GRANITE_KEYS = (
    *LLAMA_KEYS,
    number("attention.scale", _scale("attention_multiplier")),
    number("embedding_scale", _scale("embedding_multiplier")),
    number("residual_scale", _scale("residual_multiplier")),
    number("logit_scale", _scale("logits_scaling")),
)
GRANITE_MOE_KEYS = (*GRANITE_KEYS, integer("expert_shared_feed_forward_length", _scale("shared_intermediate_size")))


def _minicpm_factors(config: FolderConfig) -> Weights:
    return long_and_short_factors(config, config.size("hidden_size") // config.heads)


FAMILIES = (
    Family(
        "llama",
        ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "IQuestCoderForCausalLM"),
        LLAMA_KEYS,
        changes=ADJACENT_PAIRS,
        experts=("w1", "w2", "w3"),
        extra=llama3_factors,
        vocabulary=llama_tokenizer,
    ),
    Family(
        "mistral3",
        ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
        (
            *LLAMA_KEYS,
            number("rope.scaling.yarn_log_multiplier", _ministral_rope("mscale_all_dim")),
            number("attention.temperature_scale", _ministral_rope("llama_4_scaling_beta")),
        ),
        changes=ADJACENT_PAIRS,
        adjust=_ministral,
        extra=llama3_factors,
        vocabulary=llama_tokenizer,
    ),
    Family(
        "smollm3", ("SmolLM3ForCausalLM",), LLAMA_KEYS,
        changes=ADJACENT_PAIRS, extra=llama3_factors, vocabulary=llama_tokenizer,
    ),
    Family(
        "granite", ("GraniteForCausalLM",), GRANITE_KEYS,
        changes=ADJACENT_PAIRS, adjust=without_head_size, extra=llama3_factors, vocabulary=llama_tokenizer,
    ),
    Family(
        "granitemoe", ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"), GRANITE_MOE_KEYS,
        changes=(*ADJACENT_PAIRS, *GRANITE_EXPERTS), adjust=without_head_size, extra=llama3_factors,
        vocabulary=llama_tokenizer,
    ),
    Family(
        "minicpm",
        ("MiniCPMForCausalLM",),
        (
            *COMMON,
            number("embedding_scale", lambda config: config.need("scale_emb")),
            number("residual_scale", lambda config: config.need("scale_depth") / config.own_layers**0.5),
            number("logit_scale", lambda config: config.size("hidden_size") / config.need("dim_model_base")),
        ),
        changes=((r"q_proj\.weight$", query_pairs), (r"k_proj\.weight$", key_pairs)),
        extra=_minicpm_factors,
        vocabulary=sentencepiece_tokenizer,
    ),
)  # fmt: skip
