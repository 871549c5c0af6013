"""Tiles of eight tokens: the activations of a skinny GEMM of a float type.

They are in the order in which the kernel reads them: for every 32 weights, those of one token after the other.
"""

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, Module, Value, ValueLike, load, loop, store

TILE_TOKENS = 8
FLOAT_STEP = 32  # weights of a record


def tile_bytes(width: ValueLike) -> ValueLike:
    """Bytes of a tile."""
    return width // FLOAT_STEP * (4 * FLOAT_STEP * TILE_TOKENS)


def define_float_tiles(module: Module, name: str) -> None:
    """`name(args, first, last)` for a float type: copy the whole records of float32 tokens."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for t in loop(first, last):
            tile, token = t // TILE_TOKENS * tile_bytes(args.width), t % TILE_TOKENS
            source, to = args.source + args.width * t * 4, args.x + tile + token * (4 * FLOAT_STEP)
            for i in loop(0, args.width // FLOAT_STEP):
                for half in range(0, 4 * FLOAT_STEP, 64):
                    value = load(F32, 16, source + i * (4 * FLOAT_STEP) + half)
                    store(value, to + i * (4 * FLOAT_STEP * TILE_TOKENS) + half)

    module.define(name, 3, body)
