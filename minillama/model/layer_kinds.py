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
    """

    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    scale: float
    rope: int | None = 0
    sliding_window: int = 0
