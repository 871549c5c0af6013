"""The XLA FFI handler of grouped products: consecutive rows times the matrix of their group.

Rows of a group are the tokens of an expert. All groups with rows are one job. Its first tasks convert the activations
of the groups, to the layout of a GEMV for few rows and of the GEMM for more. The other tasks wait for them and compute
some rows of a matrix each, for all rows of its group. Matrices of groups without rows are not read.
"""

from dataclasses import astuple, dataclass, fields

from minillama.kernels.cpu.matmul.gemv import GEMV_TOKENS
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.ffi_handlers import MAX_MATRICES, PAGE, SCRATCH_UNIT, THREADS, kernel_address
from minillama.kernels.cpu.simd import (
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
    while_,
)


@dataclass(frozen=True)
class GroupedPlan:
    """The plan of one stack of matrices, a row of int32.

    Stacks of a call share converted activations.
    """

    gemv: ValueLike  # number of the kernel for one row; those for 2, 4 and 8 follow
    gemm: ValueLike  # number of the kernel for more rows
    rows: ValueLike  # N
    row_bytes: ValueLike
    page: ValueLike  # address of the first row in pages from the start of the memory, and the bytes after the page
    page_offset: ValueLike
    matrices: ValueLike  # of the stack
    gemv_task_rows: ValueLike
    gemm_task_rows: ValueLike
    # the same in all plans of a call
    width: ValueLike  # K
    prepare_gemv: ValueLike  # number of the kernel that converts activations
    prepare_gemm: ValueLike
    row_size: ValueLike  # bytes of a converted row; 0: a GEMV uses them as they are
    panel_rows: ValueLike  # rows that a GEMM's preparation task converts
    panel_size: ValueLike  # bytes of these
    is_prompt: ValueLike  # 1: use the number of threads for a prompt

    def row(self) -> tuple[int, ...]:
        """The numbers in the order of the fields."""
        return astuple(self)

    @staticmethod
    def load(address: Value) -> "GroupedPlan":
        """Load a row."""
        return GroupedPlan(*(load(I32, 1, address + 4 * i).to(I64) for i in range(len(fields(GroupedPlan)))))


_PLAN_BYTES = 4 * len(fields(GroupedPlan))


class _Call(Struct):
    """A running job; the stacks follow in memory."""

    done = Word()  # finished preparation tasks, atomic
    prepare_tasks = Word()  # of all groups
    groups = Word()  # that have rows
    table = Word()  # address of these groups
    stacks = Word()  # number of stacks of matrices
    plans = Word()  # address of the plans
    group_count = Word()  # G, with those that have no rows


class _Stack(Struct):
    """A stack of matrices, and its result."""

    weights = Word()  # address of the first matrix
    numbers = Word()  # address of the groups' numbers of matrices, int32 [G]
    y = Word()


class _Group(Struct):
    """Rows that share a matrix."""

    number = Word()  # g
    first = Word()  # its first row
    tokens = Word()  # number of rows
    source = Word()  # address of its activations, float32 [tokens, K]
    x = Word()  # address of the converted ones
    first_prepare_task = Word()
    first_task = Word()

    @property
    def is_gemm(self) -> Value:
        """Whether the rows are too many for GEMV kernels."""
        return const(GEMV_TOKENS[-1]) < self.tokens


GROUP_BYTES = 64  # of a `_Group`, in a cache line of its own
_STACKS_OFFSET = 64


def define_grouped_handler(module: Module, api: Api) -> None:
    """Define `grouped_product(frame)`; the pool and the table of kernels are there already."""
    module.define("grouped_task", 2, lambda call, task: _task(module, _Call(call), task))
    define_handler(module, "grouped_product", api, lambda frame: _grouped_product(module, frame))


def _grouped_product(module: Module, frame: Frame) -> None:
    """Multiply rows with matrices of several stacks.

    Operands: plans [stacks, columns], x f32 [R, K], numbers of matrices i32 [stacks, G], bounds i32 [2, G] (the first
    row of each group, and the one after its last), the stacks. Results: y of each, scratch. Rows of y outside of all
    groups are not written. A number outside of its range becomes the nearest one: no number reaches memory outside of
    the operands.
    """
    plans, source, numbers, bounds = (frame.argument(i) for i in range(4))
    stacks, rows, groups = frame.dimension(0, 0), frame.dimension(1, 0), frame.dimension(3, 1)
    scratch, address = frame.result(stacks), alloca(_STACKS_OFFSET + MAX_MATRICES * _Stack.size())
    gemv_tasks, gemm_tasks = Var(const(0)), Var(const(0))
    for i in loop(0, stacks):
        plan = GroupedPlan.load(plans + i * _PLAN_BYTES)
        _stack(address, i).store(
            weights=frame.argument(i + 4) + plan.page * PAGE + plan.page_offset,
            numbers=numbers + i * groups * 4,
            y=frame.result(i),
        )
        gemv_tasks.value = gemv_tasks.value + _ceil(plan.rows, plan.gemv_task_rows)
        gemm_tasks.value = gemm_tasks.value + _ceil(plan.rows, plan.gemm_task_rows)
    plan = GroupedPlan.load(plans)
    place, end = Var(scratch + groups * GROUP_BYTES), Var(const(0))
    found, prepare_tasks, tasks = Var(const(0)), Var(const(0)), Var(const(0))
    for g in loop(0, groups):
        first = clamp(load(I32, 1, bounds + g * 4).to(I64), end.value, rows)
        end.value = clamp(load(I32, 1, bounds + (groups + g) * 4).to(I64), first, rows)
        count = end.value - first
        with if_(const(0) < count):
            group, own = _Group(scratch + found.value * GROUP_BYTES), source + first * plan.width * 4
            group.store(number=g, first=first, tokens=count, source=own)
            is_gemm = group.is_gemm
            units = select(is_gemm, _ceil(count, plan.panel_rows), select(const(0) < plan.row_size, count, 0))
            size = units * select(is_gemm, plan.panel_size, plan.row_size)
            x = select(const(0) < size, place.value, own)
            group.store(x=x, first_prepare_task=prepare_tasks.value, first_task=tasks.value)
            place.value = place.value + _ceil(size, const(SCRATCH_UNIT)) * SCRATCH_UNIT
            prepare_tasks.value = prepare_tasks.value + units
            tasks.value = tasks.value + select(is_gemm, gemm_tasks.value, gemv_tasks.value)
            found.value = found.value + 1
    _Call(address).store(
        done=const(0),
        prepare_tasks=prepare_tasks.value,
        groups=found.value,
        table=scratch,
        stacks=stacks,
        plans=plans,
        group_count=groups,
    )
    threads = load(I64, 1, module.global_address(THREADS) + plan.is_prompt * 8)
    task, all_tasks = module.function_address("grouped_task"), prepare_tasks.value + tasks.value
    module.call("parallel", frame.address, task, address, all_tasks, threads)


