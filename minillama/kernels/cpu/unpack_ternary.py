"""Unpack blocks of ternary weights, -1, 0 and 1, in registers: TQ1_0 and TQ2_0."""

from collections.abc import Sequence

from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import LAYOUTS
from minillama.kernels.cpu.simd import I8, U8, U32, Value, concat, const, const_vector, load, load_splat, select
from minillama.kernels.cpu.unpack_blocks import Unpacked, mask_bytes, shift_copies, splat_f16
from minillama.kernels.cpu.unpack_shuffled import CodeGroup, ShuffledBlocks

_GROUPS = 8  # of 32 weights, all with the scale of the block


def tq2_0(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.TQ2_0]
    codes = []
    for half in range(2):
        raw = load(U8, 32, block + (layout.qs + 32 * half))
        codes += [mask_bytes(shift_copies(raw, right=shifts), 3) for shifts in ((0, 2), (4, 6))]
    return Unpacked(codes, splat_f16(_GROUPS, block + layout.d))


def tq2_0_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    (block,), layout = blocks, LAYOUTS[Type.TQ2_0]
    shifts = const_vector([2 * plane for plane in range(4) for _ in range(4)], U32)
    groups = []
    for half in range(2):
        raws = [load(U8, 16, block + (layout.qs + 32 * half + 16 * i)) for i in range(2)]
        codes = [mask_bytes(concat(raw, raw, raw, raw).bitcast(U32) >> shifts, 3) for raw in raws]
        groups.append(CodeGroup(codes, [4 * half + plane for plane in range(4)]))
    return ShuffledBlocks(groups, splat_f16(_GROUPS, block + layout.d))


def tq1_0(blocks: Sequence[Value]) -> Unpacked:
    """A byte is a fraction of 256 in base 3, and its digits are weights."""
    (block,), layout = blocks, LAYOUTS[Type.TQ1_0]
    wide = _powers(load(U8, 32, block + layout.qs), 5)
    narrow = load(U8, 16, block + (layout.qs + 32))
    pairs = _powers(concat(narrow, times_3(narrow)), 1)
    pairs.append(times_3(times_3(pairs[0])))
    fifth = times_3(times_3(pairs[1])).permute(range(16))
    last = load_splat(U32, 4, block + layout.qh).bitcast(U8) * const_vector(
        [3**i for i in range(4) for _ in range(4)], U8
    )
    fractions = [*wide, *pairs, concat(fifth, last)]
    digits = [_first_digit(concat(a, b)) for a, b in zip(fractions[::2], fractions[1::2], strict=True)]
    return Unpacked(digits, splat_f16(_GROUPS, block + layout.d))


def _powers(fraction: Value, count: int) -> list[Value]:
    """Fractions times 3^0, 3^1, ...: the digits before are lost in the overflow."""
    found = [fraction]
    while len(found) < count:
        found.append(times_3(found[-1]))
    return found


def times_3(fraction: Value) -> Value:
    """Three times a fraction, modulo 256."""
    return fraction + fraction + fraction


def _first_digit(fraction: Value) -> Value:
    """The first digit of base 3: 0, 1 or 2.

    With its highest bit flipped a byte is compared as a signed one, which takes one instruction.
    """
    flipped, lanes = (fraction ^ 0x80).bitcast(I8), fraction.lanes
    below = [select(flipped < limit - 128, const(-1, I8, lanes), const(0, I8, lanes)) for limit in (86, 171)]
    return (below[0] + below[1] + 2).bitcast(U8)
