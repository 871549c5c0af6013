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


@dataclass(frozen=True)
class Attention(Layer):
    """Grouped-query attention.

    scale: the factor on q·k; rope: the number in `Config.ropes`, None for no rotation.
    sliding_window: positions that a query sees; 0 for all.
    has_gate: rows of attn_q hold, head by head, a query and a gate; the output is multiplied by sigmoid(gate).
    """

    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    scale: float
    rope: int | None = 0
    sliding_window: int = 0
    has_gate: bool = False


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
