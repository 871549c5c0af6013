"""Worker processes started from a notebook, and surely stopped: at the end of the cell, and if the kernel dies."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from minillama.engine.llm import load
from minillama.env import MINILLAMA
from minillama.errors import ResourceError
from minillama.lab.distributed import process_guard
from minillama.parallel.workers.addresses import free_ports

HOST = "127.0.0.1"
START_SECONDS = 60.0  # until a worker listens: it imports JAX first, and machines are busy
STOP_SECONDS = process_guard.KILL_AFTER_SECONDS + 8.0
POLL_SECONDS = 0.05  # seconds between looks whether it does

# What a notebook set for itself, and processes that stand for machines of their own must not inherit.
NOT_INHERITED = ("JAX_NUM_CPU_DEVICES",)

Command = Callable[[int], Sequence[str]]  # of a worker, by its port

_JOIN_AND_TIME = """\
import json, sys
from minillama.measure.limits.all_reduce import join_and_time_all_reduce
print(json.dumps(join_and_time_all_reduce(*json.loads(sys.argv[1]))))
"""


def worker_command(port: int) -> tuple[str, ...]:
    """The command of one worker with one thread on this machine, as one would type it."""
    return (*MINILLAMA, "worker", "--host", HOST, "--port", str(port), "-t", "1")


@dataclass(frozen=True)
class GuardedProcess:
    """A command that runs, its guard, and the nameless file that it writes its words to."""

    process: subprocess.Popen[bytes]
    output: int

    def last_line(self) -> str:
        """The last line that it wrote."""
        size = os.fstat(self.output).st_size
        # The place to write at is the command's as well: it must not move.
        lines = os.pread(self.output, size, 0).decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def ports(self) -> set[int]:
        """The ports that the command or anything it started listens on."""
        found: set[int] = set()
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                connections = child.net_connections(kind="tcp")
                found |= {end.laddr.port for end in connections if end.status == psutil.CONN_LISTEN}
        return found


@contextmanager
def guarded_process(command: Sequence[str]) -> Iterator[GuardedProcess]:
    """Run a command until the block ends, however it ends: done, raised, interrupted, or with the whole process.

    POSIX only: raises ResourceError elsewhere.
    """
    if os.name != "posix":
        raise ResourceError("worker processes are started from notebooks on Linux and macOS only; on Windows use WSL")
    guarded = (sys.executable, "-P", str(Path(process_guard.__file__)), str(os.getpid()), *command)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    with tempfile.TemporaryFile() as output:
        # A session of its own: what interrupts the kernel must not hit the guard while it cleans up.
        process = subprocess.Popen(
            guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield GuardedProcess(process, output.fileno())
        finally:
            _stop(process)


@contextmanager
def running_workers(
    count: int, command: Command = worker_command, *, seconds: float = START_SECONDS
) -> Iterator[tuple[str, ...]]:
    """So many workers on free ports of this machine, all listening: their addresses, as `--workers` wants them.

    Raises ResourceError where one ends or is not ready in time, with its last words.
    """
    ports = free_ports(count, HOST)
    with ExitStack() as stack:
        started = [stack.enter_context(guarded_process(command(port))) for port in ports]
        deadline = time.monotonic() + seconds
        for port, one in zip(ports, started, strict=True):
            _wait_until_listening(one, port, deadline, seconds)
        yield tuple(f"{HOST}:{port}" for port in ports)


def token_seconds(
    model: Path, count: int, *, tokens: int = 12, repetitions: int = 10, command: Command = worker_command
) -> float:
    """Seconds a token where so many workers compute a model together and this process leads; the best of several.

    Raises ResourceError where a worker does not start or is lost, OptionError where the model does not divide.
    """
    with running_workers(count, command) as addresses:
        llm = load(model, workers=",".join(addresses), threads=1, ctx_size=512, progress=False)
        try:
            rates = []
            for _ in range(1 + repetitions):  # the first time compiles
                answer = llm.generate([1, 2, 3, 4], n=tokens, temp=0.0, ignore_eos=True)
                rates.append(answer.timings.generated_per_second)
        finally:
            llm.close()
    return 1 / max(rates[1:])


def time_all_reduce(count: int, sizes: Sequence[int], *, seconds: float = START_SECONDS) -> dict[int, float]:
    """Seconds of a sum over so many processes of this machine, by bytes of its payload.

    They join through JAX's own distributed runtime, as workers do. Raises ResourceError where they do not meet in time.
    """
    (port,) = free_ports(1, HOST)
    with ExitStack() as stack:
        started = []
        for place in range(count):
            told = json.dumps([f"{HOST}:{port}", count, place, list(sizes)])
            started.append(stack.enter_context(guarded_process((sys.executable, "-c", _JOIN_AND_TIME, told))))
        wait_for_all(started, seconds)
        return {int(size): taken for size, taken in json.loads(started[0].last_line())}


def wait_for_all(started: Sequence[GuardedProcess], seconds: float) -> None:
    """Wait until all have ended by themselves; raises ResourceError where one fails or takes longer."""
    deadline = time.monotonic() + seconds
    for one in started:
        try:
            status = one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ResourceError(f"a process has not ended after {seconds:.0f} s: {one.last_line()}") from None
        if status:
            raise ResourceError(f"a process ended with status {status}: {one.last_line()}")


def _wait_until_listening(one: GuardedProcess, port: int, deadline: float, seconds: float) -> None:
    while port not in one.ports():
        if one.process.poll() is not None:
            raise ResourceError(f"the worker on port {port} ended at once: {one.last_line()}")
        if time.monotonic() > deadline:
            raise ResourceError(f"the worker on port {port} does not listen after {seconds:.0f} s: {one.last_line()}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the guard, which ends the command first. An interrupt meanwhile is kept for afterwards."""
    interrupted: BaseException | None = None
    process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while process.poll() is None:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
        except KeyboardInterrupt as reason:
            interrupted = reason
    if interrupted is not None:
        raise interrupted
