"""Hyperparameters of a model: a frozen value, static under jit."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from minillama.model.architectures import FAMILIES, Family, Gating, RopeStyle
from minillama.model.layer_kinds import Attention, Layer, attention_of


class Scaling(Enum):
    """The scaling of rope beyond the context of the original training."""

    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"
    LONGROPE = "longrope"


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021), with linear, YaRN (Peng et al. 2023) or LongRoPE scaling.

    log_multiplier: YaRN's magnitude is divided by 1 + 0.1 log_multiplier ln(factor).
    has_factors: whether the frequency factors of the file apply, if it has any.
    """

    dimension_count: int  # channels that rotate; the rest of a head passes through
    freq_base: float
    scaling: Scaling = Scaling.NONE
    factor: float = 1.0
    original_context_length: int = 0
    attn_factor: float = 1.0
    log_multiplier: float = 0.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    has_factors: bool = True


@dataclass(frozen=True)
class Experts:
    """The choice of experts by a router; see `layers/routing.py`.

    normalise: divide the weights of the chosen experts by their sum; scale: then multiply them.
    groups: experts are chosen from the `groups_used` best groups only.
    feed_forward_length: F of an expert; 0 if the file does not say.
    """

    count: int = 0
    used: int = 0
    gating: Gating = Gating.SOFTMAX
    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1
    feed_forward_length: int = 0


@dataclass(frozen=True)
class Config:
    """Sizes and constants of one model, named as in its GGUF metadata.

    temperature_scale: queries beyond `temperature_length` C are multiplied by 1 + scale ln(floor(position / C) + 1).
    """

    architecture: str
    context_length: int
    embedding_length: int
    layers: tuple[Layer, ...]
    layer_norm_rms_epsilon: float
    ropes: tuple[Rope, ...]
    vocab_size: int
    attn_logit_softcapping: float = 0.0
    final_logit_softcapping: float = 0.0
    embedding_scale: float = 1.0  # factor on token embeddings
    residual_scale: float = 1.0  # factor on the outputs of attention and feed-forward networks
    logit_scale: float = 1.0  # factor on logits
    temperature_scale: float = 0.0
    temperature_length: int = 0
    per_layer_length: int = 0  # P: size of the embedding that each layer has of a token; 0 for none
    experts: Experts = Experts()
    rotates_halves: bool = False  # whatever the family's style is
    axis: str | None = None  # of the device mesh that heads, feed-forward rows and vocabulary are sharded over

    @cached_property
    def family(self) -> Family:
        """The row of the table of architectures."""
        return FAMILIES[self.architecture]

    @property
    def block_count(self) -> int:
        """L: number of layers."""
        return len(self.layers)

    @cached_property
    def attention(self) -> Attention:
        """The first attention to a cache; one of no heads in a model without."""
        layers = (attention_of(layer) for layer in self.layers)
        return next((layer for layer in layers if layer is not None), Attention(0, 0, 0, 0, 1.0))

    @cached_property
    def is_recurrent(self) -> bool:
        """Whether the state of a layer cannot go back to an earlier position."""
        return any(layer.is_recurrent for layer in self.layers)

    @property
    def head_count(self) -> int:
        """N: query heads of the first attention layer."""
        return self.attention.head_count

    @property
    def head_count_kv(self) -> int:
        """K: key/value heads of the first attention layer."""
        return self.attention.head_count_kv

    @property
    def key_length(self) -> int:
        """H: size of a key in the first attention layer."""
        return self.attention.key_length

    @property
    def value_length(self) -> int:
        """Size of a value in the first attention layer."""
        return self.attention.value_length

    @cached_property
    def sliding_window(self) -> int:
        """The window of the layers that have one; 0 for none."""
        return max((layer.sliding_window for layer in self.layers if isinstance(layer, Attention)), default=0)

    @property
    def query_groups(self) -> int:
        """G: query heads that share one key/value head."""
        return self.head_count // self.head_count_kv

    @property
    def expert_count(self) -> int:
        """E: experts of a layer; 0 for none."""
        return self.experts.count

    @property
    def expert_used_count(self) -> int:
        """U: experts that a token uses."""
        return self.experts.used

    @property
    def rope(self) -> Rope:
        """Rope of the layers without a sliding window."""
        return self.ropes[0]

    @property
    def rope_local(self) -> Rope | None:
        """Rope of the layers with a sliding window; None where it is the same."""
        return self.ropes[1] if len(self.ropes) > 1 else None

    @property
    def rope_style(self) -> RopeStyle:
        """The channel pairs that rotate together."""
        return RopeStyle.HALF if self.rotates_halves else self.family.rope_style

    def layer(self, number: int) -> Layer:
        """The kind of a layer."""
        return self.layers[number]
