"""Skinny GEMM of the float types.

The running sums of a row and a token fill several registers on AVX2. They are independent of each other, so that a
pass over the data computes as many of them for the tokens of a tile as registers can hold. Running sums stay in
memory between the passes.
"""

from minillama.kernels.cpu.formats import FloatFormat
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.prefetch import CACHE_LINE
from minillama.kernels.cpu.simd import (
    F32,
    Isa,
    Module,
    Value,
    Var,
    alloca,
    const,
    current_isa,
    fma,
    if_,
    load,
    loop,
    min_,
    opaque,
    prefetch,
    store,
    transpose,
)
from minillama.kernels.cpu.skinny_gemm.row_blocks import MAX_TOKENS, define_by_blocks, store_some
from minillama.kernels.cpu.skinny_gemm.token_tiles import FLOAT_STEP, TILE_TOKENS, tile_bytes

_CHUNK = 512  # weights of a row that are unpacked at a time; with a tile of tokens they fit in the first-level cache
_ROWS = 8  # of W at a time
_QUAD = 4  # rows whose results are added up together
_WIDE = {Isa.AMX: 16, Isa.AVX512: 16}
_NARROW = (Isa.AVX_VNNI, Isa.AVX2)
_NEON = (Isa.NEON_I8MM, Isa.NEON_DOTPROD)
_REGISTER_LANES = _WIDE | dict.fromkeys(_NARROW, 8) | dict.fromkeys((*_NEON, Isa.GENERIC), 4)
_ACCUMULATORS = dict.fromkeys((*_WIDE, *_NEON), 16) | dict.fromkeys((*_NARROW, Isa.GENERIC), 8)  # of a pass, at most
_SUMS = 4 * FLOAT_STEP  # bytes of the running sums of a row and a token
_RECORD = 4 * FLOAT_STEP  # bytes of a row's or a token's record


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for a float type: float32 products."""
    define_by_blocks(module, name, _ROWS, lambda args: _FloatRows(args, form).multiply)


class _FloatRows:
    """A product with a float type; the GEMV has the same sums."""

    def __init__(self, args: MatmulArgs, form: FloatFormat) -> None:
        self.args, self.form = args, form
        self.buffer = alloca(_ROWS * 4 * _CHUNK)
        self.sums = alloca(MAX_TOKENS * _ROWS * _SUMS)

    def multiply(self, first: Value, last: Value) -> None:
        """Compute the results of the rows from `first` on."""
        args, rows = self.args, min_(last - first, _ROWS)
        for i in loop(0, (args.tokens + 1) // 2 * (2 * _ROWS * _SUMS // 64)):
            store(const(0.0, F32, 16), self.sums + i * 64)
        number, steps = args.width // FLOAT_STEP, _CHUNK // FLOAT_STEP
        for start in loop(0, number, steps):
            count = min_(number - start, steps)
            for r in loop(0, rows):
                self._unpack(first + r, start, count, self.buffer + r * (4 * _CHUNK))
            self._for_each_tile(first, rows, start, count)
        for quad in loop(0, rows, _QUAD):
            for t in loop(0, args.tokens):
                results = self._totals(first, quad, min_(rows - quad, _QUAD), t)
                store_some(results, rows - quad, args.y + (args.rows * t + first + quad) * 4)

    def _unpack(self, row: Value, start: Value, count: Value, to: Value) -> None:
        address = self.args.weights + row * self.args.row_bytes + start * (FLOAT_STEP * self.form.bytes)
        for i in loop(0, count * FLOAT_STEP, 16):
            store(self.form.load_f32(16, address + i * self.form.bytes), to + i * 4)

    def _for_each_tile(self, first: Value, rows: Value, start: Value, count: Value) -> None:
        """Multiply with whole tiles, then an even number of tokens."""
        tokens = self.args.tokens
        whole = (tokens + 1) // TILE_TOKENS
        for tile in loop(0, whole):
            self._add(first, rows, start, count, tile, TILE_TOKENS)
        rest = (tokens - min_(tokens, whole * TILE_TOKENS) + 1) // 2 * 2
        for narrow in range(2, TILE_TOKENS, 2):
            with if_(rest.equals(narrow)):
                self._add(first, rows, start, count, whole, narrow)

    def _add(self, first: Value, rows: Value, start: Value, count: Value, tile: Value, tokens: int) -> None:
        """Add the products of the unpacked rows with some tokens of a tile."""
        x = opaque(self.args.x + tile * tile_bytes(self.args.width) + start * (_RECORD * TILE_TOKENS))
        lanes, at_a_time = _REGISTER_LANES[current_isa()], max(1, _ACCUMULATORS[current_isa()] // tokens)
        for r in loop(0, rows):
            with if_(tile.equals(0)):
                self._prefetch(first, start // (_CHUNK // FLOAT_STEP) * rows + r)
            row, sums = opaque(self.buffer + r * (4 * _CHUNK)), opaque(self._sums_of(r, tile * TILE_TOKENS))
            places = [sums + t * (_ROWS * _SUMS) for t in range(tokens)]
            for part in range(0, FLOAT_STEP, lanes * at_a_time):
                firsts = range(part, min(part + lanes * at_a_time, FLOAT_STEP), lanes)
                registers = {(i, t): Var(load(F32, lanes, places[t] + 4 * i)) for i in firsts for t in range(tokens)}
                for i in loop(0, count):
                    record, token_record = row + i * _RECORD, x + i * (_RECORD * TILE_TOKENS)
                    for at in firsts:
                        w = load(F32, lanes, record + 4 * at)
                        for t in range(tokens):
                            token = load(F32, lanes, token_record + (t * _RECORD + 4 * at))
                            registers[at, t].value = fma(w, token, registers[at, t].value)
                for (at, t), register in registers.items():
                    store(register.value, places[t] + 4 * at)

    def _prefetch(self, first: Value, step: Value) -> None:
        """Prefetch the share of one step in the next block of rows."""
        size = _CHUNK * self.form.bytes
        start = self.args.weights + (first + _ROWS) * self.args.row_bytes + step * size
        for line in loop(0, size, CACHE_LINE):
            prefetch(start + line)

    def _sums_of(self, row: Value | int, token: Value | int) -> Value:
        """Address of the running sums of a row of the block and a token."""
        return self.sums + (token * _ROWS + row) * _SUMS

    def _totals(self, first: Value, quad: Value, count: Value, token: Value) -> Value:
        """The results of four rows; the first `count` exist."""
        args, form, tails = self.args, self.form, alloca(4 * _QUAD)
        for r in loop(0, count):
            weights, tail = args.weights + (first + quad + r) * args.row_bytes, Var(const(0.0, F32))
            for k in loop(args.width // FLOAT_STEP * FLOAT_STEP, args.width):
                x = load(F32, 1, args.source + (args.width * token + k) * 4)
                tail.value = fma(form.load_f32(1, weights + k * form.bytes), x, tail.value)
            store(tail.value, tails + r * 4)
        places = [self._sums_of(quad + i, token) for i in range(_QUAD)]
        halves = [load(F32, 16, place) + load(F32, 16, place + 64) for place in places]
        return _lane_totals(halves) + load(F32, _QUAD, tails)


def _lane_totals(vectors: list[Value]) -> Value:
    """`reduce_sum` of four vectors, as four lanes."""
    while vectors[0].lanes > _QUAD:
        half = vectors[0].lanes // 2
        vectors = [v.permute(range(half)) + v.permute(range(half, 2 * half)) for v in vectors]
    a, b, c, d = transpose(vectors)
    return (a + c) + (b + d)
