"""Read RoPE from GGUF metadata: base, scaling, and those of layers with a window."""

from dataclasses import replace

import numpy as np

from minillama.errors import FormatError, UnsupportedError, quoted
from minillama.model.architectures import Family
from minillama.model.config import Rope, Scaling
from minillama.model.reading.metadata_keys import MetadataKeys

LARGEST_ALPHA = 1e6  # of Hunyuan's base; its files have 1000


def read_ropes(keys: MetadataKeys, row: Family, key_length: int, local_length: int | None) -> tuple[Rope, ...]:
    """Rope of the layers, then that of layers with a sliding window if it differs.

    key_length, local_length: sizes of a key without and with a window; None where no layer has one.
    """
    rope = _read_rope(keys, row, key_length)
    local = None if local_length is None else _read_local_rope(keys, row, rope, local_length)
    return (rope,) if local is None else (rope, local)


def _read_rope(keys: MetadataKeys, row: Family, key_length: int) -> Rope:
    name = keys.find("rope.scaling.type", "linear")
    try:
        scaling = Scaling(name)
    except ValueError:
        known = ", ".join(s.value for s in Scaling)
        raise UnsupportedError(
            f"unsupported rope scaling {quoted(name)} ({keys.prefix}.rope.scaling.type); supported: {known}"
        ) from None
    rope = Rope(
        dimension_count=_read_rotating(keys, "rope.dimension_count", key_length),
        freq_base=keys.number("rope.freq_base", 10000.0, above=1.0 if scaling is Scaling.YARN else 0.0),
        scaling=scaling,
        factor=_read_factor(keys),
        original_context_length=keys.integer("rope.scaling.original_context_length", keys.integer("context_length")),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )
    if row.yarn_keys:
        rope = replace(
            rope,
            log_multiplier=_read_log_multiplier(keys, row),
            beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0, above=0.0),
            beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0, above=0.0),
        )
    alpha = keys.number("rope.scaling.alpha", 0.0) if row.rope_alpha else 0.0
    if alpha > LARGEST_ALPHA:
        raise FormatError(f"metadata key {keys.prefix}.rope.scaling.alpha is {alpha:g}; at most {LARGEST_ALPHA:g}")
    if alpha > 0 and key_length > 2:
        rope = replace(rope, freq_base=rope.freq_base * alpha ** (key_length / (key_length - 2)))
    return rope


def _read_log_multiplier(keys: MetadataKeys, row: Family) -> float:
    """YaRN's multiplier.

    In latent attention its value acts on the scores, and the magnitude of the rotation is 1.
    """
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    return float(multiplier != 0) if row.latent else multiplier


def _read_rotating(keys: MetadataKeys, key: str, key_length: int) -> int:
    """Channels of a key that rotate; all by default."""
    rotating = keys.integer(key, key_length)
    if rotating > key_length or rotating % 2:
        raise FormatError(f"metadata key {keys.prefix}.{key} is {rotating}; expected an even number up to {key_length}")
    return rotating


def _read_factor(keys: MetadataKeys) -> float:
    """The factor of the context; scale_linear is its old name, and 0 is none."""
    key = "rope.scale_linear" if keys.find("rope.scaling.factor") is None else "rope.scaling.factor"
    if (factor := keys.number(key, 0.0)) < 0:
        raise FormatError(f"metadata key {keys.prefix}.{key} is {quoted(factor)}; expected a number above 0")
    return factor or 1.0


def _read_local_rope(keys: MetadataKeys, row: Family, rope: Rope, key_length: int) -> Rope | None:
    """Rope of the layers with a sliding window, or None if it is the same."""
    if row.rope_local_freq_base is not None:  # not scaled
        base = keys.number("rope.freq_base_swa", row.rope_local_freq_base or rope.freq_base, above=0.0)
        factor = rope.attn_factor if row.rope_local_attn_factor else 1.0
        rotating = rope.dimension_count
        if row.local_heads:
            rotating = _read_rotating(keys, "rope.dimension_count_swa", key_length)
        return Rope(rotating, base, attn_factor=factor, has_factors=False)
    base = keys.number("rope.freq_base_swa", rope.freq_base, above=0.0)
    return None if base == rope.freq_base else replace(rope, freq_base=base, has_factors=False)


def has_rope_sections(keys: MetadataKeys) -> bool:
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
