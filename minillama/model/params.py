"""The parameters as one pytree, with GGUF's names; the optional fields decide the graph."""

from dataclasses import dataclass, replace

import jax
from jax import Array

from minillama.array_types import Float, Int
from minillama.kernels import Weight, matmul, matmuls


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Linear:
    """y = x Wᵀ + b; the bias is optional, and [E, N] of experts."""

    weight: Weight
    bias: Float[Array, "*experts N"] | None = None

    def __call__(self, x: Float[Array, "*batch K"], n_valid: Int[Array, ""] | None = None) -> Float[Array, "*batch N"]:
        return self.add_bias(matmul(x, self.weight, n_valid))

    def add_bias(self, y: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
        """y + b."""
        return y if self.bias is None else y + self.bias.reshape((1,) * (y.ndim - 1) + (-1,))


def fused_projections(
    x: Float[Array, "*batch K"], *linears: Linear, n_valid: Int[Array, ""] | None = None
) -> list[Float[Array, "*batch N"]]:
    """Several linear maps of the same x, in one kernel call."""
    products = matmuls(x, [linear.weight for linear in linears], n_valid)
    return [linear.add_bias(y) for linear, y in zip(linears, products, strict=True)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block:
    """One layer, `blk.N.*` in the file."""

    attn_norm: Float[Array, "D"] | None = None
    attn_norm_bias: Float[Array, "D"] | None = None
    attn_q: Linear | None = None
    attn_k: Linear | None = None
    attn_v: Linear | None = None
    attn_qkv: Linear | None = None  # rows of q, k and v in one
    attn_gate: Linear | None = None  # of the output of a recurrent layer
    attn_q_norm: Float[Array, "NH"] | None = None  # of a head [H], or of all heads at once
    attn_k_norm: Float[Array, "KH"] | None = None
    attn_sinks: Float[Array, "N"] | None = None  # logits that take a share of the softmax, one a head
    attn_q_a: Linear | None = None  # latent attention: the latent of queries
    attn_q_a_norm: Float[Array, "q_rank"] | None = None
    attn_q_b: Linear | None = None
    attn_kv_a_mqa: Linear | None = None  # the latent of keys and values, and the rotating channels of keys
    attn_kv_a_norm: Float[Array, "rank"] | None = None
    attn_k_b: Linear | None = None  # of each head [N, rank, nope]
    attn_v_b: Linear | None = None  # of each head [N, H_v, rank]
    attn_output: Linear | None = None
    ssm_in: Linear | None = None  # rows of attn_qkv and attn_gate in one, by key head
    ssm_conv1d: Float[Array, "C taps"] | None = None
    ssm_conv1d_bias: Float[Array, "C"] | None = None
    ssm_beta: Linear | None = None  # how much of a value is written
    ssm_alpha: Linear | None = None  # how much is forgotten before
    ssm_ba: Linear | None = None  # rows of both in one, by key head
    ssm_dt: Float[Array, "heads"] | None = None
    ssm_a: Float[Array, "heads *one"] | None = None
    ssm_d: Float[Array, "heads *one"] | None = None  # the share of the input in the result
    ssm_norm: Float[Array, "*groups size"] | None = None
    ssm_out: Linear | None = None
    shortconv_in_proj: Linear | None = None  # rows of b, c and x
    shortconv_conv: Float[Array, "C taps"] | None = None
    shortconv_out_proj: Linear | None = None
    post_attention_norm: Float[Array, "D"] | None = None
    ffn_norm: Float[Array, "D"] | None = None
    ffn_norm_bias: Float[Array, "D"] | None = None
    ffn_gate: Linear | None = None
    ffn_up: Linear | None = None  # without ffn_gate, in a gated network: gate and up rows in one
    ffn_down: Linear | None = None
    post_ffw_norm: Float[Array, "D"] | None = None
    pre_ffw_norm_2: Float[Array, "D"] | None = None  # of experts next to a dense network, and the norms of both
    post_ffw_norm_1: Float[Array, "D"] | None = None
    post_ffw_norm_2: Float[Array, "D"] | None = None
    ffn_gate_inp: Linear | None = None  # the router
    ffn_gate_inp_scale: Float[Array, "D"] | None = None  # of a router with a norm of its own
    exp_probs_b: Float[Array, "E"] | None = None  # added to probabilities only to choose experts
    ffn_gate_exps: Linear | None = None
    ffn_up_exps: Linear | None = None
    ffn_gate_up_exps: Linear | None = None  # rows of gate and up in one
    ffn_down_exps: Linear | None = None
    ffn_gate_inp_shexp: Float[Array, "D"] | None = None
    ffn_gate_shexp: Linear | None = None
    ffn_up_shexp: Linear | None = None
    ffn_down_shexp: Linear | None = None
    inp_gate: Linear | None = None  # of the layer's own embedding of a token
    proj: Linear | None = None
    post_norm: Float[Array, "D"] | None = None
    layer_output_scale: Float[Array, "1"] | None = None

    @property
    def has_network(self) -> bool:
        """Whether the layer has a feed-forward network."""
        return self.ffn_down is not None or self.ffn_gate_inp is not None

    @property
    def mixer_output(self) -> Linear:
        """The projection of the mixed tokens back to D."""
        outputs = (self.attn_output, self.ssm_out, self.shortconv_out_proj)
        return next(linear for linear in outputs if linear is not None)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PerLayerEmbeddings:
    """Per-layer embeddings: rows of a table, and a projection of the token embedding."""

    token_embd: Weight  # [V, L P]
    model_proj: Linear  # [L P, D]
    proj_norm: Float[Array, "P"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """A whole model. `output` is None where the head is tied to the token embedding."""

    token_embd: Weight
    blocks: tuple[Block, ...]
    output_norm: Float[Array, "D"]
    output_norm_bias: Float[Array, "D"] | None = None
    output: Linear | None = None
    rope_factors: Float[Array, "pairs"] | None = None
    per_layer: PerLayerEmbeddings | None = None

    def head_only(self) -> "Params":
        """The parameters of `output_norm` and `unembed`, without those of other devices."""
        table = self.token_embd if self.output is None else self.output.weight
        return replace(self, token_embd=table, blocks=(), rope_factors=None, per_layer=None)
