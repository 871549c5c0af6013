"""XLA FFI handlers: products of activations with several matrices, and embedding look-ups.

A product is one job. Its first tasks convert the activations to the layouts of the kernels. The other tasks wait for
them, then compute some rows each, of any of the matrices.
"""

from dataclasses import astuple, dataclass, fields

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
MAX_MATRICES = 8
PAGE = 4096  # bytes; a unit of offsets, whatever the pages of the system are
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
    call = alloca(_PARTS_OFFSET + MAX_MATRICES * _PART_BYTES)
    _Product(call).store(done=const(0), parts=count)
    prepare_tasks, row_tasks = Var(const(0)), Var(const(0))
    for i in loop(0, count):
        plan_address, part = plans + i * _PLAN_BYTES, _Part(call + _PARTS_OFFSET + i * _PART_BYTES)
        plan = MatmulPlan.load(plan_address)
        tokens = clamp(n_valid, 0, plan.tokens)
        _store_zeros(frame.result(i) + tokens * plan.rows * 4, (plan.tokens - tokens) * plan.rows)
        units = select(plan.prepare < 0, const(0), (tokens + plan.unit - 1) // plan.unit)
        expert = clamp(load(I32, 1, numbers + i * 4).to(I64), 0, plan.matrices - 1)
        x = select(plan.scratch < 0, source, scratch + plan.scratch * SCRATCH_UNIT)
        first_row = frame.argument(i + 3) + plan.page * PAGE + plan.page_offset
        tasks = (plan.rows + plan.task_rows - 1) // plan.task_rows
        part.store(
            weights=first_row + expert * plan.rows * plan.row_bytes,
            row_bytes=plan.row_bytes,
            width=plan.width,
            rows=plan.rows,
            tokens=tokens,
            source=source,
            x=x,
            y=frame.result(i),
            kernel=kernel_address(module, plan.kernel),
            task_rows=plan.task_rows,
            prepare=kernel_address(module, plan.prepare),
            prepare_tasks=units,
            row_tasks=tasks,
        )
        prepare_tasks.value = prepare_tasks.value + units
        row_tasks.value = row_tasks.value + tasks
    _Product(call).store(prepare_tasks=prepare_tasks.value)
    is_prompt = load(I32, 1, plans + (_PLAN_BYTES - 4)).to(I64)
    threads = load(I64, 1, module.global_address(THREADS) + is_prompt * 8)
    task, tasks = module.function_address("product_task"), prepare_tasks.value + row_tasks.value
    module.call("parallel", frame.address, task, call, tasks, threads)


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
    call_address(kernel_address(module, plan.kernel), args.address, const(0), plan.tokens)


def kernel_address(module: Module, number: Value) -> Value:
    """Address of a kernel by its number."""
    return load(I64, 1, module.global_address(KERNELS) + select(number < 0, const(0), number) * 8)
