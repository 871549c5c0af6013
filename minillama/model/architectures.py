"""The table of families: what a GGUF file leaves open about its architecture.

A new family is a row.

Everything that the file does say (sizes, eps, rope base and scaling, biases, extra norms, tied head, fused tensors) is
taken from the file; an optional tensor that is there is used. Source: llama.cpp's graphs, one per architecture.
"""

import difflib
from dataclasses import dataclass
from enum import Enum, auto

from minillama.errors import UnsupportedError, quoted


class RopeStyle(Enum):
    """The channel pairs that rotate together."""

    INTERLEAVED = auto()  # (2i, 2i + 1), llama.cpp's NORM
    HALF = auto()  # (i, i + R/2), llama.cpp's NEOX


class Activation(Enum):
    """The activation of the feed-forward network."""

    SILU = auto()
    GELU = auto()  # tanh approximation
    RELU_SQUARED = auto()
    CLAMPED_SWIGLU = auto()  # of gpt-oss


class Gating(Enum):
    """The function that turns a router's logits into probabilities."""

    SOFTMAX = auto()
    SIGMOID = auto()
    SOFTMAX_OF_CHOSEN = auto()  # choose by the logits; softmax over the chosen ones


class KeySharing(Enum):
    """The key head that belongs to value head j of a Gated DeltaNet layer."""

    MODULO = auto()  # j % key heads
    GROUPED = auto()  # j // (value heads / key heads), as in grouped-query attention


class Scales(Enum):
    """The keys with factors on embeddings, branches, scores and logits that a family has."""

    NONE = auto()
    LOGITS = auto()  # logits are multiplied by `logit_scale`
    GRANITE = auto()  # embedding_scale, residual_scale, attention.scale; logits are divided by `logit_scale`
    MINICPM = auto()  # as Granite's, with defaults of their own and without attention.scale


class OtherMixer(Enum):
    """The mixer of the layers without key/value heads, in families that mark layers so."""

    SHORT_CONVOLUTION = auto()
    MAMBA2 = auto()


@dataclass(frozen=True)
class Family:
    """One row of the table; the defaults are Llama's.

    gated: the feed-forward network is act(gate) · up; otherwise act(up), and files have no gate.
    layer_norm: LayerNorm in place of RMSNorm; parallel: attention and feed-forward network both take the first norm.
    pre_norms: norms before attention and feed-forward network; without them, norms of their outputs.
    ffn_norm: the tensor with the norm before the feed-forward network.
    head_norm_after_rope: the norms of query and key heads come after the rotation.
    gating: of files without a key. expert_keys: the optional keys of experts that are obeyed.
    window_period: every layer but each n-th attends to a sliding window only; None: all attend to all positions.
    window_layers: (layers, ...) of the models that have windows; empty: all.
    default_window: where the file has no key; None: it must have one.
    attn_softcap, final_softcap: caps of attention scores and of logits where the file has no keys for them, 0 for none;
    None: no cap, and the keys are not read.
    rope_local_freq_base: rope base of sliding-window layers, which then take no part in rope scaling; 0: the same base.
    rope_local_attn_factor: whether attn_factor applies there. rope_alpha: the key rope.scaling.alpha raises the base.
    yarn_keys: the keys of YaRN's betas and log multiplier, and of the temperature, are obeyed.
    no_rope_period: each n-th layer does not rotate. rope_in_windows: where layers have windows, only these rotate.
    finetuned_is_rope: no layer rotates where the key rope.scaling.finetuned is false.
    mrope_rotates_halves: the style is HALF in files with M-RoPE sections.
    sigmoid_models: (layers, vocabulary) of models whose gating is SIGMOID in files without a key.
    latent: layers have latent attention (DeepSeek-V2).
    wide_heads: (layers, ...) whose queries are scaled by sqrt(D / N) in place of sqrt(H).
    delta_net: of families whose layers are Gated DeltaNet but for some of attention.
    gated_attention: attn_q holds a gate of the output too, head by head.
    attention_scale: the factor on scores where no key gives it; 0 for 1 / sqrt(H).
    local_heads: layers with a window have head sizes and rotating channels of their own (keys with _swa).
    norms_values: values are divided by their root mean square, and begin as the keys where the file has no attn_v.
    layer_keys: the keys of shared keys and values and of per-layer embeddings that are obeyed.
    other_mixer: of the layers without key/value heads.
    one_branch: a layer is a mixer or a feed-forward network, by feed_forward_length, with the norm attn_norm.
    output_norm: the tensor with the last norm.
    """

    rope_style: RopeStyle = RopeStyle.HALF
    activation: Activation = Activation.SILU
    gated: bool = True
    layer_norm: bool = False
    parallel: bool = False
    pre_norms: bool = True
    ffn_norm: str = "ffn_norm"
    head_norm_after_rope: bool = False
    scale_embeddings: bool = False
    scales: Scales = Scales.NONE
    normalise_experts: bool = True
    gating: Gating = Gating.SOFTMAX
    expert_keys: tuple[str, ...] = ()
    window_period: int | None = None
    window_layers: tuple[int, ...] = ()
    default_window: int | None = 0
    attn_softcap: float | None = None
    final_softcap: float | None = None
    rope_local_freq_base: float | None = None
    rope_local_attn_factor: bool = True
    no_rope_period: int | None = None
    rope_in_windows: bool = False
    finetuned_is_rope: bool = False
    yarn_keys: bool = False
    rope_alpha: bool = False
    mrope_rotates_halves: bool = False
    wide_heads: tuple[int, ...] = ()
    delta_net: KeySharing | None = None
    gated_attention: bool = False
    sigmoid_models: tuple[tuple[int, int], ...] = ()
    latent: bool = False
    attention_scale: float = 0.0
    local_heads: bool = False
    norms_values: bool = False
    layer_keys: tuple[str, ...] = ()
    other_mixer: OtherMixer | None = None
    one_branch: bool = False
    output_norm: str = "output_norm"


