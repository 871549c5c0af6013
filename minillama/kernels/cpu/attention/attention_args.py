"""Specification, arguments and KV cache layout of the attention kernels."""

from dataclasses import dataclass

from gguf import GGMLQuantizationType as Type

from minillama.gguf.kv_cache_types import CacheType
from minillama.kernels.cpu.formats import FLOAT_FORMATS
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    I64,
    U16,
    Struct,
    Value,
    Word,
    abs_,
    clamp,
    const,
    exp,
    f16_to_f32,
    load,
    load_splat,
    select,
    splat,
)

LANES = 16  # floats of a vector
LOWEST = -3.0e38  # below all scores, yet finite: sums of nothing are scaled to 0, not to nan
_FLOAT_FORMATS = {
    CacheType.F32: FLOAT_FORMATS[Type.F32],
    CacheType.F16: FLOAT_FORMATS[Type.F16],
    CacheType.BF16: FLOAT_FORMATS[Type.BF16],
}
_TASK_HEADS, _TASK_NUMBERS = 8, 2304  # most query heads of a decode task, and numbers: four heads of 576
_Q8_BLOCK = 32  # values of q8_0 that share a scale


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
    shared: bool = False  # values are the first numbers of the keys, and have no arrays

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
    def leaves(self) -> int:
        """Number of arrays of keys and values."""
        return self.keys.leaves + (0 if self.shared else self.values.leaves)

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
    """Layout of keys or values [B, K, S, H].

    One array; with q8_0 two, the codes and the scales [B, K, S, H/32].
    """

    kind: CacheType
    size: int  # H

    @property
    def leaves(self) -> int:
        """Number of arrays."""
        return 2 if self.kind is CacheType.Q8_0 else 1

    def of_head(self, leaves: list[Value], head: Value, capacity: Value) -> list[Value]:
        """Addresses of position 0 of head b K + k in each array."""
        if self.kind is not CacheType.Q8_0:
            return [leaves[0] + head * capacity * (self.size * _FLOAT_FORMATS[self.kind].bytes)]
        codes, scales = leaves
        return [codes + head * capacity * self.size, scales + head * capacity * (self.size // _Q8_BLOCK * 2)]

    def load_f32(self, lanes: int, head: list[Value], position: Value, at: int) -> Value:
        """Values at .. at + lanes - 1 of a position, as float32."""
        if self.kind is not CacheType.Q8_0:
            form = _FLOAT_FORMATS[self.kind]
            return form.load_f32(lanes, head[0] + (position * self.size + at) * form.bytes)
        codes, scales = head
        block = position * (self.size // _Q8_BLOCK) + at // _Q8_BLOCK
        scale = f16_to_f32(load_splat(U16, lanes, scales + block * 2))
        return load(I8, lanes, codes + position * self.size + at).to(F32) * scale


class AttentionArgs(Struct):
    """Arguments of a call. The addresses of the cache's arrays follow in memory."""

    time = Word()  # T
    kv_heads = Word()  # K
    capacity = Word()  # S
    window = Word()  # length of the sliding window; 0 for none
    scale = Word(F32)  # factor of the scores
    softcap = Word(F32)  # scores are limited to ±softcap
    q = Word()  # address of the queries, float32 [B, T, N, H]
    positions = Word()  # address of the positions of the queries, int32 [B, T]
    out = Word()  # address of the result, float32 [B, T, N, H_v]
    sinks = Word()  # address of a logit of each query head, float32 [N]; 0 for none

    def __init__(self, address: Value, spec: AttentionSpec) -> None:
        super().__init__(address)
        self.spec = spec

    def keys(self, head: Value) -> list[Value]:
        """Addresses of the keys of head b K + k."""
        return self._leaves(self.spec.keys, 0, head)

    def values(self, head: Value) -> list[Value]:
        """Addresses of the values of head b K + k."""
        return self._leaves(self.spec.values, 0 if self.spec.shared else self.spec.keys.leaves, head)

    def position(self, token: Value) -> Value:
        """Position of token b T + t, limited to those of the cache."""
        return clamp(load(I32, 1, self.positions + token * 4).to(I64), 0, self.capacity - 1)

    def _leaves(self, layout: CacheLayout, first: int, head: Value) -> list[Value]:
        addresses = [self.address + (self.size() + 8 * (first + i)) for i in range(layout.leaves)]
        return layout.of_head([load(I64, 1, address, align=8) for address in addresses], head, self.capacity)


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
