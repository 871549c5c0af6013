"""The calls that XLA makes: products of some activations with some matrices, and rows of a matrix by number.

A product is one job: its first tasks bring the activations into the form that the kernels multiply with, the others
compute some rows each, of any of the matrices, and wait for the first.
"""

from dataclasses import astuple, dataclass, fields

from minillama.kernels.cpu.matmul.matmul_args import WORDS, MatmulArgs
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.thread_pool import define_thread_pool
from minillama.kernels.cpu.simd import (
    F32,
    I32,
    I64,
    Module,
    Value,
    Var,
    alloca,
    atomic_add,
    atomic_load,
    call_address,
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

KERNELS = "kernels"  # addresses of the kernels, by number
KERNEL_COUNT = 1024
THREADS = "threads"  # how many may work: for a few tokens, for many
MAX_MATRICES = 8
PAGE = 4096


@dataclass(frozen=True)
class Plan:
    """What Python says about one matrix of a product, as a row of int32."""

    kernel: int  # number of the kernel
    rows: int
    width: int
    row_bytes: int
    page: int  # where the first row begins: pages from the start of the memory, for bytes may be beyond int32,
    skip: int  # and bytes behind them
    tokens: int  # that there are; how many of them count is told when the product runs
    prepare: int = -1  # number of the kernel that prepares the activations; -1: an earlier part's, or as they came
    unit: int = 1  # tokens that a task prepares, if there is anything to prepare
    place: int = -1  # where in the scratch memory the activations lie, in units of 64 bytes; -1: as they came
    task_rows: int = 1
    many: int = 0  # 1: the number of threads for many tokens counts

    def row(self) -> tuple[int, ...]:
        """The numbers in their order."""
        return astuple(self)


_COLUMNS = len(fields(Plan))
_PART = 8 * (WORDS + 4)  # bytes of a part and what else a call knows of it
_PREPARE, _UNITS, _TASKS = (8 * (WORDS + i) for i in range(3))
_DONE, _ALL, _COUNT, _HEAD = 0, 8, 16, 64  # words before the parts


def define_handlers(module: Module, api: Api) -> None:
    """`product(frame)` and `rows(frame)`, with the pool and the table of kernels."""
    module.define_global(KERNELS, KERNEL_COUNT)
    module.define_global(THREADS, 2)
    define_thread_pool(module, api)
    module.define("product_task", 2, lambda call, task: _product_task(call, task))
    define_handler(module, "product", api, lambda frame: _product(module, frame))
    define_handler(module, "rows", api, lambda frame: _rows(module, frame))


def _product(module: Module, frame: Frame) -> None:
    """Operands: plan [parts, columns], x f32 [T, K], numbers i32 [parts + 1], the weights; results: y of each, scratch.

    The numbers are the expert of each part, and how many tokens count; for the others y is zeros.
    """
    plan, source, numbers = (frame.argument(i) for i in range(3))
    count = frame.dimension(0, 0)
    valid = load(I32, 1, numbers + count * 4).to(I64)
    scratch = frame.result(count)
    call = alloca(_HEAD + MAX_MATRICES * _PART)
    store(const(0), call + _DONE)
    store(count, call + _COUNT)
    before, tasks = Var(const(0)), Var(const(0))
    for i in loop(0, count):
        row, part = plan + i * (4 * _COLUMNS), call + _HEAD + i * _PART
        kernel, rows, width, row_bytes, page, skip, there, prepare, unit, place, task_rows, _ = (
            load(I32, 1, row + 4 * column).to(I64) for column in range(_COLUMNS)
        )
        tokens = min_(valid, there)
        _clear(frame.result(i) + tokens * rows * 4, (there - tokens) * rows)
        units = select(prepare < 0, const(0), (tokens + unit - 1) // unit)
        expert = load(I32, 1, numbers + i * 4).to(I64)
        x = select(place < 0, source, scratch + place * 64)
        weights = frame.argument(i + 3) + page * PAGE + skip + expert * rows * row_bytes
        words = (
            weights, row_bytes, width, rows, tokens, source, x, frame.result(i), _kernel(module, kernel), task_rows,
            _kernel(module, prepare), units, (rows + task_rows - 1) // task_rows,
        )  # fmt: skip
        for at, word in enumerate(words):
            store(word, part + 8 * at)
        before.value = before.value + units
        tasks.value = tasks.value + words[-1]
    store(before.value, call + _ALL)
    many = load(I32, 1, plan + 4 * (_COLUMNS - 1)).to(I64)
    threads = load(I64, 1, module.global_address(THREADS) + many * 8)
    module.call(
        "parallel", frame.address, module.function_address("product_task"), call, before.value + tasks.value, threads
    )


def _clear(address: Value, count: Value) -> None:
    """Make some floats zeros."""
    bulk = count // 16 * 16
    for i in loop(0, bulk, 16):
        store(const(0.0, F32, 16), address + i * 4)
    for i in loop(bulk, count):
        store(const(0.0, F32), address + i * 4)


def _product_task(call: Value, task: Value) -> None:
    """Prepare one unit of a part's activations, or compute some rows of a part."""
    before, count = load(I64, 1, call + _ALL), load(I64, 1, call + _COUNT)
    preparing = task < before
    with if_(preparing ^ 1), while_(lambda: atomic_load(call + _DONE) < before):
        pause()
    left = Var(select(preparing, task, task - before))
    for i in loop(0, count):
        address = call + _HEAD + i * _PART
        part = MatmulArgs(address)
        here = select(preparing, load(I64, 1, address + _UNITS), load(I64, 1, address + _TASKS))
        index = left.value
        mine = (index < here) & (index >= 0)
        with if_(mine & preparing):
            call_address(load(I64, 1, address + _PREPARE), address, index, index + 1)
            atomic_add(call + _DONE, 1)
        with if_(mine & (preparing ^ 1)):
            first = index * part.task_rows
            call_address(part.kernel, address, first, min_(first + part.task_rows, part.rows))
        left.value = index - here


def _rows(module: Module, frame: Frame) -> None:
    """Operands: plan [1, columns], ids i32 [T], the weights; result: rows f32 [T, K]."""
    plan, part = frame.argument(0), alloca(_PART)
    kernel, rows, width, row_bytes, page, skip, tokens = (
        load(I32, 1, plan + 4 * column).to(I64) for column in range(7)
    )
    ids = frame.argument(1)
    words = (frame.argument(2) + page * PAGE + skip, row_bytes, width, rows, tokens, ids, ids, frame.result(0))
    for at, word in enumerate(words):
        store(word, part + 8 * at)
    call_address(_kernel(module, kernel), part, const(0), tokens)


def _kernel(module: Module, index: Value) -> Value:
    return load(I64, 1, module.global_address(KERNELS) + select(index < 0, const(0), index) * 8)
