"""A small SIMD language: a Python function, run once with symbolic values, writes the machine code of a kernel.

As JAX traces a function into HLO, these functions trace into LLVM. A value is one number or a short vector of them;
Python's own loops and lists unroll, `loop` and `when` become jumps of the machine, a `Register` is a variable.

    for i in loop(0, blocks):
        codes = load(U8, 32, address + i * 32)
        total.value = dot(total.value, codes & 15, load(I8, 32, x + i * 32))
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from llvmlite import binding, ir


class Isa(Enum):
    """Instruction sets that a kernel can be written for; the vectors are the same, the machine code is not."""

    AVX512 = "avx512"  # with VNNI: 64 products of bytes in one instruction
    AVX2 = "avx2"
    GENERIC = "generic"  # whatever LLVM makes of plain vector code, on any processor


@dataclass(frozen=True)
class Element:
    """The type of one number."""

    ir: ir.Type
    bits: int
    signed: bool = True
    real: bool = False


BIT = Element(ir.IntType(1), 1, signed=False)
U8, I8 = Element(ir.IntType(8), 8, signed=False), Element(ir.IntType(8), 8)
U16, I16 = Element(ir.IntType(16), 16, signed=False), Element(ir.IntType(16), 16)
U32, I32 = Element(ir.IntType(32), 32, signed=False), Element(ir.IntType(32), 32)
U64, I64 = Element(ir.IntType(64), 64, signed=False), Element(ir.IntType(64), 64)
F16, F32 = Element(ir.HalfType(), 16, real=True), Element(ir.FloatType(), 32, real=True)


class Value:
    """A number, or a vector of `lanes` numbers, that the kernel will hold when it runs."""

    def __init__(self, code: ir.Value, element: Element, lanes: int = 1) -> None:
        self.ir, self.element, self.lanes = code, element, lanes

    def __add__(self, other: "Like") -> "Value":
        return self._combine(other, "fadd", "add", "add")

    def __sub__(self, other: "Like") -> "Value":
        return self._combine(other, "fsub", "sub", "sub")

    def __mul__(self, other: "Like") -> "Value":
        return self._combine(other, "fmul", "mul", "mul")

    def __truediv__(self, other: "Like") -> "Value":
        return self._combine(other, "fdiv", "sdiv", "udiv")

    def __floordiv__(self, other: "Like") -> "Value":
        return self._combine(other, "fdiv", "sdiv", "udiv")

    def __mod__(self, other: "Like") -> "Value":
        return self._combine(other, "frem", "srem", "urem")

    def __and__(self, other: "Like") -> "Value":
        return self._combine(other, "", "and_", "and_")

    def __or__(self, other: "Like") -> "Value":
        return self._combine(other, "", "or_", "or_")

    def __xor__(self, other: "Like") -> "Value":
        return self._combine(other, "", "xor", "xor")

    def __lshift__(self, other: "Like") -> "Value":
        return self._combine(other, "", "shl", "shl")

    def __rshift__(self, other: "Like") -> "Value":
        """Signed numbers keep their sign."""
        return self._combine(other, "", "ashr", "lshr")

    def __lt__(self, other: "Like") -> "Value":
        return self._compare("<", other)

    def __ge__(self, other: "Like") -> "Value":
        return self._compare(">=", other)

    def equals(self, other: "Like") -> "Value":
        """A bit for each lane."""
        return self._compare("==", other)

    def __getitem__(self, lane: int) -> "Value":
        return Value(_builder().extract_element(self.ir, ir.IntType(32)(lane)), self.element)

    def to(self, element: Element) -> "Value":
        """The same numbers in another type; from real to whole they lose their fraction."""
        have, want = self.element, element
        if have == want:
            return self
        b, target = _builder(), _type(element, self.lanes)
        if have.real and want.real:
            convert = b.fpext if want.bits > have.bits else b.fptrunc
        elif want.real:
            convert = b.sitofp if have.signed else b.uitofp
        elif have.real:
            convert = b.fptosi if want.signed else b.fptoui
        elif want.bits > have.bits:
            convert = b.sext if have.signed else b.zext
        elif want.bits < have.bits:
            convert = b.trunc
        else:
            return Value(self.ir, want, self.lanes)
        return Value(convert(self.ir, target), want, self.lanes)

    def bits_as(self, element: Element) -> "Value":
        """The same bits, cut into numbers of another type."""
        lanes = self.lanes * self.element.bits // element.bits
        return Value(_builder().bitcast(self.ir, _type(element, lanes)), element, lanes)

    def lanes_at(self, indices: Sequence[int]) -> "Value":
        """Some of the lanes, in any order and number."""
        return shuffle(self, self, indices)

    def _combine(self, other: "Like", real: str, signed: str, unsigned: str) -> "Value":
        left, right = _alike(self, other)
        name = real if left.element.real else signed if left.element.signed else unsigned
        return Value(getattr(_builder(), name)(left.ir, right.ir), left.element, left.lanes)

    def _compare(self, sign: str, other: "Like") -> "Value":
        left, right, b = *_alike(self, other), _builder()
        if left.element.real:
            found = b.fcmp_ordered(sign, left.ir, right.ir)
        elif left.element.signed:
            found = b.icmp_signed(sign, left.ir, right.ir)
        else:
            found = b.icmp_unsigned(sign, left.ir, right.ir)
        return Value(found, BIT, left.lanes)


Number = int | float
Like = Value | Number


class Register:
    """A variable: what changes from one turn of a loop to the next."""

    def __init__(self, start: Value) -> None:
        self.element, self.lanes = start.element, start.lanes
        with _builder().goto_entry_block():
            self._slot = _builder().alloca(_type(self.element, self.lanes))
        self.value = start

    @property
    def value(self) -> Value:
        return Value(_builder().load(self._slot), self.element, self.lanes)

    @value.setter
    def value(self, new: Value) -> None:
        _builder().store(new.ir, self._slot)


def isa() -> Isa:
    """The instruction set that is being written for."""
    return _writing().isa


# --- numbers and vectors ---


def number(value: Number, element: Element = I64, lanes: int = 1) -> Value:
    """A constant."""
    one = float(value) if element.real else int(value)
    return Value(ir.Constant(_type(element, lanes), one if lanes == 1 else [one] * lanes), element, lanes)


def table(values: Sequence[int], element: Element) -> Value:
    """A constant vector."""
    return Value(ir.Constant(_type(element, len(values)), list(values)), element, len(values))


def vector(values: Sequence[Value]) -> Value:
    """Numbers side by side."""
    b, first = _builder(), values[0]
    if len(values) == 1:
        return first
    built = ir.Constant(_type(first.element, len(values)), ir.Undefined)
    for lane, value in enumerate(values):
        built = b.insert_element(built, value.ir, ir.IntType(32)(lane))
    return Value(built, first.element, len(values))


def splat(value: Value, lanes: int) -> Value:
    """One number in every lane."""
    if lanes == 1:
        return value
    b = _builder()
    empty = ir.Constant(_type(value.element, lanes), ir.Undefined)
    first = b.insert_element(empty, value.ir, ir.IntType(32)(0))
    return Value(b.shuffle_vector(first, empty, ir.Constant(_type(I32, lanes), [0] * lanes)), value.element, lanes)


def shuffle(a: Value, b: Value, indices: Sequence[int]) -> Value:
    """Lanes of two vectors, those of the second numbered behind those of the first."""
    mask = ir.Constant(_type(I32, len(indices)), list(indices))
    return Value(_builder().shuffle_vector(a.ir, b.ir, mask), a.element, len(indices))


def padded(a: Value, lanes: int) -> Value:
    """Zeros behind a vector, up to a number of lanes."""
    if a.lanes == lanes:
        return a
    zeros = number(0, a.element, max(a.lanes, 2))
    if a.lanes == 1:
        a = Value(_builder().insert_element(zeros.ir, a.ir, ir.IntType(32)(0)), a.element, 2)
    return shuffle(a, zeros, [i if i < a.lanes else a.lanes for i in range(lanes)])


def concat(*parts: Value) -> Value:
    """Vectors of one length behind each other; their number is a power of two."""
    while len(parts) > 1:
        parts = tuple(shuffle(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True))
    return parts[0]


def select(condition: Value, yes: Value, no: Like) -> Value:
    """Lane by lane, one or the other."""
    left, right = _alike(yes, no)
    return Value(_builder().select(condition.ir, left.ir, right.ir), left.element, left.lanes)


def fma(a: Value, b: Like, c: Value) -> Value:
    """a b + c with one rounding."""
    left, right = _alike(a, b)
    if left.lanes < c.lanes:
        left, right = splat(left, c.lanes), splat(right, c.lanes)
    return _intrinsic("llvm.fma", left, right, c)


def largest(a: Value, b: Like) -> Value:
    """The larger of two real numbers."""
    return _intrinsic("llvm.maxnum", *_alike(a, b))


def smallest(a: Value, b: Like) -> Value:
    """The smaller of two numbers."""
    left, right = _alike(a, b)
    return _intrinsic("llvm.minnum", left, right) if left.element.real else select(left < right, left, right)


def magnitude(a: Value) -> Value:
    """Without the sign."""
    return _intrinsic("llvm.fabs", a)


def nearest(a: Value) -> Value:
    """Round reals below 2^22 to the nearest whole number, halves to even, as an int."""
    shift = 1.5 * 2**23  # so large that a float has no room left for a fraction
    return ((a + shift) - shift).to(I32)


def fold(a: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes combined into one number."""
    while a.lanes > 2:
        half = a.lanes // 2
        a = combine(a.lanes_at(range(half)), a.lanes_at(range(half, a.lanes)))
    return combine(a[0], a[1])


