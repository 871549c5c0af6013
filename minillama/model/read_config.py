"""Read a `Config` from GGUF metadata, with llama.cpp's defaults of optional keys (docs/gguf-keys.md)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from minillama.errors import FormatError, UnsupportedError, quoted
from minillama.model.architectures import Family, family
from minillama.model.config import Config, Rope, Scaling
from minillama.model.metadata_keys import MetadataKeys

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # llama.cpp's


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
    width, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    kv_heads = keys.integer("attention.head_count_kv", heads)
    key_length = keys.integer("attention.key_length", width // heads)
    if heads % kv_heads:
        raise FormatError(f"{heads} query heads do not divide among {kv_heads} key/value heads")
    experts, used = _read_experts(keys)
    rope, blocks = _read_rope(keys, key_length), keys.integer("block_count", most=MAX_LAYERS)
    blocks -= keys.integer("nextn_predict_layers", 0, least=0, most=blocks - 1)
    if not keys.flag("attention.causal", True):
        raise UnsupportedError(f"{keys.prefix}.attention.causal is false: an embedding model, which writes no text")
    config = Config(
        architecture=keys.prefix,
        context_length=keys.integer("context_length"),
        embedding_length=width,
        block_count=blocks,
        head_count=heads,
        head_count_kv=kv_heads,
        key_length=key_length,
        value_length=keys.integer("attention.value_length", width // heads),
        layer_norm_rms_epsilon=keys.number("attention.layer_norm_rms_epsilon"),
        rope=rope,
        vocab_size=vocab_size,
        attn_logit_softcapping=_read_softcap(keys, "attn_logit_softcapping", row.attn_softcap),
        final_logit_softcapping=_read_softcap(keys, "final_logit_softcapping", row.final_softcap),
        expert_count=experts,
        expert_used_count=used,
        rotates_halves=row.mrope_rotates_halves and _has_rope_sections(keys),
    )
    return config if row.window_period is None else _with_windows(keys, row, row.window_period, config)


def _read_experts(keys: MetadataKeys) -> tuple[int, int]:
    """Number of experts, and of those that a token uses; 0 for none."""
    experts, used = keys.integer("expert_count", 0, least=0, most=MAX_EXPERTS), keys.integer("expert_used_count", 0)
    if experts and not 1 <= used <= experts:
        raise FormatError(f"metadata key {keys.prefix}.expert_used_count is {used}; expected 1 to {experts}")
    if (groups := keys.integer("expert_group_count", 0, least=0, most=MAX_EXPERTS)) > 1:
        raise UnsupportedError(f"metadata key {keys.prefix}.expert_group_count is {groups}, which is not supported")
    return experts, used


def _read_softcap(keys: MetadataKeys, key: str, default: float | None) -> float:
    """A soft cap; 0, whatever the file says, in a family without one."""
    return 0.0 if default is None else keys.number(key, default)


def _has_rope_sections(keys: MetadataKeys) -> bool:
    """Whether the file has M-RoPE sections (Qwen2-VL).

    In a text, all sections rotate by the same position.
    """
    sections = keys.find("rope.dimension_sections", 0)
    counts = np.atleast_1d(np.asarray(sections))
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or counts.size > 4 or (counts < 0).any():
        raise FormatError(
            f"metadata key {keys.prefix}.rope.dimension_sections is {quoted(sections)}; expected up to four integers"
        )
    return bool(counts[:2].all())


def _with_windows(keys: MetadataKeys, row: Family, period: int, config: Config) -> Config:
    """The config of a family with sliding-window layers."""
    lengths = {
        "attention.key_length_swa": config.key_length,
        "attention.value_length_swa": config.value_length,
        "rope.dimension_count_swa": config.rope.dimension_count,
    }
    for key, length in lengths.items():
        if (found := keys.integer(key, length)) != length:
            raise UnsupportedError(
                f"metadata key {keys.prefix}.{key} is {found}, but {length} in layers without a window; not supported"
            )
    return replace(
        config,
        sliding_window=keys.integer("attention.sliding_window", row.default_window, 0),
        rope_local=_read_local_rope(keys, row, config.rope),
        window_layers=_read_window_layers(keys, period, config.block_count),
    )


def _read_local_rope(keys: MetadataKeys, row: Family, rope: Rope) -> Rope | None:
    """Rope of the layers with a sliding window, or None if it is the same."""
    if row.rope_local_freq_base is not None:  # not scaled
        base = keys.number("rope.freq_base_swa", row.rope_local_freq_base, above=0.0)
        return Rope(rope.dimension_count, base, attn_factor=rope.attn_factor)
    base = keys.number("rope.freq_base_swa", rope.freq_base, above=0.0)
    return None if base == rope.freq_base else replace(rope, freq_base=base)


def _read_window_layers(keys: MetadataKeys, period: int, blocks: int) -> tuple[bool, ...]:
    """Whether each layer has the sliding window, by file or family.

    The key sliding_window_pattern has a value for each layer, or a number n: every n-th layer attends to all positions.
    """
    name = "attention.sliding_window_pattern"
    pattern = keys.find(name)
    if isinstance(pattern, np.ndarray):
        if pattern.dtype.kind not in "bui" or len(pattern) < blocks:
            raise FormatError(
                f"metadata key {keys.prefix}.{name} has {len(pattern)} values; expected one for each of {blocks} layers"
            )
        return tuple(bool(value) for value in pattern[:blocks])
    period = keys.integer(name, period, least=0)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(blocks))


def _read_rope(keys: MetadataKeys, key_length: int) -> Rope:
    name = keys.find("rope.scaling.type", "linear")
    try:
        scaling = Scaling(name)
    except ValueError:
        known = ", ".join(s.value for s in Scaling)
        raise UnsupportedError(
            f"unsupported rope scaling {quoted(name)} ({keys.prefix}.rope.scaling.type); supported: {known}"
        ) from None
    rotating = keys.integer("rope.dimension_count", key_length)
    if rotating > key_length or rotating % 2:
        raise FormatError(
            f"metadata key {keys.prefix}.rope.dimension_count is {rotating}; expected an even number up to {key_length}"
        )
    return Rope(
        dimension_count=rotating,
        freq_base=keys.number("rope.freq_base", 10000.0, above=1.0 if scaling is Scaling.YARN else 0.0),
        scaling=scaling,
        factor=_read_factor(keys),
        original_context_length=keys.integer("rope.scaling.original_context_length", keys.integer("context_length")),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )


def _read_factor(keys: MetadataKeys) -> float:
    """The factor of the context; scale_linear is its old name, and 0 is none."""
    key = "rope.scale_linear" if keys.find("rope.scaling.factor") is None else "rope.scaling.factor"
    if (factor := keys.number(key, 0.0)) < 0:
        raise FormatError(f"metadata key {keys.prefix}.{key} is {quoted(factor)}; expected a number above 0")
    return factor or 1.0
