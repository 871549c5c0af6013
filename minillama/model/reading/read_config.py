"""Read a `Config` from GGUF metadata, with llama.cpp's defaults of optional keys (docs/gguf-keys.md)."""

import math
from collections.abc import Mapping

from minillama.errors import FormatError, UnsupportedError
from minillama.model.architectures import Family, Gating, Scales, family
from minillama.model.config import Config, Experts, Rope
from minillama.model.reading.head_lengths import check_equal_heads, head_lengths, local_head_lengths
from minillama.model.reading.metadata_keys import MetadataKeys
from minillama.model.reading.read_layers import read_layers, read_windows
from minillama.model.reading.read_rope import has_rope_sections, read_ropes

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # llama.cpp's
GATINGS = (Gating.SOFTMAX, Gating.SIGMOID, Gating.SOFTMAX_OF_CHOSEN)  # of expert_gating_func 1, 2 and 3


def read_config(metadata: Mapping[str, object], vocab_size: int) -> Config:
    """Config of a file's metadata; `vocab_size` is the number of rows of its token embedding.

    Raises UnsupportedError for an unknown architecture or variant, FormatError for a missing or impossible value.
    """
    return config_from_keys(metadata_keys(metadata), vocab_size)


def metadata_keys(metadata: Mapping[str, object]) -> MetadataKeys:
    """The keys of a file's architecture; raises FormatError if it names none."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise FormatError("metadata key general.architecture is missing; this is not a language model's GGUF file")
    return MetadataKeys(metadata, architecture)


def config_from_keys(keys: MetadataKeys, vocab_size: int) -> Config:
    """Config of a file's keys; see `read_config`."""
    row = family(keys.prefix)
    width, blocks = keys.integer("embedding_length"), keys.integer("block_count", most=MAX_LAYERS)
    blocks -= keys.integer("nextn_predict_layers", 0, least=0, most=blocks - 1)
    if not keys.flag("attention.causal", True):
        raise UnsupportedError(f"{keys.prefix}.attention.causal is false: an embedding model, which writes no text")
    lengths = head_lengths(keys, width, keys.integers("attention.head_count", blocks)[0])
    local_lengths, windows = local_head_lengths(keys, row, lengths), read_windows(keys, row, blocks)
    ropes = read_ropes(keys, row, lengths.key, local_lengths.key if any(windows) else None)
    if row.window_period is not None and not row.local_heads:
        check_equal_heads(keys, lengths, ropes[0].dimension_count)
    embedding, residual, logit = _read_scales(keys, row, width, blocks)
    temperature = _read_temperature(keys, row, ropes[0])
    return Config(
        architecture=keys.prefix,
        context_length=keys.integer("context_length"),
        embedding_length=width,
        layers=read_layers(keys, row, windows, lengths, local_lengths, ropes),
        layer_norm_rms_epsilon=keys.number(f"attention.layer_norm_{'' if row.layer_norm else 'rms_'}epsilon"),
        ropes=ropes,
        vocab_size=vocab_size,
        attn_logit_softcapping=_read_softcap(keys, "attn_logit_softcapping", row.attn_softcap),
        final_logit_softcapping=_read_softcap(keys, "final_logit_softcapping", row.final_softcap),
        embedding_scale=embedding,
        residual_scale=residual,
        logit_scale=logit,
        temperature_scale=temperature[0],
        temperature_length=temperature[1],
        per_layer_length=_read_per_layer_length(keys, row),
        experts=_read_experts(keys, row, (blocks, vocab_size)),
        rotates_halves=row.mrope_rotates_halves and has_rope_sections(keys),
    )


def _read_temperature(keys: MetadataKeys, row: Family, rope: Rope) -> tuple[float, int]:
    """The scale of the temperature by position, 0 for none, and its unit of length."""
    scale = keys.number("attention.temperature_scale", 0.0) if row.yarn_keys else 0.0
    if not row.latent:
        return scale, rope.original_context_length
    return scale, keys.integer("attention.temperature_length") if scale else 0


