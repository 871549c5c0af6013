"""The gated delta rule, token after token, on rows of a memory.

For a memory M [values, keys] of a head, and a token with query q, key k, value v (Yang et al. 2024, arXiv:2412.06464),
after q and k are divided by their lengths:

    d = beta (v - decay M k);  the result is decay M q + (k·q) d;  M' = decay M + d kᵀ

The rows of M do not depend on each other. A task is a panel of them, which stays in the first cache for all tokens. It
reads and writes M once a token: the change by a token is written while the products with the next one are summed. This
takes fewer operations than products of matrices, chunk by chunk, which pay where a memory is far from the processor.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minillama.kernels.cpu.simd import (
    F32,
    Module,
    Struct,
    Value,
    Word,
    alloca,
    const,
    current_isa,
    fma,
    load,
    load_splat,
    loop,
    reduce_sum,
    row_sums,
    select,
    sqrt,
    store,
)

ROWS = 32  # of a panel; the size of a head is a multiple of it


@dataclass(frozen=True)
class DeltaRuleSpec:
    """The size that a kernel is compiled for."""

    size: int  # of a key and of a value

    @property
    def name(self) -> str:
        """Name of the XLA FFI target."""
        return f"minillama_delta_rule_{self.size}"


class DeltaRuleArgs(Struct):
    """Arguments of a call; arrays are float32."""

    time = Word()  # T
    key_heads = Word()
    value_heads = Word()
    epsilon = Word(F32)  # added to the squares of lengths
    scale = Word(F32)  # factor of the results
    grouped = Word()  # 1: value head j has key head j // (value heads / key heads); 0: j % key heads
    channels = Word()  # C: numbers of a token in the next three
    q = Word()  # address of [B, T, C], its first key_heads size channels
    k = Word()  # address of the same for keys
    v = Word()  # address of the same for values, value_heads size
    decay = Word()  # address of [B, T, value heads]
    beta = Word()
    memory = Word()  # address of [B, value heads, size, size], changed in place
    out = Word()  # address of [B, T, value heads, size]


@dataclass(frozen=True)
class _Panel:
    """The rows of a task, and what they share."""

    args: DeltaRuleArgs
    size: int
    batch: Value
    head: Value  # value head
    key_head: Value
    row: Value  # the first one
    memory: Value  # address of its rows
    d: Value  # address of d of the last token divided by the length of its key, [ROWS]

    @property
    def chunks(self) -> range:
        """Offsets of the vectors of a row."""
        return range(0, self.size, lanes())

    def key(self, array: Value, token: Value) -> Value:
        """Address of a token's query or key."""
        at = (self.batch * self.args.time + token) * self.args.channels
        return array + (at + self.key_head * self.size) * 4

    def place(self, token: Value) -> Value:
        """Index of a token in arrays [B, T, value heads]."""
        return (self.batch * self.args.time + token) * self.args.value_heads + self.head

    def value(self, token: Value) -> Value:
        """Address of the panel's part of a token's value."""
        at = (self.batch * self.args.time + token) * self.args.channels
        return self.args.v + (at + self.head * self.size + self.row) * 4

    def result(self, token: Value) -> Value:
        """Address of the panel's part of a token's result."""
        return self.args.out + (self.place(token) * self.size + self.row) * 4


def lanes() -> int:
    """Floats of a vector register."""
    return 16 if current_isa().has_avx512 else 8


def define_delta_rule(module: Module, name: str, spec: DeltaRuleSpec) -> None:
    """`name(args, task)`: compute one task; its number is (b value_heads + head) size / ROWS + panel."""

    def body(address: Value, index: Value) -> None:
        panel = _panel(DeltaRuleArgs(address), spec.size, index)
        _read(panel, const(0), is_first=True)
        for token in loop(1, panel.args.time):
            _read(panel, token, is_first=False)
        _write(panel, panel.args.time - 1)

    module.define(name, 2, body)


