"""Attention of many tokens (prefill): a vector holds one value of 16 query rows.

The T G queries that share a key/value head are its rows: row r is head r % G of token r // G. A task is a panel of as
many rows as there are lanes. It loops over the keys that any of its rows sees, tile by tile. A tile is dequantised to
float32, its scores with all rows are computed, and its values are accumulated with their weights, as in a GEMM.
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
    softcapped,
    vectors_of,
)
from minillama.kernels.cpu.simd import (
    F32,
    I32,
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

KEYS = 64  # of a tile; a multiple of `_rows_per_step()`
_VECTOR_BYTES = 4 * LANES


@dataclass(frozen=True)
class _Task:
    """Addresses and variables of a task; arrays are float32."""

    args: AttentionArgs
    lanes: int
    first: Value  # its first row
    rows: Value  # T G
    batch: Value
    head: Value  # k
    q: Value  # [H, lanes], times the scale
    positions: Value  # int32 [lanes], of the rows
    keys: Value  # [KEYS, H], the tile
    values: Value  # [KEYS, H_v], or the keys themselves
    weights: Value  # [KEYS, lanes], s and then e^(s - m')
    acc: Value  # [H_v, lanes], o
    row_max: list[Var]  # m, 16 lanes each
    row_sum: list[Var]  # l

    @property
    def vectors(self) -> range:
        """Numbers of the vectors of all lanes."""
        return range(self.lanes // LANES)

    @property
    def lanes_bytes(self) -> int:
        """Bytes of one value of all lanes."""
        return 4 * self.lanes

    def token_and_query(self, row: Value) -> tuple[Value, Value]:
        """b T + t of a row, and its index in [B, T, N]."""
        groups = self.args.spec.groups
        token = self.batch * self.args.time + row // groups
        return token, (token * self.args.kv_heads + self.head) * groups + row % groups


def define_prefill(module: Module, name: str, spec: AttentionSpec, lanes: int) -> None:
    """`name(args, task)`: compute one task; its number is (b K + k) ceil(T G / lanes) + panel."""

    def body(address: Value, index: Value) -> None:
        args = AttentionArgs(address, spec)
        rows = args.time * spec.groups
        panels = (rows + (lanes - 1)) // lanes
        batch_head = index // panels  # b K + k
        cache_head = args.cache_head(batch_head // args.kv_heads, batch_head % args.kv_heads)
        keys, values = args.keys(cache_head), args.values(cache_head)
        task = _begin(args, lanes, index % panels * lanes, rows, batch_head)
        lowest, highest = _gather_queries(task)
        if spec.sinks:
            _start_with_sinks(task)
        end = highest + 1
        for start in loop(first_visible(lowest, args.window), end, KEYS):
            count = min_(end - start, KEYS)
            for k in loop(0, count):
                _dequantise(spec.keys, keys, start + k, task.keys + k * (spec.key_size * 4))
                if not spec.shared:
                    _dequantise(spec.values, values, start + k, task.values + k * (spec.value_size * 4))
            new_max = _compute_scores(task, start, count)
            rescales = _softmax_step(task, count, new_max)
            _accumulate_values(task, count, rescales)
        _scatter_result(task)

    module.define(name, 2, body)


def _begin(args: AttentionArgs, lanes: int, first: Value, rows: Value, batch_head: Value) -> _Task:
    """Set m and l to their first values without sinks, o to 0."""
    spec, vectors = args.spec, range(lanes // LANES)
    tile = alloca(KEYS * spec.key_size * 4)
    task = _Task(
        args=args,
        lanes=lanes,
        first=first,
        rows=rows,
        batch=batch_head // args.kv_heads,
        head=batch_head % args.kv_heads,
        q=alloca(spec.key_size * lanes * 4),
        positions=alloca(lanes * 4),
        keys=tile,
        values=tile if spec.shared else alloca(KEYS * spec.value_size * 4),
        weights=alloca(KEYS * lanes * 4),
        acc=alloca(spec.value_size * lanes * 4),
        row_max=[Var(const(LOWEST, F32, LANES)) for _ in vectors],
        row_sum=[Var(const(0.0, F32, LANES)) for _ in vectors],
    )
    for h in loop(0, spec.value_size):
        _store_lanes([const(0.0, F32, LANES) for _ in vectors], task.acc + h * task.lanes_bytes)
    return task


def _gather_queries(task: _Task) -> tuple[Value, Value]:
    """Copy the queries into lanes; lanes after the last row repeat the first.

    Returns the lowest and the highest position.
    """
    args, spec = task.args, task.args.spec
    lowest, highest = Var(const(1 << 40)), Var(const(-1))
    for lane in loop(0, task.lanes):
        row = task.first + lane
        token, query = task.token_and_query(select(row < task.rows, row, task.first))
        position = args.position(token)
        store(position.to(I32), task.positions + lane * 4)
        lowest.value = min_(lowest.value, position)
        highest.value = select(highest.value < position, position, highest.value)
        q = args.q + query * (spec.key_size * 4)
        for h in loop(0, spec.key_size):
            store(load(F32, 1, q + h * 4) * args.scale, task.q + h * task.lanes_bytes + lane * 4)
    return lowest.value, highest.value


def _start_with_sinks(task: _Task) -> None:
    """Set m of each row to the sink of its head, and l to 1."""
    groups = task.args.spec.groups
    sinks, found = task.args.sinks + task.head * (groups * 4), alloca(task.lanes_bytes)
    for lane in loop(0, task.lanes):
        store(load(F32, 1, sinks + (task.first + lane) % groups * 4), found + lane * 4)
    for v, sink in enumerate(_load_lanes(task, found)):
        task.row_max[v].value, task.row_sum[v].value = sink, const(1.0, F32, LANES)


def _dequantise(layout: CacheLayout, head: Value, position: Value, to: Value) -> None:
    """Store a position's values as float32."""
    for i, lanes in vectors_of(layout.size):
        store(layout.load_f32(lanes, head, position, i), to + i * 4)


