"""Attention of many tokens: a register holds one number of 16 query rows, and what the cache holds is repeated over it.

The T G queries that share a key/value head are its rows: row r is head r % G of token r // G. A task has as many rows
as there are lanes, side by side in a panel, and goes over the keys that any of them sees in tiles: a tile is opened
into float32, its scores with all rows are kept, and its values are added up weighted, as in a product of matrices.
"""

import math
from dataclasses import dataclass

from minillama.kernels.cpu.attention.attention_args import (
    LANES,
    LOWEST,
    AttentionArgs,
    AttentionSpec,
    CacheLayout,
    first_visible,
    pieces,
    softcapped,
)
from minillama.kernels.cpu.simd import (
    F32,
    I32,
    I64,
    Module,
    Value,
    Var,
    alloca,
    const,
    current_isa,
    exp,
    fma,
    load,
    load_splat,
    loop,
    max_,
    min_,
    select,
    splat,
    store,
)

KEYS = 64  # of a tile; a multiple of those that are multiplied together
_REGISTER = 4 * LANES  # bytes


@dataclass(frozen=True)
class _Task:
    """Where everything lies; arrays are float32 and their last axis are the lanes, but for what is opened."""

    call: AttentionArgs
    lanes: int
    first: Value  # its first row
    rows: Value  # T G
    batch: Value
    head: Value  # k
    q: Value  # [H, lanes], times the scale
    places: Value  # int32 [lanes], positions of the rows
    keys: Value  # [KEYS, H], the tile in hand
    values: Value  # [KEYS, H_v]
    weights: Value  # [KEYS, lanes], s and then e^(s - m')
    acc: Value  # [H_v, lanes], o
    row_max: list[Var]  # m, 16 lanes each
    row_sum: list[Var]  # l

    @property
    def vectors(self) -> range:
        """Numbers of the registers that a row of lanes takes."""
        return range(self.lanes // LANES)

    @property
    def row_bytes(self) -> int:
        """From one row of lanes to the next."""
        return 4 * self.lanes

    def token_and_query(self, row: Value) -> tuple[Value, Value]:
        """b T + t and the number of the query among all of a call, in the order of [B, T, N]."""
        groups = self.call.heads.groups
        token = self.batch * self.call.time + row // groups
        return token, (token * self.call.kv_heads + self.head) * groups + row % groups


def define_prefill(module: Module, name: str, heads: AttentionSpec, lanes: int) -> None:
    """`name(call, number)`: one task; its number is (b K + k) blocks + block, of ceil(T G / lanes) blocks."""

    def body(address: Value, index: Value) -> None:
        call = AttentionArgs(address, heads)
        rows = call.time * heads.groups
        blocks = (rows + (lanes - 1)) // lanes
        shared = index // blocks  # b K + k
        keys, values = call.keys(shared), call.values(shared)
        task = _begin(call, lanes, index % blocks * lanes, rows, shared)
        lowest, highest = _gather(task)
        end = highest + 1
        for start in loop(first_visible(lowest, call.window), end, KEYS):
            count = min_(end - start, KEYS)
            for k in loop(0, count):
                _open(heads.keys, keys, start + k, task.keys + k * (heads.key_size * 4))
                _open(heads.values, values, start + k, task.values + k * (heads.value_size * 4))
            row_max = _score(task, start, count)
            rescales = _weigh(task, count, row_max)
            _mix(task, count, rescales)
        _scatter(task)

    module.define(name, 2, body)


def _begin(call: AttentionArgs, lanes: int, first: Value, rows: Value, shared: Value) -> _Task:
    """Nothing has been seen yet: m is LOWEST, l and o are 0."""
    heads, vectors = call.heads, range(lanes // LANES)
    task = _Task(
        call,
        lanes,
        first,
        rows,
        shared // call.kv_heads,
        shared % call.kv_heads,
        alloca(heads.key_size * lanes * 4),
        alloca(lanes * 4),
        alloca(KEYS * heads.key_size * 4),
        alloca(KEYS * heads.value_size * 4),
        alloca(KEYS * lanes * 4),
        alloca(heads.value_size * lanes * 4),
        [Var(const(LOWEST, F32, LANES)) for _ in vectors],
        [Var(const(0.0, F32, LANES)) for _ in vectors],
    )
    for h in loop(0, heads.value_size):
        _store_row([const(0.0, F32, LANES) for _ in vectors], task.acc + h * task.row_bytes)
    return task


def _gather(task: _Task) -> tuple[Value, Value]:
    """Put the queries side by side, the first again behind the last; returns their lowest and highest position."""
    call, heads = task.call, task.call.heads
    lowest, highest = Var(const(1 << 40)), Var(const(-1))
    for lane in loop(0, task.lanes):
        row = task.first + lane
        token, query = task.token_and_query(select(row < task.rows, row, task.first))
        position = load(I32, 1, call.positions + token * 4)
        store(position, task.places + lane * 4)
        lowest.value = min_(lowest.value, position.to(I64))
        highest.value = select(highest.value < position.to(I64), position.to(I64), highest.value)
        q = call.q + query * (heads.key_size * 4)
        for h in loop(0, heads.key_size):
            store(load(F32, 1, q + h * 4) * call.scale, task.q + h * task.row_bytes + lane * 4)
    return lowest.value, highest.value


def _open(side: CacheLayout, head: list[Value], position: Value, to: Value) -> None:
    """Read a position's numbers as float32."""
    for i, lanes in pieces(side.size):
        store(side.read(lanes, head, position, i), to + i * 4)


def _score(task: _Task, start: Value, count: Value) -> list[Value]:
    """s = q·k, -inf where a row does not see a key; returns m' = max(m, max s).

    Several keys are multiplied together, and so perhaps some behind the last: left over from elsewhere, seen by none.
    """
    together = _together()
    higher = [Var(top.value) for top in task.row_max]
    for k in loop(0, count, together):
        scores = _products(task, task.keys + k * (task.call.heads.key_size * 4), together)
        for r in range(together):
            kept = []
            for v, top in enumerate(higher):
                seen = _seen(task.call, start + k + r, load(I32, LANES, task.places + _REGISTER * v))
                kept.append(select(seen, softcapped(task.call, scores[r][v]), -math.inf))
                top.value = max_(top.value, kept[-1])
            _store_row(kept, task.weights + (k + r) * task.row_bytes)
    return [top.value for top in higher]


def _products(task: _Task, keys: Value, count: int) -> list[list[Value]]:
    """q·k of `count` keys with every lane."""
    size = task.call.heads.key_size
    products = [[Var(const(0.0, F32, LANES)) for _ in task.vectors] for _ in range(count)]
    for h in loop(0, size):
        qs = _load_row(task, task.q + h * task.row_bytes)
        for r in range(count):
            key = load_splat(F32, LANES, keys + r * (size * 4) + h * 4)
            for q, product in zip(qs, products[r], strict=True):
                product.value = fma(key, q, product.value)
    return [[product.value for product in row] for row in products]


def _seen(call: AttentionArgs, key: Value, positions: Value) -> Value:
    """Which of 16 queries see a key: itself and earlier ones, and of these the last `window` if not 0."""
    key, window = key.to(I32), call.window.to(I32)
    windows = splat(select(const(0, I32) < window, window, const(1 << 30, I32)), positions.lanes)
    return (splat(key, positions.lanes) < positions + 1) & (positions - key < windows)


def _weigh(task: _Task, count: Value, row_max: list[Value]) -> list[Value]:
    """l' = l e^(m-m') + sum e^(s-m'), and the terms of this sum; returns e^(m-m')."""
    rescales = [exp(old.value - new) for old, new in zip(task.row_max, row_max, strict=True)]
    for v in task.vectors:
        task.row_sum[v].value, task.row_max[v].value = task.row_sum[v].value * rescales[v], row_max[v]
    for k in loop(0, count):
        place = task.weights + k * task.row_bytes
        weights = []
        for v, score in enumerate(_load_row(task, place)):
            weights.append(exp(score - task.row_max[v].value))
            task.row_sum[v].value = task.row_sum[v].value + weights[-1]
        _store_row(weights, place)
    return rescales


def _mix(task: _Task, count: Value, rescales: list[Value]) -> None:
    """o' = o e^(m-m') + sum e^(s-m') v, for some numbers of a head at a time."""
    size = task.call.heads.value_size
    together = math.gcd(size, _together())
    for h in loop(0, size, together):
        places = [task.acc + h * task.row_bytes + r * task.row_bytes for r in range(together)]
        acc = [
            [Var(o * rescale) for o, rescale in zip(_load_row(task, place), rescales, strict=True)] for place in places
        ]
        for k in loop(0, count):
            weights = _load_row(task, task.weights + k * task.row_bytes)
            for r in range(together):
                value = load_splat(F32, LANES, task.values + (k * size + h + r) * 4)
                for o, weight in zip(acc[r], weights, strict=True):
                    o.value = fma(value, weight, o.value)
        for place, row in zip(places, acc, strict=True):
            _store_row([o.value for o in row], place)


def _scatter(task: _Task) -> None:
    """Write o / l of every row to its place in the result."""
    size = task.call.heads.value_size
    for h in loop(0, size):
        place = task.acc + h * task.row_bytes
        _store_row([o / t.value for o, t in zip(_load_row(task, place), task.row_sum, strict=True)], place)
    for lane in loop(0, min_(task.rows - task.first, task.lanes)):
        _, query = task.token_and_query(task.first + lane)
        out = task.call.out + query * (size * 4)
        for h in loop(0, size):
            store(load(F32, 1, task.acc + h * task.row_bytes + lane * 4), out + h * 4)


def _together() -> int:
    """Rows of 32 lanes that are multiplied at a time: as many as there are registers for."""
    return 8 if current_isa().has_avx512 else 2


def _load_row(task: _Task, place: Value) -> list[Value]:
    """A row of lanes."""
    return [load(F32, LANES, place + _REGISTER * v) for v in task.vectors]


def _store_row(values: list[Value], place: Value) -> None:
    for v, value in enumerate(values):
        store(value, place + _REGISTER * v)
