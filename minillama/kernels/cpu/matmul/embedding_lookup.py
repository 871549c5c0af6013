"""Embedding look-up: rows of a matrix by number, as float32."""

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, I32, I64, Module, Value, clamp, load, loop, splat, store
from minillama.kernels.cpu.unpack_blocks import Unpacked


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: dequantise the rows of tokens first to last - 1.

    The int32 numbers of the rows are in `source`.
    """

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        blocks = args.width / form.weights
        for t in loop(first, last):
            row = _row_address(args, t)
            for block in loop(0, blocks):
                unpacked = form.unpack([row + block * form.bytes])
                _store_dequantised(form, unpacked, args.y + (args.width * t + block * form.weights) * 4)

    module.define(name, 3, body)


def _row_address(args: MatmulArgs, token: Value) -> Value:
    """Address of a token's row, limited to those of the matrix."""
    number = clamp(load(I32, 1, args.source + token * 4).to(I64), 0, args.rows - 1)
    return args.weights + number * args.row_bytes


def _store_dequantised(form: Format, unpacked: Unpacked, address: Value) -> None:
    weight = 0
    for codes in unpacked.codes:
        for first in range(0, codes.lanes, 16):
            group = weight // form.group
            code = codes.permute(range(first, first + 16)).to(I32) - form.zero_point
            value = code.to(F32) * _splat_group(unpacked.scale, group)
            if unpacked.minimum is not None:
                value = value - _splat_group(unpacked.minimum, group)
            store(value, address + weight * 4)
            weight += 16


def _splat_group(values: Value, group: int) -> Value:
    return splat(values if values.lanes == 1 else values[group], 16)


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for a float type."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for t in loop(first, last):
            row = _row_address(args, t)
            for k in loop(0, args.width):
                store(form.load_f32(1, row + k * form.bytes), args.y + (args.width * t + k) * 4)

    module.define(name, 3, body)