_GEMMA = Activation.GELU
_PAIRS = RopeStyle.INTERLEAVED
_POST = "post_attention_norm"  # the name of the norm before the feed-forward network in many files of 2025
_EXPERT_KEYS = ("expert_gating_func", "expert_weights_norm", "expert_weights_scale")
FAMILIES: dict[str, Family] = {
    "llama": Family(rope_style=_PAIRS),  # Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM2, ...
    "mistral3": Family(rope_style=_PAIRS, yarn_keys=True),  # Ministral 3, Mistral Small 3, Devstral 2
    "smollm3": Family(rope_style=_PAIRS, no_rope_period=4),
    "qwen2": Family(),
    "qwen3": Family(),
    "qwen2vl": Family(),  # as text models
    "qwen3vl": Family(),
    "qwen3vlmoe": Family(),
    "qwen2moe": Family(normalise_experts=False),
    "qwen3moe": Family(),
    "qwen3next": Family(ffn_norm=_POST, delta_net=KeySharing.GROUPED, gated_attention=True),
    "qwen35": Family(ffn_norm=_POST, delta_net=KeySharing.MODULO, gated_attention=True),  # Qwen 3.5 and 3.6
    "qwen35moe": Family(ffn_norm=_POST, delta_net=KeySharing.MODULO, gated_attention=True),
    "chatglm": Family(rope_style=_PAIRS),
    "glm4": Family(rope_style=_PAIRS, mrope_rotates_halves=True),
    "glm4moe": Family(ffn_norm=_POST, normalise_experts=False, gating=Gating.SIGMOID, expert_keys=_EXPERT_KEYS),
    "gemma": Family(activation=_GEMMA, scale_embeddings=True),
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
    "gemma4": Family(
        activation=_GEMMA,
        scale_embeddings=True,
        window_period=6,
        default_window=None,
        final_softcap=30.0,
        rope_local_freq_base=10000.0,
        attention_scale=1.0,
        local_heads=True,
        norms_values=True,
        layer_keys=("attention.shared_kv_layers", "embedding_length_per_layer_input"),
    ),
    "phi2": Family(layer_norm=True, parallel=True, activation=Activation.GELU, gated=False),
    "phi3": Family(),
    "granite": Family(rope_style=_PAIRS, scales=Scales.GRANITE, finetuned_is_rope=True),
    "granitemoe": Family(rope_style=_PAIRS, scales=Scales.GRANITE),
    "granitehybrid": Family(
        rope_style=_PAIRS, scales=Scales.GRANITE, finetuned_is_rope=True, other_mixer=OtherMixer.MAMBA2
    ),
    "nemotron_h": Family(
        activation=Activation.RELU_SQUARED,
        gated=False,
        no_rope_period=1,
        other_mixer=OtherMixer.MAMBA2,
        one_branch=True,
    ),
    "lfm2": Family(other_mixer=OtherMixer.SHORT_CONVOLUTION, output_norm="token_embd_norm"),
    "lfm2moe": Family(
        gating=Gating.SIGMOID,
        expert_keys=_EXPERT_KEYS[:1],
        other_mixer=OtherMixer.SHORT_CONVOLUTION,
        output_norm="token_embd_norm",
    ),
    "minicpm": Family(rope_style=_PAIRS, scales=Scales.MINICPM),
    "ernie4_5": Family(rope_style=_PAIRS),
    "ernie4_5-moe": Family(rope_style=_PAIRS),
    "olmo2": Family(
        pre_norms=False, window_period=4, rope_local_freq_base=0.0, rope_local_attn_factor=False
    ),  # and OLMo 3
    "hunyuan-dense": Family(head_norm_after_rope=True, rope_alpha=True),
    "seed_oss": Family(ffn_norm=_POST),
    "exaone4": Family(pre_norms=False, window_period=4, window_layers=(64,), default_window=4096, rope_in_windows=True),
    "cohere2": Family(
        rope_style=_PAIRS,
        layer_norm=True,
        parallel=True,
        scales=Scales.LOGITS,
        window_period=4,
        rope_in_windows=True,
    ),
    "starcoder2": Family(layer_norm=True, activation=Activation.GELU, gated=False),
    "gpt-oss": Family(
        activation=Activation.CLAMPED_SWIGLU,
        ffn_norm=_POST,
        normalise_experts=False,
        gating=Gating.SOFTMAX_OF_CHOSEN,
        window_period=2,
    ),
    "deepseek2": Family(  # DeepSeek 2 to 3.1, Kimi K2, GLM-4.7-Flash, Mistral Large 3
        rope_style=_PAIRS,
        latent=True,
        normalise_experts=False,
        expert_keys=_EXPERT_KEYS,
        sigmoid_models=((47, 154880), (48, 154880)),
        yarn_keys=True,
    ),
    "minimax-m2": Family(gating=Gating.SIGMOID, expert_keys=_EXPERT_KEYS[:1]),
}


def family(architecture: str) -> Family:
    """The row of an architecture; raises UnsupportedError with the nearest known names."""
    if architecture not in FAMILIES:
        nearest = difflib.get_close_matches(architecture[:64], sorted(FAMILIES), n=3, cutoff=0)
        raise UnsupportedError(
            f"unsupported architecture {quoted(architecture)} (general.architecture); the nearest of {len(FAMILIES)} "
            f"supported ones: {', '.join(nearest)}"
        )
    return FAMILIES[architecture]
