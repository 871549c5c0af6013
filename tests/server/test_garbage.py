"""Bodies of requests that failed do not pile up; free memory returns to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys, weakref
gc.set_threshold(1_000_000, 20, 100)
from minillama.server.garbage import begin_collecting
model = [[] for _ in range(300_000)]
if sys.argv[1] == "server":
    begin_collecting()
class Body: pass
def fail(body): raise ValueError("refused")
def request():
    body = Body()
    bodies.add(body)
    try:
        fail(body)
    except ValueError as error:
        kept = error  # a cycle: the error, its traceback, this frame
bodies, most = weakref.WeakSet(), 0
for _ in range(5000):
    request()
    most = max(most, len(bodies))
print(most)
"""


@pytest.mark.parametrize(("name", "low", "high"), [("server", 1, 1000), ("command", 5000, 5000)])
def test_failed_requests(name: str, low: int, high: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=True)
    assert low <= int(done.stdout) <= high


TRIMMED = """
import ctypes, sys, time
import psutil
from minillama.server.garbage import HeapTrim
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
resident = lambda: psutil.Process().memory_info().rss >> 20
blocks = [libc.malloc(100_000) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last one keeps the heap from shrinking
    libc.free(block)
print(full := resident())
trim, deadline = HeapTrim(seconds=0.05), time.monotonic() + 60
while resident() > full - 150 and time.monotonic() < deadline:
    time.sleep(0.05)
print(resident())
trim.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the heap of glibc")
def test_free_memory_between_used_blocks_returns_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", TRIMMED], capture_output=True, text=True, check=True)
    full, after = map(int, done.stdout.split())
    assert after <= full - 150, "nearly 200 MB were free"
