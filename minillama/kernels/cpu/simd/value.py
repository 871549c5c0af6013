"""Symbolic scalars and vectors, variables, constants and shuffles."""

from collections.abc import Sequence

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import BIT, I32, I64, Element, builder, declare, vector_type


class Value:
    """A scalar, or a vector of `lanes` elements, in the traced kernel."""

    def __init__(self, code: ir.Value, element: Element, lanes: int = 1) -> None:
        self.ir, self.element, self.lanes = code, element, lanes

    def __add__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "fadd", "add", "add")

    def __sub__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "fsub", "sub", "sub")

    def __mul__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "fmul", "mul", "mul")

    def __truediv__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "fdiv", "sdiv", "udiv")

    def __floordiv__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "fdiv", "sdiv", "udiv")

    def __mod__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "frem", "srem", "urem")

    def __and__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "", "and_", "and_")

    def __or__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "", "or_", "or_")

    def __xor__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "", "xor", "xor")

    def __lshift__(self, other: "ValueLike") -> "Value":
        return self._combine(other, "", "shl", "shl")

    def __rshift__(self, other: "ValueLike") -> "Value":
        """Shift right: arithmetic for signed elements, logical for unsigned ones."""
        return self._combine(other, "", "ashr", "lshr")

    def __lt__(self, other: "ValueLike") -> "Value":
        return self._compare("<", other)

    def __ge__(self, other: "ValueLike") -> "Value":
        return self._compare(">=", other)

    def equals(self, other: "ValueLike") -> "Value":
        """Lane-wise equality, one bit a lane."""
        return self._compare("==", other)

    def __getitem__(self, lane: int) -> "Value":
        return Value(builder().extract_element(self.ir, ir.IntType(32)(lane)), self.element)

    def to(self, element: Element) -> "Value":
        """Convert to another element type; floats truncate to integers."""
        have, want = self.element, element
        if have == want:
            return self
        b, target = builder(), vector_type(element, self.lanes)
        if have.is_float and want.is_float:
            convert = b.fpext if want.bits > have.bits else b.fptrunc
        elif want.is_float:
            convert = b.sitofp if have.signed else b.uitofp
        elif have.is_float:
            convert = b.fptosi if want.signed else b.fptoui
        elif want.bits > have.bits:
            convert = b.sext if have.signed else b.zext
        elif want.bits < have.bits:
            convert = b.trunc
        else:
            return Value(self.ir, want, self.lanes)
        return Value(convert(self.ir, target), want, self.lanes)

    def bitcast(self, element: Element) -> "Value":
        """Reinterpret the bits as lanes of another element type."""
        lanes = self.lanes * self.element.bits // element.bits
        return Value(builder().bitcast(self.ir, vector_type(element, lanes)), element, lanes)

    def permute(self, indices: Sequence[int]) -> "Value":
        """Select lanes by index, in any order and number."""
        return shuffle(self, self, indices)

    def _combine(self, other: "ValueLike", float_op: str, signed_op: str, unsigned_op: str) -> "Value":
        left, right = broadcast(self, other)
        name = float_op if left.element.is_float else signed_op if left.element.signed else unsigned_op
        return Value(getattr(builder(), name)(left.ir, right.ir), left.element, left.lanes)

    def _compare(self, sign: str, other: "ValueLike") -> "Value":
        left, right, b = *broadcast(self, other), builder()
        if left.element.is_float:
            found = b.fcmp_ordered(sign, left.ir, right.ir)
        elif left.element.signed:
            found = b.icmp_signed(sign, left.ir, right.ir)
        else:
            found = b.icmp_unsigned(sign, left.ir, right.ir)
        return Value(found, BIT, left.lanes)


Number = int | float
ValueLike = Value | Number


class Var:
    """A mutable variable on the stack of the kernel, as loops need it."""

    def __init__(self, start: Value) -> None:
        self.element, self.lanes = start.element, start.lanes
        with builder().goto_entry_block():
            self._slot = builder().alloca(vector_type(self.element, self.lanes))
        self.value = start

    @property
    def value(self) -> Value:
        return Value(builder().load(self._slot), self.element, self.lanes)

    @value.setter
    def value(self, new: Value) -> None:
        builder().store(new.ir, self._slot)


def const(value: Number, element: Element = I64, lanes: int = 1) -> Value:
    """A constant, in every lane."""
    one = float(value) if element.is_float else int(value)
    return Value(ir.Constant(vector_type(element, lanes), one if lanes == 1 else [one] * lanes), element, lanes)


def splat(value: Value, lanes: int) -> Value:
    """Copy a scalar into every lane."""
    if lanes == 1:
        return value
    b = builder()
    empty = ir.Constant(vector_type(value.element, lanes), ir.Undefined)
    first = b.insert_element(empty, value.ir, ir.IntType(32)(0))
    return Value(
        b.shuffle_vector(first, empty, ir.Constant(vector_type(I32, lanes), [0] * lanes)), value.element, lanes
    )


def opaque(value: Value) -> Value:
    """The same I64, hidden from the optimiser.

    Otherwise it would hold each address at a constant offset from this one in a register.
    """
    kind = value.ir.type
    return Value(builder().asm(ir.FunctionType(kind, [kind]), "", "=r,0", [value.ir], side_effect=False), value.element)


def in_order(value: Value) -> Value:
    """The same vector of one x86 register, computed before any later load.

    Otherwise the optimiser adds integers in an order that needs more values at a time than the registers hold.
    """
    kind = value.ir.type
    code = builder().asm(ir.FunctionType(kind, [kind]), "", "=x,0,~{memory}", [value.ir], side_effect=True)
    return Value(code, value.element, value.lanes)


def shuffle(a: Value, b: Value, indices: Sequence[int]) -> Value:
    """Select lanes of two vectors; indices of `b` start at `a.lanes`."""
    mask = ir.Constant(vector_type(I32, len(indices)), list(indices))
    return Value(builder().shuffle_vector(a.ir, b.ir, mask), a.element, len(indices))


def as_value(value: ValueLike) -> Value:
    """A Python number becomes an I64 constant."""
    return value if isinstance(value, Value) else const(value)


def broadcast(a: Value, b: ValueLike) -> tuple[Value, Value]:
    """Give two values one shape: numbers become constants, scalars fill all lanes."""
    if not isinstance(b, Value):
        return a, const(b, a.element, a.lanes)
    if a.lanes == b.lanes:
        return a, b
    return (splat(a, b.lanes), b) if a.lanes == 1 else (a, splat(b, a.lanes))


def call_intrinsic(name: str, element: Element, lanes: int, *arguments: Value) -> Value:
    """Call an LLVM intrinsic by its full name; the result has `lanes` of `element`."""
    kind = ir.FunctionType(vector_type(element, lanes), [a.ir.type for a in arguments])
    return Value(builder().call(declare(name, kind), [a.ir for a in arguments]), element, lanes)


def call_float_intrinsic(name: str, *arguments: Value) -> Value:
    """Call an intrinsic that is overloaded on float32 vectors, such as `llvm.fma`."""
    first = arguments[0]
    suffix = f"v{first.lanes}f32" if first.lanes > 1 else "f32"
    return call_intrinsic(f"{name}.{suffix}", first.element, first.lanes, *arguments)
