"""Work spread over XLA's own thread pool, from inside a call of an FFI handler.

A job is a function and a number of tasks. The calling thread publishes it in the job slot, schedules helpers on XLA's
thread pool, and takes tasks itself. To wake a thread costs tens of microseconds, as much as a small product. So a
helper that finds no more tasks spins for a moment, waiting for the next product of the same step.
"""

from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame
from minillama.kernels.cpu.simd import (
    I64,
    Module,
    Struct,
    Value,
    Var,
    Word,
    alloca,
    atomic_add,
    atomic_load,
    atomic_swap,
    call_address,
    const,
    if_,
    load,
    loop,
    pause,
    select,
    store,
    while_,
)

JOB_SLOT = "job_slot"
JOB_SLOT_WORDS = 64
# Atomic words of the job slot, each in a cache line of its own: the lock of the publisher, the address of the job, the
# helpers that work on it, all helpers, and the sequence number of the last job.
_LOCK, _JOB, _ACTIVE, _HELPERS, _SEQUENCE = (64 * i for i in range(5))
_SPIN_ITERATIONS = 3000  # looks at the job slot before a helper leaves: about 50 microseconds


class _Job(Struct):
    function = Word()
    context = Word()
    tasks = Word()
    next_task = Word()  # atomic
    max_helpers = Word()  # that may still join, atomic


_JOB_BYTES = 64
_NEXT_TASK, _MAX_HELPERS = (8 * _Job.FIELDS.index(name) for name in ("next_task", "max_helpers"))


def define_thread_pool(module: Module, api: Api) -> None:
    """Define `work(job)`, which takes tasks, `helper(slot)`, run by XLA's threads, and `parallel`."""
    module.define_global(JOB_SLOT, JOB_SLOT_WORDS)

    def work(address: Value) -> None:
        job = _Job(address)
        tasks = job.tasks
        task = Var(atomic_add(address + _NEXT_TASK, 1))
        with while_(lambda: task.value < tasks):
            call_address(job.function, job.context, task.value)
            task.value = atomic_add(address + _NEXT_TASK, 1)

    def helper(slot: Value) -> None:
        iterations, seen = Var(const(0)), Var(const(-1))
        with while_(lambda: iterations.value < _SPIN_ITERATIONS):
            latest = atomic_load(slot + _SEQUENCE)
            is_same = latest.equals(seen.value)
            with if_(is_same):
                iterations.value = iterations.value + 1
                pause()
            with if_(is_same ^ 1):
                iterations.value, seen.value = const(0), latest
                atomic_add(slot + _ACTIVE, 1)  # from here on the publisher waits for this thread
                job = atomic_load(slot + _JOB)
                with if_(job.equals(0) ^ 1), if_(const(0) < atomic_add(job + _MAX_HELPERS, -1)):
                    module.call("work", job)
                atomic_add(slot + _ACTIVE, -1)
        atomic_add(slot + _HELPERS, -1)

    module.define("work", 1, work)
    module.define("helper", 1, helper)
    module.define("parallel", 5, lambda frame, *job: _parallel(module, Frame(frame, api), *job))


def _parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, threads: Value) -> None:
    """Call function(context, task) for every task below `tasks`, on up to `threads` threads.

    Returns when all are done.
    Function and context may be on the caller's stack. If another call of this process uses the job slot, the calling
    thread does all tasks itself.
    """
    slot, job = module.global_address(JOB_SLOT), alloca(_JOB_BYTES)
    _Job(job).store(function=function, context=context, tasks=tasks, max_helpers=threads - 1)
    store(const(0), job + _NEXT_TASK)
    is_publisher = Var(const(0))
    with if_((const(1) < threads) & (const(1) < tasks)):
        is_publisher.value = atomic_swap(slot + _LOCK, 1) ^ 1
    with if_(is_publisher.value.equals(1)):
        atomic_swap(slot + _JOB, job)
        atomic_add(slot + _SEQUENCE, 1)
        for _ in loop(atomic_load(slot + _HELPERS), threads - 1):
            atomic_add(slot + _HELPERS, 1)
            error = frame.schedule(module.function_address("helper"), slot)
            with if_(error.equals(0) ^ 1):
                atomic_add(slot + _HELPERS, -1)
    module.call("work", job)
    with if_(is_publisher.value.equals(1)):
        atomic_swap(slot + _JOB, 0)
        with while_(lambda: const(0) < atomic_load(slot + _ACTIVE)):
            pause()
        atomic_swap(slot + _LOCK, 0)


POOL_LINK = "pool_link"  # global array of a module without a pool: addresses of `parallel` and `threads`


def import_pool(module: Module) -> None:
    """Let a module use the pool of another one; Python writes the two addresses."""
    module.define_global(POOL_LINK, 2)


def call_parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, decode: Value) -> None:
    """Call the imported `parallel` with the number of threads for decoding or for a prompt."""
    parallel, threads = (load(I64, 1, module.global_address(POOL_LINK) + 8 * i) for i in range(2))
    count = load(I64, 1, threads + select(decode, const(0), const(8)))
    call_address(parallel, frame.address, function, context, tasks, count)
