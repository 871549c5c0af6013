"""Exact integer dot products of bytes, four products a lane."""

from collections.abc import Sequence

from llvmlite import binding

from minillama.kernels.cpu.simd import neon
from minillama.kernels.cpu.simd.builder import BIT, I8, I16, I32, Isa, current_isa
from minillama.kernels.cpu.simd.value import Value, call_intrinsic, const, in_order
from minillama.kernels.cpu.simd.vectors import concat


def dot(start: Value, codes: Value, x: Value, codes_above_127: bool = False) -> Value:
    """Exact dot products of four bytes: lane j is start[j] + codes[4j..4j+3] · x[4j..4j+3].

    codes: U8, at most 127 unless `codes_above_127`; x: I8 except -128; start: I32, a quarter of the lanes.
    """
    vectors = {Isa.AMX: (16, 32, 64), Isa.AVX512: (16, 32, 64), Isa.AVX_VNNI: (16, 32)}
    if codes.lanes in vectors.get(current_isa(), ()):
        name = f"llvm.x86.avx512.vpdpbusd.{8 * codes.lanes}"
        if binding.llvm_version_info[0] < 22:
            codes, x = codes.bitcast(I32), x.bitcast(I32)
        return call_intrinsic(name, start.element, start.lanes, start, codes, x)
    if current_isa().is_neon and codes.lanes % 16 == 0:
        return neon.dot(start, codes, x, codes_above_127)
    if current_isa().has_avx2 and codes.lanes > 32:
        half, lanes = codes.lanes // 2, codes.lanes
        parts = [(range(half), range(half // 4)), (range(half, lanes), range(half // 4, lanes // 4))]
        return concat(*(dot(start.permute(s), codes.permute(c), x.permute(c), codes_above_127) for c, s in parts))
    if current_isa() is Isa.AVX2 and codes.lanes == 32:
        # pmaddubsw saturates: the sum of two products must fit in 16 bits, as 2 * 128 * 127 does
        parts = (codes & 127, codes & 128) if codes_above_127 else (codes,)
        for part in parts:
            start = start + _add_pairs(_multiply_bytes(part, x))
        return start
    products = (codes.to(I16) * x.to(I16)).to(I32)
    for i in range(4):
        start = start + products.permute(range(i, products.lanes, 4))
    return start


def dot_signed(codes: Value, x: Value, start: Value | None = None) -> Value:
    """Exact dot products of four signed bytes, on AVX2 and NEON, added to `start`.

    On AVX2 the unsigned factor is |code|, and x takes the sign of the code.

    codes: I8 x 32 or 64; x: I8 except -128.
    """
    if current_isa().is_neon:
        return neon.dot(const(0, I32, codes.lanes // 4) if start is None else start, codes, x)
    if start is not None:
        return start + dot_signed(codes, x)
    if codes.lanes > 32:
        halves = (range(32), range(32, 64))
        return concat(*(dot_signed(codes.permute(half), x.permute(half)) for half in halves))
    size = call_intrinsic("llvm.abs.v32i8", I8, 32, codes, const(0, BIT))
    return _add_pairs(_multiply_bytes(size, call_intrinsic("llvm.x86.avx2.psign.b", I8, 32, x, codes)))


def dot_narrow(codes: Sequence[Value], xs: Sequence[Value], largest: int, start: Value | None = None) -> Value:
    """The sum of exact dot products of some vectors of small codes.

    On AVX2 small codes take fewer instructions: their products add up in 16 bits.

    codes: U8; xs: I8 except -128; largest: at most 127.
    """
    if current_isa() is Isa.AVX2 and codes[0].lanes > 32:
        parts = []
        for half, quarter in ((range(32), range(8)), (range(32, 64), range(8, 16))):
            first = None if start is None else start.permute(quarter)
            parts.append(dot_narrow([c.permute(half) for c in codes], [x.permute(half) for x in xs], largest, first))
        return concat(*parts)
    total = const(0, I32, codes[0].lanes // 4) if start is None else start
    sums = DotSum(total, largest)
    for c, x in zip(codes, xs, strict=True):
        sums.add(c, x)
    return sums.total()


class DotSum:
    """The exact sum of dot products of vectors that are added one after the other.

    On AVX2 the products of small codes add up in 16 bits, and those of large codes are products of words.

    start: I32; largest: of the codes.
    """

    def __init__(self, start: Value, largest: int) -> None:
        self._sum, self._largest = start, largest
        self._pairs: Value | None = None  # sums of products of some vectors, I16 x 16
        self._vectors = 0  # in it

    def add(self, codes: Value, x: Value) -> None:
        """Add products of four bytes a lane, as `dot` takes them.

        On AVX2 they may be two words a lane, both I16.
        """
        if codes.element is I16:
            self._sum = self._sum + call_intrinsic("llvm.x86.avx2.pmadd.wd", I32, 8, codes, x)
        elif current_isa() is Isa.AVX2 and codes.lanes == 32 and self._largest < 128:
            if self._vectors == (2**15 - 1) // (2 * 127 * self._largest):
                self._sum, self._pairs, self._vectors = self.total(), None, 0
            pairs = _multiply_bytes(codes, x)
            self._pairs = pairs if self._pairs is None else self._pairs + pairs
            self._vectors += 1
        else:
            self._sum = dot(self._sum, codes, x, self._largest > 127)

    def add_in_order(self) -> None:
        """Compute the sum so far before later loads, where registers are few: on AVX2."""
        if current_isa() is Isa.AVX2:
            if self._pairs is not None:
                self._pairs = in_order(self._pairs)
            else:
                self._sum = in_order(self._sum)

    def total(self) -> Value:
        """The sum, I32."""
        return self._sum if self._pairs is None else self._sum + _add_pairs(self._pairs)


def _multiply_bytes(codes: Value, x: Value) -> Value:
    """Sums of two products of unsigned and signed bytes, I16 x 16; saturating."""
    return call_intrinsic("llvm.x86.avx2.pmadd.ub.sw", I16, 16, codes, x)


def _add_pairs(pairs: Value) -> Value:
    """Sums of two neighbours, I32 x 8."""
    return call_intrinsic("llvm.x86.avx2.pmadd.wd", I32, 8, pairs, const(1, I16, 16))
