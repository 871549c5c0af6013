"""Products of unpacked codes and quantised activations, for all kernels of decoding.

The sums over codes are exact integers. Only the order of the float operations on them decides the bits of a result.
"""

from collections.abc import Sequence
from typing import NamedTuple

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.simd import (
    I8,
    I32,
    Isa,
    Value,
    concat,
    const,
    current_isa,
    dot,
    dot_narrow,
    dot_signed,
    parts,
    row_sums,
    shuffle,
)
from minillama.kernels.cpu.unpack_blocks import SIGNED_OFFSET


def has_signed_codes(form: Format) -> bool:
    """Whether codes are multiplied as signed bytes: those above 127, on AVX2 and NEON."""
    return form.codes_above_127 and (current_isa() is Isa.AVX2 or current_isa().is_neon)


def zero_point(form: Format) -> int:
    """The zero point of the codes as they are multiplied."""
    return 0 if has_signed_codes(form) else form.zero_point


def has_corrections(form: Format) -> bool:
    """Whether results depend on sums of activations: the types with a zero point or minima."""
    return form.has_minimum or zero_point(form) != 0


def multiplied_codes(form: Format, codes: Value) -> Value:
    """Unpacked codes as they are multiplied."""
    return (codes ^ SIGNED_OFFSET).to(I8) if has_signed_codes(form) else codes


def code_products(form: Format, codes: Sequence[Value], xs: Sequence[Value], start: Value | None = None) -> Value:
    """Sums of four products a lane, added up over some vectors.

    codes: as `multiplied_codes` gives them.
    """
    if form.largest_code < 128:
        return dot_narrow(codes, xs, form.largest_code, start)
    total = const(0, I32, codes[0].lanes // 4) if start is None else start
    for c, x in zip(codes, xs, strict=True):
        total = dot_signed(c, x, total) if has_signed_codes(form) else dot(total, c, x, form.codes_above_127)
    return total


class Factors(NamedTuple):
    """Vectors of codes and of activations, whose products add up lane by lane."""

    codes: Sequence[Value]
    xs: Sequence[Value]
    groups: Sequence[int]  # group of the 16 weights that each four lanes of the sums come from


def in_single_groups(factors: Sequence[Factors]) -> Sequence[Factors]:
    """The same products with half as many sums, where 32 weights share a group.

    Its halves add up lane by lane. For vectors of 16 bytes, where to move 16 codes takes no instruction.
    """
    if factors[0].groups[0] != factors[0].groups[1]:
        return factors
    found = []
    for a, b in zip(factors[::2], factors[1::2], strict=True):
        codes, xs = (
            [concat(*(part for vector in vectors for part in parts(vector)[half::2])) for half in (0, 1)]
            for vectors in ((*a.codes, *b.codes), (*a.xs, *b.xs))
        )
        found.append(Factors(codes, xs, [*a.groups[::2], *b.groups[::2]]))
    return found


def sum_groups(products: Sequence[tuple[Value, Sequence[int]]]) -> Value:
    """The sum of each group of a step, in their order.

    The result has 8 or 16 lanes, I32. products: 2 or 4 vectors of 16 lanes, with the group of each four lanes.
    """
    if current_isa().is_neon:
        return _sums_in_order(products)
    vectors, groups = [vector for vector, _ in products], [numbers for _, numbers in products]
    pairs = [_add_neighbours(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    if len(pairs) == 1:
        sums = _add_neighbours(pairs[0].permute(range(8)), pairs[0].permute(range(8, 16)))
        lanes = [numbers[quarter] for quarter in (0, 2, 1, 3) for numbers in groups]
    else:
        sums = _add_neighbours(*pairs)
        lanes = [numbers[quarter] for quarter in range(4) for numbers in groups]
    firsts = [lane for lane, group in enumerate(lanes) if lanes.index(group) == lane]
    if len(firsts) < len(lanes):  # half a group in each lane
        sums = sums.permute(firsts) + sums.permute([lane for lane in range(len(lanes)) if lane not in firsts])
        lanes = [lanes[lane] for lane in firsts]
    return sums.permute([lanes.index(group) for group in range(len(lanes))])


def _sums_in_order(products: Sequence[tuple[Value, Sequence[int]]]) -> Value:
    """`sum_groups` of vectors of 16 bytes, where pairs add up (`addp`).

    Each group has one or two of these vectors.
    """
    found: dict[int, Value] = {}
    for vector, groups in products:
        for quarter, group in zip(parts(vector, 4), groups, strict=True):
            found[group] = found[group] + quarter if group in found else quarter
    quarters = [found[group] for group in range(len(found))]
    return concat(*(row_sums(quarters[i : i + 4]) for i in range(0, len(quarters), 4)))


def _add_neighbours(a: Value, b: Value) -> Value:
    """Sums of two neighbours; every four lanes hold two of `a`, then two of `b`."""
    even, odd = (
        [vector * a.lanes + 4 * quarter + lane for quarter in range(a.lanes // 4) for vector in (0, 1) for lane in pair]
        for pair in ((0, 2), (1, 3))
    )
    return shuffle(a, b, even) + shuffle(a, b, odd)
