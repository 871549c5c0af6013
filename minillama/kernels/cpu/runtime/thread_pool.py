"""Work spread over XLA's own threads, from inside a call that XLA made.

A job is a function and a number of tasks. The calling thread publishes it in a letter box, asks XLA's thread pool for
helpers, and takes tasks like everybody else. Waking a thread costs tens of microseconds, as much as a small product: so
a helper that has found no more tasks stays a moment at the letter box, waiting for the next product of the same step.
"""

from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame
from minillama.kernels.cpu.simd import (
    I64,
    Module,
    Value,
    Var,
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
_LOCK, _JOB, _ACTIVE, _HELPERS, _SEQUENCE = (64 * i for i in range(5))  # each in a cache line of its own
_FUNCTION, _CONTEXT, _TASKS, _NEXT, _MAX_HELPERS = (8 * i for i in range(5))  # words of a job
_SPIN_ITERATIONS = 3000  # looks into the letter box before a helper leaves: about 50 microseconds


def define_thread_pool(module: Module, api: Api) -> None:
    """`work(job)`, what every thread does, `helper(box)`, the life of one that XLA lends, and `parallel`."""
    module.define_global(JOB_SLOT, JOB_SLOT_WORDS)

    def work(job: Value) -> None:
        tasks = load(I64, 1, job + _TASKS)
        task = Var(atomic_add(job + _NEXT, 1))
        with while_(lambda: task.value < tasks):
            call_address(load(I64, 1, job + _FUNCTION), load(I64, 1, job + _CONTEXT), task.value)
            task.value = atomic_add(job + _NEXT, 1)

    def helper(box: Value) -> None:
        waited, seen = Var(const(0)), Var(const(-1))
        with while_(lambda: waited.value < _SPIN_ITERATIONS):
            latest = atomic_load(box + _SEQUENCE)
            same = latest.equals(seen.value)
            with if_(same):
                waited.value = waited.value + 1
                pause()
            with if_(same ^ 1):
                waited.value, seen.value = const(0), latest
                atomic_add(box + _ACTIVE, 1)  # from here on the job's owner waits for this thread
                job = atomic_load(box + _JOB)
                with if_(job.equals(0) ^ 1), if_(const(0) < atomic_add(job + _MAX_HELPERS, -1)):
                    module.call("work", job)
                atomic_add(box + _ACTIVE, -1)
        atomic_add(box + _HELPERS, -1)

    module.define("work", 1, work)
    module.define("helper", 1, helper)

    module.define("parallel", 5, lambda frame, *job: _parallel(module, Frame(frame, api), *job))


def _parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, threads: Value) -> None:
    """Call function(context, task) for every task below `tasks`, on up to `threads` threads, and wait for all.

    The function and its context may lie on the caller's stack. Where another call of this process is at work already,
    the calling thread works alone.
    """
    box, job = module.global_address(JOB_SLOT), alloca(64)
    for at, value in ((_FUNCTION, function), (_CONTEXT, context), (_TASKS, tasks), (_MAX_HELPERS, threads - 1)):
        store(value, job + at)
    store(const(0), job + _NEXT)
    mine = Var(const(0))
    with if_((const(1) < threads) & (const(1) < tasks)):
        mine.value = atomic_swap(box + _LOCK, 1) ^ 1
    with if_(mine.value.equals(1)):
        atomic_swap(box + _JOB, job)
        atomic_add(box + _SEQUENCE, 1)
        for _ in loop(atomic_load(box + _HELPERS), threads - 1):
            atomic_add(box + _HELPERS, 1)
            failed = frame.schedule(module.function_address("helper"), box)
            with if_(failed.equals(0) ^ 1):
                atomic_add(box + _HELPERS, -1)
    module.call("work", job)
    with if_(mine.value.equals(1)):
        atomic_swap(box + _JOB, 0)
        with while_(lambda: const(0) < atomic_load(box + _ACTIVE)):
            pause()
        atomic_swap(box + _LOCK, 0)


POOL_LINK = "pool_link"  # in a module without a pool of its own: where `parallel` and the numbers of threads are


def import_pool(module: Module) -> None:
    """Let a module use another one's pool; Python writes the two addresses."""
    module.define_global(POOL_LINK, 2)


def call_parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, decode: Value) -> None:
    """`parallel` of the linked module, on as many threads as one token or a prompt may have."""
    parallel, threads = (load(I64, 1, module.global_address(POOL_LINK) + 8 * i) for i in range(2))
    count = load(I64, 1, threads + select(decode, const(0), const(8)))
    call_address(parallel, frame.address, function, context, tasks, count)
