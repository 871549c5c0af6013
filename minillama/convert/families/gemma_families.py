"""Gemma 1 to 4 (the text part)."""

from minillama.convert.families import common_keys as common
from minillama.convert.families.qwen_next_families import plus_one
from minillama.convert.family_row import Family, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import (
    gemma3_tokenizer,
    gemma4_tokenizer,
    gemma_tokenizer,
    spaceless_tokenizer,
    vocabulary_rows,
)
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.convert.weights.rope_factors import proportional_factors
from minillama.errors import FormatError

NORM_PLUS_ONE = (r"norm\.weight$", plus_one)
_NAMES = {"post_attention_layernorm": "post_attention_norm"}
_GEMMA2_KEYS = (
    integer("context_length", lambda config: config.size("max_position_embeddings")),
    common.WIDTH,
    common.LAYERS,
    common.HIDDEN,
    common.HEADS,
    common.KV_HEADS,
    common.RMS_EPSILON,
    common.KEY_SIZE,
    common.VALUE_SIZE,
    common.FILE_TYPE,
)


def _without_head(name: str, config: FolderConfig) -> str | None:
    """Names without lm_head: the embedding is the output."""
    return None if name == "lm_head.weight" else name


def _known_rows(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """Rows of the embedding that have a token."""
    return weight.rows(0, min(weight.shape[0], vocabulary_rows(config)))


def _window(config: FolderConfig) -> int | None:
    return None if config.find("sliding_window_pattern") == 1 else config.need("sliding_window")


def _scalar_name(name: str, config: FolderConfig) -> str:
    return f"{name}.weight" if name.endswith(("layer_scalar", ".gate_up_proj", ".experts.down_proj")) else name


def _router_scale(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return weight.renamed(f"blk.{_layer(weight)}.ffn_gate_inp.scale")


def _expert_scale(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return weight.renamed(f"blk.{_layer(weight)}.ffn_down_exps.scale")


def _layer(weight: LazyWeight) -> str:
    return weight.name.partition("layers.")[2].partition(".")[0]


def _global_head_size(config: FolderConfig) -> int:
    """Size of the heads of global layers: stated once, or for single layers."""
    stated = config.find("global_head_dim") or _global_setting(config, "head_dim")
    if stated is None:
        raise FormatError("config.json has no global_head_dim; download the folder again")
    return stated


def _global_setting(config: FolderConfig, name: str) -> int | None:
    """A setting of the first global layer in `per_layer_config`."""
    kinds = config.layer_types
    for index, settings in (config.find("per_layer_config") or {}).items():
        if int(index) < len(kinds) and kinds[int(index)] == "full_attention" and name in settings:
            return settings[name]
    return None


def _hidden(config: FolderConfig) -> int | list[int]:
    """Size of the MLPs; layers with shared keys and values may be twice as wide."""
    hidden = config.size("intermediate_size")
    if not config.find("use_double_wide_mlp"):
        return hidden
    first = config.layers - config.values["num_kv_shared_layers"]
    return [hidden if layer < first else 2 * hidden for layer in range(config.layers)]


def _kv_heads(config: FolderConfig) -> int | list[int]:
    wide = config.find("num_global_key_value_heads") or _global_setting(config, "num_key_value_heads")
    if wide is None:
        return config.kv_heads
    return [config.kv_heads if local else wide for local in common.whole_window_pattern(config)]


_GEMMA4_CHANGED = {
    "feed_forward_length": integer("feed_forward_length", _hidden),
    "attention.head_count_kv": integer("attention.head_count_kv", _kv_heads),
    "attention.key_length": integer("attention.key_length", _global_head_size),
    "attention.value_length": integer("attention.value_length", _global_head_size),
}
_GEMMA3_KEYS = (
    *common.COMMON,
    number("final_logit_softcapping", lambda config: config.find("final_logit_softcapping") or None),
    integer("attention.sliding_window", _window),
)

FAMILIES = (
    Family(
        "gemma", ("GemmaForCausalLM",), _GEMMA2_KEYS, name_of=_without_head, changes=(NORM_PLUS_ONE,),
        vocabulary=gemma_tokenizer,
    ),
    Family(
        "gemma2",
        ("Gemma2ForCausalLM",),
        (
            *_GEMMA2_KEYS,
            number("attn_logit_softcapping", "attn_logit_softcapping"),
            number("final_logit_softcapping", "final_logit_softcapping"),
            common.WINDOW,
        ),
        names=_NAMES,
        name_of=_without_head,
        changes=(NORM_PLUS_ONE,),
        vocabulary=spaceless_tokenizer,
    ),
    Family(
        "gemma3",
        ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
        _GEMMA3_KEYS,
        names=_NAMES,
        changes=((r"embed_tokens\.weight$", _known_rows), NORM_PLUS_ONE),
        vocabulary=gemma3_tokenizer,
    ),
    Family(
        "gemma4",
        ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"),
        (
            *(_GEMMA4_CHANGED.get(key.name, key) for key in _GEMMA3_KEYS),
            integer("attention.shared_kv_layers", lambda config: config.values["num_kv_shared_layers"]),
            integer("embedding_length_per_layer_input", lambda config: config.find("hidden_size_per_layer_input") or 0),
            common.WINDOW_PATTERN,
            integer("attention.key_length_swa", "head_dim"),
            integer("attention.value_length_swa", "head_dim"),
            integer("expert_feed_forward_length", "expert_intermediate_size", "moe_intermediate_size"),
            integer("rope.dimension_count", _global_head_size),
            integer(
                "rope.dimension_count_swa",
                lambda config: int(config.size("head_dim") * config.rope.get("partial_rotary_factor", 1.0)),
            ),
        ),
        names=_NAMES,
        name_of=_scalar_name,
        changes=(
            (r"embed_tokens\.weight$", _known_rows),
            (r"router\.scale$", _router_scale),
            (r"\.per_expert_scale$", _expert_scale),
        ),
        extra=lambda config: proportional_factors(config, _global_head_size(config)),
        vocabulary=gemma4_tokenizer,
    ),
)  # fmt: skip