def _read_experts(keys: MetadataKeys, row: Family, model: tuple[int, int]) -> Experts:
    """The choice of experts; none where the file has none.

    model: numbers of layers and of tokens, which tell some models apart.
    """
    experts, used = keys.integer("expert_count", 0, least=0, most=MAX_EXPERTS), keys.integer("expert_used_count", 0)
    groups = keys.integer("expert_group_count", 0, least=0, most=MAX_EXPERTS)
    groups_used = keys.integer("expert_group_used_count", 0, least=0, most=MAX_EXPERTS)
    gating, normalise, scale = row.gating, row.normalise_experts, 1.0
    if model in row.sigmoid_models:
        gating = Gating.SIGMOID
    if "expert_gating_func" in row.expert_keys:
        number = keys.integer("expert_gating_func", 0, least=0, most=len(GATINGS))
        gating = GATINGS[number - 1] if number else gating
    if "expert_weights_norm" in row.expert_keys:
        normalise = keys.flag("expert_weights_norm", row.normalise_experts)
    if "expert_weights_scale" in row.expert_keys:
        scale = keys.number("expert_weights_scale", 1.0) or 1.0
    if experts and not 1 <= used <= experts:
        raise FormatError(f"metadata key {keys.prefix}.expert_used_count is {used}; expected 1 to {experts}")
    if groups > 1:
        _check_groups(keys, experts, used, groups, groups_used)
    width = _read_expert_width(keys, model[0]) if experts else 0
    return Experts(experts, used, gating, normalise, scale, max(groups, 1), max(groups_used, 1), width)


def _read_expert_width(keys: MetadataKeys, blocks: int) -> int:
    """The largest feed-forward size of an expert, to predict memory; 0 if unknown."""
    usual = max(keys.integers("feed_forward_length", blocks, 0, least=0))
    return max(keys.integers("expert_feed_forward_length", blocks, usual, least=0))


def _check_groups(keys: MetadataKeys, experts: int, used: int, groups: int, groups_used: int) -> None:
    """Raise FormatError for groups that do not divide the experts or hold too few."""
    if experts % groups or experts // groups < 2:
        raise FormatError(
            f"metadata key {keys.prefix}.expert_group_count is {groups}; expected a divisor of the {experts} experts "
            "that leaves two or more a group"
        )
    if not 1 <= groups_used <= groups or groups_used * (experts // groups) < used:
        raise FormatError(
            f"metadata key {keys.prefix}.expert_group_used_count is {groups_used}; expected 1 to {groups}, "
            f"with room for {used} experts"
        )


def _read_scales(keys: MetadataKeys, row: Family, width: int, blocks: int) -> tuple[float, float, float]:
    """Factors on embeddings, on the outputs of branches, and on logits."""
    if row.scales is Scales.GRANITE:
        embedding, residual = keys.number("embedding_scale", 1.0), keys.number("residual_scale", 1.0)
        return embedding or 1.0, residual or 1.0, 1 / (keys.number("logit_scale") or 1.0)
    if row.scales is Scales.MINICPM:
        embedding = keys.number("embedding_scale", 12.0)
        residual = keys.number("residual_scale", 1.4 / math.sqrt(blocks))
        return embedding or 1.0, residual or 1.0, 1 / (keys.number("logit_scale", 256 / width) or 1.0)
    logit = keys.number("logit_scale") or 1.0 if row.scales is Scales.LOGITS else 1.0
    return math.sqrt(width) if row.scale_embeddings else 1.0, 1.0, logit


def _read_per_layer_length(keys: MetadataKeys, row: Family) -> int:
    """The size of the embedding that each layer has of a token; 0 for none."""
    name = "embedding_length_per_layer_input"
    return keys.integer(name, 0, least=0) if name in row.layer_keys else 0


def _read_softcap(keys: MetadataKeys, key: str, default: float | None) -> float:
    """A soft cap; 0, whatever the file says, in a family without one."""
    return 0.0 if default is None else keys.number(key, default)
