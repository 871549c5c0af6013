"""Vector operations: construction, reduction, transpose, float conversions, exp."""

from collections.abc import Callable, Sequence

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import (
    BF16,
    F16,
    F32,
    I32,
    U8,
    U16,
    Element,
    Isa,
    builder,
    current_isa,
    targets_x86,
    vector_type,
)
from minillama.kernels.cpu.simd.value import (
    Value,
    ValueLike,
    broadcast,
    call_float_intrinsic,
    call_intrinsic,
    const,
    shuffle,
    splat,
)


def const_vector(values: Sequence[int], element: Element) -> Value:
    """A constant vector."""
    return Value(ir.Constant(vector_type(element, len(values)), list(values)), element, len(values))


def vector(values: Sequence[Value]) -> Value:
    """A vector of scalars."""
    b, first = builder(), values[0]
    if len(values) == 1:
        return first
    built = ir.Constant(vector_type(first.element, len(values)), ir.Undefined)
    for lane, value in enumerate(values):
        built = b.insert_element(built, value.ir, ir.IntType(32)(lane))
    return Value(built, first.element, len(values))


def zero_pad(a: Value, lanes: int) -> Value:
    """Append zero lanes up to `lanes` in all."""
    if a.lanes == lanes:
        return a
    zeros = const(0, a.element, max(a.lanes, 2))
    if a.lanes == 1:
        a = Value(builder().insert_element(zeros.ir, a.ir, ir.IntType(32)(0)), a.element, 2)
    return shuffle(a, zeros, [i if i < a.lanes else a.lanes for i in range(lanes)])


def concat(*parts: Value) -> Value:
    """Concatenate vectors of equal length; their number must be a power of two."""
    while len(parts) > 1:
        parts = tuple(shuffle(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True))
    return parts[0]


def parts(a: Value, lanes: int = 16) -> list[Value]:
    """A vector cut into vectors of `lanes`."""
    return [a.permute(range(i, i + lanes)) for i in range(0, a.lanes, lanes)]


def select(condition: Value, yes: Value, no: ValueLike) -> Value:
    """Lane-wise `yes if condition else no`."""
    left, right = broadcast(yes, no)
    return Value(builder().select(condition.ir, left.ir, right.ir), left.element, left.lanes)


def fma(a: Value, b: ValueLike, c: Value) -> Value:
    """Fused multiply-add, a b + c with one rounding."""
    left, right = broadcast(a, b)
    if left.lanes < c.lanes:
        left, right = splat(left, c.lanes), splat(right, c.lanes)
    return call_float_intrinsic("llvm.fma", left, right, c)


def max_(a: Value, b: ValueLike) -> Value:
    """Lane-wise maximum of floats."""
    return call_float_intrinsic("llvm.maxnum", *broadcast(a, b))


def min_(a: Value, b: ValueLike) -> Value:
    """Lane-wise minimum."""
    left, right = broadcast(a, b)
    return (
        call_float_intrinsic("llvm.minnum", left, right) if left.element.is_float else select(left < right, left, right)
    )


def clamp(value: Value, low: ValueLike, high: ValueLike) -> Value:
    """An integer limited to a range, both ends included; low wins if it is empty."""
    limited = min_(value, high)
    return select(limited < low, broadcast(limited, low)[1], limited)


def abs_(a: Value) -> Value:
    """Absolute value of floats."""
    return call_float_intrinsic("llvm.fabs", a)


def sqrt(a: Value) -> Value:
    """Square root of floats."""
    return call_float_intrinsic("llvm.sqrt", a)


def round_(a: Value) -> Value:
    """Round floats below 2^22 to the nearest integer, halves to even; the result is I32."""
    shift = 1.5 * 2**23  # a float32 of this size has no bits left for a fraction
    return ((a + shift) - shift).to(I32)


