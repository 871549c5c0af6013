"""A process that runs cases of one kind: `python -m tests.fuzz.worker KIND FOLDER`.

It reads lines `FIRST LAST` and answers with one line of JSON for each. The number of the case that it runs is in the
file `case` all the time, so that the parent knows which one ended or stopped the process.
"""

import ctypes
import faulthandler
import gc
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from tests.fuzz.case_kind import Kind
from tests.fuzz.kinds import create, row
from tests.fuzz.oracle import judge, own_memory

NO_CASE = 2**64 - 1
CASE = struct.Struct("<Q")


def main() -> None:
    """Run batches until stdin ends."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a case prints is no answer
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    current = os.open(folder / "case", os.O_WRONLY)
    kind = create(name, scratch)
    _limit_memory(row(name).limits.address_space)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        first, last = map(int, line.split())
        print(json.dumps(_run(name, kind, range(first, last), current, scratch)), file=answers, flush=True)
    kind.close()


def _run(name: str, kind: Kind, numbers: range, current: int, scratch: Path) -> dict[str, object]:
    outcomes: Counter[str] = Counter()
    findings = []
    slowest, largest = (0.0, numbers.start), (0, numbers.start)
    for number in numbers:
        os.pwrite(current, CASE.pack(number), 0)
        verdict = judge(name, kind, number)
        outcomes[verdict.outcome] += 1
        slowest = max(slowest, (verdict.cpu_seconds, number))
        largest = max(largest, (verdict.peak, number))
        if verdict.problem is not None:
            findings.append([number, verdict.problem, verdict.is_late])
    os.pwrite(current, CASE.pack(NO_CASE), 0)
    return {
        "outcomes": outcomes,
        "findings": findings,
        "slowest": slowest,
        "largest": largest,
        "used": _used(scratch),
    }


def _used(scratch: Path) -> dict[str, int]:
    """What a leak would raise."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return {
        "memory": own_memory(),
        "descriptors": len(os.listdir("/dev/fd")),
        "threads": threading.active_count(),
        "files": sum(1 for _ in scratch.rglob("*")),
    }


def _limit_memory(extra: int) -> None:
    """Bound the address space; the system's own failure of an allocation is then the worst that can happen."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
