"""The heads of each device, in every kind of layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from minillama.errors import OptionError
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer, Mamba2, ShortConvolution


@dataclass(frozen=True)
class HeadAssignment:
    """Numbers of heads on each device, and of what groups of them share.

    Query heads share key/value heads; the heads of Mamba-2 share groups, which are counted as such here.
    """

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
    return _assign(heads, kv_heads, devices, f"{heads} query heads over {kv_heads} key/value heads")


def assign_groups(layer: Mamba2, devices: int) -> HeadAssignment:
    """Assign the heads of Mamba-2 evenly to devices, with their groups, as `assign_heads` does."""
    heads, groups = layer.heads, layer.groups
    return _assign(heads, groups, devices, f"{heads} heads of Mamba-2 over {groups} groups")


def _assign(heads: int, shared: int, devices: int, what: str) -> HeadAssignment:
    if devices < 1:
        raise OptionError(f"tensor_parallel is {devices}; expected at least 1 device")

    def fits(count: int) -> bool:
        return heads % count == 0 and (shared % count == 0 or count % shared == 0)

    if not fits(devices):
        raise _indivisible(what, devices, heads, fits)
    shares = min(devices, shared)
    return HeadAssignment(devices, heads // devices, shared // shares, shares)


def layer_of_device(kind: Layer, devices: int) -> Layer:
    """A layer with the heads of one device; raises OptionError where they do not divide."""
    return _OF_DEVICE[type(kind)](kind, devices)


def share_of_attention(layer: Attention, devices: int) -> Attention:
    """The heads of one device; raises what `assign_heads` does."""
    division = assign_heads(layer, devices)
    return replace(layer, head_count=division.head_count, head_count_kv=division.head_count_kv)


def share_of_latent_attention(layer: LatentAttention, devices: int) -> LatentAttention:
    """The heads of one device; the latents are the same on every device."""
    return replace(layer, head_count=assign_heads(layer.absorbed, devices).head_count)


def share_of_delta_net(layer: DeltaNet, devices: int) -> DeltaNet:
    """The layer of one device; raises OptionError where the key heads do not divide."""
    heads = _share(layer.key_heads, devices, f"{layer.key_heads} key heads of Gated DeltaNet")
    return replace(layer, key_heads=heads, value_heads=layer.value_heads // devices)


def share_of_mamba2(layer: Mamba2, devices: int) -> Mamba2:
    """The layer of one device, with whole groups, or with some heads of one group.

    Raises what `assign_groups` does.
    """
    division = assign_groups(layer, devices)
    return replace(
        layer, heads=division.head_count, groups=division.head_count_kv, devices_per_group=division.kv_replicas
    )


def share_of_short_convolution(layer: ShortConvolution, devices: int) -> ShortConvolution:
    """The channels of one device; raises OptionError where they do not divide."""
    channels = _share(layer.channels, devices, f"{layer.channels} channels of a short convolution")
    return replace(layer, channels=channels)


_OF_DEVICE: Mapping[type[Layer], Callable[[Any, int], Layer]] = {
    Attention: share_of_attention,
    LatentAttention: share_of_latent_attention,
    DeltaNet: share_of_delta_net,
    Mamba2: share_of_mamba2,
    ShortConvolution: share_of_short_convolution,
    Layer: lambda layer, devices: layer,
}


def _share(count: int, devices: int, what: str) -> int:
    """An equal share of some heads or channels."""
    if count % devices:
        raise _indivisible(what, devices, count, lambda number: count % number == 0)
    return count // devices


def _indivisible(what: str, devices: int, most: int, fits: Callable[[int], bool]) -> OptionError:
    """The error that names the numbers of devices that are possible."""
    possible = ", ".join(str(count) for count in range(1, most + 1) if fits(count))
    return OptionError(f"{what} do not divide among {devices} devices; use {possible} devices, or split_mode=layer")
