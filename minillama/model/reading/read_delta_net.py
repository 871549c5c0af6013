"""Read the Gated DeltaNet layers of a model from GGUF metadata."""

from collections.abc import Sequence

import numpy as np

from minillama.errors import FormatError
from minillama.model.architectures import KeySharing
from minillama.model.layer_kinds import DeltaNet, Layer
from minillama.model.reading.metadata_keys import MetadataKeys


def read_delta_net_layers(keys: MetadataKeys, sharing: KeySharing, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers of a model, with Gated DeltaNet where the file marks them."""
    delta_net = read_delta_net(keys, sharing)
    marks = read_recurrent_layers(keys, len(layers))
    return tuple(delta_net if is_recurrent else layer for layer, is_recurrent in zip(layers, marks, strict=True))


def read_delta_net(keys: MetadataKeys, sharing: KeySharing) -> DeltaNet:
    """The sizes of a layer; raises FormatError where they contradict each other."""
    key_heads, value_heads = keys.integer("ssm.group_count"), keys.integer("ssm.time_step_rank")
    size, inner = keys.integer("ssm.state_size"), keys.integer("ssm.inner_size")
    if value_heads % key_heads:
        raise FormatError(
            f"metadata key {keys.prefix}.ssm.time_step_rank is {value_heads}; expected a multiple of the {key_heads} "
            "key heads (ssm.group_count)"
        )
    if inner != value_heads * size:
        raise FormatError(
            f"metadata key {keys.prefix}.ssm.inner_size is {inner}; expected {value_heads} value heads of {size} "
            f"(ssm.time_step_rank, ssm.state_size), {value_heads * size}"
        )
    taps = keys.integer("ssm.conv_kernel", least=2)
    return DeltaNet(key_heads, value_heads, size, taps, grouped=sharing is KeySharing.GROUPED)


def read_recurrent_layers(keys: MetadataKeys, blocks: int) -> tuple[bool, ...]:
    """Whether each layer is recurrent: one flag a layer, or all but every n-th."""
    name = "attention.recurrent_layers"
    flags = keys.find(name)
    if flags is None:
        interval = keys.integer("full_attention_interval", 4)
        return tuple((layer + 1) % interval > 0 for layer in range(blocks))
    found = np.broadcast_to(flags, blocks) if np.ndim(flags) == 0 else np.asarray(flags)
    if found.dtype.kind not in "bui" or found.ndim != 1 or len(found) < blocks:
        raise FormatError(f"metadata key {keys.prefix}.{name} has no flag for each of {blocks} layers")
    return tuple(bool(flag) for flag in found[:blocks])