def _panel(args: DeltaRuleArgs, size: int, index: Value) -> _Panel:
    panels = size // ROWS
    of_batch, row = index // panels, index % panels * ROWS  # of_batch: b value_heads + head
    head, keys = of_batch % args.value_heads, args.key_heads
    key_head = select(args.grouped.equals(0), head % keys, head // (args.value_heads // keys))
    memory = args.memory + (of_batch * size + row) * (size * 4)
    return _Panel(args, size, of_batch // args.value_heads, head, key_head, row, memory, alloca(ROWS * 4))


def _read(panel: _Panel, token: Value, *, is_first: bool) -> None:
    """Results of a token, and its d.

    The change by the token before it is written on the way.
    """
    args, group = panel.args, lanes() // 2  # rows whose sums with k and with q fill a vector
    q, k = panel.key(args.q, token), panel.key(args.k, token)
    place = panel.place(token) * 4
    decay, beta = load(F32, 1, args.decay + place), load(F32, 1, args.beta + place)
    per_key, per_query, product = _lengths(panel, q, k)
    values, out = panel.value(token), panel.result(token)
    for first in loop(0, ROWS, group):
        rows = panel.memory + first * (panel.size * 4)
        sums = row_sums(_sums(panel, rows, q, k, None if is_first else (token - 1, panel.d + first * 4), group))
        of_k, of_q = (sums.permute(range(start, start + group)) for start in (0, group))
        d = (load(F32, group, values + first * 4) - of_k * (decay * per_key)) * beta
        store(fma(d, product, of_q * (decay * per_query)), out + first * 4)
        store(d * per_key, panel.d + first * 4)


def _sums(
    panel: _Panel, rows: Value, q: Value, k: Value, previous: tuple[Value, Value] | None, group: int
) -> list[Value]:
    """Vectors that add up to the products of `group` rows with k, then with q."""
    of_k, of_q = ([const(0.0, F32, lanes()) for _ in range(group)] for _ in range(2))
    change = None if previous is None else _change(panel, previous[0], previous[1], group)
    for at in panel.chunks:
        here_k, here_q = load(F32, lanes(), k + at * 4), load(F32, lanes(), q + at * 4)
        for r in range(group):
            place = rows + (r * panel.size + at) * 4
            numbers = load(F32, lanes(), place)
            if change is not None:
                numbers = change(numbers, r, at)
                store(numbers, place)
            of_k[r], of_q[r] = fma(numbers, here_k, of_k[r]), fma(numbers, here_q, of_q[r])
    return of_k + of_q


def _change(panel: _Panel, token: Value, d: Value, group: int) -> Callable[[Value, int, int], Value]:
    """A function (numbers of M, row, offset) -> decay M + d kᵀ of a token."""
    key, decay = panel.key(panel.args.k, token), load(F32, 1, panel.args.decay + panel.place(token) * 4)
    ds = [load_splat(F32, lanes(), d + 4 * r) for r in range(group)]

    def changed(numbers: Value, row: int, at: int) -> Value:
        return fma(ds[row], load(F32, lanes(), key + at * 4), numbers * decay)

    return changed


def _write(panel: _Panel, token: Value) -> None:
    """The change by the last token."""
    group = lanes() // 2
    for first in loop(0, ROWS, group):
        change = _change(panel, token, panel.d + first * 4, group)
        for r in range(group):
            for at in panel.chunks:
                place = panel.memory + first * (panel.size * 4) + (r * panel.size + at) * 4
                store(change(load(F32, lanes(), place), r, at), place)


def _lengths(panel: _Panel, q: Value, k: Value) -> tuple[Value, Value, Value]:
    """Factors that give k length 1 and q the length `scale`, and q·k after that."""
    squares_k, squares_q, products = (const(0.0, F32, lanes()) for _ in range(3))
    for at in panel.chunks:
        here_q, here_k = load(F32, lanes(), q + at * 4), load(F32, lanes(), k + at * 4)
        squares_k, squares_q = fma(here_k, here_k, squares_k), fma(here_q, here_q, squares_q)
        products = fma(here_q, here_k, products)
    one = const(1.0, F32)
    per_key = one / sqrt(reduce_sum(squares_k) + panel.args.epsilon)
    per_query = panel.args.scale / sqrt(reduce_sum(squares_q) + panel.args.epsilon)
    return per_key, per_query, reduce_sum(products) * per_key * per_query
