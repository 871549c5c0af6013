"""The kinds of layers: what the parameters of a layer do not show.

A kind is static under jit, and equal kinds share one trace. It decides the mixer (`layers/mixers.py`) and the state
(`states/`) of a layer.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Layer:
    """A layer; one of exactly this kind has no mixer, only a feed-forward network.

    is_recurrent: whether its state folds the text into a memory of fixed size, which cannot go back.
    """

    is_recurrent: ClassVar[bool] = False

    @property
    def has_mixer(self) -> bool:
        """Whether the tokens of a text exchange information here."""
        return type(self) is not Layer


@dataclass(frozen=True)
class Attention(Layer):
    """Grouped-query attention.

    scale: the factor on q·k; rope: the number in `Config.ropes`, None for no rotation.
    sliding_window: positions that a query sees; 0 for all.
    has_gate: rows of attn_q hold, head by head, a query and a gate; the output is multiplied by sigmoid(gate).
    norms_values: values are divided by their root mean square.
    source: the number of the earlier layer whose keys and values this layer reads; None for its own.
    """

    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    scale: float
    rope: int | None = 0
    sliding_window: int = 0
    has_gate: bool = False
    norms_values: bool = False
    source: int | None = None


@dataclass(frozen=True)
class DeltaNet(Layer):
    """Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464): a memory for each value head.

    size: of a key and of a value; taps: of the convolution.
    grouped: value head j shares key head j // (value heads / key heads); otherwise j % key heads.
    """

    is_recurrent: ClassVar[bool] = True

    key_heads: int
    value_heads: int
    size: int
    taps: int
    grouped: bool

    @property
    def key_channels(self) -> int:
        """All queries of a token, or all its keys, side by side."""
        return self.key_heads * self.size

    @property
    def value_channels(self) -> int:
        """All values of a token, side by side."""
        return self.value_heads * self.size

    @property
    def channels(self) -> int:
        """C: queries, keys and values, which pass the convolution together."""
        return 2 * self.key_channels + self.value_channels


@dataclass(frozen=True)
class ShortConvolution(Layer):
    """A gated convolution over the last few tokens (LFM2, arXiv:2511.23404)."""

    is_recurrent: ClassVar[bool] = True

    channels: int
    taps: int


@dataclass(frozen=True)
class Mamba2(Layer):
    """Mamba-2 (Dao and Gu 2024, arXiv:2405.21060): a memory for each head.

    head_length: P, channels of a head; state_length: N, numbers that each channel keeps; taps: of the convolution.
    Head j reads group j // (heads / groups) of the projections to and from the memory.
    devices_per_group: devices that have some heads each of the same group; 1 where groups are whole.
    """

    is_recurrent: ClassVar[bool] = True

    heads: int
    groups: int
    head_length: int
    state_length: int
    taps: int
    devices_per_group: int = 1

    @property
    def inner(self) -> int:
        """Channels of all heads, side by side."""
        return self.heads * self.head_length

    @property
    def channels(self) -> int:
        """C: the heads, and both projections of each group, which pass the convolution together."""
        return self.inner + 2 * self.groups * self.state_length


@dataclass(frozen=True)
class LatentAttention(Layer):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).

    Keys and values of all heads are linear maps of one latent a position. Only the latent is kept, and with it the
    channels of a key that rotate, which all heads share.
    key_length, value_length: of a head, as if they were written out; scale: the factor on q·k.
    """

    head_count: int
    kv_lora_rank: int  # channels of the latent
    rope_length: int  # channels of a key that rotate; the last ones
    key_length: int
    value_length: int
    scale: float
    rope: int = 0

    @property
    def nope_length(self) -> int:
        """Channels of a key that do not rotate: those made of the latent."""
        return self.key_length - self.rope_length

    @property
    def cached_length(self) -> int:
        """Numbers kept of a position."""
        return self.kv_lora_rank + self.rope_length

    @property
    def absorbed(self) -> Attention:
        """The attention to the cache.

        All heads read one key, whose first channels are the value.
        """
        return Attention(self.head_count, 1, self.cached_length, self.kv_lora_rank, self.scale, self.rope)


def attention_of(layer: Layer) -> Attention | None:
    """The attention of a layer to its cache, or None."""
    if isinstance(layer, LatentAttention):
        return layer.absorbed
    return layer if isinstance(layer, Attention) else None


def source_of(layer: Layer) -> int | None:
    """The number of the layer whose state a layer reads; None for its own."""
    return layer.source if isinstance(layer, Attention) else None