def total(a: Value) -> Value:
    """The sum of all lanes."""
    return fold(a, lambda x, y: x + y)


def sums(vectors: Sequence[Value]) -> Value:
    """The sum of the lanes of each of some vectors, as many as a vector has lanes; one lane for each."""
    while len(vectors) > 1:
        lanes = vectors[0].lanes
        vectors = [
            shuffle(a, b, range(0, 2 * lanes, 2)) + shuffle(a, b, range(1, 2 * lanes, 2))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def dot(start: Value, codes: Value, x: Value, wide: bool = False) -> Value:
    """Sums of four products: lane j is start[j] + codes[4j..4j+3] · x[4j..4j+3].

    codes: U8, above 127 only if `wide`; x: I8 but not -128; start: I32, a quarter as many lanes.
    """
    w = _writing()
    if w.isa is Isa.AVX512 and codes.lanes in (16, 32, 64):
        name = f"llvm.x86.avx512.vpdpbusd.{8 * codes.lanes}"
        if binding.llvm_version_info[0] < 22:
            codes, x = codes.bits_as(I32), x.bits_as(I32)
        return _call(name, start.element, start.lanes, start, codes, x)
    if w.isa is Isa.AVX2 and codes.lanes > 32:
        half, lanes = codes.lanes // 2, codes.lanes
        parts = [(range(half), range(half // 4)), (range(half, lanes), range(half // 4, lanes // 4))]
        return concat(*(dot(start.lanes_at(s), codes.lanes_at(c), x.lanes_at(c), wide) for c, s in parts))
    if w.isa is Isa.AVX2 and codes.lanes == 32:
        ones = number(1, I16, 16)
        parts = (codes & 127, codes & 128) if wide else (codes,)  # sums of two products must fit in 16 bits
        for part in parts:
            pairs = _call("llvm.x86.avx2.pmadd.ub.sw", I16, 16, part, x)
            start = start + _call("llvm.x86.avx2.pmadd.wd", I32, 8, pairs, ones)
        return start
    products = (codes.to(I16) * x.to(I16)).to(I32)
    for i in range(4):
        start = start + products.lanes_at(range(i, products.lanes, 4))
    return start


def lookup(entries: Sequence[int], codes: Value) -> Value:
    """Each code below 16 replaced by its entry in a table of 16 bytes."""
    isa, lanes = _writing().isa, codes.lanes
    if isa is Isa.AVX512 and lanes == 64:
        return _call("llvm.x86.avx512.pshuf.b.512", U8, 64, table([*entries] * 4, U8), codes)
    if isa is not Isa.GENERIC and lanes == 32:
        return _call("llvm.x86.avx2.pshuf.b", U8, 32, table([*entries] * 2, U8), codes)
    if isa is Isa.AVX2 and lanes == 64:
        return concat(*(lookup(entries, codes.lanes_at(range(i, i + 32))) for i in (0, 32)))
    found = number(entries[0], U8, lanes)
    for code, entry in enumerate(entries[1:], 1):
        found = select(codes.equals(code), number(entry, U8, lanes), found)
    return found


def from_half(a: Value) -> Value:
    """float16, given as its bits in U16, to float32."""
    if _writing().isa is not Isa.GENERIC or not _X86:
        return Value(a.ir, U16, a.lanes).bits_as(F16).to(F32)
    wide = a.to(I32)  # without the instruction LLVM would call a library
    sign, rest = (wide & 0x8000) << 16, wide & 0x7FFF
    normal = ((rest << 13) + (112 << 23)).bits_as(F32)
    special = ((rest << 13) | 0x7F800000).bits_as(F32)
    small = rest.to(F32) * 2.0**-24
    value = select(rest < 0x0400, small, select(rest < 0x7C00, normal, special))
    return (value.bits_as(I32) | sign).bits_as(F32)


def to_half(a: Value) -> Value:
    """float32 to float16, nearest, halves to even, as bits in U16."""
    if _writing().isa is not Isa.GENERIC or not _X86:
        return a.to(F16).bits_as(U16)
    code = a.bits_as(I32)
    sign, rest = (code >> 16) & 0x8000, code & 0x7FFFFFFF
    round_up = ((rest >> 13) & 1) + 0xFFF
    normal = (rest - (112 << 23) + round_up) >> 13
    small = (rest.bits_as(F32) + 0.5).bits_as(I32) - (126 << 23)
    infinite = select(rest < 0x7F800001, number(0x7C00, I32, a.lanes), number(0x7E00, I32, a.lanes))
    value = select(rest < (113 << 23), small, select(rest < 0x477FF000, normal, infinite))
    return (value | sign).to(U16)


def from_bfloat(a: Value) -> Value:
    """bfloat16, given as its bits in U16, to float32."""
    return (a.to(I32) << 16).bits_as(F32)


def exp(a: Value) -> Value:
    """e^a for a at most 0, to about 2e-7 of its value; 0 below -87."""
    a = largest(a, -87.5)
    whole = nearest(a * _LOG2_E)
    t = fma(a, _LOG2_E_REST, fma(a, _LOG2_E, whole.to(F32) * -1.0))  # 2^t for t in [-1/2, 1/2], Taylor's series
    power = number(1.5252733804059840e-05, F32, a.lanes)
    for coefficient in (
        1.5403530393381608e-04, 1.3333558146428443e-03, 9.6181291076284772e-03, 5.5504108664821580e-02,
        2.4022650695910072e-01, 6.9314718055994531e-01, 1.0,
    ):  # fmt: skip
        power = fma(power, t, number(coefficient, F32, a.lanes))
    result = power * ((whole + 127) << 23).bits_as(F32)
    return select(a < -87.0, number(0.0, F32, a.lanes), result)


_LOG2_E, _LOG2_E_REST = 1.4426950216293335, 1.92596298909109e-08  # log2 e as float32, and what that leaves


# --- memory; an address is an I64 ---


def load(element: Element, lanes: int, address: Value, align: int = 1) -> Value:
    """Numbers that lie side by side."""
    kind = _type(element, lanes)
    return Value(_builder().load(_pointer(address, kind), align=align), element, lanes)


def load_splat(element: Element, lanes: int, address: Value) -> Value:
    """One number from memory in every lane."""
    return splat(load(element, 1, address), lanes)


def store(value: Value, address: Value, align: int = 1) -> None:
    """Put numbers side by side."""
    _builder().store(value.ir, _pointer(address, value.ir.type), align=align)


def stack(size: int) -> Value:
    """The address of `size` bytes on the function's own stack, a multiple of 64."""
    b = _builder()
    with b.goto_entry_block():
        slot = b.alloca(ir.ArrayType(ir.IntType(8), size))
        slot.align = 64
        return Value(b.ptrtoint(slot, ir.IntType(64)), I64)


def prefetch(address: Value) -> None:
    """Ask for a cache line that will be read once."""
    name, i32 = "llvm.prefetch.p0", ir.IntType(32)
    pointer = ir.IntType(8).as_pointer()
    function = _declare(name, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]))
    _builder().call(function, [_pointer(address, ir.IntType(8)), i32(0), i32(3), i32(1)])


def atomic_add(address: Value, amount: Like) -> Value:
    """Add to an I64 that other threads change too; its value before."""
    return _atomic("add", address, amount)


def atomic_swap(address: Value, new: Like) -> Value:
    """Replace an I64 that other threads change too; its value before."""
    return _atomic("xchg", address, new)


def atomic_load(address: Value) -> Value:
    """Read an I64 that other threads change."""
    pointer = _pointer(address, ir.IntType(64))
    return Value(_builder().load_atomic(pointer, "seq_cst", 8), I64)


def pause() -> None:
    """Tell the processor that this is a waiting loop."""
    if _X86:
        _builder().call(_declare("llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])


# --- control ---


def loop(start: Like, stop: Like, step: Like = 1) -> Iterator[Value]:
    """for i in loop(start, stop, step): the body is written once and runs while i < stop."""
    b = _builder()
    index = Register(_whole(start))
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch((index.value < stop).ir, body, after)
    b.position_at_end(body)
    yield index.value
    index.value = index.value + step
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def repeat_while(condition: Callable[[], Value]) -> Iterator[None]:
    """The body runs again and again as long as the condition, written before it, holds."""
    b = _builder()
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(condition().ir, body, after)
    b.position_at_end(body)
    yield
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def when(condition: Value) -> Iterator[None]:
    """The body runs if the condition holds."""
    with _builder().if_then(condition.ir):
        yield


def call_address(address: Value, *arguments: Value) -> Value:
    """Call a function of I64s by its address."""
    i64 = ir.IntType(64)
    kind = ir.FunctionType(i64, [i64] * len(arguments))
    return Value(_builder().call(_pointer(address, kind), [a.ir for a in arguments]), I64)


class Module:
    """Functions that are compiled together; all take and return I64s."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.ir = ir.Module("kernel")

    def define(self, name: str, arguments: int, body: Callable[..., Value | None]) -> None:
        """Write one function: `body` is called once with its symbolic arguments."""
        i64 = ir.IntType(64)
        function = ir.Function(self.ir, ir.FunctionType(i64, [i64] * arguments), name)
        _stack.append(_Writing(self, ir.IRBuilder(function.append_basic_block("entry"))))
        try:
            result = body(*(Value(a, I64) for a in function.args))
            _builder().ret(i64(0) if result is None else result.ir)
        finally:
            _stack.pop()

    def variable(self, name: str, words: int) -> None:
        """Memory of I64s that lasts as long as the module, at first all 0; Python finds it by its name."""
        kind = ir.ArrayType(ir.IntType(64), words)
        memory = ir.GlobalVariable(self.ir, kind, name)
        memory.initializer, memory.align = ir.Constant(kind, None), 64

    def variable_address(self, name: str) -> Value:
        """Where a variable lies."""
        return Value(_builder().ptrtoint(self.ir.get_global(name), ir.IntType(64)), I64)

    def call(self, name: str, *arguments: Value) -> Value:
        """Call a function of this module."""
        return Value(_builder().call(self.ir.get_global(name), [a.ir for a in arguments]), I64)

    def address_of(self, name: str) -> Value:
        """The address of a function of this module."""
        return Value(_builder().ptrtoint(self.ir.get_global(name), ir.IntType(64)), I64)


# --- behind the curtain ---


@dataclass(frozen=True)
class _Writing:
    module: Module
    builder: ir.IRBuilder

    @property
    def isa(self) -> Isa:
        return self.module.isa


_stack: list[_Writing] = []
_X86 = binding.get_process_triple().split("-")[0] in ("x86_64", "amd64", "i686")


def _writing() -> _Writing:
    return _stack[-1]


def _builder() -> ir.IRBuilder:
    return _stack[-1].builder


def _type(element: Element, lanes: int) -> ir.Type:
    return element.ir if lanes == 1 else ir.VectorType(element.ir, lanes)


def _whole(value: Like) -> Value:
    return value if isinstance(value, Value) else number(value)


def _alike(a: Value, b: Like) -> tuple[Value, Value]:
    """Two values of one type: numbers become constants, single values fill the lanes."""
    if not isinstance(b, Value):
        return a, number(b, a.element, a.lanes)
    if a.lanes == b.lanes:
        return a, b
    return (splat(a, b.lanes), b) if a.lanes == 1 else (a, splat(b, a.lanes))


def _pointer(address: Value, kind: ir.Type) -> ir.Value:
    return _builder().inttoptr(address.ir, kind.as_pointer())


def _atomic(operation: str, address: Value, value: Like) -> Value:
    pointer = _pointer(address, ir.IntType(64))
    return Value(_builder().atomic_rmw(operation, pointer, _whole(value).ir, "seq_cst"), I64)


def _declare(name: str, kind: ir.FunctionType) -> ir.Function:
    module = _writing().module.ir
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)


def _call(name: str, element: Element, lanes: int, *arguments: Value) -> Value:
    kind = ir.FunctionType(_type(element, lanes), [a.ir.type for a in arguments])
    return Value(_builder().call(_declare(name, kind), [a.ir for a in arguments]), element, lanes)


def _intrinsic(name: str, *arguments: Value) -> Value:
    first = arguments[0]
    suffix = f"v{first.lanes}f32" if first.lanes > 1 else "f32"
    return _call(f"{name}.{suffix}", first.element, first.lanes, *arguments)
