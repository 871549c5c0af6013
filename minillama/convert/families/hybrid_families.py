"""Models with Mamba-2 layers: Granite 4 and Nemotron-H."""

from collections.abc import Callable

from minillama.convert.families.common_keys import CONTEXT
from minillama.convert.families.llama_families import (
    ADJACENT_PAIRS,
    GRANITE_EXPERTS,
    GRANITE_MOE_KEYS,
    LLAMA_KEYS,
    without_head_size,
)
from minillama.convert.family_row import Family, Key, flag, integer, number
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import padded_tokenizer, sentencepiece_or_byte_pairs
from minillama.convert.weights import mamba_layers as mamba
from minillama.errors import FormatError

_ATTENTION = {"attention", "full_attention", "*"}
_MAMBA = {"mamba", "linear_attention", "M"}


def layer_kinds(config: FolderConfig) -> list[str]:
    """The kind of each layer, in the words or letters of config.json."""
    found = config.find("layer_types", "layers_block_type", "hybrid_override_pattern")
    if found is None and (period := config.find("attn_layer_period")):
        offset = config.find("attn_layer_offset") or 0
        found = ["attention" if i % period == offset else "mamba" for i in range(config.own_layers)]
    if found is None:
        attention = set(config.need("attn_layer_indices"))
        found = ["attention" if i in attention else "mamba" for i in range(config.own_layers)]
    if len(found) != config.layers:
        raise FormatError(f"config.json names the kinds of {len(found)} layers, not of {config.layers}")
    return list(found)


def has_mamba(config: FolderConfig) -> bool:
    return any(kind in _MAMBA for kind in layer_kinds(config))


def _kv_heads(config: FolderConfig) -> list[int]:
    """Heads of attention layers; 0 for the others."""
    return [config.kv_heads if kind in _ATTENTION else 0 for kind in layer_kinds(config)]


def _inner(config: FolderConfig) -> int:
    return config.size("mamba_num_heads", "mamba_n_heads") * config.size("mamba_head_dim", "mamba_d_head")


_MAMBA_KEYS = (
    integer("ssm.conv_kernel", "conv_kernel", "mamba_d_conv"),
    integer("ssm.state_size", "ssm_state_size", "mamba_d_state"),
    integer("ssm.group_count", "n_groups", "mamba_n_groups"),
    integer("ssm.inner_size", _inner),
    integer("ssm.time_step_rank", "mamba_num_heads", "mamba_n_heads"),
)
_MAMBA_CHANGES = (
    (r"(mamba|mixer)\.A_log$", mamba.decay_column),
    (r"(mamba|mixer)\.D$", mamba.as_column),
    (r"(mamba|mixer)\.conv1d\.weight$", mamba.without_middle_axis),
    (r"(mamba|mixer)\.norm\.weight$", mamba.grouped_norm),
)
_MORE_KEYS = {
    "context_length": integer("context_length", lambda config: 2**20 if has_mamba(config) else CONTEXT.value(config)),
    "attention.head_count_kv": integer("attention.head_count_kv", _kv_heads),
}
_FINETUNED = flag("rope.scaling.finetuned", lambda config: not has_mamba(config))  # false: attention without RoPE


def _time_step_bias(name: str, config: FolderConfig) -> str:
    return name.replace(".dt_bias", ".dt_proj.bias")


def _granite(name: str, keys: tuple[Key, ...], when: Callable[[FolderConfig], bool]) -> Family:
    """A row of Granite 4; without Mamba layers its architecture is that of Granite 3."""
    return Family(
        name,
        ("GraniteMoeHybridForCausalLM",),
        (*(_MORE_KEYS.get(key.name, key) for key in keys), *_MAMBA_KEYS, _FINETUNED),
        name_of=_time_step_bias,
        changes=(*ADJACENT_PAIRS, *GRANITE_EXPERTS, *_MAMBA_CHANGES),
        adjust=without_head_size,
        vocabulary=sentencepiece_or_byte_pairs if name != "granitehybrid" else padded_tokenizer,
        when=when,
    )


def has_experts(config: FolderConfig) -> bool:
    return bool(config.find("num_experts_per_tok", "num_experts_per_token"))


def _nemotron_name(name: str, config: FolderConfig) -> str:
    if name.startswith("model.layers.") and ".mixer." in name:
        name = name.replace("model.", "backbone.", 1)
    return _time_step_bias(name, config)


def _nemotron_hidden(config: FolderConfig) -> list[int]:
    """Sizes of the MLPs, or of one expert; 0 in the other layers."""
    if has_experts(config):
        return [config.size("moe_intermediate_size") if kind in ("moe", "E") else 0 for kind in layer_kinds(config)]
    return [config.size("intermediate_size") if kind in ("mlp", "-") else 0 for kind in layer_kinds(config)]


def _without_prediction(name: str, config: FolderConfig) -> str | None:
    return None if name.startswith("mtp.") else _nemotron_name(name, config)


_NEMOTRON_MORE = {
    **_MORE_KEYS,
    "feed_forward_length": integer("feed_forward_length", _nemotron_hidden),
    "rope.dimension_count": integer("rope.dimension_count", lambda config: config.size("hidden_size") // config.heads),
}
_NEMOTRON_KEYS = (
    *(
        _NEMOTRON_MORE.get(key.name, key)
        for key in LLAMA_KEYS
        if key.name not in ("attention.key_length", "attention.value_length")
    ),
    *_MAMBA_KEYS,
    _FINETUNED,
    integer("attention.key_length", lambda config: config.size("head_dim", "attention_head_dim")),
    integer("attention.value_length", lambda config: config.size("head_dim", "attention_head_dim")),
)
_NEMOTRON_EXPERT_KEYS = (
    integer("expert_used_count", "num_experts_per_tok"),
    integer("expert_feed_forward_length", "moe_intermediate_size"),
    integer("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"),
    integer("expert_count", "n_routed_experts"),
    integer("expert_shared_count", "n_shared_experts"),
    flag("expert_weights_norm", "norm_topk_prob"),
    number("expert_weights_scale", "routed_scaling_factor"),
    integer("expert_group_count", "n_group"),
    integer("moe_latent_size", "moe_latent_size"),
)


def _nemotron(name: str, keys: tuple[Key, ...], when: Callable[[FolderConfig], bool]) -> Family:
    return Family(
        name,
        ("NemotronHForCausalLM",),
        keys,
        name_of=_without_prediction,
        changes=(*ADJACENT_PAIRS, *_MAMBA_CHANGES),
        experts=("down_proj", "up_proj"),
        vocabulary=padded_tokenizer,
        when=when,
    )


FAMILIES = (
    _granite("granitehybrid", GRANITE_MOE_KEYS, has_mamba),
    _granite("granitemoe", GRANITE_MOE_KEYS, has_experts),
    _granite("granite", GRANITE_MOE_KEYS, lambda config: True),
    _nemotron("nemotron_h_moe", (*_NEMOTRON_KEYS, *_NEMOTRON_EXPERT_KEYS), has_experts),
    _nemotron("nemotron_h", _NEMOTRON_KEYS, lambda config: True),
)
