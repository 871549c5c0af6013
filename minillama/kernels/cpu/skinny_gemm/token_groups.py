"""Activations of a skinny GEMM of a quantised type, group by group.

    [K / group, T]  of  codes int8 [group], scale d float32, correction int32 or float32

A group of weights is what the kernel multiplies at a time: it reads all tokens from one place.
"""

from dataclasses import dataclass

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.activations import BLOCK, quantise_block, store_groups
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import I8, Module, Value, ValueLike, loop, store


@dataclass(frozen=True)
class TokenGroups:
    """Offsets in bytes."""

    group: int  # weights of a group
    tokens: Value  # T

    @property
    def size(self) -> int:
        """Bytes of a group of a token."""
        return self.group + 8

    @property
    def scale(self) -> int:
        """Offset of d within a group of a token."""
        return self.group

    @property
    def correction(self) -> int:
        """Offset of the correction within a group of a token."""
        return self.group + 4

    def at(self, number: ValueLike, token: ValueLike) -> Value:
        """Offset of a group of a token."""
        return (self.tokens * number + token) * self.size


def define_quantised_groups(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: quantise tokens first to last - 1 of T."""
    numbers = BLOCK // form.group

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        groups = TokenGroups(form.group, args.tokens)
        for t in loop(first, last):
            for block in loop(0, args.width // BLOCK):
                d, codes = quantise_block(args.source + (args.width * t + block * BLOCK) * 4)
                places = [args.x + groups.at(block * numbers + i, t) for i in range(numbers)]
                for i, place in enumerate(places):
                    store(codes.permute(range(i * form.group, (i + 1) * form.group)).to(I8), place)
                store_groups(
                    form, d, codes, [p + groups.scale for p in places], [p + groups.correction for p in places]
                )

    module.define(name, 3, body)
