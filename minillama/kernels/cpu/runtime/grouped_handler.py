"""The XLA FFI handler of grouped products: consecutive rows times the matrix of their group.

Rows of a group are the tokens of an expert. All groups with rows are one job. Its first tasks convert the activations
of the groups, to the layout of the GEMV for one row, of the skinny GEMM for some, and of the GEMM for many. The other
tasks wait for them and compute some rows of a matrix each, for all rows of its group. Matrices of groups without rows
are not read.
"""

from dataclasses import astuple, dataclass, fields

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
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS


@dataclass(frozen=True)
class GroupedPlan:
    """The plan of one stack of matrices, a row of int32.

    Stacks of a call share converted activations.
    """

    gemv: ValueLike  # number of the kernel for one row
    skinny: ValueLike  # number of the kernel for some rows
    gemm: ValueLike  # number of the kernel for many rows
    rows: ValueLike  # N
    row_bytes: ValueLike
    page: ValueLike  # address of the first row in pages from the start of the memory, and the bytes after the page
    page_offset: ValueLike
    matrices: ValueLike  # of the stack
    decode_task_rows: ValueLike  # of the kernels for one row and for some
    gemm_task_rows: ValueLike
    # the same in all plans of a call
    width: ValueLike  # K
    prepare_gemv: ValueLike  # number of the kernel that converts activations
    prepare_skinny: ValueLike
    prepare_gemm: ValueLike
    row_size: ValueLike  # bytes of a converted row; 0: the GEMV uses it as it is
    tile_size: ValueLike  # bytes of a tile of converted rows
    panel_rows: ValueLike  # rows that a GEMM's preparation task converts
    panel_size: ValueLike  # bytes of these
    skinny_rows: ValueLike  # largest number of rows that is not many
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

    def pick(self, plan: GroupedPlan, one: Value, some: Value, many: Value) -> Value:
        """The value of a group with one row, with some rows (at most `skinny_rows`), or with many."""
        few = select(self.tokens.equals(1), one, some)
        return select(plan.skinny_rows < self.tokens, many, few)


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
    decode_tasks, gemm_tasks = Var(const(0)), Var(const(0))
    for i in loop(0, stacks):
        plan = GroupedPlan.load(plans + i * _PLAN_BYTES)
        _stack(address, i).store(
            weights=frame.argument(i + 4) + plan.page * PAGE + plan.page_offset,
            numbers=numbers + i * groups * 4,
            y=frame.result(i),
        )
        decode_tasks.value = decode_tasks.value + _ceil(plan.rows, plan.decode_task_rows)
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
            panels = _ceil(count, plan.panel_rows)
            units = group.pick(plan, select(const(0) < plan.row_size, const(1), 0), count, panels)
            tiles = _ceil(count, const(TILE_TOKENS)) * plan.tile_size
            size = group.pick(plan, plan.row_size, tiles, panels * plan.panel_size)
            x = select(const(0) < size, place.value, own)
            group.store(x=x, first_prepare_task=prepare_tasks.value, first_task=tasks.value)
            place.value = place.value + _ceil(size, const(SCRATCH_UNIT)) * SCRATCH_UNIT
            prepare_tasks.value = prepare_tasks.value + units
            tasks.value = tasks.value + group.pick(plan, decode_tasks.value, decode_tasks.value, gemm_tasks.value)
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
            task_rows = group.pick(plan, plan.decode_task_rows, plan.decode_task_rows, plan.gemm_task_rows)
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
    kernel = group.pick(plan, plan.prepare_gemv, plan.prepare_skinny, plan.prepare_gemm)
    call_address(kernel_address(module, kernel), args.address, unit, unit + 1)


def _multiply(
    module: Module, call: _Call, plan: GroupedPlan, stack: _Stack, group: _Group, first: Value, task_rows: Value
) -> None:
    """Compute some rows of a matrix for all rows of a group."""
    matrix = clamp(load(I32, 1, stack.numbers + group.number * 4).to(I64), 0, plan.matrices - 1)
    args = MatmulArgs(alloca(MatmulArgs.size()))
    args.store(
        weights=stack.weights + matrix * plan.rows * plan.row_bytes,
        row_bytes=plan.row_bytes,
        width=plan.width,
        rows=plan.rows,
        tokens=group.tokens,
        source=group.source,
        x=group.x,
        y=stack.y + group.first * plan.rows * 4,
    )
    kernel = kernel_address(module, group.pick(plan, plan.gemv, plan.skinny, plan.gemm))
    call_address(kernel, args.address, first, min_(first + task_rows, plan.rows))


def _stack(call: Value, index: Value) -> _Stack:
    return _Stack(call + _STACKS_OFFSET + index * _Stack.size())


def _ceil(count: Value, step: Value) -> Value:
    """count / step, rounded up."""
    return (count + step - 1) // step
