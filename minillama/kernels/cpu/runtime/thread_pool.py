"""Work spread over XLA's own threads, from inside a call that XLA made.

A job is a function and a number of tasks. The calling thread publishes it in a letter box, asks XLA's thread pool for
helpers, and takes tasks like everybody else. Waking a thread costs tens of microseconds, as much as a small product: so
a helper that has found no more tasks stays a moment at the letter box, waiting for the next product of the same step.
"""

from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame
from minillama.kernels.cpu.simd import (
    I64,
    Module,
    Register,
    Value,
    atomic_add,
    atomic_load,
    atomic_swap,
    call_address,
    load,
    loop,
    number,
    pause,
    repeat_while,
    select,
    stack,
    store,
    when,
)

BOX = "letter_box"
BOX_WORDS = 64
_LOCK, _JOB, _INSIDE, _HELPERS, _NUMBER = (64 * i for i in range(5))  # each in a cache line of its own
_FUNCTION, _CONTEXT, _TASKS, _NEXT, _SEATS = (8 * i for i in range(5))  # words of a job
_PATIENCE = 3000  # looks into the letter box before a helper leaves: about 50 microseconds


def define_pool(module: Module, api: Api) -> None:
    """`work(job)`, what every thread does, `helper(box)`, the life of one that XLA lends, and `parallel`."""
    module.variable(BOX, BOX_WORDS)

    def work(job: Value) -> None:
        tasks = load(I64, 1, job + _TASKS)
        task = Register(atomic_add(job + _NEXT, 1))
        with repeat_while(lambda: task.value < tasks):
            call_address(load(I64, 1, job + _FUNCTION), load(I64, 1, job + _CONTEXT), task.value)
            task.value = atomic_add(job + _NEXT, 1)

    def helper(box: Value) -> None:
        waited, seen = Register(number(0)), Register(number(-1))
        with repeat_while(lambda: waited.value < _PATIENCE):
            latest = atomic_load(box + _NUMBER)
            same = latest.equals(seen.value)
            with when(same):
                waited.value = waited.value + 1
                pause()
            with when(same ^ 1):
                waited.value, seen.value = number(0), latest
                atomic_add(box + _INSIDE, 1)  # from here on the job's owner waits for this thread
                job = atomic_load(box + _JOB)
                with when(job.equals(0) ^ 1), when(number(0) < atomic_add(job + _SEATS, -1)):
                    module.call("work", job)
                atomic_add(box + _INSIDE, -1)
        atomic_add(box + _HELPERS, -1)

    module.define("work", 1, work)
    module.define("helper", 1, helper)

    module.define("parallel", 5, lambda frame, *job: _parallel(module, Frame(frame, api), *job))


def _parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, threads: Value) -> None:
    """Call function(context, task) for every task below `tasks`, on up to `threads` threads, and wait for all.

    The function and its context may lie on the caller's stack. Where another call of this process is at work already,
    the calling thread works alone.
    """
    box, job = module.variable_address(BOX), stack(64)
    for at, value in ((_FUNCTION, function), (_CONTEXT, context), (_TASKS, tasks), (_SEATS, threads - 1)):
        store(value, job + at)
    store(number(0), job + _NEXT)
    mine = Register(number(0))
    with when((number(1) < threads) & (number(1) < tasks)):
        mine.value = atomic_swap(box + _LOCK, 1) ^ 1
    with when(mine.value.equals(1)):
        atomic_swap(box + _JOB, job)
        atomic_add(box + _NUMBER, 1)
        for _ in loop(atomic_load(box + _HELPERS), threads - 1):
            atomic_add(box + _HELPERS, 1)
            failed = frame.schedule(module.address_of("helper"), box)
            with when(failed.equals(0) ^ 1):
                atomic_add(box + _HELPERS, -1)
    module.call("work", job)
    with when(mine.value.equals(1)):
        atomic_swap(box + _JOB, 0)
        with repeat_while(lambda: number(0) < atomic_load(box + _INSIDE)):
            pause()
        atomic_swap(box + _LOCK, 0)


LINK = "link"  # in a module without a pool of its own: where `parallel` and the numbers of threads are


def define_link(module: Module) -> None:
    """Let a module use another one's pool; Python writes the two addresses."""
    module.variable(LINK, 2)


def call_parallel(module: Module, frame: Frame, function: Value, context: Value, tasks: Value, few: Value) -> None:
    """`parallel` of the linked module, on as many threads as one token or a prompt may have."""
    parallel, threads = (load(I64, 1, module.variable_address(LINK) + 8 * i) for i in range(2))
    count = load(I64, 1, threads + select(few, number(0), number(8)))
    call_address(parallel, frame.address, function, context, tasks, count)