def reduce(a: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """Reduce all lanes to a scalar, pairwise."""
    while a.lanes > 2:
        half = a.lanes // 2
        a = combine(a.permute(range(half)), a.permute(range(half, a.lanes)))
    return combine(a[0], a[1])


def reduce_sum(a: Value) -> Value:
    """Sum of all lanes; on NEON one instruction adds up four integers (`addv`)."""
    if current_isa().is_neon and a.element == I32 and a.lanes % 4 == 0:
        return call_intrinsic(f"llvm.vector.reduce.add.v{a.lanes}i32", I32, 1, a)
    return reduce(a, lambda x, y: x + y)


def row_sums(vectors: Sequence[Value]) -> Value:
    """Row sums of a square matrix: lane i is the sum of vector i."""
    while len(vectors) > 1:
        lanes = vectors[0].lanes
        vectors = [
            shuffle(a, b, range(0, 2 * lanes, 2)) + shuffle(a, b, range(1, 2 * lanes, 2))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def transpose(rows: Sequence[Value]) -> list[Value]:
    """Transpose rows into columns; the number of rows must be a power of two."""
    if len(rows) == rows[0].lanes == 16:
        return _transposed_square(rows)
    merged = list(rows)
    while len(merged) > 1:  # interleaving row i and row i + half makes rows adjacent in the end
        half = len(merged) // 2
        merged = [_interleaved(a, b) for a, b in zip(merged[:half], merged[half:], strict=True)]
    return [merged[0].permute(range(i, i + len(rows))) for i in range(0, merged[0].lanes, len(rows))]


def _interleaved(a: Value, b: Value) -> Value:
    return shuffle(a, b, [i // 2 + i % 2 * a.lanes for i in range(2 * a.lanes)])


def _transposed_square(rows: Sequence[Value]) -> list[Value]:
    """Transpose 16 x 16: first within 128-bit quarters, then whole quarters.

    Each step is one instruction.
    """
    low, high = [0, 16, 1, 17], [2, 18, 3, 19]  # in every quarter: pairs of two rows
    first, second = [0, 1, 16, 17], [2, 3, 18, 19]  # in every quarter: pairs of pairs
    even, odd = [0, 2, 4, 6], [1, 3, 5, 7]  # quarters of two registers

    def within(a: Value, b: Value, picked: list[int]) -> Value:
        return shuffle(a, b, [4 * quarter + lane for quarter in range(4) for lane in picked])

    def quarters(a: Value, b: Value, picked: list[int]) -> Value:
        return shuffle(a, b, [4 * quarter + lane for quarter in picked for lane in range(4)])

    fours = []  # [rows / 4][column % 4]: every quarter holds four rows of one of its columns
    for r in range(0, 16, 4):
        a, b, c, d = rows[r : r + 4]
        pairs = [(within(a, b, picked), within(c, d, picked)) for picked in (low, high)]
        fours.append([within(x, y, picked) for x, y in pairs for picked in (first, second)])
    columns: list[Value] = [rows[0]] * 16
    for c in range(4):
        w, x, y, z = (four[c] for four in fours)
        for start, picked in ((0, even), (4, odd)):
            upper, lower = quarters(w, x, picked), quarters(y, z, picked)
            columns[start + c], columns[start + 8 + c] = (quarters(upper, lower, half) for half in (even, odd))
    return columns


def lookup(entries: Sequence[int], codes: Value) -> Value:
    """Map each code below 16 to its entry in a table of 16 bytes (`pshufb`, `tbl`)."""
    chosen, lanes = current_isa(), codes.lanes
    if chosen.is_neon and lanes % 16 == 0:
        return _lookup_neon(entries, codes)
    if chosen.has_avx512 and lanes == 64:
        return call_intrinsic("llvm.x86.avx512.pshuf.b.512", U8, 64, const_vector([*entries] * 4, U8), codes)
    if chosen is not Isa.GENERIC and not chosen.is_neon and lanes == 32:
        return call_intrinsic("llvm.x86.avx2.pshuf.b", U8, 32, const_vector([*entries] * 2, U8), codes)
    if chosen.has_avx2 and lanes == 64:
        return concat(*(lookup(entries, codes.permute(range(i, i + 32))) for i in (0, 32)))
    found = const(entries[0], U8, lanes)
    for code, entry in enumerate(entries[1:], 1):
        found = select(codes.equals(code), const(entry, U8, lanes), found)
    return found


def _lookup_neon(entries: Sequence[int], codes: Value) -> Value:
    """`tbl`. Entries above 127 are looked up with another sign, because kernels multiply signed bytes.

    They change the sign again, and LLVM removes both changes.
    """
    sign = 0x80 if max(entries) > 127 else 0
    table = const_vector([entry ^ sign for entry in entries], U8)
    found = (call_intrinsic("llvm.aarch64.neon.tbl1.v16i8", U8, 16, table, part) for part in parts(codes))
    return concat(*found) ^ sign


def f16_to_f32(a: Value) -> Value:
    """Convert float16 bits (U16) to float32."""
    if current_isa() is not Isa.GENERIC or not targets_x86():
        return Value(a.ir, U16, a.lanes).bitcast(F16).to(F32)
    bits = a.to(I32)  # without F16C, LLVM's own conversion would call a library function
    sign, rest = (bits & 0x8000) << 16, bits & 0x7FFF
    normal = ((rest << 13) + (112 << 23)).bitcast(F32)
    special = ((rest << 13) | 0x7F800000).bitcast(F32)
    small = rest.to(F32) * 2.0**-24
    value = select(rest < 0x0400, small, select(rest < 0x7C00, normal, special))
    return (value.bitcast(I32) | sign).bitcast(F32)


def f32_to_f16(a: Value) -> Value:
    """Convert float32 to float16 bits (U16), rounding halves to even."""
    if current_isa() is not Isa.GENERIC or not targets_x86():
        return a.to(F16).bitcast(U16)
    code = a.bitcast(I32)
    sign, rest = (code >> 16) & 0x8000, code & 0x7FFFFFFF
    round_up = ((rest >> 13) & 1) + 0xFFF
    normal = (rest - (112 << 23) + round_up) >> 13
    small = (rest.bitcast(F32) + 0.5).bitcast(I32) - (126 << 23)
    infinite = select(rest < 0x7F800001, const(0x7C00, I32, a.lanes), const(0x7E00, I32, a.lanes))
    value = select(rest < (113 << 23), small, select(rest < 0x477FF000, normal, infinite))
    return (value | sign).to(U16)


def bf16_to_f32(a: Value) -> Value:
    """Convert bfloat16 bits (U16) to float32."""
    return (a.to(I32) << 16).bitcast(F32)


def f32_to_bf16(low: Value, high: Value) -> Value:
    """Convert 16 + 16 float32 to 32 bfloat16 bits (U16), halves to even; AMX only."""
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    return call_intrinsic(name, BF16, 32, high, low).bitcast(U16)


def exp(a: Value) -> Value:
    """e^a for a <= 0, with a relative error of about 2e-7; 0 below -87."""
    a = max_(a, -87.5)
    whole = round_(a * _LOG2_E)
    t = fma(a, _LOG2_E_REST, fma(a, _LOG2_E, whole.to(F32) * -1.0))  # Taylor series of 2^t, t in [-1/2, 1/2]
    power = const(1.5252733804059840e-05, F32, a.lanes)
    for coefficient in (
        1.5403530393381608e-04, 1.3333558146428443e-03, 9.6181291076284772e-03, 5.5504108664821580e-02,
        2.4022650695910072e-01, 6.9314718055994531e-01, 1.0,
    ):  # fmt: skip
        power = fma(power, t, const(coefficient, F32, a.lanes))
    result = power * ((whole + 127) << 23).bitcast(F32)
    return select(a < -87.0, const(0.0, F32, a.lanes), result)


_LOG2_E, _LOG2_E_REST = 1.4426950216293335, 1.92596298909109e-08  # log2 e as float32, and the remainder