def _compute_scores(task: _Task, start: Value, count: Value) -> list[Value]:
    """Masked scores s = q·k of a tile, -inf if hidden; returns m' = max(m, max s).

    Several keys are multiplied at a time. Those after the last one are left from another tile; no row sees them.
    """
    rows = _rows_per_step()
    new_max = [Var(top.value) for top in task.row_max]
    for k in loop(0, count, rows):
        scores = _dot_keys(task, task.keys + k * (task.args.spec.key_size * 4), rows)
        for r in range(rows):
            masked = []
            for v, top in enumerate(new_max):
                is_visible = _visible(task.args, start + k + r, load(I32, LANES, task.positions + _VECTOR_BYTES * v))
                masked.append(select(is_visible, softcapped(task.args, scores[r][v]), -math.inf))
                top.value = max_(top.value, masked[-1])
            _store_lanes(masked, task.weights + (k + r) * task.lanes_bytes)
    return [top.value for top in new_max]


def _dot_keys(task: _Task, keys: Value, count: int) -> list[list[Value]]:
    """q·k of `count` keys with every lane."""
    size = task.args.spec.key_size
    products = [[Var(const(0.0, F32, LANES)) for _ in task.vectors] for _ in range(count)]
    for h in loop(0, size):
        qs = _load_lanes(task, task.q + h * task.lanes_bytes)
        for r in range(count):
            key = load_splat(F32, LANES, keys + r * (size * 4) + h * 4)
            for q, product in zip(qs, products[r], strict=True):
                product.value = fma(key, q, product.value)
    return [[product.value for product in row] for row in products]


def _visible(args: AttentionArgs, key: Value, positions: Value) -> Value:
    """Mask of the queries, of 16, that see a key: causal and within the window."""
    key, window = key.to(I32), args.window.to(I32)
    windows = splat(select(const(0, I32) < window, window, const(1 << 30, I32)), positions.lanes)
    return (splat(key, positions.lanes) < positions + 1) & (positions - key < windows)


def _softmax_step(task: _Task, count: Value, new_max: list[Value]) -> list[Value]:
    """l' = l e^(m-m') + sum e^(s-m'), and the terms of this sum; returns e^(m-m')."""
    rescales = [exp(old.value - new) for old, new in zip(task.row_max, new_max, strict=True)]
    for v in task.vectors:
        task.row_sum[v].value, task.row_max[v].value = task.row_sum[v].value * rescales[v], new_max[v]
    for k in loop(0, count):
        address = task.weights + k * task.lanes_bytes
        weights = []
        for v, score in enumerate(_load_lanes(task, address)):
            weights.append(exp(score - task.row_max[v].value))
            task.row_sum[v].value = task.row_sum[v].value + weights[-1]
        _store_lanes(weights, address)
    return rescales


def _accumulate_values(task: _Task, count: Value, rescales: list[Value]) -> None:
    """o' = o e^(m-m') + sum e^(s-m') v, some values at a time."""
    size = task.args.spec.value_size
    stride = task.args.spec.key_size if task.args.spec.shared else size
    rows = math.gcd(size, _rows_per_step())
    for h in loop(0, size, rows):
        addresses = [task.acc + h * task.lanes_bytes + r * task.lanes_bytes for r in range(rows)]
        acc = [
            [Var(o * rescale) for o, rescale in zip(_load_lanes(task, address), rescales, strict=True)]
            for address in addresses
        ]
        for k in loop(0, count):
            weights = _load_lanes(task, task.weights + k * task.lanes_bytes)
            for r in range(rows):
                value = load_splat(F32, LANES, task.values + (k * stride + h + r) * 4)
                for o, weight in zip(acc[r], weights, strict=True):
                    o.value = fma(value, weight, o.value)
        for address, row in zip(addresses, acc, strict=True):
            _store_lanes([o.value for o in row], address)


def _scatter_result(task: _Task) -> None:
    """Store o / l of every row at its place in the result."""
    size = task.args.spec.value_size
    for h in loop(0, size):
        address = task.acc + h * task.lanes_bytes
        sums = zip(_load_lanes(task, address), task.row_sum, strict=True)
        _store_lanes([o / row_sum.value for o, row_sum in sums], address)
    for lane in loop(0, min_(task.rows - task.first, task.lanes)):
        _, query = task.token_and_query(task.first + lane)
        out = task.args.out + query * (size * 4)
        for h in loop(0, size):
            store(load(F32, 1, task.acc + h * task.lanes_bytes + lane * 4), out + h * 4)


def _rows_per_step() -> int:
    """Rows of 32 lanes that fit in the vector registers."""
    return 8 if current_isa().has_avx512 else 2


def _load_lanes(task: _Task, address: Value) -> list[Value]:
    """Load one value of all lanes."""
    return [load(F32, LANES, address + _VECTOR_BYTES * v) for v in task.vectors]


def _store_lanes(values: list[Value], address: Value) -> None:
    for v, value in enumerate(values):
        store(value, address + _VECTOR_BYTES * v)
