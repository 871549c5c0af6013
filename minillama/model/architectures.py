"""The table of families: what a GGUF file leaves open about its architecture.

A new family is a row.

Everything that the file does say (sizes, eps, rope base and scaling, biases, extra norms, tied head, fused tensors) is
taken from the file; an optional tensor that is there is used. Source: llama.cpp's graphs, one per architecture.
"""

from dataclasses import dataclass
from enum import Enum, auto

from minillama.errors import UnsupportedError, quoted


class RopeStyle(Enum):
    """The channel pairs that rotate together."""

    INTERLEAVED = auto()  # (2i, 2i + 1), llama.cpp's NORM
    HALF = auto()  # (i, i + R/2), llama.cpp's NEOX


class Activation(Enum):
    """The gate of the feed-forward network."""

    SILU = auto()
    GELU = auto()  # tanh approximation


@dataclass(frozen=True)
class Family:
    """One row of the table; the defaults are Llama's.

    window_period: every layer but each n-th attends to a sliding window only; None: all attend to all positions.
    default_window: where the file has no key for it.
    attn_softcap, final_softcap: caps of attention scores and of logits where the file has no keys for them, 0 for none;
    None: no cap, and the keys are not read.
    rope_local_freq_base: rope base of sliding-window layers, which then take no part in rope scaling.
    mrope_rotates_halves: the style is HALF in files with M-RoPE sections.
    wide_heads: (layers, ...) whose queries are scaled by sqrt(D / N) in place of sqrt(H).
    """

    rope_style: RopeStyle = RopeStyle.HALF
    activation: Activation = Activation.SILU
    scale_embeddings: bool = False
    normalise_experts: bool = True
    window_period: int | None = None
    default_window: int = 0
    attn_softcap: float | None = None
    final_softcap: float | None = None
    rope_local_freq_base: float | None = None
    mrope_rotates_halves: bool = False
    wide_heads: tuple[int, ...] = ()


_GEMMA = Activation.GELU
FAMILIES: dict[str, Family] = {
    "llama": Family(rope_style=RopeStyle.INTERLEAVED),  # Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM2, ...
    "qwen2": Family(),
    "qwen3": Family(),
    "qwen2moe": Family(normalise_experts=False),
    "qwen3moe": Family(),
    "chatglm": Family(rope_style=RopeStyle.INTERLEAVED),
    "glm4": Family(rope_style=RopeStyle.INTERLEAVED, mrope_rotates_halves=True),
    "gemma2": Family(
        activation=_GEMMA,
        scale_embeddings=True,
        window_period=2,
        default_window=4096,
        attn_softcap=50.0,
        final_softcap=30.0,
        wide_heads=(46,),
    ),
    "gemma3": Family(
        activation=_GEMMA,
        scale_embeddings=True,
        window_period=6,
        final_softcap=0.0,
        rope_local_freq_base=10000.0,
        wide_heads=(62,),
    ),
    "phi3": Family(),
}


def family(architecture: str) -> Family:
    """The row of an architecture; raises UnsupportedError with the known names."""
    if architecture not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedError(
            f"unsupported architecture {quoted(architecture)} (general.architecture); supported: {known}"
        )
    return FAMILIES[architecture]
