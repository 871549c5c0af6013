"""Hyperparameters of a model, read from GGUF metadata into a frozen value, static under jit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from minillama.errors import FormatError, UnsupportedError
from minillama.model.architectures import FAMILIES, Family, family


class Scaling(Enum):
    """The scaling of rope beyond the context of the original training."""

    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"
    LONGROPE = "longrope"


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021), with linear, YaRN (Peng et al. 2023) or LongRoPE scaling."""

    dimension_count: int  # channels that rotate; the rest of a head passes through
    freq_base: float
    scaling: Scaling = Scaling.NONE
    factor: float = 1.0
    original_context_length: int = 0
    attn_factor: float = 1.0
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_ext_factor: float = 1.0
    yarn_log_multiplier: float = 0.0


@dataclass(frozen=True)
class Layer:
    """The kind of a layer, as far as its parameters do not show it.

    Equal kinds share one trace.
    """

    sliding_window: int = 0  # positions that attention sees; 0 for all


@dataclass(frozen=True)
class Config:
    """Sizes and constants of one model, named as in its GGUF metadata."""

    architecture: str
    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    layer_norm_rms_epsilon: float
    rope: Rope
    vocab_size: int
    sliding_window: int = 0
    attn_logit_softcapping: float = 0.0
    final_logit_softcapping: float = 0.0
    attention_scale: float = 0.0  # 0: one over the square root of key_length
    expert_count: int = 0
    expert_used_count: int = 0
    expert_weights_scale: float = 1.0
    axis: str | None = None  # of the device mesh that heads, feed-forward rows and vocabulary are sharded over

    @cached_property
    def family(self) -> Family:
        """The row of the table of architectures."""
        return FAMILIES[self.architecture]

    @property
    def query_groups(self) -> int:
        """G: query heads that share one key/value head."""
        return self.head_count // self.head_count_kv

    @property
    def query_scale(self) -> float:
        """The factor on q·k."""
        if self.attention_scale:
            return self.attention_scale
        wide = self.block_count in self.family.wide_heads
        return 1 / math.sqrt(self.embedding_length / self.head_count if wide else self.key_length)

    def layer(self, number: int) -> Layer:
        """The kind of a layer."""
        windowed = self.family.sliding_window
        return Layer(self.sliding_window if windowed is not None and windowed(number) else 0)


class _Keys:
    """Typed look-ups of `<architecture>.<key>`; errors name the key."""

    def __init__(self, metadata: Mapping[str, object], architecture: str) -> None:
        self.metadata, self.prefix = metadata, architecture

    def _find(self, key: str, default: object) -> object:
        name = f"{self.prefix}.{key}"
        value = self.metadata.get(name, default)
        if value is None:
            raise FormatError(f"metadata key {name} is missing; convert the model again with a current converter")
        if isinstance(value, np.ndarray):  # one value a layer: fine as long as all are equal
            if value.size == 0 or (value != value.flat[0]).any():
                raise UnsupportedError(f"metadata key {name} differs from layer to layer, which is not supported")
            value = value.flat[0].item()
        return value

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = 2**31) -> int:
        value = self._find(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not (least <= value <= most or value == default):
            raise FormatError(
                f"metadata key {self.prefix}.{key} is {value!r}; expected an integer from {least} to {most}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._find(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FormatError(f"metadata key {self.prefix}.{key} is {value!r}; expected a finite number")
        return float(value)


def read_config(metadata: Mapping[str, object], vocab_size: int) -> Config:
    """Config of a file's metadata; `vocab_size` is the number of rows of its token embedding.

    Raises UnsupportedError for an unknown architecture or rope scaling, FormatError for a missing or impossible value.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise FormatError("metadata key general.architecture is missing; this is not a language model's GGUF file")
    row = family(architecture)
    keys = _Keys(metadata, architecture)
    width, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    kv_heads = keys.integer("attention.head_count_kv", heads)
    key_length = keys.integer("attention.key_length", width // heads)
    experts = keys.integer("expert_count", 0)
    used = keys.integer("expert_used_count", 0)
    if heads % kv_heads:
        raise FormatError(f"{heads} query heads do not divide among {kv_heads} key/value heads")
    if experts and not 1 <= used <= experts:
        raise FormatError(f"metadata key {architecture}.expert_used_count is {used}; expected 1 to {experts}")
    return Config(
        architecture=architecture,
        context_length=keys.integer("context_length"),
        embedding_length=width,
        block_count=keys.integer("block_count") - keys.integer("nextn_predict_layers", 0),
        head_count=heads,
        head_count_kv=kv_heads,
        key_length=key_length,
        value_length=keys.integer("attention.value_length", key_length),
        layer_norm_rms_epsilon=keys.number("attention.layer_norm_rms_epsilon"),
        rope=_read_rope(keys, key_length),
        vocab_size=vocab_size,
        sliding_window=keys.integer("attention.sliding_window") if row.sliding_window else 0,
        attn_logit_softcapping=keys.number("attn_logit_softcapping", 0.0),
        final_logit_softcapping=keys.number("final_logit_softcapping", 0.0),
        attention_scale=keys.number("attention.scale", 0.0),
        expert_count=experts,
        expert_used_count=used,
        expert_weights_scale=keys.number("expert_weights_scale", 0.0) or 1.0,
    )


def _read_rope(keys: _Keys, key_length: int) -> Rope:
    name = keys.metadata.get(f"{keys.prefix}.rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", 0.0) or keys.number("rope.scale_linear", 0.0) or 1.0
    try:
        scaling = Scaling(name)
    except ValueError:
        known = ", ".join(s.value for s in Scaling)
        raise UnsupportedError(
            f"unsupported rope scaling {name!r} ({keys.prefix}.rope.scaling.type); supported: {known}"
        ) from None
    rotating = keys.integer("rope.dimension_count", key_length)
    if rotating > key_length or rotating % 2:
        raise FormatError(
            f"metadata key {keys.prefix}.rope.dimension_count is {rotating}; expected an even number up to {key_length}"
        )
    return Rope(
        dimension_count=rotating,
        freq_base=keys.number("rope.freq_base", 10000.0),
        scaling=scaling,
        factor=factor,
        original_context_length=keys.integer("rope.scaling.original_context_length", 0),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
        yarn_beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        yarn_beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        yarn_ext_factor=keys.number("rope.scaling.yarn_ext_factor", 1.0),
        yarn_log_multiplier=keys.number("rope.scaling.yarn_log_multiplier", 0.0),
    )
