"""Garbage collection and free memory in the process of a server.

A request that fails leaves a cycle: its exception, the frames of its traceback, and in these the body of the request.
With the hundred thousands of objects of a model among the others, Python would look for such cycles so rarely that
bodies of megabytes pile up.

Free memory between used blocks stays with the process: programs are compiled and bodies parsed by many threads, each
with a heap of its own.
"""

import gc
import threading

import psutil

from minillama.engine.loading.memory_budget import give_back

THRESHOLDS = (700, 10, 10)  # Python's own; commands begin with larger ones
TRIM_SECONDS = 10.0  # between two looks at the memory of the process
TRIM_GROWTH = 32 << 20  # bytes


def begin_collecting() -> None:
    """Leave the objects of now out of all collections, and collect the others often."""
    gc.freeze()
    gc.collect()  # how often all others are collected depends on the number that this one finds
    gc.set_threshold(*THRESHOLDS)


def collect_everything() -> None:
    """Collect once among all objects, those of `begin_collecting` included."""
    gc.unfreeze()
    gc.collect()


class HeapTrim:
    """Returns free memory to the system, on a thread, after the process has grown."""

    def __init__(self, seconds: float = TRIM_SECONDS, growth: int = TRIM_GROWTH) -> None:
        self._seconds, self._growth, self._ended = seconds, growth, threading.Event()
        threading.Thread(target=self._run, name="minillama-heap-trim", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()

    def _run(self) -> None:
        process, before = psutil.Process(), 0
        while not self._ended.wait(self._seconds):
            if process.memory_info().rss > before + self._growth:
                give_back()
                before = process.memory_info().rss
