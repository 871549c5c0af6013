"""Products of unpacked codes and quantised activations, for all kernels of decoding.

The sums over codes are exact integers. Only the order of the float operations on them decides the bits of a result.
"""

from collections.abc import Sequence

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.simd import I8, I32, Isa, Value, const, current_isa, dot, dot_narrow, dot_signed
from minillama.kernels.cpu.unpack_blocks import SIGNED_OFFSET


def has_signed_codes(form: Format) -> bool:
    """Whether codes are multiplied as signed bytes: on AVX2 those above 127."""
    return form.codes_above_127 and current_isa() is Isa.AVX2


def zero_point(form: Format) -> int:
    """The zero point of the codes as they are multiplied."""
    return 0 if has_signed_codes(form) else form.zero_point


def has_offsets(form: Format) -> bool:
    """Whether results depend on sums of activations: the types with a zero point or minima."""
    return form.has_minimum or zero_point(form) != 0


def multiplied_codes(form: Format, codes: Value) -> Value:
    """Unpacked codes as they are multiplied."""
    return (codes ^ SIGNED_OFFSET).to(I8) if has_signed_codes(form) else codes


def code_products(form: Format, codes: Sequence[Value], xs: Sequence[Value]) -> Value:
    """Sums of four products a lane, added up over the vectors of a code group.

    codes: as `multiplied_codes` gives them.
    """
    if form.codes_below_64:
        return dot_narrow(codes, xs)
    total = const(0, I32, codes[0].lanes // 4)
    for c, x in zip(codes, xs, strict=True):
        total = total + dot_signed(c, x) if has_signed_codes(form) else dot(total, c, x, form.codes_above_127)
    return total
