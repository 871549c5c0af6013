"""GEMM of the quantised types on ARM: microtiles of 4 rows and 8 tokens.

They fit in 32 registers of 16 bytes. A block of rows is unpacked into the first caches, as signed codes, and multiplied
with one panel of 8 tokens after the other. `sdot` multiplies four codes of a row with those of four tokens. `smmla`
multiplies eight codes of two rows with those of two tokens: so rows are interleaved in pairs, eight codes of each in
turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.activations import BLOCK, quantise_block
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.microtile import add_columns
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    U32,
    U64,
    Isa,
    Module,
    Value,
    ValueLike,
    Var,
    alloca,
    const,
    dot_signed,
    fma,
    load,
    load_splat,
    loop,
    matrix_product,
    min_,
    reduce_sum,
    select,
    shuffle,
    store,
    transpose,
)
from minillama.kernels.cpu.unpack_blocks import Unpacked

PANEL_TOKENS = 8
ROWS = 4  # of a microtile
_BLOCK_ROWS = 32  # unpacked at a time, a multiple of `ROWS`
_CHUNK = 2048  # weights of a row that are unpacked at a time
_RUN = {Isa.NEON_I8MM: 8, Isa.NEON_DOTPROD: 4}  # consecutive codes of a token or of a row, in a register

Tile = list[list[Value]]  # [2, 4] of 2 rows x 2 tokens, or [4, 2] of a row x 4 tokens


@dataclass(frozen=True)
class NeonPanel:
    """Layout of the activations of 8 tokens."""

    width: ValueLike  # K
    group: int

    @property
    def size(self) -> ValueLike:
        """Bytes of a panel."""
        return (self.width + self.width // self.group * 8) * PANEL_TOKENS

    def codes(self, panel: Value, weight: Value) -> Value:
        """Address of int8 codes [K/run, 8, run] from a weight on."""
        return panel + weight * PANEL_TOKENS

    def scales(self, panel: Value, weight: Value) -> Value:
        """Address of d, float32 [K/group, 8], from the group of a weight on."""
        return panel + (self.width + weight // self.group * 4) * PANEL_TOKENS

    def scaled_sums(self, panel: Value, weight: Value) -> Value:
        """Address of -d sum(codes), float32 [K/group, 8], from the group of a weight on."""
        return panel + (self.width + (self.width + weight) // self.group * 4) * PANEL_TOKENS


def define_panels(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: quantise panels first to last - 1; those after the last token are zeros."""
    run, group = _RUN[module.isa], form.group

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = NeonPanel(args.width, group)
        for t in loop(first * PANEL_TOKENS, last * PANEL_TOKENS):
            panel, lane = args.x + layout.size * (t // PANEL_TOKENS), t % PANEL_TOKENS
            is_token = t < args.tokens
            source = args.source + args.width * select(is_token, t, 0) * 4
            for k in loop(0, args.width, BLOCK):
                d, codes = quantise_block(source + k * 4)
                d = select(is_token, d, 0.0)
                words = codes.to(I8).bitcast(U64 if run == 8 else U32)
                for i in range(words.lanes):
                    store(words[i], layout.codes(panel, k + run * i) + lane * run)
                for at in range(0, BLOCK, group):
                    store(d, layout.scales(panel, k + at) + lane * 4)
                    if form.has_minimum:
                        total = reduce_sum(codes.permute(range(at, at + group))).to(F32)
                        store(d * total * -1.0, layout.scaled_sums(panel, k + at) + lane * 4)

    module.define(name, 3, body)


@dataclass(frozen=True)
class _Block:
    """Some rows, `width` weights from k on, and the memory that they are unpacked to.

    Scales and minima of the groups are float32.
    """

    form: Format
    args: MatmulArgs
    first: Value
    last: Value
    k: Value
    width: Value
    codes: Value  # [rows, chunk], or [rows / 2, chunk / 8, 2, 8]
    scales: Value  # [rows / 4, chunk / group, 4]
    minima: Value

    def factors(self, address: Value, row: Value, group: Value) -> Value:
        """Address of the scale or the minimum of a row's group; row: within the block."""
        groups = _CHUNK // self.form.group
        return address + ((row // ROWS * groups + group) * ROWS + row % ROWS) * 4


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens."""
    microkernel = _matrix_microkernel if _RUN[module.isa] == 8 else _dot_microkernel
    unpack = _unpack_pair if _RUN[module.isa] == 8 else _unpack_row
    factors = _BLOCK_ROWS * _CHUNK // form.group * 4

    def body(address: Value, first: Value, last: Value) -> None:
        args, layout = MatmulArgs(address), NeonPanel(MatmulArgs(address).width, form.group)
        codes, scales, minima = alloca(_BLOCK_ROWS * _CHUNK), alloca(factors), alloca(factors)
        for row in loop(first, last, _BLOCK_ROWS):
            end = min_(row + _BLOCK_ROWS, last)
            for k in loop(0, args.width, _CHUNK):
                block = _Block(form, args, row, end, k, min_(args.width - k, _CHUNK), codes, scales, minima)
                unpack(block)
                for token in loop(0, args.tokens, PANEL_TOKENS):
                    panel = args.x + layout.size * (token // PANEL_TOKENS)
                    for r in loop(0, end - row, ROWS):
                        columns = _multiply(block, layout, panel, r, microkernel)
                        add_columns(args, columns, row + r, end, token, k.equals(0))

    module.define(name, 3, body)


def _unpack_row(block: _Block) -> None:
    """Unpack the block, row after row."""
    for r in loop(0, block.last - block.first):
        for index, count in _loads(block):
            unpacked, weight = _unpacked(block, r, index, count), index * block.form.weights
            for i, codes in enumerate(unpacked.codes):
                store(codes, block.codes + r * _CHUNK + weight + i * codes.lanes)
            _store_factors(block, r, weight, unpacked)


def _unpack_pair(block: _Block) -> None:
    """Unpack the block, two rows at a time.

    Eight codes of one are next to eight of the other. The last row may be alone, and is its own neighbour then.
    """
    for r in loop(0, block.last - block.first, 2):
        other = min_(r + 1, block.last - block.first - 1)
        for index, count in _loads(block):
            a, b = _unpacked(block, r, index, count), _unpacked(block, other, index, count)
            weight = index * block.form.weights
            to = block.codes + r * _CHUNK + weight * 2
            for i, (x, y) in enumerate(zip(a.codes, b.codes, strict=True)):
                pairs = [at + lane for at in range(0, x.lanes, 8) for at in (at, at + x.lanes) for lane in range(8)]
                store(shuffle(x, y, pairs), to + i * 2 * x.lanes)
            for row, unpacked in ((r, a), (other, b)):
                _store_factors(block, row, weight, unpacked)


def _loads(block: _Block) -> Iterator[tuple[Value, int]]:
    """Loop over the blocks of a row: (number, how many are unpacked together)."""
    form, blocks = block.form, block.width // block.form.weights
    bulk = blocks - blocks % form.blocks_per_load
    for index in loop(0, bulk, form.blocks_per_load):
        yield index, form.blocks_per_load
    if form.blocks_per_load > 1:
        for index in loop(bulk, blocks):
            yield index, 1


def _unpacked(block: _Block, row: Value, index: Value, count: int) -> Unpacked:
    """Some blocks of a row, with signed codes: the zero point is subtracted."""
    form, args = block.form, block.args
    start = args.weights + (block.first + row) * args.row_bytes + (block.k // form.weights + index) * form.bytes
    unpacked = form.unpack([start + i * form.bytes for i in range(count)])
    codes = [_signed(form, codes) for codes in unpacked.codes]
    return unpacked._replace(codes=codes)


def _signed(form: Format, codes: Value) -> Value:
    return (codes ^ 0x80 if form.codes_above_127 else codes - form.zero_point).to(I8)


def _store_factors(block: _Block, row: Value, weight: Value, unpacked: Unpacked) -> None:
    """Store the scales and minima of a row from a weight on."""
    for values, to in ((unpacked.scale, block.scales), (unpacked.minimum, block.minima)):
        if values is not None:
            for i in range(values.lanes):
                value = values[i] if values.lanes > 1 else values
                store(value, block.factors(to, row, weight // block.form.group + i))


Microkernel = Callable[[_Block, Value, Value, int], Tile]


def _multiply(block: _Block, layout: NeonPanel, panel: Value, row: Value, microkernel: Microkernel) -> list[Value]:
    """Products of the 4 rows from `row` on with 8 tokens, token by token."""
    form, pairs = block.form, microkernel is _matrix_microkernel
    shape = (2, 4) if pairs else (4, 2)
    sums = [[Var(const(0.0, F32, 4)) for _ in range(shape[1])] for _ in range(shape[0])]
    for weight in loop(0, block.width, form.group):
        dots = microkernel(block, row, weight, layout.codes(panel, block.k + weight))
        terms = [(block.scales, layout.scales)] + [(block.minima, layout.scaled_sums)] * form.has_minimum
        for n, (address, of_tokens) in enumerate(terms):
            factors = load(F32, 4, block.factors(address, row, weight // form.group))
            x = of_tokens(panel, block.k + weight)
            for i in range(shape[0]):
                factor = factors.permute([2 * i, 2 * i, 2 * i + 1, 2 * i + 1] if pairs else [i] * 4)
                for j in range(shape[1]):
                    d = load_splat(U64, 2, x + 8 * j).bitcast(F32) if pairs else load(F32, 4, x + 16 * j)
                    value = factor if n else dots[i][j].to(F32) * factor
                    sums[i][j].value = fma(value, d, sums[i][j].value)
    values = [[each.value for each in row] for row in sums]
    if pairs:
        columns = ([half, 2 + half, 4 + half, 6 + half] for half in (0, 1))
        return [shuffle(a, b, lanes) for (a, b), lanes in product(zip(*values, strict=True), columns)]
    return [column for j in range(2) for column in transpose([of_row[j] for of_row in values])]


def _dot_microkernel(block: _Block, row: Value, weight: Value, x: Value) -> Tile:
    """Sums of the products of a group: each of a row and 4 tokens."""
    dots = [[const(0, I32, 4) for _ in range(2)] for _ in range(ROWS)]
    for at in range(0, block.form.group, 16):
        rows = [load(U32, 4, block.codes + (row + r) * _CHUNK + weight + at) for r in range(ROWS)]
        for four in range(4):
            tokens = [load(I8, 16, x + (at + 4 * four) * PANEL_TOKENS + 16 * j) for j in range(2)]
            for r, codes in enumerate(rows):
                repeated = codes.permute([four] * 4).bitcast(I8)
                dots[r] = [dot_signed(xs, repeated, start) for xs, start in zip(tokens, dots[r], strict=True)]
    return dots


def _matrix_microkernel(block: _Block, row: Value, weight: Value, x: Value) -> Tile:
    """Sums of the products of a group: each of 2 rows and 2 tokens."""
    dots = [[const(0, I32, 4) for _ in range(4)] for _ in range(2)]
    for at in range(0, block.form.group, 8):
        tokens = [load(I8, 16, x + at * PANEL_TOKENS + 16 * j) for j in range(4)]
        for i in range(2):
            codes = load(I8, 16, block.codes + (row + 2 * i) * _CHUNK + (weight + at) * 2)
            dots[i] = [matrix_product(start, codes, xs) for xs, start in zip(tokens, dots[i], strict=True)]
    return dots
