"""Skinny GEMM: the product with 3 to 32 tokens (rows of a batch, or a draft and the token before it).

Every result has the bits that the GEMV gives for its token alone: the same float operations in the same order. So a
text does not depend on the texts that run with it. Some rows of W are unpacked at a time into the first-level cache,
and multiplied with all tokens.
"""

from collections.abc import Callable

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import Module, Value, const, if_, loop, store

MAX_TOKENS = 32
MOST_ROWS = 16  # of a block


def define_by_blocks(
    module: Module, name: str, rows: int, begin: Callable[[MatmulArgs], Callable[[Value, Value], None]]
) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens, at most `MAX_TOKENS`.

    begin: allocates memory and returns the product of the `rows` from a row on; those from `last` on do not exist.
    """

    def body(address: Value, first: Value, last: Value) -> None:
        multiply = begin(MatmulArgs(address))
        for row in loop(first, last, rows):
            multiply(row, last)

    module.define(name, 3, body)


def store_some(values: Value, count: Value, address: Value) -> None:
    """Store the first `count` lanes, or all."""
    is_whole = (count < values.lanes) ^ 1
    with if_(is_whole):
        store(values, address)
    for lane in range(values.lanes - 1):
        with if_((is_whole ^ 1) & (const(lane) < count)):
            store(values[lane], address + 4 * lane)
