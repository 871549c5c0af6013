"""XLA FFI handlers: products with several matrices or a stack, and embedding look-ups.

A product is one job. Its first tasks convert the activations to the layouts of the kernels. The other tasks wait for
them, then compute some rows each, of any of the matrices.
"""

from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.thread_pool import define_thread_pool
from minillama.kernels.cpu.simd import (
    F32,
    I32,
    I64,
    Module,
    Struct,
    Value,
    ValueLike,
    Var,
    Word,
    alloca,
    atomic_add,
    atomic_load,
    call_address,
    clamp,
    const,
    if_,
    load,
    loop,
    min_,
    pause,
    select,
    store,
    while_,
)

KERNELS = "kernels"  # global array: addresses of the kernels, by number
KERNEL_COUNT = 1024
THREADS = "threads"  # global array: numbers of threads for decoding and for a prompt
MAX_MATRICES = 8  # of a product
MAX_STACK = 256  # of a stack in one call
PAGE = 4096
SCRATCH_UNIT = 64  # bytes


@dataclass(frozen=True)
class MatmulPlan:
    """The plan of one matrix of a call, a row of int32.

    Python writes integers; a handler loads the same fields as values.
    """

    kernel: ValueLike  # number of the kernel
    rows: ValueLike
    width: ValueLike
    row_bytes: ValueLike
    page: ValueLike  # address of the first row in pages from the start of the memory, as bytes may exceed int32,
    page_offset: ValueLike  # and the bytes after the page
    tokens: ValueLike  # shape of the activations; how many of them are valid is an operand
    prepare: ValueLike = -1  # number of the kernel that converts the activations; -1: none, or an earlier matrix's
    unit: ValueLike = 1  # tokens that one preparation task converts
    scratch: ValueLike = -1  # place of the converted activations in units of SCRATCH_UNIT; -1: use them as they are
    task_rows: ValueLike = 1
    matrices: ValueLike = 1  # of a stack of experts
    is_prompt: ValueLike = 0  # 1: use the number of threads for a prompt

    def row(self) -> tuple[int, ...]:
        """The numbers in the order of the fields."""
        return astuple(self)

    @staticmethod
    def load(address: Value) -> "MatmulPlan":
        """Load a row."""
        return MatmulPlan(*(load(I32, 1, address + 4 * i).to(I64) for i in range(len(fields(MatmulPlan)))))


_PLAN_BYTES = 4 * len(fields(MatmulPlan))


class _Part(MatmulArgs):
    """A matrix of a running product: the arguments of its kernel and its tasks."""

    prepare = Word()  # address of the function that converts the activations
    prepare_tasks = Word()
    row_tasks = Word()


class _Product(Struct):
    """A running product; the parts follow in memory."""

    done = Word()  # finished preparation tasks, atomic
    prepare_tasks = Word()  # of all parts
    parts = Word()


_PART_BYTES = _Part.size() + 8
_PARTS_OFFSET = 64  # in a cache line of their own


def define_handlers(module: Module, api: Api) -> None:
    """`product(frame)` and `rows(frame)`, with the thread pool and the table of kernels."""
    module.define_global(KERNELS, KERNEL_COUNT)
    module.define_global(THREADS, 2)
    define_thread_pool(module, api)
    module.define("product_task", 2, lambda call, task: _product_task(_Product(call), task))
    define_handler(module, "product", api, lambda frame: _product(module, frame))
    define_handler(module, "stack", api, lambda frame: _stack(module, frame))
    define_handler(module, "rows", api, lambda frame: _rows(module, frame))


def _product(module: Module, frame: Frame) -> None:
    """Multiply activations with several matrices.

    Operands: plans [parts, columns], x f32 [T, K], numbers i32 [parts + 1], the weights. Results: y of each, scratch.
    The numbers are the expert of each part, then the number of valid tokens. Rows of y of other tokens are zeros. A
    number outside of its range becomes the nearest one: no number reaches memory outside of the operands.
    """
    plans, source, numbers = (frame.argument(i) for i in range(3))
    count = frame.dimension(0, 0)
    n_valid = load(I32, 1, numbers + count * 4).to(I64)
    scratch = frame.result(count)
    call = _Call.begin(count, MAX_MATRICES)
    for i in loop(0, count):
        plan = MatmulPlan.load(plans + i * _PLAN_BYTES)
        x = select(plan.scratch < 0, source, scratch + plan.scratch * SCRATCH_UNIT)
        expert, weights, y = load(I32, 1, numbers + i * 4).to(I64), frame.argument(i + 3), frame.result(i)
        call.add(module, i, plan, _Place(expert, n_valid, weights, source, x, y))
    call.run(module, frame, load(I32, 1, plans + (_PLAN_BYTES - 4)).to(I64))


