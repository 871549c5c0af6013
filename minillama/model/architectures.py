"""The table of families: what a GGUF file does not say about its architecture. A new family is a row here.

Everything that the file does say (sizes, eps, rope base and scaling, biases, extra norms, tied head, fused tensors) is
taken from the file; an optional tensor that is there is used. Source: llama.cpp's graphs, one per architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from minillama.errors import UnsupportedError


class Pairs(Enum):
    """Which channels of a head rotate together."""

    ADJACENT = auto()  # (2i, 2i + 1), llama.cpp's NORM
    HALVES = auto()  # (i, i + R/2), llama.cpp's NEOX


class Activation(Enum):
    """The gate of the feed-forward network."""

    SILU = auto()
    GELU = auto()  # tanh approximation


@dataclass(frozen=True)
class Family:
    """One row of the table; the defaults are Llama's.

    local: tells whether layer i attends to a sliding window only.
    local_freq_base: rope base of local layers, which then take no part in rope scaling.
    wide_heads: (layers, ...) for which queries are scaled by sqrt(D / N) in place of sqrt(H).
    """

    pairs: Pairs = Pairs.HALVES
    activation: Activation = Activation.SILU
    scale_embeddings: bool = False
    normalise_experts: bool = True
    local: Callable[[int], bool] | None = None
    local_freq_base: float | None = None
    wide_heads: tuple[int, ...] = ()


def _even(layer: int) -> bool:
    return layer % 2 == 0


def _five_of_six(layer: int) -> bool:
    return layer % 6 < 5


_GEMMA = Activation.GELU
FAMILIES: dict[str, Family] = {
    "llama": Family(pairs=Pairs.ADJACENT),  # Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM2, ...
    "qwen2": Family(),
    "qwen3": Family(),
    "qwen2moe": Family(normalise_experts=False),
    "qwen3moe": Family(),
    "chatglm": Family(pairs=Pairs.ADJACENT),
    "glm4": Family(pairs=Pairs.ADJACENT),
    "gemma2": Family(activation=_GEMMA, scale_embeddings=True, local=_even, wide_heads=(46,)),
    "gemma3": Family(
        activation=_GEMMA, scale_embeddings=True, local=_five_of_six, local_freq_base=10000.0, wide_heads=(62,)
    ),
    "phi3": Family(),
}


def family(architecture: str) -> Family:
    """The row of an architecture; raises UnsupportedError with the known names."""
    if architecture not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedError(f"unsupported architecture {architecture!r} (general.architecture); supported: {known}")
    return FAMILIES[architecture]
