"""Read the sizes of keys and values, without and with a window, from GGUF metadata."""

from typing import NamedTuple

from minillama.errors import UnsupportedError
from minillama.model.architectures import Family
from minillama.model.reading.metadata_keys import MetadataKeys


class HeadLengths(NamedTuple):
    """Sizes of a key and of a value."""

    key: int
    value: int


def head_lengths(keys: MetadataKeys, width: int, heads: int) -> HeadLengths:
    """The sizes in layers without a window."""
    default = width // heads
    return HeadLengths(keys.integer("attention.key_length", default), keys.integer("attention.value_length", default))


def local_head_lengths(keys: MetadataKeys, row: Family, lengths: HeadLengths) -> HeadLengths:
    """The sizes in layers with a sliding window; in most families the same."""
    if not row.local_heads:
        return lengths
    return HeadLengths(keys.integer("attention.key_length_swa"), keys.integer("attention.value_length_swa"))


def check_equal_heads(keys: MetadataKeys, lengths: HeadLengths, rotating: int) -> None:
    """Raise UnsupportedError where heads of windowed layers have another size."""
    expected = {
        "attention.key_length_swa": lengths.key,
        "attention.value_length_swa": lengths.value,
        "rope.dimension_count_swa": rotating,
    }
    for key, length in expected.items():
        if (found := keys.integer(key, length)) != length:
            raise UnsupportedError(
                f"metadata key {keys.prefix}.{key} is {found}, but {length} in layers without a window; not supported"
            )
