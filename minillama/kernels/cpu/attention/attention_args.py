"""Specification, arguments and KV cache layout of the attention kernels."""

from dataclasses import dataclass

from minillama.gguf.kv_cache_types import CacheType
from minillama.gguf.types import BLOCKS, row_bytes
from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.simd import (
    F32,
    I32,
    I64,
    Struct,
    Value,
    Word,
    abs_,
    clamp,
    const,
    exp,
    load,
    select,
    splat,
)

LANES = 16  # floats of a vector
LOWEST = -3.0e38  # below all scores, yet finite: sums of nothing are scaled to 0, not to nan
_TASK_HEADS, _TASK_NUMBERS = 8, 2304  # most query heads of a decode task, and numbers: four heads of 576


@dataclass(frozen=True)
class AttentionSpec:
    """The sizes and types that a kernel is compiled for."""

    key_size: int  # H of keys and queries
    value_size: int  # H of values
    groups: int  # G, the query heads that share a key/value head
    key_type: CacheType
    value_type: CacheType
    softcap: bool
    sinks: bool = False
    shared: bool = False  # values are the first numbers of the keys, and have no array

    @property
    def name(self) -> str:
        """Name of the XLA FFI target."""
        types = f"{self.key_type.value}-{self.value_type.value}"
        sizes = f"{self.key_size}-{self.value_size}-{self.groups}"
        more = f"{'-sinks' if self.sinks else ''}{'-shared' if self.shared else ''}"
        return f"minillama_attention_{sizes}-{types}-{int(self.softcap)}{more}"

    @property
    def task_groups(self) -> int:
        """Query heads of a decode task: a divisor of G that keeps the task short."""
        most = max(1, min(_TASK_NUMBERS // self.key_size, _TASK_HEADS, self.groups))
        return next(count for count in range(most, 0, -1) if self.groups % count == 0)

    @property
    def splits(self) -> int:
        """Decode tasks of the query heads that share a key/value head."""
        return self.groups // self.task_groups

    @property
    def keys(self) -> "CacheLayout":
        """Layout of the keys."""
        return CacheLayout(self.key_type, self.key_size)

    @property
    def values(self) -> "CacheLayout":
        """Layout of the values."""
        if self.shared:
            return self.keys
        return CacheLayout(self.value_type, self.value_size)


@dataclass(frozen=True)
class CacheLayout:
    """Layout of keys or values [R, K, S, H].

    A position of a head is H numbers, or H / 32 blocks.
    """

    kind: CacheType
    size: int  # H

    @property
    def row_bytes(self) -> int:
        """Bytes of a position of a head."""
        return row_bytes(self.size, self.kind.tensor_type)

    def load_f32(self, lanes: int, head: Value, position: Value, at: int | Value) -> Value:
        """Values at .. at + lanes - 1 of a position, as float32.

        Those of a quantised type are within one block.
        """
        weights, size = BLOCKS[self.kind.tensor_type]
        address = head + (position * self.row_bytes + at // weights * size)
        if not self.kind.is_quantised:
            return FLOAT_FORMATS[self.kind.tensor_type].load_f32(lanes, address)
        form = FORMATS[self.kind.tensor_type]
        block = form.unpack([address])
        codes = _part(block.codes[0], lanes, at % weights).to(I32) - form.zero_point
        values = codes.to(F32) * splat(block.scale, lanes)
        return values if block.minimum is None else values - splat(block.minimum, lanes)


def _part(codes: Value, lanes: int, first: int | Value) -> Value:
    """Some of the 32 codes of a block.

    Where their place is a run-time value: the first or the last 16.
    """
    if isinstance(first, int):
        return codes.permute(range(first, first + lanes))
    return select(first.equals(0), codes.permute(range(lanes)), codes.permute(range(lanes, 2 * lanes)))


class AttentionArgs(Struct):
    """Arguments of a call.

    The keys and values of B texts are some of the R rows of a cache.
    """

    time = Word()  # T
    kv_heads = Word()  # K
    rows = Word()  # R
    capacity = Word()  # S
    window = Word()  # length of the sliding window; 0 for none
    scale = Word(F32)  # factor of the scores
    softcap = Word(F32)  # scores are limited to ±softcap
    q = Word()  # address of the queries, float32 [B, T, N, H]
    positions = Word()  # address of the positions of the queries, int32 [B, T]
    slots = Word()  # address of the row of each text, int32 [B]
    out = Word()  # address of the result, float32 [B, T, N, H_v]
    key_cache = Word()  # address of the keys [R, K, S, H]
    value_cache = Word()  # address of the values [R, K, S, H_v], or that of the keys
    sinks = Word()  # address of a logit of each query head, float32 [N]; 0 for none

    def __init__(self, address: Value, spec: AttentionSpec) -> None:
        super().__init__(address)
        self.spec = spec

    def cache_head(self, text: Value, head: Value) -> Value:
        """Number r K + k of a text's head, with r limited to the rows."""
        row = clamp(load(I32, 1, self.slots + text * 4).to(I64), 0, self.rows - 1)
        return row * self.kv_heads + head

    def keys(self, cache_head: Value) -> Value:
        """Address of the keys of head r K + k."""
        return self.key_cache + cache_head * self.capacity * self.spec.keys.row_bytes

    def values(self, cache_head: Value) -> Value:
        """Address of the values of head r K + k."""
        return self.value_cache + cache_head * self.capacity * self.spec.values.row_bytes

    def position(self, token: Value) -> Value:
        """Position of token b T + t, limited to those of the cache."""
        return clamp(load(I32, 1, self.positions + token * 4).to(I64), 0, self.capacity - 1)


def vectors_of(size: int) -> list[tuple[int, int]]:
    """Cut the values of a head into vectors: (first value, lanes)."""
    found, at = [], 0
    while at < size:
        lanes = next(lanes for lanes in (16, 8, 4, 2, 1) if at + lanes <= size)
        found.append((at, lanes))
        at += lanes
    return found


def softcapped(args: AttentionArgs, score: Value) -> Value:
    """softcap tanh(score / softcap), if the model has a softcap.

    tanh |a| = (1 - e^(-2|a|)) / (1 + e^(-2|a|))
    """
    if not args.spec.softcap:
        return score
    cap = splat(args.softcap, score.lanes)
    power = exp(abs_(score / cap) * -2.0)
    size = (const(1.0, F32, score.lanes) - power) / (power + 1.0) * cap
    return select(score < 0.0, size * -1.0, size)


def first_visible(position: Value, window: Value) -> Value:
    """The first position that a query sees: max(0, position - window + 1), or 0 without a window."""
    first = position - window + 1
    return select(const(0) < window, select(first < 0, const(0), first), const(0))
