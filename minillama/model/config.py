"""Hyperparameters of a model: a frozen value, static under jit."""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from minillama.model.architectures import FAMILIES, Family, RopeStyle


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
    rope_local: Rope | None = None  # of the layers with a sliding window; None: as the others
    window_layers: tuple[bool, ...] = ()  # whether each layer has the sliding window; (): none has
    rotates_halves: bool = False  # whatever the family's style is
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
    def rope_style(self) -> RopeStyle:
        """The channel pairs that rotate together."""
        return RopeStyle.HALF if self.rotates_halves else self.family.rope_style

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
