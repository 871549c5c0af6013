"""Attention of a few tokens (decode): a vector holds consecutive values of a head.

A task is the queries of one position that share a key/value head, or some of them where they are many. So the result
does not depend on how many tokens are computed at once. A tile of keys is dequantised to float32 and multiplied with
the queries. Its values are then accumulated in registers, some values of a head after the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minillama.kernels.cpu.attention.attention_args import (
    LANES,
    LOWEST,
    AttentionArgs,
    AttentionSpec,
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

KEYS = 16  # of a tile: a vector holds the scores of a query
_LONGEST_UNROLLED = 256  # numbers of a key
_ACCUMULATORS = 16  # vectors of the result that are accumulated at a time


@dataclass(frozen=True)
class _Task:
    """Addresses and variables of a task; arrays between the steps are float32."""

    args: AttentionArgs
    position: Value
    keys: Value  # of the head, in the cache
    values: Value
    out: Value  # [G, H_v]
    q: Value  # [G, H], times the scale
    dequantised: Value  # [KEYS, H], a tile of keys
    weights: Value  # [G, KEYS], e^(s - m')
    acc: Value  # [G, H_v], o
    row_max: list[Var]  # [G], m
    row_sum: list[Var]  # [G], l

    def key_address(self, array: Value, row: int | Value, at: int | Value) -> Value:
        """Address of a value in an array with rows of H."""
        return array + row * (self.args.spec.key_size * 4) + at * 4

    def value_address(self, array: Value, row: int, at: int | Value) -> Value:
        """Address of a value in an array with rows of H_v."""
        return array + row * (self.args.spec.value_size * 4) + at * 4


def is_wide(spec: AttentionSpec) -> bool:
    """Whether heads are long: LLVM would take many seconds for unrolled loops."""
    return spec.key_size > _LONGEST_UNROLLED


def define_decode(module: Module, name: str, spec: AttentionSpec) -> None:
    """`name(args, task)`: compute one task; its number is ((b T + t) K + k) splits + split."""

    def body(address: Value, index: Value) -> None:
        task = _begin(AttentionArgs(address, spec), index)
        first = first_visible(task.position, task.args.window)
        for start in loop(first, task.position + 1, KEYS):
            _dequantise_keys(task, start)
            rescales = _softmax_step(task, start)
            _accumulate_values(task, start, rescales)
        _store_result(task)

    module.define(name, 2, body)


def _begin(args: AttentionArgs, index: Value) -> _Task:
    """Scale the queries; set m and l to their first values, o to 0."""
    spec, groups, tasks = args.spec, args.spec.task_groups, args.kv_heads * args.spec.splits
    head, at = index % tasks, index // tasks  # at: b T + t
    cache_head = args.cache_head(at // args.time, head // spec.splits)
    sinks = args.sinks + head * (groups * 4)
    task = _Task(
        args=args,
        position=args.position(at),
        keys=args.keys(cache_head),
        values=args.values(cache_head),
        out=args.out + index * (groups * spec.value_size * 4),
        q=alloca(groups * spec.key_size * 4),
        dequantised=alloca(KEYS * spec.key_size * 4),
        weights=alloca(groups * KEYS * 4),
        acc=alloca(groups * spec.value_size * 4),
        row_max=[Var(load(F32, 1, sinks + g * 4) if spec.sinks else const(LOWEST, F32)) for g in range(groups)],
        row_sum=[Var(const(1.0 if spec.sinks else 0.0, F32)) for _ in range(groups)],
    )
    q, scale = args.q + index * (groups * spec.key_size * 4), args.scale
    for g in range(groups):
        for i, lanes in vectors_of(spec.key_size):
            store(load(F32, lanes, task.key_address(q, g, i)) * scale, task.key_address(task.q, g, i))
        for i, lanes in vectors_of(spec.value_size):
            store(const(0.0, F32, lanes), task.value_address(task.acc, g, i))
    return task


def _dequantise_keys(task: _Task, start: Value) -> None:
    """Load KEYS keys from `start` on; after the last visible one, that one again."""
    layout = task.args.spec.keys
    for k in loop(0, KEYS) if is_wide(task.args.spec) else range(KEYS):
        position = min_(start + k, task.position)
        for i, lanes in vectors_of(layout.size):
            key = layout.load_f32(lanes, task.keys, position, i)
            store(key, task.key_address(task.dequantised, k, i))


def _softmax_step(task: _Task, start: Value) -> list[Value]:
    """Scores and softmax weights of a tile; returns e^(m-m') of each query.

    s = q·k; m' = max(m, max s); l' = l e^(m-m') + sum e^(s-m')
    """
    positions = splat(start.to(I32), KEYS) + const_vector(range(KEYS), I32)
    is_visible = positions < (task.position + 1).to(I32)
    rescales = []
    if is_wide(task.args.spec):
        _store_scores(task)
    for g in range(task.args.spec.task_groups):
        if is_wide(task.args.spec):
            score = load(F32, KEYS, task.weights + g * KEYS * 4)
        else:
            score = row_sums([_partial_dots(task, k, g) for k in range(KEYS)])
        score = softcapped(task.args, score)
        score = select(is_visible, score, LOWEST)
        new_max = max_(task.row_max[g].value, reduce(score, max_))
        weight = select(is_visible, exp(score - new_max), 0.0)
        rescale = exp(splat(task.row_max[g].value - new_max, 2))[0]
        store(weight, task.weights + g * KEYS * 4)
        task.row_sum[g].value = fma(task.row_sum[g].value, rescale, reduce_sum(weight))
        task.row_max[g].value = new_max
        rescales.append(rescale)
    return rescales


def _partial_dots(task: _Task, key: int, query: int) -> Value:
    """A vector whose lanes add up to q·k."""
    product = const(0.0, F32, LANES)
    for i, lanes in vectors_of(task.args.spec.key_size):
        k = load(F32, lanes, task.key_address(task.dequantised, key, i))
        q = load(F32, lanes, task.key_address(task.q, query, i))
        product = fma(zero_pad(k, LANES), zero_pad(q, LANES), product)
    return product


def _store_scores(task: _Task) -> None:
    """Store q·k of a tile, key by key, at the place of the weights."""
    queries = range(task.args.spec.task_groups)
    for k in loop(0, KEYS):
        sums = [const(0.0, F32, LANES) for _ in queries]
        for i, lanes in vectors_of(task.args.spec.key_size):
            key = zero_pad(load(F32, lanes, task.key_address(task.dequantised, k, i)), LANES)
            for g in queries:
                q = zero_pad(load(F32, lanes, task.key_address(task.q, g, i)), LANES)
                sums[g] = fma(key, q, sums[g])
        for g in queries:
            store(reduce_sum(sums[g]), task.weights + (k + g * KEYS) * 4)


def _accumulate_values(task: _Task, start: Value, rescales: list[Value]) -> None:
    """o' = o e^(m-m') + sum e^(s-m') v."""
    spec = task.args.spec
    count = max(1, _ACCUMULATORS // spec.task_groups)
    first, step = 0, count * LANES
    if is_wide(spec):
        first = spec.value_size // step * step
        for at in loop(0, first, step):
            _accumulate_chunk(task, start, rescales, [(at + i * LANES, LANES) for i in range(count)])
    vectors = [(i, lanes) for i, lanes in vectors_of(spec.value_size) if i >= first]
    for i in range(0, len(vectors), count):
        _accumulate_chunk(task, start, rescales, vectors[i : i + count])


def _accumulate_chunk(
    task: _Task, start: Value, rescales: list[Value], chunk: Sequence[tuple[int | Value, int]]
) -> None:
    """Some vectors of values, (first value, lanes) each."""
    spec, queries = task.args.spec, range(task.args.spec.task_groups)
    acc = [[load(F32, lanes, task.value_address(task.acc, g, i)) * rescales[g] for i, lanes in chunk] for g in queries]
    for k in range(KEYS):
        if spec.shared:
            vs = [load(F32, lanes, task.key_address(task.dequantised, k, i)) for i, lanes in chunk]
        else:
            position = min_(start + k, task.position)
            vs = [spec.values.load_f32(lanes, task.values, position, i) for i, lanes in chunk]
        for g in queries:
            weight = load(F32, 1, task.weights + (g * KEYS + k) * 4)
            acc[g] = [fma(splat(weight, v.lanes), v, o) for v, o in zip(vs, acc[g], strict=True)]
    for g in queries:
        for (i, _), o in zip(chunk, acc[g], strict=True):
            store(o, task.value_address(task.acc, g, i))


def _store_result(task: _Task) -> None:
    """The result is o / l."""
    spec = task.args.spec
    for g in range(spec.task_groups):
        for i, lanes in vectors_of(spec.value_size):
            o = load(F32, lanes, task.value_address(task.acc, g, i))
            store(o / task.row_sum[g].value, task.value_address(task.out, g, i))
