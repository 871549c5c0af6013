"""What the two kernels of attention have in common: the sizes they are written for, and what a call tells them."""

from dataclasses import dataclass

from gguf import GGMLQuantizationType as Type

from minillama.gguf.kv_cache_types import CacheType
from minillama.kernels.cpu.matmul.formats import FLOAT_FORMATS
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I64,
    U16,
    Value,
    abs_,
    const,
    exp,
    f16_to_f32,
    load,
    load_splat,
    select,
    splat,
)

LANES = 16  # floats in a register
LOWEST = -3.0e38  # below every score, and finite: what has not been seen yet shrinks to 0, not to nan
_FLOAT_FORMATS = {
    CacheType.F32: FLOAT_FORMATS[Type.F32],
    CacheType.F16: FLOAT_FORMATS[Type.F16],
    CacheType.BF16: FLOAT_FORMATS[Type.BF16],
}
_BLOCK = 32  # numbers of q8_0 that share a scale


@dataclass(frozen=True)
class AttentionSpec:
    """What a kernel is written for."""

    key_size: int  # H of keys and queries
    value_size: int  # H of values
    groups: int  # G, the query heads that share a key/value head
    key_type: CacheType
    value_type: CacheType
    softcap: bool

    @property
    def name(self) -> str:
        """The name of its XLA target."""
        types = f"{self.key_type.value}-{self.value_type.value}"
        return f"minillama_attention_{self.key_size}-{self.value_size}-{self.groups}-{types}-{int(self.softcap)}"

    @property
    def keys(self) -> "CacheLayout":
        """How keys lie in memory."""
        return CacheLayout(self.key_type, self.key_size)

    @property
    def values(self) -> "CacheLayout":
        """How values lie in memory."""
        return CacheLayout(self.value_type, self.value_size)


@dataclass(frozen=True)
class CacheLayout:
    """Keys or values in memory, [B, K, S, H]: one array, for q8_0 two, the codes and [B, K, S, H/32] scales."""

    kind: CacheType
    size: int

    @property
    def leaves(self) -> int:
        """Arrays."""
        return 2 if self.kind is CacheType.Q8_0 else 1

    def of_head(self, leaves: list[Value], head: Value, capacity: Value) -> list[Value]:
        """Addresses of the first position of a head, whose number is b K + k."""
        if self.kind is not CacheType.Q8_0:
            return [leaves[0] + head * capacity * (self.size * _FLOAT_FORMATS[self.kind].bytes)]
        codes, scales = leaves
        return [codes + head * capacity * self.size, scales + head * capacity * (self.size // _BLOCK * 2)]

    def read(self, lanes: int, head: list[Value], position: Value, at: int) -> Value:
        """The numbers at .. at + lanes - 1 of a position, as float32."""
        if self.kind is not CacheType.Q8_0:
            plain = _FLOAT_FORMATS[self.kind]
            return plain.load_f32(lanes, head[0] + (position * self.size + at) * plain.bytes)
        codes, scales = head
        scale = f16_to_f32(load_splat(U16, lanes, scales + (position * (self.size // _BLOCK) + at // _BLOCK) * 2))
        return load(I8, lanes, codes + position * self.size + at).to(F32) * scale


class AttentionArgs:
    """The operands of one call: words in memory, and behind them the addresses of the cache's arrays."""

    WORDS = 9

    def __init__(self, address: Value, heads: AttentionSpec) -> None:
        self.address, self.heads = address, heads

    @property
    def time(self) -> Value:
        """T."""
        return self._word(0)

    @property
    def kv_heads(self) -> Value:
        """K."""
        return self._word(1)

    @property
    def capacity(self) -> Value:
        """S."""
        return self._word(2)

    @property
    def window(self) -> Value:
        """The last positions that a query sees; 0 for all."""
        return self._word(3)

    @property
    def scale(self) -> Value:
        """A float: what scores are multiplied with."""
        return self._real(4)

    @property
    def softcap(self) -> Value:
        """A float: scores are squeezed into ±softcap."""
        return self._real(5)

    @property
    def q(self) -> Value:
        """Address of the queries, float32 [B, T, N, H]."""
        return self._word(6)

    @property
    def positions(self) -> Value:
        """Address of the queries' positions, int32 [B, T]."""
        return self._word(7)

    @property
    def out(self) -> Value:
        """Address of the result, float32 [B, T, N, H]."""
        return self._word(8)

    def keys(self, head: Value) -> list[Value]:
        """Addresses of the keys of a head, whose number is b K + k."""
        return self._side(self.heads.keys, 0, head)

    def values(self, head: Value) -> list[Value]:
        """Addresses of the values of a head."""
        return self._side(self.heads.values, self.heads.keys.leaves, head)

    def _side(self, side: CacheLayout, first: int, head: Value) -> list[Value]:
        return side.of_head([self._word(self.WORDS + first + i) for i in range(side.leaves)], head, self.capacity)

    def _word(self, index: int) -> Value:
        return load(I64, 1, self.address + 8 * index, align=8)

    def _real(self, index: int) -> Value:
        return load(F32, 1, self.address + 8 * index)


def pieces(size: int) -> list[tuple[int, int]]:
    """A head cut into vectors: (first number, lanes)."""
    found, at = [], 0
    while at < size:
        lanes = next(lanes for lanes in (16, 8, 4, 2, 1) if at + lanes <= size)
        found.append((at, lanes))
        at += lanes
    return found


def softcapped(call: AttentionArgs, score: Value) -> Value:
    """softcap tanh(score / softcap), where the model has it; tanh |a| = (1 - e^(-2|a|)) / (1 + e^(-2|a|))."""
    if not call.heads.softcap:
        return score
    cap = splat(call.softcap, score.lanes)
    power = exp(abs_(score / cap) * -2.0)
    size = (const(1.0, F32, score.lanes) - power) / (power + 1.0) * cap
    return select(score < 0.0, size * -1.0, size)


def first_visible(position: Value, window: Value) -> Value:
    """The first position that a query sees: max(0, position - window + 1), or 0 without a window."""
    inside = position - window + 1
    return select(const(0) < window, select(inside < 0, const(0), inside), const(0))
