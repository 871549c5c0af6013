"""Traffic between devices: collectives of a compiled program, and bytes per token by formula."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

FLOAT_BYTES = 4  # activations are sent as float32


class CollectiveKind(StrEnum):
    """XLA's collectives, by their names in HLO text."""

    ALL_REDUCE = "all-reduce"
    ALL_GATHER = "all-gather"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_TO_ALL = "all-to-all"
    PERMUTE = "collective-permute"


@dataclass(frozen=True)
class CollectiveArray:
    """Type (XLA's name) and shape of one array of a collective."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the array; types smaller than a byte are packed."""
        return -(-prod(self.shape) * _bits(self.dtype) // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Collective:
    """A collective of a compiled program, with the whole arrays of its group."""

    kind: CollectiveKind
    parts: tuple[CollectiveArray, ...]
    devices: int  # in a group
    count: int | None  # per run of the program; None in a branch, or in a loop of unknown trip count

    @property
    def bytes(self) -> int:
        """Payload: bytes of the summed, gathered, scattered or permuted array."""
        return sum(part.bytes for part in self.parts)

    @property
    def sent(self) -> float:
        """Bytes that each device sends with a ring algorithm, which is optimal for large arrays.

        An all-reduce sends 2 (n - 1) / n of its payload, a gather or scatter (n - 1) / n, a permute all of it.
        """
        if self.kind is CollectiveKind.PERMUTE:
            return float(self.bytes)
        return (2 if self.kind is CollectiveKind.ALL_REDUCE else 1) * (self.devices - 1) / self.devices * self.bytes


def list_collectives(hlo_text: str) -> tuple[Collective, ...]:
    """The collectives that each device runs in a compiled program, equal ones with their count.

    hlo_text: `jax.jit(f).lower(...).compile().as_text()`. A collective in a loop counts once per iteration if XLA's
    text states the trip count; otherwise, and in branches, the count is None.
    """
    computations, entry = _computations(hlo_text)
    all_devices = _header(hlo_text, "num_partitions") * _header(hlo_text, "replica_count")
    found: dict[Collective, int] = {}
    for collective, count in _walk(computations, entry, all_devices, 1):
        kept = replace(collective, count=None if count is None else 1)
        found[kept] = found.get(kept, 0) + (count or 1)
    return tuple(kept if kept.count is None else replace(kept, count=count) for kept, count in found.items())


def sent_bytes(collectives: tuple[Collective, ...]) -> float:
    """Bytes that each device sends per run; unknown counts are taken as 1."""
    return sum(collective.sent * (collective.count or 1) for collective in collectives)


def tensor_parallel_bytes(
    layers: int, width: int, tokens: int, devices: int, *, offered: int = 0, by_exchange: bool = False
) -> float:
    """Bytes that each device sends in a tensor-parallel pass: two all-reduces per layer.

    width: size of the activation of one token between layers. offered: values that each device sends to all others
    for sampling. by_exchange: each device sends its terms to all others, (n - 1) times the payload, instead of a
    ring's 2 (n - 1) / n. Source: Shoeybi et al., Megatron-LM, section 3.
    """
    share = float(devices - 1) if by_exchange else 2 * (devices - 1) / devices
    return 2 * layers * share * tokens * width * FLOAT_BYTES + (devices - 1) * offered * FLOAT_BYTES


def layer_parallel_bytes(width: int, tokens: int, devices: int) -> float:
    """Bytes that each device but the last sends in a pipeline-parallel pass: its result, once."""
    return float(tokens * width * FLOAT_BYTES) if devices > 1 else 0.0


def rpc_bytes(width: int, tokens: int, servers: int) -> float:
    """Bytes through llama.cpp's RPC client in a pass: activations to each server and back."""
    return 2.0 * servers * tokens * width * FLOAT_BYTES


# HLO text of a computation: its name, then a block of instructions, some of which call other computations.
_START = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_OPERATION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z\-]*)\(")
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Instructions of each computation by name, and the name of the entry computation."""
    found: dict[str, list[str]] = {}
    entry, block = "", None
    for line in map(str.strip, text.splitlines()):
        if start := _START.match(line):
            block = found.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif line == "}":
            block = None
        elif block is not None:
            block.append(line)
    return found, entry


def _walk(
    computations: dict[str, list[str]], name: str, all_devices: int, times: int | None
) -> Iterator[tuple[Collective, int | None]]:
    for line in computations.get(name, ()):
        operation = _OPERATION.match(line)
        if operation is None or operation[2].endswith(("-done", "-update")):
            continue  # the end of an asynchronous operation, which counted at its start
        result, kind = operation[1], operation[2]
        plain = kind.removesuffix("-start")
        if plain in tuple(CollectiveKind):
            yield _collective(CollectiveKind(plain), result, line, all_devices, started=kind != plain), times
            continue  # it calls the addition of two numbers
        inner = times
        if kind == "while":
            trips = _TRIPS.search(line)
            inner = None if trips is None or times is None else times * int(trips[1])
        for called in _CALLED.findall(line):
            yield from _walk(computations, called, all_devices, inner)
        for several, one in _BRANCHES.findall(line):
            for branch in (part.strip().lstrip("%") for part in (several or one).split(",")):
                yield from _walk(computations, branch, all_devices, None)


def _collective(kind: CollectiveKind, result: str, line: str, all_devices: int, *, started: bool) -> Collective:
    """Parse one line; the result of an asynchronous start also holds the operands."""
    parts = [
        CollectiveArray(dtype, tuple(int(n) for n in shape.split(",") if n)) for dtype, shape in _ARRAY.findall(result)
    ]
    if started and kind is CollectiveKind.PERMUTE:
        parts = parts[1:2]
    elif started and kind is not CollectiveKind.ALL_REDUCE:
        parts = parts[len(parts) // 2 :]
    devices = _group(line, all_devices)
    if kind is CollectiveKind.REDUCE_SCATTER:
        axis = int(re.search(r"dimensions=\{(\d+)\}", line)[1])  # type: ignore[index]
        parts = [_unscattered(part, axis, devices) for part in parts]
    return Collective(kind, tuple(parts), devices, 1)


def _unscattered(part: CollectiveArray, axis: int, devices: int) -> CollectiveArray:
    """The whole array before a reduce-scatter along an axis."""
    return replace(part, shape=tuple(n * devices if at == axis else n for at, n in enumerate(part.shape)))


def _group(line: str, all_devices: int) -> int:
    """Devices in one group: `{{0,1},{2,3}}` and `[2,2]<=[4]` are two groups of two, `{}` is all."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    return all_devices


def _header(text: str, name: str) -> int:
    found = re.search(rf"^HloModule.*\b{name}=(\d+)", text)
    return int(found[1]) if found else 1


def _bits(dtype: str) -> int:
    """Bits of an XLA type: the number in its name; 8 without one."""
    digits = re.search(r"\d+", dtype)
    return 8 if dtype == "pred" or digits is None else int(digits[0])
