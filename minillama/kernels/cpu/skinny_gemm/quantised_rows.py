"""Skinny GEMM of the quantised types."""

from collections.abc import Iterator, Sequence

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.code_products import (
    code_products,
    has_offsets,
    has_signed_codes,
    multiplied_codes,
    zero_point,
)
from minillama.kernels.cpu.matmul.gemv import scale_per_lane
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, I8, U8, Module, Value, const, fma, load, loop, min_, store, zero_pad
from minillama.kernels.cpu.skinny_gemm.row_blocks import (
    CHUNK,
    SECOND,
    RowBlock,
    RunningSums,
    Steps,
    define_kernel,
    lane_totals,
    registers,
)
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS, Record, records


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens, at most `MAX_TOKENS`."""
    define_kernel(module, name, lambda args: _QuantisedRows(args, form))


class _QuantisedRows(RowBlock):
    """A product with a quantised type; the GEMV's `_Accumulator` has the same sums."""

    def __init__(self, args: MatmulArgs, form: Format) -> None:
        self.form, self.record = form, records(form, CHUNK, 1)[0][0]
        chunk = CHUNK // form.weights * form.bytes
        super().__init__(args, form, chunk, max(CHUNK // r.weights * r.size for r, _ in records(form, CHUNK, 1)))

    def chunks(self) -> Iterator[Steps]:
        tiles, weight = self.args.x, const(0)
        for tile, number in records(self.form, self.args.width, TILE_TOKENS):
            self.record, steps = Record(self.form, tile.blocks, 1), CHUNK // tile.weights
            parts = [
                lambda places, of=(self.record, tile), part=part: _Dots(places, *part, *of) for part in registers(16)
            ]
            if has_offsets(self.form):
                parts.append(lambda places, of=(self.record, tile): _Offsets(places, *of))
            for start in loop(0, number, steps):
                at, count = tiles + start * tile.size, min_(number - start, steps)
                yield Steps(count, self.record.size, tile.size, at, weight + start * tile.weights, parts)
            tiles, weight = tiles + number * tile.size, weight + number * tile.weights

    def unpack(self, row: Value, steps: Steps, to: Value) -> None:
        form, record = self.form, self.record
        start = self.args.weights + row * self.args.row_bytes + steps.weight // form.weights * form.bytes
        for i in loop(0, steps.count):
            blocks = start + i * (form.bytes * record.blocks)
            unpacked = form.unpack_gemv([blocks + b * form.bytes for b in range(record.blocks)])
            out, code, lane = to + i * record.size, record.code_offset(0), record.scale_offset(0)
            for group in unpacked.code_groups:
                for vector in group.codes:
                    store(multiplied_codes(form, vector), out + code)
                    code += vector.lanes
                store(scale_per_lane(unpacked.scale, group.groups), out + lane)
                lane += 16 * len(group.groups)
            store(unpacked.scale if unpacked.minimum is None else unpacked.minimum, out + record.group_offset(0))

    def totals(self, row: Value, count: Value, places: list[Value], token: Value) -> Value:
        dots = lane_totals([load(F32, 16, place) for place in places])
        if not has_offsets(self.form):
            return dots
        offsets = lane_totals([load(F32, _offset_lanes(self.form), place + 4 * SECOND) for place in places])
        return dots - offsets * (1.0 if self.form.has_minimum else float(zero_point(self.form)))


class _Dots(RunningSums):
    """Sums of scale d (codes · x codes)."""

    def __init__(self, places: Sequence[Value], first: int, lanes: int, of_row: Record, of_tile: Record) -> None:
        super().__init__(places, first, lanes)
        self.row, self.tile = of_row, of_tile

    def add(self, row: Value, tile: Value) -> None:
        form, code, lane = self.row.form, 4 * self.first, 4 * self.first
        for group in self.row.code_groups:
            lanes = min(self.lanes, group.lanes - self.first)
            if lanes <= 0:  # a single block has fewer lanes
                continue
            at = [code + group.codes * v for v in range(group.vectors)]
            kind = I8 if has_signed_codes(form) else U8
            codes = [load(kind, 4 * lanes, row + (self.row.code_offset(0) + place)) for place in at]
            scale = load(F32, lanes, row + (self.row.scale_offset(0) + lane))
            for t, register in enumerate(self.registers):
                xs = [load(I8, 4 * lanes, tile + (self.tile.code_offset(t) + place)) for place in at]
                scales = scale * load(F32, lanes, tile + (self.tile.scale_offset(t) + lane))
                products = zero_pad(code_products(form, codes, xs).to(F32), self.lanes)
                register.value = fma(products, zero_pad(scales, self.lanes), register.value)
            code, lane = code + group.vectors * group.codes, lane + 4 * group.lanes


class _Offsets(RunningSums):
    """Sums of scale d sum(x codes), or of minimum d sum(x codes)."""

    def __init__(self, places: Sequence[Value], of_row: Record, of_tile: Record) -> None:
        super().__init__(places, SECOND, _offset_lanes(of_row.form))
        self.row, self.tile = of_row, of_tile

    def add(self, row: Value, tile: Value) -> None:
        groups = self.row.groups
        factor = zero_pad(load(F32, groups, row + self.row.group_offset(0)), self.lanes)
        for t, register in enumerate(self.registers):
            x_sums = load(F32, groups, tile + self.tile.group_offset(t))
            register.value = fma(factor, zero_pad(x_sums, self.lanes), register.value)


def _offset_lanes(form: Format) -> int:
    return form.weights * form.blocks_per_load // form.group
