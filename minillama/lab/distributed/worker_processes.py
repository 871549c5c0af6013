"""Worker processes of a notebook, stopped at the cell's or the kernel's end."""

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

from minillama.engine.load import load
from minillama.env import MINILLAMA
from minillama.errors import ResourceError
from minillama.lab.distributed import process_guard
from minillama.parallel.workers.addresses import free_ports

HOST = "127.0.0.1"
START_SECONDS = 60.0  # until a worker listens: it imports JAX first
STOP_SECONDS = process_guard.KILL_AFTER_SECONDS + 8.0
POLL_SECONDS = 0.05  # between checks

# Set by a notebook for itself. Worker processes stand for separate machines and must not inherit it.
NOT_INHERITED = ("JAX_NUM_CPU_DEVICES",)

Command = Callable[[int], Sequence[str]]  # port -> the worker's command

_JOIN_AND_TIME = """\
import json, sys
from minillama.measure.limits.all_reduce import join_and_time_all_reduce
print(json.dumps(join_and_time_all_reduce(*json.loads(sys.argv[1]))))
"""


def worker_command(port: int) -> tuple[str, ...]:
    """Command line of one local worker with one thread."""
    return (*MINILLAMA, "worker", "--host", HOST, "--port", str(port), "-t", "1")


@dataclass(frozen=True)
class GuardedProcess:
    """A running command with its guard and its output file."""

    process: subprocess.Popen[bytes]
    output: int

    def last_line(self) -> str:
        """The last line of the output."""
        size = os.fstat(self.output).st_size
        # `pread`, because the command shares the file's write position.
        lines = os.pread(self.output, size, 0).decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def ports(self) -> set[int]:
        """Ports that the command or its children listen on."""
        found: set[int] = set()
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                connections = child.net_connections(kind="tcp")
                found |= {end.laddr.port for end in connections if end.status == psutil.CONN_LISTEN}
        return found


@contextmanager
def guarded_process(command: Sequence[str]) -> Iterator[GuardedProcess]:
    """Run a command until the block ends, also by an exception or a crash.

    POSIX only: raises ResourceError elsewhere.
    """
    if os.name != "posix":
        raise ResourceError("notebooks start worker processes on Linux and macOS only; on Windows use WSL")
    guarded = (sys.executable, "-P", str(Path(process_guard.__file__)), str(os.getpid()), *command)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    with tempfile.TemporaryFile() as output:
        # A separate session: an interrupt of the kernel must not hit the guard during its clean-up.
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
    """Start `count` workers on free local ports; yield their addresses once all listen.

    The addresses have the form of `--workers`. Raises ResourceError with the worker's last line if one ends or is not
    ready in time.
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
    """Seconds per token with `count` workers, led by this process; the best of several runs.

    Raises ResourceError if a worker does not start or is lost, OptionError if the model does not divide.
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
    """Seconds of an all-reduce over `count` local processes, {bytes: seconds}.

    The processes join through JAX's distributed runtime, as workers do. Raises ResourceError after a time-out.
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
    """Wait for the end of all processes; raises ResourceError for a failure or time-out."""
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
    """End the guard, which ends the command first. Delay an interrupt until then."""
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