def _task(module: Module, call: _Call, task: Value) -> None:
    """Convert a unit of a group's activations, or compute some rows of a matrix."""
    prepare_tasks = call.prepare_tasks
    is_prepare = task < prepare_tasks
    with if_(is_prepare):
        group = _group_of(call, "first_prepare_task", task)
        _convert(module, GroupedPlan.load(call.plans), group, task - group.first_prepare_task)
        atomic_add(call.address, 1)
    with if_(is_prepare ^ 1):
        with while_(lambda: atomic_load(call.address) < prepare_tasks):
            pause()
        index = task - prepare_tasks
        group = _group_of(call, "first_task", index)
        left = Var(index - group.first_task)
        for i in loop(0, call.stacks):
            plan = GroupedPlan.load(call.plans + i * _PLAN_BYTES)
            task_rows = select(group.is_gemm, plan.gemm_task_rows, plan.gemv_task_rows)
            tasks, number = _ceil(plan.rows, task_rows), left.value
            with if_((number < tasks) & (number >= 0)):
                _multiply(module, call, plan, _stack(call.address, i), group, number * task_rows, task_rows)
            left.value = number - tasks


def _group_of(call: _Call, first_task: str, task: Value) -> _Group:
    """The last group whose first task is not after a task, by bisection."""
    low, high = Var(const(0)), Var(call.groups - 1)
    with while_(lambda: low.value < high.value):
        middle = (low.value + high.value + 1) // 2
        is_before = task < getattr(_Group(call.table + middle * GROUP_BYTES), first_task)
        low.value = select(is_before, low.value, middle)
        high.value = select(is_before, middle - 1, high.value)
    return _Group(call.table + low.value * GROUP_BYTES)


def _convert(module: Module, plan: GroupedPlan, group: _Group, unit: Value) -> None:
    """Convert one unit of activations to the layout of the group's kernel."""
    args = MatmulArgs(alloca(MatmulArgs.size()))
    args.store(width=plan.width, tokens=group.tokens, source=group.source, x=group.x)
    kernel = select(group.is_gemm, plan.prepare_gemm, plan.prepare_gemv)
    call_address(kernel_address(module, kernel), args.address, unit, unit + 1)


def _multiply(
    module: Module, call: _Call, plan: GroupedPlan, stack: _Stack, group: _Group, first: Value, task_rows: Value
) -> None:
    """Compute some rows of a matrix for all rows of a group.

    With the GEMM, or with the GEMVs of 8, 4, 2 and 1 rows.
    """
    matrix = clamp(load(I32, 1, stack.numbers + group.number * 4).to(I64), 0, plan.matrices - 1)
    last, tokens = min_(first + task_rows, plan.rows), group.tokens
    x, y = Var(group.x), Var(stack.y + group.first * plan.rows * 4)
    args = MatmulArgs(alloca(MatmulArgs.size()))
    args.store(
        weights=stack.weights + matrix * plan.rows * plan.row_bytes,
        row_bytes=plan.row_bytes,
        width=plan.width,
        rows=plan.rows,
        tokens=tokens,
        source=group.source,
        x=x.value,
        y=y.value,
    )
    is_gemm = group.is_gemm
    with if_(is_gemm):
        call_address(kernel_address(module, plan.gemm), args.address, first, last)
    with if_(is_gemm ^ 1):
        step = select(const(0) < plan.row_size, plan.row_size, plan.width * 4)
        for number, count in reversed(list(enumerate(GEMV_TOKENS))):
            with if_((tokens & count).equals(count)):
                args.store(tokens=const(count), x=x.value, y=y.value)
                call_address(kernel_address(module, plan.gemv + number), args.address, first, last)
                x.value, y.value = x.value + step * count, y.value + plan.rows * (4 * count)


def _stack(call: Value, index: Value) -> _Stack:
    return _Stack(call + _STACKS_OFFSET + index * _Stack.size())


def _ceil(count: Value, step: Value) -> Value:
    """count / step, rounded up."""
    return (count + step - 1) // step
