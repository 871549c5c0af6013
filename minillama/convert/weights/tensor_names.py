"""Tensor names: from the module paths of transformers to those of GGUF files.

A path inside a layer is what follows `layers.N.`; the suffix `.weight` or `.bias` stays.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from minillama.errors import FormatError

_TOP = """
token_embd: embed_tokens embeddings embedding.word_embeddings
output_norm: norm norm_f final_layernorm encoder.final_layernorm
output: lm_head output_layer
token_embd_norm: embedding_norm
per_layer_token_embd: embed_tokens_per_layer
per_layer_model_proj: per_layer_model_projection
per_layer_proj_norm: per_layer_projection_norm
"""
_LAYER = """
attn_norm: input_layernorm operator_norm norm
attn_q: self_attn.q_proj mixer.q_proj
attn_k: self_attn.k_proj mixer.k_proj
attn_v: self_attn.v_proj mixer.v_proj
attn_qkv: self_attn.qkv_proj self_attention.query_key_value linear_attn.in_proj_qkv
attn_output: self_attn.o_proj self_attn.out_proj self_attn.dense self_attention.dense mixer.o_proj
attn_q_norm: self_attn.q_norm self_attn.q_layernorm self_attn.query_layernorm
attn_k_norm: self_attn.k_norm self_attn.k_layernorm self_attn.key_layernorm
attn_sinks: self_attn.sinks
attn_gate: linear_attn.in_proj_z
attn_q_a: self_attn.q_a_proj
attn_q_b: self_attn.q_b_proj
attn_kv_a_mqa: self_attn.kv_a_proj_with_mqa
attn_k_b: self_attn.k_b_proj
attn_v_b: self_attn.v_b_proj
attn_q_a_norm: self_attn.q_a_layernorm
attn_kv_a_norm: self_attn.kv_a_layernorm
post_attention_norm: post_self_attn_layernorm
ffn_norm: post_attention_layernorm pre_feedforward_layernorm ffn_norm
ffn_gate: mlp.gate_proj feed_forward.w1
ffn_up: mlp.up_proj mlp.gate_up_proj mlp.fc1 mlp.c_fc mlp.dense_h_to_4h feed_forward.w3 mixer.up_proj
ffn_down: mlp.down_proj mlp.fc2 mlp.c_proj mlp.dense_4h_to_h feed_forward.w2 mixer.down_proj
post_ffw_norm: post_feedforward_layernorm post_mlp_layernorm
post_ffw_norm_1: post_feedforward_layernorm_1
post_ffw_norm_2: post_feedforward_layernorm_2
pre_ffw_norm_2: pre_feedforward_layernorm_2
post_norm: post_per_layer_input_norm
inp_gate: per_layer_input_gate
proj: per_layer_projection
layer_output_scale: layer_scalar
ffn_gate_inp: mlp.gate mlp.router block_sparse_moe.gate block_sparse_moe.router.layer feed_forward.gate router.proj mixer.gate
exp_probs_b: mlp.gate.e_score_correction mlp.moe_statics.e_score_correction block_sparse_moe.e_score_correction feed_forward.expert_bias mixer.gate.e_score_correction
ffn_gate_exps: mlp.experts.gate_proj block_sparse_moe.experts.w1 feed_forward.experts.w1
ffn_up_exps: mlp.experts.up_proj block_sparse_moe.experts.w3 feed_forward.experts.w3 mixer.experts.up_proj
ffn_down_exps: mlp.experts.down_proj block_sparse_moe.experts.w2 block_sparse_moe.output_linear feed_forward.experts.w2 experts.down_proj mixer.experts.down_proj
ffn_gate_up_exps: experts.gate_up_proj
ffn_gate_inp_shexp: mlp.shared_expert_gate
ffn_gate_shexp: mlp.shared_expert.gate_proj mlp.shared_experts.gate_proj
ffn_up_shexp: mlp.shared_expert.up_proj mlp.shared_experts.up_proj mixer.shared_experts.up_proj
ffn_down_shexp: mlp.shared_expert.down_proj mlp.shared_experts.down_proj mixer.shared_experts.down_proj shared_mlp.output_linear
ssm_a: linear_attn.A_log mamba.A_log mixer.A_log
ssm_d: mamba.D mixer.D
ssm_dt: linear_attn.dt_proj mamba.dt_proj mixer.dt_proj
ssm_in: mamba.in_proj mixer.in_proj
ssm_conv1d: linear_attn.conv1d mamba.conv1d mixer.conv1d
ssm_norm: linear_attn.norm mamba.norm mixer.norm
ssm_out: linear_attn.out_proj mamba.out_proj mixer.out_proj
ssm_alpha: linear_attn.in_proj_a
ssm_beta: linear_attn.in_proj_b
ssm_ba: linear_attn.in_proj_ba
shortconv.conv: conv.conv
shortconv.in_proj: conv.in_proj
shortconv.out_proj: conv.out_proj
nextn.eh_proj: eh_proj
nextn.enorm: enorm
nextn.hnorm: hnorm
nextn.embed_tokens: embed_tokens
nextn.shared_head_head: shared_head.head
nextn.shared_head_norm: shared_head.norm
"""  # noqa: E501


def _table(text: str) -> Mapping[str, str]:
    """Module path -> GGUF name, from lines of a name and its paths."""
    rows = (line.split(": ") for line in text.strip().splitlines())
    return MappingProxyType({path: name for name, paths in rows for path in paths.split()})


TOP, LAYER = _table(_TOP), _table(_LAYER)
_IN_LAYER = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)\.(.+)")
_PREFIX = re.compile(r"^(?:model|transformer|backbone)\.")
_GGUF = re.compile(r"(blk\.\d+\.|rope_f)")


def gguf_name(name: str, layer_names: Mapping[str, str]) -> str:
    """The GGUF name of a tensor; a name that is one already stays.

    layer_names: paths whose name differs in this family. Raises FormatError for an unknown tensor.
    """
    if _GGUF.match(name):
        return name
    path, suffix = name, ""
    for ending in (".weight", ".bias"):
        if name.endswith(ending):
            path, suffix = name.removesuffix(ending), ending
    if match := _IN_LAYER.fullmatch(path):
        found = layer_names.get(match[2]) or LAYER.get(match[2])
        found = found and f"blk.{match[1]}.{found}"
    else:
        found = TOP.get(_PREFIX.sub("", path))
    if not found:
        raise FormatError(f"the tensor {name} has no known name in GGUF files; update minillama, or report it")
    return found + suffix
