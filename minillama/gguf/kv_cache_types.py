"""Storage types of the key/value cache, and its size from the metadata of a file."""

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np

from minillama.errors import OptionError, quoted
from minillama.gguf.reader import GGUF
from minillama.gguf.types import BLOCKS, TensorType, row_bytes

RECURRENT = re.compile(r"blk\.(\d{1,4})\.(?:ssm_out|shortconv\.out_proj)\.weight")  # of layers that keep no keys


class CacheType(Enum):
    """Storage type of keys or values in the cache, under llama.cpp's names."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


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


def _row_bytes(option: str, kind: CacheType, length: int) -> int:
    stored = TensorType[kind.name]
    try:
        return row_bytes(length, stored)
    except ValueError:
        block, _ = BLOCKS[stored]
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


def cache_bytes_per_token(file: GGUF, types: CacheTypes) -> int | None:
    """Bytes of keys and values per context token, over all layers that keep them.

    Sliding windows are counted as if they kept the whole text. None for a file without layers. Raises FormatError if
    the metadata lacks the sizes, OptionError if a head length is not a multiple of a block size.
    """
    family = file.metadata.get("general.architecture")
    if f"{family}.attention.head_count" not in file.metadata:
        return None
    predicting = f"{family}.nextn_predict_layers"  # of later tokens; these layers do not run
    layers = file.require(f"{family}.block_count", int)
    layers -= file.require(predicting, int) if predicting in file.metadata else 0
    without = {int(found[1]) for name in file.tensors if (found := RECURRENT.fullmatch(name))}
    if f"{family}.attention.kv_lora_rank" in file.metadata:  # latent attention keeps one row of numbers
        latent = file.require(f"{family}.attention.kv_lora_rank", int)
        return layers * types.head_bytes(latent + file.require(f"{family}.rope.dimension_count", int), 0)
    shared = f"{family}.attention.shared_kv_layers"  # the last layers have no cache of their own
    layers -= file.require(shared, int) if shared in file.metadata else 0
    heads = file.require(f"{family}.attention.head_count", (int, np.ndarray))
    grouped = f"{family}.attention.head_count_kv"
    kv_heads = file.require(grouped, (int, np.ndarray)) if grouped in file.metadata else heads
    embedding = file.require(f"{family}.embedding_length", int)
    default = embedding // max(int(np.max(heads, initial=1)), 1)
    lengths = _lengths(file, family, "", default)
    pattern = file.metadata.get(f"{family}.attention.sliding_window_pattern")
    whole, has_kinds = types.head_bytes(*lengths), f"{family}.attention.key_length_swa" in file.metadata
    if not isinstance(pattern, np.ndarray) or not has_kinds:
        if isinstance(kv_heads, int):
            return max(layers - len(without), 0) * kv_heads * whole
        pattern = np.zeros(kv_heads.size, bool)
    local, windowed = (
        pattern.reshape(-1)[: max(layers, 0)],
        types.head_bytes(*_lengths(file, family, "_swa", lengths[0])),
    )
    counts = np.broadcast_to(kv_heads, local.size) if isinstance(kv_heads, int) else kv_heads.reshape(-1)
    in_layers = enumerate(zip(counts.tolist(), local.tolist(), strict=False))
    return sum(n * (windowed if is_local else whole) for layer, (n, is_local) in in_layers if layer not in without)


def _lengths(file: GGUF, family: str, ending: str, default: int) -> tuple[int, int]:
    """Sizes of a key and of a value in the metadata."""
    names = (f"{family}.attention.{part}_length{ending}" for part in ("key", "value"))
    key, value = (file.require(name, int) if name in file.metadata else default for name in names)
    return key, value
