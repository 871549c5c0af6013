"""Forward pass of every family in float64 numpy: the reference implementation of `minillama.model`."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy_attention import attention
from numpy_delta_net import delta_net
from numpy_experts import feed_forward
from numpy_gemma4 import gemma4
from numpy_latent_attention import latent_attention
from numpy_model import Layer, Model, ThroughCache, unchanged
from numpy_state_space import mamba2, short_convolution


def recurrent_layer(p: Layer, h: np.ndarray) -> np.ndarray:
    """A layer of Gated DeltaNet."""
    sizes = (p.key(f"ssm.{name}") for name in ("group_count", "time_step_rank", "state_size"))
    return delta_net(h, p.tensors, tuple(sizes), p.model.epsilon, p.model.facts.by_groups)


def state_space_layer(p: Layer, h: np.ndarray) -> np.ndarray:
    """A layer of Mamba-2."""
    sizes = (p.key(f"ssm.{name}") for name in ("inner_size", "state_size", "time_step_rank", "group_count"))
    return mamba2(h, p.tensors, tuple(sizes), p.model.epsilon)


def convolution_layer(p: Layer, h: np.ndarray) -> np.ndarray:
    """A layer with a short convolution."""
    return short_convolution(h, p.tensors)


# A layer's mixer, with its output projection, by a tensor of such layers; the first that fits.
MIXERS: Mapping[str, Callable[[Layer, np.ndarray], np.ndarray]] = {
    "ssm_alpha": recurrent_layer,
    "ssm_ba": recurrent_layer,
    "ssm_in": state_space_layer,
    "shortconv.conv": convolution_layer,
    "attn_kv_a_mqa": latent_attention,
    "attn_output": attention,
}


def forward(
    metadata: Mapping,
    tensors: Mapping[str, np.ndarray],
    tokens: list[int],
    ctx_size: int,
    through_cache: ThroughCache = unchanged,
) -> np.ndarray:
    """Logits [T, V] of all positions; through_cache: see `Model`."""
    model = Model(metadata, tensors, ctx_size, through_cache)
    facts, layers = model.facts, model.key("block_count") - model.key("nextn_predict_layers", 0)
    scale = math.sqrt(model.key("embedding_length")) if facts.embeds_by_width else model.key("embedding_scale", 1.0)
    x = tensors["token_embd.weight"][tokens] * scale
    if metadata["general.architecture"] == "gemma4":
        x, layers = gemma4(model, tokens), 0
    for number in range(layers):
        x = transformer_block(Layer(model, number), x)
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    output_norm = "output_norm" if "output_norm.weight" in tensors else "token_embd_norm"
    logits = model.norm(output_norm, x) @ head.T + tensors.get("output.bias", 0.0)
    scale = model.key("logit_scale", 1.0)
    logits = logits / scale if facts.divides_logits else logits * scale
    cap = model.key("final_logit_softcapping", 0)
    return cap * np.tanh(logits / cap) if cap else logits


def transformer_block(p: Layer, x: np.ndarray) -> np.ndarray:
    """One layer [T, D]: mix the tokens, then the feed-forward network."""
    facts, scale = p.model.facts, p.key("residual_scale", 1.0)
    h = p.norm("attn_norm", x)
    mixer = next((mixer for tensor, mixer in MIXERS.items() if p.has(tensor)), None)
    if mixer is None:
        return x + scale * feed_forward(p, h)
    out = mixer(p, h)
    if facts.ffn_norm != "post_attention_norm":
        out = p.norm("post_attention_norm", out)
    x = x + scale * out
    if not p.has("ffn_up") and not p.has("ffn_gate_inp"):
        return x
    if not facts.parallel:
        h = p.norm(facts.ffn_norm, x)
    return x + scale * p.norm("post_ffw_norm", feed_forward(p, h))
