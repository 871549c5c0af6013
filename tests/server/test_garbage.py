"""Bodies of requests that failed do not pile up next to the objects of a model."""

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
