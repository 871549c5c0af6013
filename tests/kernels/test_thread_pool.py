"""The thread pool on Python threads, and the FFI header of jaxlib."""

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from minillama.kernels.cpu.runtime.ffi_frame import Api, read_api
from minillama.kernels.cpu.runtime.machine_code import callable_at, compile_kernels
from minillama.kernels.cpu.runtime.registry import detect_isa
from minillama.kernels.cpu.runtime.thread_pool import JOB_SLOT, JOB_SLOT_WORDS, define_thread_pool
from minillama.kernels.cpu.simd import I64, Module, Value, atomic_add, call_address, const, load, loop, pause

API = Api(major=0, minor=1, schedule=64)
CONTEXT = 12345  # XLA expects it back
WIDTH = 4  # tasks of a job inside a job


class Lender:
    """A fake call frame; its thread pool starts a thread at each request, or refuses."""

    def __init__(self, lends: bool) -> None:
        self.lends, self.lent = lends, []
        self.callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(self._schedule)
        self.functions, self.frame = (ctypes.c_int64 * 16)(), (ctypes.c_int64 * 16)()
        self.functions[API.schedule // 8] = ctypes.cast(self.callback, ctypes.c_void_p).value
        self.frame[2], self.frame[3] = ctypes.addressof(self.functions), CONTEXT

    @property
    def address(self) -> int:
        return ctypes.addressof(self.frame)

    def _schedule(self, request: int) -> int:
        size, _, context, function, data = (ctypes.c_int64 * 5).from_address(request)
        if not self.lends or (size, context) != (40, CONTEXT):
            return 1
        self.lent.append(threading.Thread(target=callable_at(function, 1), args=(data,)))
        self.lent[-1].start()
        return 0

    def wait(self) -> None:
        for thread in self.lent:
            thread.join()


def write(module: Module) -> None:
    """Define the pool, a task that counts calls, and a task that runs WIDTH such."""
    define_thread_pool(module, API)

    def count(counts: Value, task: Value) -> None:
        for _ in loop(0, 200):  # some microseconds, so that other threads join before all is done
            pause()
        atomic_add(counts + task * 8, 1)

    def spread(words: Value, task: Value) -> None:
        frame, counts = (load(I64, 1, words + 8 * i) for i in range(2))
        inner, width = counts + task * (8 * WIDTH), const(WIDTH)
        call_address(module.function_address("parallel"), frame, module.function_address("count"), inner, width, width)

    module.define("count", 2, count)
    module.define("spread", 2, spread)


@pytest.fixture(scope="module")
def pool():
    return compile_kernels("test", detect_isa(), write, None)


@pytest.fixture(params=[True, False], ids=["lends", "refuses"])
def lender(request: pytest.FixtureRequest, pool) -> Iterator[Lender]:
    """A frame; afterwards the job slot is empty except for the sequence number."""
    made = Lender(request.param)
    yield made
    made.wait()
    box = (ctypes.c_int64 * JOB_SLOT_WORDS).from_address(pool(JOB_SLOT))
    assert not any(box[:32])


def run(pool, lender: Lender, name: str, context: int, tasks: int, count: int) -> None:
    callable_at(pool("parallel"), 5)(lender.address, pool(name), context, tasks, count)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 1000])
def test_every_task_is_done_once(pool, lender: Lender, tasks: int, count: int) -> None:
    counts = np.zeros(tasks + 1, np.int64)
    for done in range(1, 6):  # helpers of the previous job may still spin
        run(pool, lender, "count", counts.ctypes.data, tasks, count)
        np.testing.assert_array_equal(counts, [*[done] * tasks, 0])
    assert lender.lends or not lender.lent
    assert count > 1 or not lender.lent, "a job with one thread schedules no helper"
    if lender.lends and count > 1 and tasks > 1:
        assert lender.lent


def test_callers_do_not_wait_for_each_other(pool, lender: Lender) -> None:
    counts = np.zeros((8, 301), np.int64)

    def caller(row: np.ndarray) -> None:
        for _ in range(20):
            run(pool, lender, "count", row.ctypes.data, 300, 3)

    callers = [threading.Thread(target=caller, args=(row,)) for row in counts]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert (counts[:, :300] == 20).all() and not counts[:, 300].any()


def test_a_task_may_start_a_job(pool, lender: Lender) -> None:
    counts = np.zeros(20 * WIDTH, np.int64)
    words = np.array([lender.address, counts.ctypes.data], np.int64)
    run(pool, lender, "spread", words.ctypes.data, 20, 3)
    np.testing.assert_array_equal(counts, 1)


HEADER = """
#define XLA_FFI_API_MAJOR 3
#define XLA_FFI_API_MINOR 14
  _XLA_FFI_API_STRUCT_FIELD(XLA_FFI_Error_Create);
  _XLA_FFI_API_STRUCT_FIELD(XLA_FFI_ThreadPool_Schedule);
"""


def write_header(folder: Path, text: str) -> Path:
    place = folder / "xla" / "ffi" / "api"
    place.mkdir(parents=True)
    (place / "c_api.h").write_text(text)
    return folder


def test_a_header_is_read(tmp_path: Path) -> None:
    assert read_api(write_header(tmp_path, HEADER)) == Api(3, 14, 48 + 8)


def test_the_header_of_this_jaxlib_is_as_expected() -> None:
    assert read_api(Path(jax.ffi.include_dir())).schedule % 8 == 0


@pytest.mark.parametrize("missing", ["_MAJOR 3", "_MINOR 14", "XLA_FFI_ThreadPool_Schedule"])
def test_a_header_of_another_form_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ValueError, match="unknown form"):
        read_api(write_header(tmp_path, HEADER.replace(missing, "_OTHER")))


def test_without_a_header(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"c_api\.h"):
        read_api(tmp_path)