def _stack(module: Module, frame: Frame) -> None:
    """Multiply activations with the matrices of a stack, each with its own.

    Operands: plan [1, columns], x f32 [P, T, K], numbers i32 [P + 1], the weights. Results: y f32 [P, T, N], scratch.
    Numbers and limits are those of `_product`. The plan's scratch is the size of one part.
    """
    plan, source, numbers = MatmulPlan.load(frame.argument(0)), frame.argument(1), frame.argument(2)
    count = min_(frame.dimension(1, 0), MAX_STACK)
    n_valid = load(I32, 1, numbers + count * 4).to(I64)
    call = _Call.begin(count, MAX_STACK)
    for i in loop(0, count):
        rows = source + i * plan.tokens * plan.width * 4
        x = select(plan.scratch < 0, rows, frame.result(1) + i * plan.scratch * SCRATCH_UNIT)
        y = frame.result(0) + i * plan.tokens * plan.rows * 4
        call.add(module, i, plan, _Place(load(I32, 1, numbers + i * 4).to(I64), n_valid, frame.argument(3), rows, x, y))
    call.run(module, frame, plan.is_prompt)


class _Place(NamedTuple):
    """The numbers and addresses of a part that are not in its plan."""

    expert: Value
    n_valid: Value
    memory: Value  # of the weights
    source: Value  # of the activations
    x: Value  # of the converted activations
    y: Value


@dataclass(frozen=True)
class _Call:
    """A product that a handler prepares and runs."""

    address: Value
    prepare_tasks: Var
    row_tasks: Var

    @staticmethod
    def begin(parts: Value, most: int) -> "_Call":
        """Room for at most `most` parts."""
        address = alloca(_PARTS_OFFSET + most * _PART_BYTES)
        _Product(address).store(done=const(0), parts=parts)
        return _Call(address, Var(const(0)), Var(const(0)))

    def add(self, module: Module, number: Value, plan: MatmulPlan, place: _Place) -> None:
        """Store the arguments of a part, and count its tasks."""
        tokens = clamp(place.n_valid, 0, plan.tokens)
        _store_zeros(place.y + tokens * plan.rows * 4, (plan.tokens - tokens) * plan.rows)
        units = select(plan.prepare < 0, const(0), (tokens + plan.unit - 1) // plan.unit)
        expert = clamp(place.expert, 0, plan.matrices - 1)
        first_row = place.memory + plan.page * PAGE + plan.page_offset
        tasks = (plan.rows + plan.task_rows - 1) // plan.task_rows
        _Part(self.address + _PARTS_OFFSET + number * _PART_BYTES).store(
            weights=first_row + expert * plan.rows * plan.row_bytes,
            row_bytes=plan.row_bytes,
            width=plan.width,
            rows=plan.rows,
            tokens=tokens,
            source=place.source,
            x=place.x,
            y=place.y,
            kernel=_kernel(module, plan.kernel),
            task_rows=plan.task_rows,
            prepare=_kernel(module, plan.prepare),
            prepare_tasks=units,
            row_tasks=tasks,
        )
        self.prepare_tasks.value = self.prepare_tasks.value + units
        self.row_tasks.value = self.row_tasks.value + tasks

    def run(self, module: Module, frame: Frame, is_prompt: Value) -> None:
        """Do all tasks."""
        _Product(self.address).store(prepare_tasks=self.prepare_tasks.value)
        threads = load(I64, 1, module.global_address(THREADS) + is_prompt * 8)
        task, tasks = module.function_address("product_task"), self.prepare_tasks.value + self.row_tasks.value
        module.call("parallel", frame.address, task, self.address, tasks, threads)


def _store_zeros(address: Value, count: Value) -> None:
    """Set `count` floats to zero."""
    bulk = count // 16 * 16
    for i in loop(0, bulk, 16):
        store(const(0.0, F32, 16), address + i * 4)
    for i in loop(bulk, count):
        store(const(0.0, F32), address + i * 4)


def _product_task(product: _Product, task: Value) -> None:
    """Convert one unit of a part's activations, or compute some rows of a part."""
    prepare_tasks, count = product.prepare_tasks, product.parts
    done = product.address  # of the first word
    is_prepare = task < prepare_tasks
    with if_(is_prepare ^ 1), while_(lambda: atomic_load(done) < prepare_tasks):
        pause()
    left = Var(select(is_prepare, task, task - prepare_tasks))
    for i in loop(0, count):
        part = _Part(product.address + _PARTS_OFFSET + i * _PART_BYTES)
        tasks = select(is_prepare, part.prepare_tasks, part.row_tasks)
        index = left.value
        in_part = (index < tasks) & (index >= 0)
        with if_(in_part & is_prepare):
            call_address(part.prepare, part.address, index, index + 1)
            atomic_add(done, 1)
        with if_(in_part & (is_prepare ^ 1)):
            first = index * part.task_rows
            call_address(part.kernel, part.address, first, min_(first + part.task_rows, part.rows))
        left.value = index - tasks


def _rows(module: Module, frame: Frame) -> None:
    """Look up embeddings.

    Operands: plan [1, columns], ids i32 [T], the weights. Result: rows f32 [T, K].
    """
    plan, args = MatmulPlan.load(frame.argument(0)), MatmulArgs(alloca(_PART_BYTES))
    ids = frame.argument(1)
    args.store(
        weights=frame.argument(2) + plan.page * PAGE + plan.page_offset,
        row_bytes=plan.row_bytes,
        width=plan.width,
        rows=plan.rows,
        tokens=plan.tokens,
        source=ids,
        x=ids,
        y=frame.result(0),
    )
    call_address(_kernel(module, plan.kernel), args.address, const(0), plan.tokens)


def _kernel(module: Module, number: Value) -> Value:
    return load(I64, 1, module.global_address(KERNELS) + select(number < 0, const(0), number) * 8)
