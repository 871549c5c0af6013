"""Hyperparameters of a model, read from GGUF metadata into a frozen value, static under jit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np

from minillama.errors import FormatError, UnsupportedError, quoted
from minillama.model.architectures import FAMILIES, Family, family

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # llama.cpp's


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
    rope_local: Rope | None = None  # of the layers with a sliding window; None: as the others
    window_layers: tuple[bool, ...] = ()  # whether each layer has the sliding window; (): none has
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
        return Layer(self.sliding_window if self.window_layers and self.window_layers[number] else 0)


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
                f"metadata key {self.prefix}.{key} is {quoted(value)}; expected an integer from {least} to {most}"
            )
        return value

    def number(self, key: str, default: float | None = None, above: float = -math.inf) -> float:
        value = self._find(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FormatError(f"metadata key {self.prefix}.{key} is {quoted(value)}; expected a finite number")
        if value <= above:
            raise FormatError(f"metadata key {self.prefix}.{key} is {quoted(value)}; expected a number above {above:g}")
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
    experts = keys.integer("expert_count", 0, most=MAX_EXPERTS)
    used = keys.integer("expert_used_count", 0)
    if heads % kv_heads:
        raise FormatError(f"{heads} query heads do not divide among {kv_heads} key/value heads")
    if experts and not 1 <= used <= experts:
        raise FormatError(f"metadata key {architecture}.expert_used_count is {used}; expected 1 to {experts}")
    rope, blocks = _read_rope(keys, key_length), keys.integer("block_count", most=MAX_LAYERS)
    blocks -= keys.integer("nextn_predict_layers", 0, most=blocks - 1)
    return Config(
        architecture=architecture,
        context_length=keys.integer("context_length"),
        embedding_length=width,
        block_count=blocks,
        head_count=heads,
        head_count_kv=kv_heads,
        key_length=key_length,
        value_length=keys.integer("attention.value_length", key_length),
        layer_norm_rms_epsilon=keys.number("attention.layer_norm_rms_epsilon"),
        rope=rope,
        vocab_size=vocab_size,
        sliding_window=keys.integer("attention.sliding_window", row.default_window, 0)
        if row.window_period is not None
        else 0,
        attn_logit_softcapping=keys.number("attn_logit_softcapping", row.default_softcaps[0]),
        final_logit_softcapping=keys.number("final_logit_softcapping", row.default_softcaps[1]),
        rope_local=_read_local_rope(keys, row, rope),
        window_layers=_read_window_layers(keys, row.window_period, blocks) if row.window_period is not None else (),
        attention_scale=keys.number("attention.scale", 0.0),
        expert_count=experts,
        expert_used_count=used,
        expert_weights_scale=keys.number("expert_weights_scale", 0.0) or 1.0,
    )


def _read_local_rope(keys: _Keys, row: Family, rope: Rope) -> Rope | None:
    """Rope of the layers with a sliding window, or None if it is the same."""
    if row.rope_local_freq_base is not None:  # not scaled
        base = keys.number("rope.freq_base_swa", row.rope_local_freq_base, above=0.0)
        return Rope(rope.dimension_count, base)
    if row.window_period is None:
        return None
    base = keys.number("rope.freq_base_swa", rope.freq_base, above=0.0)
    return None if base == rope.freq_base else replace(rope, freq_base=base)


def _read_window_layers(keys: _Keys, period: int, blocks: int) -> tuple[bool, ...]:
    """Whether each layer has the sliding window, by file or family.

    The key sliding_window_pattern has a value for each layer, or a number n: every n-th layer attends to all positions.
    """
    name = "attention.sliding_window_pattern"
    pattern = keys.metadata.get(f"{keys.prefix}.{name}")
    if isinstance(pattern, np.ndarray):
        if pattern.dtype.kind not in "bui" or len(pattern) < blocks:
            raise FormatError(
                f"metadata key {keys.prefix}.{name} has {len(pattern)} values; expected one for each of {blocks} layers"
            )
        return tuple(bool(value) for value in pattern[:blocks])
    period = keys.integer(name, period, least=0)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(blocks))


def _read_rope(keys: _Keys, key_length: int) -> Rope:
    name = keys.metadata.get(f"{keys.prefix}.rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", 0.0) or keys.number("rope.scale_linear", 0.0) or 1.0
    try:
        scaling = Scaling(name)
    except ValueError:
        known = ", ".join(s.value for s in Scaling)
        raise UnsupportedError(
            f"unsupported rope scaling {quoted(name)} ({keys.prefix}.rope.scaling.type); supported: {known}"
        ) from None
    if factor <= 0:
        raise FormatError(
            f"metadata key {keys.prefix}.rope.scaling.factor is {quoted(factor)}; expected a number above 0"
        )
    yarn = scaling is Scaling.YARN
    rotating = keys.integer("rope.dimension_count", key_length)
    if rotating > key_length or rotating % 2:
        raise FormatError(
            f"metadata key {keys.prefix}.rope.dimension_count is {rotating}; expected an even number up to {key_length}"
        )
    return Rope(
        dimension_count=rotating,
        freq_base=keys.number("rope.freq_base", 10000.0, above=1.0 if yarn else 0.0),
        scaling=scaling,
        factor=factor,
        original_context_length=keys.integer("rope.scaling.original_context_length", keys.integer("context_length")),
        attn_factor=keys.number("rope.scaling.attn_factor", 1.0),
        yarn_beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0, above=0.0 if yarn else -math.inf),
        yarn_beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0, above=0.0 if yarn else -math.inf),
        yarn_ext_factor=keys.number("rope.scaling.yarn_ext_factor", 1.0),
        yarn_log_multiplier=keys.number("rope.scaling.yarn_log_multiplier", 0.0),
    )
