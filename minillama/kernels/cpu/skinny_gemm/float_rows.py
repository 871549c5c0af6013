"""Skinny GEMM of the float types."""

from collections.abc import Iterator

from minillama.kernels.cpu.formats import FloatFormat
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, Module, Value, Var, alloca, const, fma, load, loop, min_, store
from minillama.kernels.cpu.skinny_gemm.row_blocks import (
    CHUNK,
    QUAD,
    SECOND,
    RowBlock,
    RunningSums,
    Steps,
    define_kernel,
    lane_totals,
    registers,
)
from minillama.kernels.cpu.skinny_gemm.token_tiles import FLOAT_STEP, TILE_TOKENS


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for a float type: float32 products."""
    define_kernel(module, name, lambda args: _FloatRows(args, form))


class _FloatRows(RowBlock):
    """A product with a float type; the GEMV has the same sums."""

    def __init__(self, args: MatmulArgs, form: FloatFormat) -> None:
        super().__init__(args, None, CHUNK * form.bytes, 4 * CHUNK)
        self.form = form

    def chunks(self) -> Iterator[Steps]:
        number, steps, size = self.args.width // FLOAT_STEP, CHUNK // FLOAT_STEP, 4 * FLOAT_STEP
        parts = [lambda places, part=part: _FloatDots(places, *part) for part in registers(FLOAT_STEP)]
        for start in loop(0, number, steps):
            at = self.args.x + start * (size * TILE_TOKENS)
            yield Steps(min_(number - start, steps), size, size * TILE_TOKENS, at, start * FLOAT_STEP, parts)

    def unpack(self, row: Value, steps: Steps, to: Value) -> None:
        start = self.args.weights + row * self.args.row_bytes + steps.weight * self.form.bytes
        for i in loop(0, steps.count * FLOAT_STEP, 16):
            store(self.form.load_f32(16, start + i * self.form.bytes), to + i * 4)

    def totals(self, row: Value, count: Value, places: list[Value], token: Value) -> Value:
        args, form, tails = self.args, self.form, alloca(4 * QUAD)
        for r in loop(0, count):
            weights, tail = args.weights + (row + r) * args.row_bytes, Var(const(0.0, F32))
            for k in loop(args.width // FLOAT_STEP * FLOAT_STEP, args.width):
                x = load(F32, 1, args.source + (args.width * token + k) * 4)
                tail.value = fma(form.load_f32(1, weights + k * form.bytes), x, tail.value)
            store(tail.value, tails + r * 4)
        halves = [load(F32, 16, place) + load(F32, 16, place + 4 * SECOND) for place in places]
        return lane_totals(halves) + load(F32, QUAD, tails)


class _FloatDots(RunningSums):
    """Sums of weight x."""

    def add(self, row: Value, tile: Value) -> None:
        w = load(F32, self.lanes, row + 4 * self.first)
        for t, register in enumerate(self.registers):
            x = load(F32, self.lanes, tile + 4 * (t * FLOAT_STEP + self.first))
            register.value = fma(w, x, register.value)
