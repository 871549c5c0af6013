"""Products of bytes on ARM: `sdot`, `usdot` and `smmla`, each of vectors of 16 bytes."""

from minillama.kernels.cpu.simd.builder import I8, I32, Isa, current_isa
from minillama.kernels.cpu.simd.value import Value, call_intrinsic, const
from minillama.kernels.cpu.simd.vectors import concat, parts


def dot(start: Value, codes: Value, x: Value, codes_above_127: bool = False) -> Value:
    """Exact dot products of four bytes.

    codes: I8; or U8, at most 127 unless `codes_above_127`. x: I8. start: I32, a quarter of the lanes.
    """
    if not codes_above_127 or codes.element is I8:
        return _each("sdot", start, codes, x)
    if current_isa() is Isa.NEON_I8MM:
        return _each("usdot", start, codes, x)
    start = _each("sdot", start, codes ^ 0x80, x)  # of code - 128; 128 is 64 + 64
    for _ in range(2):
        start = _each("sdot", start, const(64, I8, x.lanes), x)
    return start


def matrix_product(start: Value, rows: Value, columns: Value) -> Value:
    """2 x 2 exact dot products of eight signed bytes (`smmla`).

    Lane 2 r + c is start + row r · column c. rows, columns: two times eight bytes, I8. start: I32 x 4. For NEON_I8MM.
    """
    return call_intrinsic("llvm.aarch64.neon.smmla.v4i32.v16i8", I32, 4, start, rows, columns)


def _each(name: str, start: Value, codes: Value, x: Value) -> Value:
    """An instruction on every 16 bytes."""
    name = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
    each = zip(parts(start, 4), parts(codes), parts(x), strict=True)
    return concat(*(call_intrinsic(name, I32, 4, *operands) for operands in each))
