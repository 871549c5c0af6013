"""Gated DeltaNet layers on devices: some key heads each, with their value heads.

A device reads the rows of its heads in the order of the file, so that it computes a layer with fewer heads.
"""

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int, UInt8

from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.gguf.types import BLOCKS
from minillama.kernels import Weight, place_weight
from minillama.model.layer_kinds import DeltaNet
from minillama.parallel.sharding.partition_specs import AXIS
from minillama.parallel.sharding.shards import load_sharded_vector, make_sharded

DELTA_NET_FIELDS = (
    "attn_qkv", "attn_gate", "ssm_in", "ssm_conv1d", "ssm_beta", "ssm_alpha", "ssm_ba", "ssm_dt", "ssm_a", "ssm_out",
)  # fmt: skip


def key_heads_of(layer: DeltaNet, field: str) -> Int[np.ndarray, "rows"]:
    """The key head that each row of a field belongs to; of ssm_out, each column."""
    heads, share = np.arange(layer.key_heads), layer.value_heads // layer.key_heads
    of_value_heads = np.repeat(heads, share) if layer.grouped else np.tile(heads, share)
    keys, values = np.repeat(heads, layer.size), np.repeat(of_value_heads, layer.size)
    match field:
        case "attn_qkv" | "ssm_conv1d":
            return np.concatenate([keys, keys, values])
        case "attn_gate" | "ssm_out":
            return values
        case "ssm_in":
            return np.repeat(heads, 2 * (1 + share) * layer.size)
        case "ssm_ba":
            return np.repeat(heads, 2 * share)
    return of_value_heads


def rows_of_device(layer: DeltaNet, field: str, index: int, devices: int) -> Int[np.ndarray, "some"]:
    """The rows of a field that a device needs; of ssm_out, the columns."""
    return np.flatnonzero(key_heads_of(layer, field) // (layer.key_heads // devices) == index)


def load_rows_of_heads(tensor: Tensor, layer: DeltaNet, field: str, mesh: Mesh) -> Weight:
    """A matrix whose rows are sharded by key heads."""

    def rows(index: int, device: jax.Device) -> Weight:
        mine = rows_of_device(layer, field, index, mesh.devices.size)
        return place_weight(tensor.data[mine], tensor.type, device)

    return make_sharded(mesh, PartitionSpec(AXIS), rows)


def devices_of_blocks(tensor: Tensor, layer: DeltaNet, field: str, devices: int) -> Int[np.ndarray, "blocks"]:
    """The device of each block of columns; raises OptionError where a block belongs to several."""
    block, _ = BLOCKS[tensor.type]
    owners = (key_heads_of(layer, field) // (layer.key_heads // devices)).reshape(-1, block)
    if (owners != owners[:, :1]).any():
        raise OptionError(
            f"{tensor.name}: the heads of a device are no whole number of {tensor.type.name} blocks of {block} "
            f"columns, so {devices} devices are too many; use fewer, or split_mode=layer"
        )
    return owners[:, 0]


def load_columns_of_heads(tensor: Tensor, layer: DeltaNet, field: str, mesh: Mesh) -> Weight:
    """A matrix whose columns are sharded by key heads; raises what `devices_of_blocks` does."""
    owners, (_, size) = devices_of_blocks(tensor, layer, field, mesh.devices.size), BLOCKS[tensor.type]

    def columns(index: int, device: jax.Device) -> Weight:
        blocks = tensor.data.reshape(tensor.shape[0], -1, size)[:, owners == index]
        return place_weight(blocks.reshape(tensor.shape[0], -1), tensor.type, device)

    return make_sharded(mesh, PartitionSpec(AXIS), columns)


def load_array_of_heads(tensor: Tensor, layer: DeltaNet, field: str, mesh: Mesh) -> Array:
    """A float array whose first axis is sharded by key heads."""
    devices, rows = mesh.devices.size, tensor.shape[0]

    def cut(raw: UInt8[np.ndarray, "bytes"], index: int) -> UInt8[np.ndarray, "piece"]:
        return raw.reshape(rows, -1)[rows_of_device(layer, field, index, devices)].reshape(-1)

    return load_sharded_vector(tensor, mesh, cut, (-1, *tensor.shape[1:]))
