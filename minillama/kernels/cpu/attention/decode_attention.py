"""Attention of a few tokens: a register holds neighbours of a head, and a key is read once for all heads that share it.

A task is one position's queries of one key/value head, so that what comes out does not depend on how many tokens are
computed at once. Some keys are opened into float32, multiplied with the G queries and weighed; their values are then
added up in registers, for some numbers of a head after others.
"""

from dataclasses import dataclass

from minillama.kernels.cpu.attention.attention_args import (
    LANES,
    LOWEST,
    AttentionArgs,
    AttentionSpec,
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
    const_vector,
    exp,
    fma,
    load,
    loop,
    max_,
    min_,
    reduce,
    reduce_sum,
    row_sums,
    select,
    splat,
    store,
    zero_pad,
)

KEYS = 16  # at a time: a register holds the scores of a query
_REGISTERS = 16  # of sums that grow side by side


@dataclass(frozen=True)
class _Task:
    """Where everything lies; all that is kept between steps is float32."""

    call: AttentionArgs
    position: Value
    keys: list[Value]
    values: list[Value]
    out: Value  # [G, H_v]
    q: Value  # [G, H], times the scale
    dequantised: Value  # [KEYS, H], the keys in hand
    weights: Value  # [G, KEYS], e^(s - m')
    acc: Value  # [G, H_v], o
    row_max: list[Var]  # [G], m
    row_sum: list[Var]  # [G], l

    def key_place(self, array: Value, row: int, at: int) -> Value:
        """Address of a number of an array whose rows are as long as keys."""
        return array + (row * self.call.heads.key_size + at) * 4

    def value_place(self, array: Value, row: int, at: int) -> Value:
        """Address of a number of an array whose rows are as long as values."""
        return array + (row * self.call.heads.value_size + at) * 4


def define_decode(module: Module, name: str, heads: AttentionSpec) -> None:
    """`name(call, number)`: one task; its number is (b T + t) K + k."""

    def body(address: Value, index: Value) -> None:
        task = _begin(AttentionArgs(address, heads), index)
        first = first_visible(task.position, task.call.window)
        for start in loop(first, task.position + 1, KEYS):
            _open_keys(task, start)
            rescales = _weigh(task, start)
            _mix(task, start, rescales)
        _finish(task)

    module.define(name, 2, body)


def _begin(call: AttentionArgs, index: Value) -> _Task:
    """Scale the queries; nothing has been seen yet: m is LOWEST, l and o are 0."""
    heads, groups = call.heads, call.heads.groups
    head, at = index % call.kv_heads, index // call.kv_heads  # at: b T + t
    shared = at // call.time * call.kv_heads + head
    task = _Task(
        call,
        load(I32, 1, call.positions + at * 4).to(I64),
        call.keys(shared),
        call.values(shared),
        call.out + index * (groups * heads.value_size * 4),
        alloca(groups * heads.key_size * 4),
        alloca(KEYS * heads.key_size * 4),
        alloca(groups * KEYS * 4),
        alloca(groups * heads.value_size * 4),
        [Var(const(LOWEST, F32)) for _ in range(groups)],
        [Var(const(0.0, F32)) for _ in range(groups)],
    )
    q, scale = call.q + index * (groups * heads.key_size * 4), call.scale
    for g in range(groups):
        for i, lanes in pieces(heads.key_size):
            store(load(F32, lanes, task.key_place(q, g, i)) * scale, task.key_place(task.q, g, i))
        for i, lanes in pieces(heads.value_size):
            store(const(0.0, F32, lanes), task.value_place(task.acc, g, i))
    return task


def _open_keys(task: _Task, start: Value) -> None:
    """Read KEYS keys from `start` on; behind the last that is seen, the last again."""
    side = task.call.heads.keys
    for k in range(KEYS):
        there = min_(start + k, task.position)
        for i, lanes in pieces(side.size):
            store(side.read(lanes, task.keys, there, i), task.key_place(task.dequantised, k, i))


def _weigh(task: _Task, start: Value) -> list[Value]:
    """s = q·k; m' = max(m, max s); l' = l e^(m-m') + sum e^(s-m'). Returns e^(m-m') of each query."""
    seen = (splat(start.to(I32), KEYS) + const_vector(range(KEYS), I32)) < (task.position + 1).to(I32)
    rescales = []
    for g in range(task.call.heads.groups):
        score = softcapped(task.call, row_sums([_product(task, k, g) for k in range(KEYS)]))
        score = select(seen, score, LOWEST)
        top = max_(task.row_max[g].value, reduce(score, max_))
        weight = select(seen, exp(score - top), 0.0)
        rescale = exp(splat(task.row_max[g].value - top, 2))[0]
        store(weight, task.weights + g * KEYS * 4)
        task.row_sum[g].value = fma(task.row_sum[g].value, rescale, reduce_sum(weight))
        task.row_max[g].value = top
        rescales.append(rescale)
    return rescales


def _product(task: _Task, key: int, query: int) -> Value:
    """A register whose lanes add up to q·k."""
    product = const(0.0, F32, LANES)
    for i, lanes in pieces(task.call.heads.key_size):
        k = load(F32, lanes, task.key_place(task.dequantised, key, i))
        q = load(F32, lanes, task.key_place(task.q, query, i))
        product = fma(zero_pad(k, LANES), zero_pad(q, LANES), product)
    return product


def _mix(task: _Task, start: Value, rescales: list[Value]) -> None:
    """o' = o e^(m-m') + sum e^(s-m') v."""
    side, queries = task.call.heads.values, range(task.call.heads.groups)
    cut, together = pieces(side.size), max(1, _REGISTERS // task.call.heads.groups)
    for chunk in (cut[i : i + together] for i in range(0, len(cut), together)):
        rows = [
            [load(F32, lanes, task.value_place(task.acc, g, i)) * rescales[g] for i, lanes in chunk] for g in queries
        ]
        for k in range(KEYS):
            there = min_(start + k, task.position)
            vs = [side.read(lanes, task.values, there, i) for i, lanes in chunk]
            for g in queries:
                weight = load(F32, 1, task.weights + (g * KEYS + k) * 4)
                rows[g] = [fma(splat(weight, v.lanes), v, o) for v, o in zip(vs, rows[g], strict=True)]
        for g in queries:
            for (i, _), o in zip(chunk, rows[g], strict=True):
                store(o, task.value_place(task.acc, g, i))


def _finish(task: _Task) -> None:
    """The result is o / l."""
    heads = task.call.heads
    for g in range(heads.groups):
        for i, lanes in pieces(heads.value_size):
            acc = load(F32, lanes, task.value_place(task.acc, g, i))
            store(acc / task.row_sum[g].value, task.value_place(task.out, g, i))
