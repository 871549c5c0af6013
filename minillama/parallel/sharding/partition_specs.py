"""Table of PartitionSpecs for tensor parallelism: tensor name -> spec of its matrix [N, K].

A matrix sharded by rows needs the whole input and gives a shard of the output. A matrix sharded by columns takes such a
shard and gives partial sums. A row-sharded matrix followed by a column-sharded one needs one all-reduce (Shoeybi et al.
2019, arXiv:1909.08053): attention is one such pair, the feed-forward network another.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from minillama.model import Config
from minillama.model.layer_kinds import Attention, LatentAttention, Layer, Mamba2, ShortConvolution
from minillama.parallel.sharding.head_assignment import assign_heads, layer_of_device

AXIS = "tensor"
ROWS, COLUMNS, REPLICATED = PartitionSpec(AXIS, None), PartitionSpec(None, AXIS), PartitionSpec()
HEADS = PartitionSpec(AXIS)  # a number for each query head
MATRICES = PartitionSpec(AXIS, None, None)  # whole matrices of a stack [N, rows, K], one for each head

SPECS = {
    "token_embd": ROWS,
    "output": ROWS,
    "attn_q": ROWS,
    "attn_k": ROWS,
    "attn_v": ROWS,
    "attn_qkv": ROWS,  # each of its three parts
    "attn_q_a": REPLICATED,
    "attn_q_b": ROWS,
    "attn_kv_a_mqa": REPLICATED,
    "attn_k_b": MATRICES,
    "attn_v_b": MATRICES,
    "attn_output": COLUMNS,
    "attn_gate": ROWS,  # of a recurrent layer: by heads, as all below, see `recurrent_shards.py`
    "ssm_in": ROWS,
    "ssm_beta": ROWS,
    "ssm_alpha": ROWS,
    "ssm_ba": ROWS,
    "ssm_conv1d": ROWS,
    "ssm_dt": ROWS,
    "ssm_a": ROWS,
    "ssm_d": ROWS,
    "ssm_conv1d_bias": ROWS,
    "ssm_norm": REPLICATED,  # of Mamba-2, by channels
    "ssm_out": COLUMNS,
    "shortconv_in_proj": ROWS,
    "shortconv_conv": ROWS,
    "shortconv_out_proj": COLUMNS,
    "ffn_gate": ROWS,
    "ffn_up": ROWS,
    "ffn_down": COLUMNS,
    "ffn_gate_inp": REPLICATED,
    "ffn_gate_exps": ROWS,  # every expert
    "ffn_up_exps": ROWS,
    "ffn_down_exps": COLUMNS,
    "ffn_gate_shexp": ROWS,
    "ffn_up_shexp": ROWS,
    "ffn_down_shexp": COLUMNS,
    "exp_probs_b": REPLICATED,
    "attn_norm": REPLICATED,
    "attn_norm_bias": REPLICATED,
    "attn_q_norm": REPLICATED,
    "attn_k_norm": REPLICATED,
    "attn_sinks": HEADS,
    "attn_q_a_norm": REPLICATED,
    "attn_kv_a_norm": REPLICATED,
    "post_attention_norm": REPLICATED,
    "ffn_norm": REPLICATED,
    "ffn_norm_bias": REPLICATED,
    "post_ffw_norm": REPLICATED,
    "ffn_gate_inp_shexp": REPLICATED,
    "ffn_gate_up_exps": ROWS,  # each of its two parts, of every expert
    "ffn_gate_inp_scale": REPLICATED,
    "pre_ffw_norm_2": REPLICATED,
    "post_ffw_norm_1": REPLICATED,
    "post_ffw_norm_2": REPLICATED,
    "inp_gate": REPLICATED,
    "proj": REPLICATED,
    "post_norm": REPLICATED,
    "layer_output_scale": REPLICATED,
    "output_norm": REPLICATED,
}


def tensor_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """One-dimensional mesh of devices, along the axis that weights are sharded over."""
    return Mesh(np.array(devices), (AXIS,))


def per_device_config(config: Config, devices: int) -> Config:
    """Config of the model part on one device: its heads, and the axis of all-reduces."""
    kinds = {kind: layer_of_device(kind, devices) for kind in dict.fromkeys(config.layers)}
    return replace(config, layers=tuple(kinds[kind] for kind in config.layers), axis=AXIS)


def head_shards(kind: Layer, devices: int) -> dict[str, int]:
    """Rows, columns or matrices of a device, of each field cut by heads."""
    if isinstance(kind, LatentAttention):
        heads = assign_heads(kind.absorbed, devices).head_count
        queries = heads * kind.key_length
        sizes = {"attn_q": queries, "attn_q_b": queries, "attn_k_b": heads, "attn_v_b": heads}
        return {**sizes, "attn_output": heads * kind.value_length}
    if isinstance(kind, Mamba2):
        return {"ssm_out": kind.inner // devices}
    if isinstance(kind, ShortConvolution):
        return {"shortconv_out_proj": kind.channels // devices}
    if not isinstance(kind, Attention):
        return {}
    division = assign_heads(kind, devices)
    return {
        "attn_q": division.head_count * kind.key_length * (2 if kind.has_gate else 1),
        "attn_k": division.head_count_kv * kind.key_length,
        "attn_v": division.head_count_kv * kind.value_length,
        "attn_output": division.head_count * kind.value_length,
    }
