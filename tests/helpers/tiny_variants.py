"""The variants of tiny models: one of every architecture, and of every feature that files differ in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tiny_layers import H, K, N, Tensors, attention, delta_net, latent_attention
from tiny_other_layers import (
    GEMMA4_LOCAL,
    GEMMA4_SHARED,
    PER_LAYER,
    gemma4_layer,
    mamba2,
    nemotron_layer,
    short_convolution,
)

LAYERS = 2

Metadata = int | float | str | bool | Sequence[int] | Sequence[bool]


@dataclass(frozen=True)
class Variant:
    """Differences of one tiny model from the simplest Llama.

    ffn_norm: the name of the norm before the feed-forward network; none in parallel layers.
    biases: of the matrices after attention, in the feed-forward networks, and of an own head.
    mixer: the tensors of a layer before the feed-forward network, by variant, layer and width.
    layer: all tensors of a layer, where these are not those of the other families, also by feed-forward width.
    """

    architecture: str
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    layers: int = LAYERS
    key_length: int = H
    kv_heads: int = K
    tied: bool = False
    fused: bool = False
    qkv_bias: bool = False
    biases: bool = False
    layer_norm: bool = False
    norm_bias: bool = False
    head_norms: bool = False  # of each head
    whole_norms: bool = False  # of all heads at once
    pre_norms: bool = True
    ffn_norm: str = "ffn_norm"
    post_norms: bool = False
    gated: bool = True
    experts: int = 0
    leading_dense: int = 0
    choice_bias: bool = False
    shared_expert: bool = False
    shared_gate: bool = True
    factors: str = ""
    output_gate: bool = False  # in attn_q
    sinks: bool = False
    fused_latent: bool = False
    output_norm: str = "output_norm"
    per_layer: bool = False
    mixer: Callable[["Variant", int, int], Tensors] = attention
    layer: Callable[["Variant", int, int, int], Tensors] | None = None


_MOE = {"expert_count": 4, "expert_used_count": 2}
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
_SCALES = {"embedding_scale": 3.0, "residual_scale": 0.4, "attention.scale": 0.11, "logit_scale": 3.0}
_WINDOW = {"attention.sliding_window": 5}
_LATENT = {
    **_YARN, "rope.scaling.original_context_length": 16, "rope.freq_base": 100.0,
    "rope.scaling.yarn_log_multiplier": 0.07, "rope.dimension_count": 16, "attention.kv_lora_rank": 32,
}  # fmt: skip
_DELTA_NET = {
    "full_attention_interval": 2, "rope.dimension_count": 8, "ssm.group_count": 4, "ssm.time_step_rank": 8,
    "ssm.state_size": 8, "ssm.inner_size": 64, "ssm.conv_kernel": 4,
}  # fmt: skip
_MAMBA2 = {
    "attention.head_count_kv": [0, K, 0], "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.state_size": 8,
    "ssm.inner_size": 64, "ssm.conv_kernel": 4,
}  # fmt: skip
_CONVOLUTION = {"attention.head_count_kv": [0, K, 0], "shortconv.l_cache": 3}
_GEMMA4 = {
    "attention.sliding_window": 5, "attention.sliding_window_pattern": list(GEMMA4_LOCAL), "rope.freq_base": 1e6,
    "attention.key_length_swa": 16, "attention.value_length_swa": 16, "rope.dimension_count_swa": 16,
    "rope.freq_base_swa": 10000.0, "attention.head_count_kv": [2 if local else 1 for local in GEMMA4_LOCAL],
    "attention.shared_kv_layers": GEMMA4_SHARED, "final_logit_softcapping": 30.0,
}  # fmt: skip
_POST = "post_attention_norm"


def with_heads(variant: "Variant", size: int) -> "Variant":
    """A variant with heads of another length; in windows of Gemma 4 of half of it."""
    half = {key: size // 2 for key in variant.metadata if key.endswith("_swa") and "freq" not in key}
    return replace(variant, key_length=size, metadata={**variant.metadata, **half})


VARIANTS = {
    "llama": Variant("llama"),
    "llama3": Variant("llama", {"rope.freq_base": 500000.0}, factors="rope_freqs"),
    "llama-linear": Variant("llama", _LINEAR),
    "mixtral": Variant("llama", _MOE, experts=4),
    "qwen2": Variant("qwen2", qkv_bias=True, tied=True),
    "qwen2-yarn": Variant("qwen2", _YARN, qkv_bias=True),
    "qwen2moe": Variant("qwen2moe", _MOE, qkv_bias=True, experts=4, shared_expert=True),
    "qwen3": Variant("qwen3", key_length=32, head_norms=True),
    "qwen3moe": Variant("qwen3moe", _MOE, head_norms=True, experts=4),
    "chatglm": Variant("chatglm", {"rope.dimension_count": 8}, fused=True, qkv_bias=True),
    "glm4": Variant("glm4", {"rope.dimension_count": 8}, fused=True, post_norms=True),
    "gemma2": Variant(
        "gemma2",
        {**_WINDOW, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        tied=True,
        post_norms=True,
    ),
    "gemma3": Variant(
        "gemma3",
        {**_WINDOW, "rope.freq_base": 1e6, **_LINEAR},
        layers=7,  # five local layers, a global one, and another local one
        tied=True,
        head_norms=True,
        post_norms=True,
    ),
    "phi3": Variant("phi3", fused=True),
    "phi3-longrope": Variant(
        "phi3",
        {"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.19},
        fused=True,
        factors="rope_factors_long",
    ),
    "cohere2": Variant(
        "cohere2",
        {**_WINDOW, "attention.sliding_window_pattern": 2, "logit_scale": 0.25},
        tied=True,
        layer_norm=True,
        ffn_norm="",
    ),
    "ernie4_5": Variant("ernie4_5", tied=True),
    "ernie4_5-moe": Variant(
        "ernie4_5-moe", _MOE, experts=4, leading_dense=1, choice_bias=True, shared_expert=True, shared_gate=False
    ),
    "exaone4": Variant(
        "exaone4", tied=True, pre_norms=False, head_norms=True, post_norms=True, factors="rope_freqs"
    ),  # of 64 layers, some would have a window
    "gemma": Variant("gemma", kv_heads=1, tied=True),
    "glm4moe": Variant(
        "glm4moe",
        {
            "expert_count": 6, "expert_used_count": 3, "expert_group_count": 3, "expert_group_used_count": 2,
            "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5,
            "rope.dimension_count": 8, "nextn_predict_layers": 1,
        },
        layers=3,  # a dense one, one of experts, and one that is skipped
        qkv_bias=True,
        head_norms=True,
        ffn_norm=_POST,
        experts=6,
        leading_dense=1,
        choice_bias=True,
        shared_expert=True,
        shared_gate=False,
    ),
    "granite": Variant("granite", _SCALES, tied=True),
    "granite-without-rope": Variant("granite", {**_SCALES, "rope.scaling.finetuned": False}, tied=True),
    "granitemoe": Variant("granitemoe", {**_MOE, **_SCALES}, experts=4, shared_expert=True, shared_gate=False),
    "hunyuan-dense": Variant(
        "hunyuan-dense", {"rope.scaling.type": "none", "rope.scaling.alpha": 1000.0}, tied=True, head_norms=True
    ),
    "minicpm": Variant("minicpm"),
    "minimax-m2": Variant(
        "minimax-m2",
        {**_MOE, "expert_gating_func": 2, "rope.dimension_count": 8},
        whole_norms=True,
        experts=4,
        choice_bias=True,
    ),
    "mistral3": Variant(
        "mistral3",
        {
            **_YARN, "rope.scaling.original_context_length": 16, "rope.freq_base": 100.0,
            "rope.scaling.yarn_beta_fast": 4.0, "rope.scaling.yarn_beta_slow": 0.25,
            "rope.scaling.yarn_log_multiplier": 0.5, "attention.temperature_scale": 0.3,
        },
        key_length=32,
    ),
    "olmo2": Variant("olmo2", pre_norms=False, whole_norms=True, post_norms=True),
    "olmo3": Variant(
        "olmo2",
        {**_YARN, **_WINDOW, "attention.sliding_window_pattern": [True, False], "rope.scaling.attn_factor": 1.2},
        pre_norms=False,
        whole_norms=True,
        post_norms=True,
    ),
    "phi2": Variant(
        "phi2",
        {"rope.dimension_count": 8},
        kv_heads=N,
        qkv_bias=True,
        biases=True,
        layer_norm=True,
        norm_bias=True,
        ffn_norm="",
        gated=False,
    ),
    "qwen2vl": Variant("qwen2vl", {"rope.dimension_sections": [2, 3, 3, 0]}, qkv_bias=True),
    "qwen3vl": Variant("qwen3vl", {"rope.dimension_sections": [6, 5, 5, 0]}, key_length=32, tied=True, head_norms=True),
    "qwen3vlmoe": Variant(
        "qwen3vlmoe", {**_MOE, "rope.dimension_sections": [3, 3, 2, 0]}, head_norms=True, experts=4
    ),
    "seed_oss": Variant("seed_oss", qkv_bias=True, ffn_norm=_POST),
    "smollm3": Variant("smollm3", layers=4, tied=True),  # the fourth does not rotate
    "starcoder2": Variant(
        "starcoder2", tied=True, qkv_bias=True, biases=True, layer_norm=True, norm_bias=True, gated=False
    ),
    "deepseek2": Variant(
        "deepseek2",
        {
            **_LATENT, **_MOE, "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 1.5,
            "attention.key_length": 48, "attention.value_length": 32, "attention.key_length_mla": 48,
            "attention.value_length_mla": 32,
        },
        kv_heads=1,
        experts=4,
        leading_dense=1,
        choice_bias=True,
        shared_expert=True,
        shared_gate=False,
        mixer=latent_attention,
    ),
    "deepseek2-2024": Variant(
        "deepseek2",
        {
            **_LATENT, "attention.key_length": 48, "attention.value_length": 32, "attention.temperature_scale": 0.3,
            "attention.temperature_length": 8,
        },
        kv_heads=N,
        fused_latent=True,
        mixer=latent_attention,
    ),
    "gpt-oss": Variant(
        "gpt-oss",
        {**_MOE, **_YARN, **_WINDOW},
        qkv_bias=True,
        biases=True,
        sinks=True,
        ffn_norm=_POST,
        experts=4,
    ),
    "gemma4": Variant(
        "gemma4",
        {**_GEMMA4, "embedding_length_per_layer_input": PER_LAYER},
        layers=len(GEMMA4_LOCAL),
        key_length=32,
        tied=True,
        factors="rope_freqs",
        per_layer=True,
        layer=gemma4_layer,
    ),
    "gemma4-experts": Variant(
        "gemma4",
        {**_GEMMA4, **_MOE},
        layers=len(GEMMA4_LOCAL),
        key_length=32,
        tied=True,
        factors="rope_freqs",
        experts=4,
        layer=gemma4_layer,
    ),
    "granitehybrid": Variant(
        "granitehybrid",
        {**_MAMBA2, **_SCALES, **_MOE, "rope.scaling.finetuned": False},
        layers=3,
        tied=True,
        experts=4,
        shared_expert=True,
        shared_gate=False,
        mixer=mamba2,
    ),
    "nemotron_h": Variant(
        "nemotron_h", {**_MAMBA2, "feed_forward_length": [0, 0, 96]}, layers=3, gated=False, layer=nemotron_layer
    ),
    "lfm2": Variant(
        "lfm2",
        _CONVOLUTION,
        layers=3,
        tied=True,
        head_norms=True,
        output_norm="token_embd_norm",
        mixer=short_convolution,
    ),
    "lfm2moe": Variant(
        "lfm2moe",
        {**_CONVOLUTION, **_MOE, "expert_gating_func": 2},
        layers=3,
        tied=True,
        head_norms=True,
        experts=4,
        leading_dense=1,
        choice_bias=True,
        output_norm="token_embd_norm",
        mixer=short_convolution,
    ),
    "qwen35": Variant(
        "qwen35", _DELTA_NET, tied=True, head_norms=True, output_gate=True, ffn_norm=_POST, mixer=delta_net
    ),
    "qwen35moe": Variant(
        "qwen35moe",
        {**_DELTA_NET, **_MOE},
        head_norms=True,
        output_gate=True,
        ffn_norm=_POST,
        experts=4,
        shared_expert=True,
        mixer=delta_net,
    ),
    "qwen3next": Variant(
        "qwen3next",
        {**_DELTA_NET, **_MOE},
        head_norms=True,
        output_gate=True,
        ffn_norm=_POST,
        experts=4,
        shared_expert=True,
        mixer=delta_net,
    ),
}  # fmt: skip
