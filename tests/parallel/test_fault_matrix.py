"""Signals x phases x processes: every end is named in bounded time, and the workers serve the next leader.

`pytest -m 'slow or nightly' tests/parallel/test_fault_matrix.py -s` prints a table with the seconds until the leader
has ended, and until another leader has its answer.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.result import Completion
from minillama.errors import ResourceError
from minillama.parallel.workers.heartbeat import LEADER_PATIENCE
from minillama.parallel.workers.leader import GATHER_SECONDS
from minillama.parallel.workers.supervisor import GRACE_SECONDS
from minillama.parallel.workers.worker_group import LEAVE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")]
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 3.0  # of silence
SLACK = 15.0  # seconds of a busy machine, and of starting processes
PROMPT = [1, *range(20, 32)]
KILL, STOP, INT = signal.SIGKILL, signal.SIGSTOP, signal.SIGINT
SIGNALS, PHASES, VICTIMS = (KILL, STOP, INT), ("load", "prompt", "generation"), ("leader", "supervisor", "worker")

LEADER = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import minillama as ml
path, address, timeout = sys.argv[1], sys.argv[2], float(sys.argv[3])
text = ""
try:
    print("load", flush=True)
    llm = ml.load(path, workers=address, threads=1, ctx_size=512, progress=False, worker_timeout=timeout)
    print("prompt", flush=True)
    stream = llm.stream({prompt}, n=1500, temp=0, ignore_eos=True, context_shift=True)
    for number, piece in enumerate(stream):
        text += piece.text
        if number == 20:
            print("generation", flush=True)
    print("done", flush=True)
except BaseException as error:
    print("ended:", type(error).__name__, str(error), flush=True)
print("text:", len(text), flush=True)
"""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    number: signal.Signals
    phase: str
    victim: str
    ended: float  # seconds until the leader has ended
    again: float  # seconds until another leader has its answer
    line: str

    def __str__(self) -> str:
        case = f"{self.number.name:8} {self.phase:11} {self.victim:11}"
        return f"{case} {self.ended:6.1f} s {self.again:6.1f} s  {self.line}"


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print(f"\n{'signal':8} {'phase':11} {'process':11} {'ended':>8} {'again':>8}  the leader's last line")
    print(*rows, sep="\n")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama")
    return ml.load(path, ctx_size=512, progress=False)


class Process:
    """A process of the matrix and its lines."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def says(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait for a line."""
        until = time.monotonic() + seconds
        while True:
            for line in self.lines:
                if found := re.search(pattern, line):
                    return found
            assert time.monotonic() < until, f"{pattern!r} is not in {self.lines}"
            time.sleep(0.02)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10.0)
        self._reader.join(10.0)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))


def start_worker(port: int = 0) -> tuple[Process, str]:
    worker = Process("-m", "minillama", "worker", "-p", str(port), "-t", "1")
    return worker, worker.says(r"waiting for leaders on (\S+);")[1]


def follower(worker: Process) -> int:
    """The process that follows the leader, once it is there."""
    until = time.monotonic() + 30.0
    while not (children := psutil.Process(worker.process.pid).children()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return children[0].pid


def answer_of_another_leader(llm: ml.LLM, address: str, until: float) -> Completion:
    """The answer of a new leader, which comes again while the worker is busy."""
    while True:
        try:
            led = ml.load(llm.path, workers=address, threads=1, ctx_size=512, progress=False)
            break
        except ResourceError as error:
            assert "busy with a leader" in str(error) and time.monotonic() < until, str(error)
            time.sleep(0.2)
    try:
        return led.generate(PROMPT, n=5, temp=0, ignore_eos=True)
    finally:
        led.close()


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_fault(llm: ml.LLM, table: list[Row], number: signal.Signals, phase: str, victim: str) -> None:
    worker, address = start_worker()
    leader = Process("-c", LEADER.format(prompt=PROMPT), str(llm.path), address, str(TIMEOUT))
    stopped = 0
    try:
        leader.says(phase)
        pids = {"leader": leader.process.pid, "supervisor": worker.process.pid}
        pid = follower(worker) if victim == "worker" else pids[victim]
        started = time.monotonic()
        os.kill(pid, number)
        stopped = pid if number is STOP else 0
        if victim == "leader" and number is STOP:  # it goes on when its workers have given it up
            time.sleep(LEADER_PATIENCE * TIMEOUT + 1.0)
            answer = answer_of_another_leader(llm, address, time.monotonic() + SLACK)
            again = time.monotonic() - started
            os.kill(pid, signal.SIGCONT)
            leader.process.wait(120.0)  # from load to its last token, if it was stopped before the workers knew it
            ended = time.monotonic() - started
        else:
            leader.process.wait(GATHER_SECONDS + 30.0)
            ended = time.monotonic() - started
            if victim == "supervisor" and number is STOP:
                os.kill(pid, signal.SIGCONT)
            elif victim == "supervisor":
                worker.process.wait(10.0)
                worker.end()
                worker, address = start_worker(int(address.rsplit(":", 1)[1]))
            answer = answer_of_another_leader(llm, address, time.monotonic() + GRACE_SECONDS + SLACK)
            again = time.monotonic() - started
        line = next((line.strip() for line in leader.lines if line.startswith(("ended", "done"))), "")
        table.append(Row(number, phase, victim, ended, again, line[:110]))
        assert answer.tokens == llm.generate(PROMPT, n=5, temp=0, ignore_eos=True).tokens
        check_end(leader, line, ended, number, phase, victim)
        assert not any("Traceback" in line for line in (*worker.lines, *leader.lines))
    finally:
        if stopped and psutil.pid_exists(stopped):
            os.kill(stopped, signal.SIGCONT)
        leader.end()
        worker.process.terminate()
        worker.process.wait(15.0)
        worker.end()


def check_end(leader: Process, line: str, ended: float, number: signal.Signals, phase: str, victim: str) -> None:
    """The leader's end: its time, its line, and the text so far."""
    text = next((int(line.split()[1]) for line in leader.lines if line.startswith("text:")), -1)
    if victim == "leader" and number is KILL:
        assert leader.process.returncode == -KILL and ended < SLACK
        return
    if phase == "generation":
        assert text > 0
    if victim == "leader" and number is INT:
        assert line.startswith("ended: KeyboardInterrupt") and ended < LEAVE_SECONDS + SLACK
    elif victim == "leader" or (victim == "supervisor" and number is STOP):  # it goes on, or was given up
        assert line == "done" or line.startswith("ended: ResourceError worker ")
    else:
        assert line.startswith("ended: ResourceError worker 127.0.0.1:")
        # A process that is stopped before its first message counts as slow to start.
        silent = 0.0 if number is not STOP else GATHER_SECONDS if phase == "load" else TIMEOUT
        assert ended < silent + LEAVE_SECONDS + SLACK
