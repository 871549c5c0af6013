"""Table of PartitionSpecs for tensor parallelism: tensor name -> spec of its matrix [N, K].

A matrix sharded by rows needs the whole input and gives a shard of the output. A matrix sharded by columns takes such a
shard and gives partial sums. A row-sharded matrix followed by a column-sharded one needs one all-reduce (Shoeybi et al.
2019, arXiv:1909.08053): attention is one such pair, the feed-forward network another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from minillama.errors import OptionError
from minillama.model import Config
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer, Mamba2, ShortConvolution

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
    "attn_gate": ROWS,  # of a recurrent layer: by key heads, see `delta_net_shards.py`
    "ssm_in": ROWS,
    "ssm_beta": ROWS,
    "ssm_alpha": ROWS,
    "ssm_ba": ROWS,
    "ssm_conv1d": ROWS,
    "ssm_dt": ROWS,
    "ssm_a": ROWS,
    "ssm_norm": REPLICATED,
    "ssm_out": COLUMNS,
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
    "ssm_conv1d_bias": REPLICATED,
    "ssm_d": REPLICATED,
    "shortconv_in_proj": REPLICATED,
    "shortconv_conv": REPLICATED,
    "shortconv_out_proj": REPLICATED,
    "output_norm": REPLICATED,
}


def tensor_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """One-dimensional mesh of devices, along the axis that weights are sharded over."""
    return Mesh(np.array(devices), (AXIS,))


@dataclass(frozen=True)
class HeadAssignment:
    """Numbers of attention heads on each device."""

    devices: int
    head_count: int  # query heads of each device
    head_count_kv: int  # key/value heads of each device
    kv_shards: int  # shards of the key/value heads; fewer than devices if some are replicated

    @property
    def kv_replicas(self) -> int:
        """Number of devices that hold the same key/value heads."""
        return self.devices // self.kv_shards


def assign_heads(layer: Attention, devices: int) -> HeadAssignment:
    """Assign a layer's query heads evenly to devices, with their key/value heads.

    With more devices than key/value heads, each key/value head is replicated on several devices.
    Raises OptionError if the heads do not divide evenly.
    """
    heads, kv_heads = layer.head_count, layer.head_count_kv
    if devices < 1:
        raise OptionError(f"tensor_parallel is {devices}; expected at least 1 device")
    fits = heads % devices == 0 and (kv_heads % devices == 0 or devices % kv_heads == 0)
    if not fits:
        possible = [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
        raise OptionError(
            f"{heads} query heads over {kv_heads} key/value heads do not divide among {devices} devices; "
            f"use {', '.join(map(str, possible))} devices, or split_mode=layer"
        )
    shares = min(devices, kv_heads)
    return HeadAssignment(devices, heads // devices, kv_heads // shares, shares)


def per_device_config(config: Config, devices: int) -> Config:
    """Config of the model part on one device: its heads, and the axis of all-reduces."""
    kinds = {kind: _of_one_device(kind, devices) for kind in dict.fromkeys(config.layers)}
    return replace(config, layers=tuple(kinds[kind] for kind in config.layers), axis=AXIS)


def _of_one_device(kind: Layer, devices: int) -> Layer:
    """A layer with the heads of one device; raises OptionError where they do not divide."""
    if isinstance(kind, DeltaNet):
        return share_of_delta_net(kind, devices)
    if isinstance(kind, LatentAttention):  # the latents are the same on every device
        return replace(kind, head_count=assign_heads(kind.absorbed, devices).head_count)
    if isinstance(kind, Mamba2 | ShortConvolution):
        raise OptionError(
            f"layers of the kind {type(kind).__name__} do not divide among {devices} devices; use split_mode=layer"
        )
    if not isinstance(kind, Attention):
        return kind
    division = assign_heads(kind, devices)
    return replace(kind, head_count=division.head_count, head_count_kv=division.head_count_kv)


def share_of_delta_net(layer: DeltaNet, devices: int) -> DeltaNet:
    """The layer of one device; raises OptionError where the key heads do not divide."""
    if layer.key_heads % devices:
        possible = [n for n in range(1, layer.key_heads + 1) if layer.key_heads % n == 0]
        raise OptionError(
            f"{layer.key_heads} key heads of Gated DeltaNet do not divide among {devices} devices; "
            f"use {', '.join(map(str, possible))} devices, or split_mode=layer"
        )
    return replace(layer, key_heads=layer.key_heads // devices, value_heads=layer.value_heads // devices)


def head_shards(kind: Layer, devices: int) -> dict[str, int]:
    """Rows, columns or matrices of a device, of each field cut by heads."""
    if isinstance(kind, LatentAttention):
        heads = assign_heads(kind.absorbed, devices).head_count
        queries = heads * kind.key_length
        sizes = {"attn_q": queries, "attn_q_b": queries, "attn_k_b": heads, "attn_v_b": heads}
        return {**sizes, "attn_output": heads * kind.value_length}
    if not isinstance(kind, Attention):
        return {}
    division = assign_heads(kind, devices)
    return {
        "attn_q": division.head_count * kind.key_length * (2 if kind.has_gate else 1),
        "attn_k": division.head_count_kv * kind.key_length,
        "attn_v": division.head_count_kv * kind.value_length,
        "attn_output": division.head_count * kind.value_length,
    }
