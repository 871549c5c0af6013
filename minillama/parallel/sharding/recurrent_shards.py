"""Recurrent layers on devices: each reads the rows of its heads or channels.

They stay in the order of the file, so that a device computes a layer with fewer heads. A group of Mamba-2 whose heads
are on several devices is on all of them.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from minillama.array_types import Int, UInt8
from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.gguf.types import BLOCKS
from minillama.kernels import Weight, place_weight
from minillama.model.layer_kinds import DeltaNet, Layer, Mamba2, ShortConvolution
from minillama.parallel.sharding.head_assignment import assign_groups
from minillama.parallel.sharding.partition_specs import AXIS
from minillama.parallel.sharding.shards import first_row_of_shard, load_sharded_vector, make_sharded

# Fields whose rows on a device are not one range; for Gated DeltaNet's ssm_out, columns.
PICKED_FIELDS: Mapping[type[Layer], tuple[str, ...]] = {
    DeltaNet: (
        "attn_qkv", "attn_gate", "ssm_in", "ssm_conv1d", "ssm_beta", "ssm_alpha", "ssm_ba", "ssm_dt", "ssm_a",
        "ssm_out",
    ),
    Mamba2: ("ssm_in", "ssm_conv1d", "ssm_conv1d_bias", "ssm_dt", "ssm_a", "ssm_d", "ssm_norm"),
    ShortConvolution: ("shortconv_in_proj", "shortconv_conv"),
}  # fmt: skip
Rows = Int[np.ndarray, "rows"]


def rows_of_device(layer: Layer, field: str, index: int, devices: int) -> Rows:
    """The rows of a field that a device needs; of Gated DeltaNet's ssm_out, the columns.

    layer: the whole one. Of Mamba-2's ssm_norm [groups, size], a row is a channel.
    """
    match layer:
        case DeltaNet():
            return np.flatnonzero(key_heads_of(layer, field) // (layer.key_heads // devices) == index)
        case Mamba2():
            return _rows_of_mamba2(layer, field, index, devices)
        case ShortConvolution():
            channels = _part(layer.channels, index, devices)
            if field == "shortconv_in_proj":  # b, c and x
                return np.concatenate([part * layer.channels + channels for part in range(3)])
            return channels
    raise AssertionError(layer)


def key_heads_of(layer: DeltaNet, field: str) -> Rows:
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


def _rows_of_mamba2(layer: Mamba2, field: str, index: int, devices: int) -> Rows:
    """Rows of z, x and the steps by heads, of b and c by groups."""
    heads, channels = (_part(count, index, devices) for count in (layer.heads, layer.inner))
    shards, numbers = assign_groups(layer, devices).kv_shards, layer.groups * layer.state_length
    b = _part(numbers, first_row_of_shard(index, devices, shards, 1), shards)
    convolved = np.concatenate([channels, layer.inner + b, layer.inner + numbers + b])
    match field:
        case "ssm_in":
            return np.concatenate([channels, layer.inner + convolved, layer.inner + layer.channels + heads])
        case "ssm_conv1d" | "ssm_conv1d_bias":
            return convolved
        case "ssm_norm":
            return channels
    return heads


def _part(count: int, index: int, parts: int) -> Rows:
    """One of equal parts of `count` rows."""
    size = count // parts
    return np.arange(index * size, (index + 1) * size)


def load_picked_rows(tensor: Tensor, layer: Layer, field: str, mesh: Mesh) -> Weight:
    """A matrix with the rows that each device needs."""

    def rows(index: int, device: jax.Device) -> Weight:
        mine = rows_of_device(layer, field, index, mesh.devices.size)
        return place_weight(tensor.data[mine], tensor.type, device)

    return make_sharded(mesh, PartitionSpec(AXIS), rows)


def load_picked_array(tensor: Tensor, layer: Layer, field: str, mesh: Mesh) -> Array:
    """A float array with the rows that each device needs.

    Mamba-2's ssm_norm is flat then, [channels].
    """
    devices, shape = mesh.devices.size, tensor.shape
    if isinstance(layer, Mamba2) and field == "ssm_norm":
        shape = (layer.inner,)

    def cut(raw: UInt8[np.ndarray, "bytes"], index: int) -> UInt8[np.ndarray, "piece"]:
        return raw.reshape(shape[0], -1)[rows_of_device(layer, field, index, devices)].reshape(-1)

    return load_sharded_vector(tensor, mesh, cut, (-1, *shape[1:]))


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
