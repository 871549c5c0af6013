"""Rows of a matrix by number, as float32: the embedding look-up."""

from minillama.kernels.cpu.matmul.formats import FloatFormat, Format, Unpacked
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, I32, I64, Module, Value, load, loop, splat, store


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(part, first, last)`: for tokens first to last - 1, the row that the int32 at `source` names."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        blocks = args.width / form.weights
        for t in loop(first, last):
            row = args.weights + load(I32, 1, args.source + t * 4).to(I64) * args.row_bytes
            for block in loop(0, blocks):
                unpacked = form.unpack([row + block * form.bytes])
                _put(form, unpacked, args.y + (args.width * t + block * form.weights) * 4)

    module.define(name, 3, body)


def _put(form: Format, unpacked: Unpacked, address: Value) -> None:
    weight = 0
    for codes in unpacked.codes:
        for first in range(0, codes.lanes, 16):
            group = weight // form.group
            code = codes.permute(range(first, first + 16)).to(I32) - form.zero_point
            value = code.to(F32) * _of(unpacked.scale, group)
            if unpacked.minimum is not None:
                value = value - _of(unpacked.minimum, group)
            store(value, address + weight * 4)
            weight += 16


def _of(values: Value, group: int) -> Value:
    return splat(values if values.lanes == 1 else values[group], 16)


def define_float(module: Module, name: str, plain: FloatFormat) -> None:
    """The same for a type without blocks."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for t in loop(first, last):
            row = args.weights + load(I32, 1, args.source + t * 4).to(I64) * args.row_bytes
            for k in loop(0, args.width):
                store(plain.load_f32(1, row + k * plain.bytes), args.y + (args.width * t + k) * 4)

    module.define(name, 3, body)
