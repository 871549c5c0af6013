"""Read the layers that files mark by 0 key/value heads, such as those of Mamba-2."""

from minillama.errors import FormatError
from minillama.model.architectures import Family, OtherMixer
from minillama.model.layer_kinds import Layer, Mamba2, ShortConvolution
from minillama.model.reading.metadata_keys import MetadataKeys


def read_marked_layers(keys: MetadataKeys, row: Family, blocks: int) -> tuple[Layer | None, ...]:
    """The layers that are not attention; None for those that are."""
    if row.other_mixer is None:
        return (None,) * blocks
    kv_heads = keys.integers("attention.head_count_kv", blocks, least=0)
    networks = keys.integers("feed_forward_length", blocks, 0, least=0) if row.one_branch else (0,) * blocks
    other = read_mamba2(keys) if row.other_mixer is OtherMixer.MAMBA2 else read_short_convolution(keys)
    return tuple(
        None if heads else Layer() if network else other for heads, network in zip(kv_heads, networks, strict=True)
    )


def read_short_convolution(keys: MetadataKeys) -> ShortConvolution:
    """The sizes of a short convolution."""
    return ShortConvolution(keys.integer("embedding_length"), keys.integer("shortconv.l_cache", least=2))


def read_mamba2(keys: MetadataKeys) -> Mamba2:
    """The sizes of a Mamba-2 layer; raises FormatError where they contradict each other."""
    inner, heads, groups = (keys.integer(f"ssm.{name}") for name in ("inner_size", "time_step_rank", "group_count"))
    if inner % heads:
        raise FormatError(
            f"metadata key {keys.prefix}.ssm.inner_size is {inner}; expected a multiple of the {heads} heads "
            "(ssm.time_step_rank)"
        )
    if heads % groups:
        raise FormatError(
            f"metadata key {keys.prefix}.ssm.group_count is {groups}; expected a divisor of the {heads} heads "
            "(ssm.time_step_rank)"
        )
    return Mamba2(
        heads, groups, inner // heads, keys.integer("ssm.state_size"), keys.integer("ssm.conv_kernel", least=2)
    )
