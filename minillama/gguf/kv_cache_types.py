"""Storage types of the key/value cache."""

from dataclasses import dataclass
from enum import Enum

from minillama.errors import OptionError, quoted
from minillama.gguf.types import BLOCKS, TensorType, row_bytes


class CacheType(Enum):
    """Storage type of keys or values in the cache, under llama.cpp's names."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
    Q4_1 = "q4_1"
    IQ4_NL = "iq4_nl"
    Q5_0 = "q5_0"
    Q5_1 = "q5_1"

    @property
    def tensor_type(self) -> TensorType:
        """The same type in a file."""
        return TensorType[self.name]

    @property
    def is_quantised(self) -> bool:
        """Whether numbers are stored in blocks that share a scale."""
        return BLOCKS[self.tensor_type][0] > 1


@dataclass(frozen=True)
class CacheTypes:
    """Storage types of keys and of values; llama.cpp's default is f16 for both."""

    keys: CacheType = CacheType.F16
    values: CacheType = CacheType.F16

    def __str__(self) -> str:
        names = self.keys.value, self.values.value
        return names[0] if names[0] == names[1] else "/".join(names)

    def head_bytes(self, key_length: int, value_length: int) -> int:
        """Bytes of one position of one key/value head with these lengths.

        Raises OptionError if a head length is not a multiple of the block size of its type.
        """
        sides = ("cache_type_k", self.keys, key_length), ("cache_type_v", self.values, value_length)
        return sum(_row_bytes(option, kind, length) for option, kind, length in sides)

    def latent_bytes(self, length: int) -> int:
        """Bytes of one position of latent attention, whose values are a part of the keys.

        Raises OptionError for two types, as llama.cpp does, and if the length is not a multiple of the block size.
        """
        if self.keys is not self.values:
            raise OptionError(
                f"cache_type_k is {self.keys.value} and cache_type_v is {self.values.value}, but this model keeps one "
                "array for both (latent attention); use one type"
            )
        return _row_bytes("cache_type_k", self.keys, length)


def _row_bytes(option: str, kind: CacheType, length: int) -> int:
    try:
        return row_bytes(length, kind.tensor_type)
    except ValueError:
        block, _ = BLOCKS[kind.tensor_type]
        raise OptionError(
            f"{option} is {kind.value}, in blocks of {block} values, but a head of this model has {length}; use f16"
        ) from None


def read_cache_types(cache_type_k: str, cache_type_v: str) -> CacheTypes:
    """Cache types by the names of two options; raises OptionError for an unknown name."""
    return CacheTypes(_read("cache_type_k", cache_type_k), _read("cache_type_v", cache_type_v))


def _read(option: str, name: str) -> CacheType:
    try:
        return CacheType(name)
    except ValueError:
        known = ", ".join(kind.value for kind in CacheType)
        raise OptionError(f"{option} is {quoted(name)}; supported: {known}") from None
