"""Processes started from notebooks: ready when they say so, and gone however the notebook ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import minillama as ml
from minillama.lab.distributed import worker_processes
from minillama.lab.distributed.worker_processes import free_ports, guarded_process, running_workers, wait_for_all

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
WAIT = 20.0  # seconds; only a hang is this long

# A worker that listens, has a child of its own in its group, and writes down both their ids.
LISTEN = """
import os, pathlib, signal, socket, subprocess, sys, time
folder, port, stubborn = pathlib.Path(sys.argv[1]), int(sys.argv[2]), len(sys.argv) > 3
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / f"{port}.tmp").write_text(f"{os.getpid()} {child.pid}")
(folder / f"{port}.tmp").rename(folder / f"{port}.ids")
server = socket.create_server(("127.0.0.1", port))
print("listening", flush=True)
time.sleep(600)
"""


def listening(folder: Path, *more: str) -> Callable[[int], tuple[str, ...]]:
    return lambda port: (sys.executable, "-S", "-c", LISTEN, str(folder), str(port), *more)


def ids(folder: Path) -> list[int]:
    return [int(word) for path in folder.glob("*.ids") for word in path.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_gone(pids: list[int]) -> bool:
    """Whether they all end soon."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if all(map(gone, pids)):
            return True
        time.sleep(0.02)
    return False


def test_workers_listen_and_are_gone_afterwards(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with running_workers(2, listening(tmp_path)) as addresses:
        assert len(set(addresses)) == 2 and all(address.startswith("127.0.0.1:") for address in addresses)
        started = ids(tmp_path)
        assert len(started) == 4 and not any(map(gone, started))
    assert all_gone(started)
    assert psutil.Process().children(recursive=True) == before


def test_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running_workers(1, listening(tmp_path)):
        raise KeyboardInterrupt
    assert len(ids(tmp_path)) == 2 and all_gone(ids(tmp_path))


def test_one_that_does_not_want_to_end_is_made_to(tmp_path: Path) -> None:
    with running_workers(1, listening(tmp_path, "stubborn")):
        pass
    assert len(ids(tmp_path)) == 2 and all_gone(ids(tmp_path))


KERNEL = """
import pathlib, sys, time
sys.path.insert(0, {tests!r})
from test_worker_processes import listening
from minillama.lab.distributed.worker_processes import running_workers
with running_workers(2, listening(pathlib.Path(sys.argv[1]))) as addresses:
    print("ready", flush=True)
    time.sleep(600)
"""


def guards_of(kernel: subprocess.Popen[str]) -> list[int]:
    return [child.pid for child in psutil.Process(kernel.pid).children()]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "terminate", "interrupt"])
def test_gone_when_the_kernel_dies(tmp_path: Path, end: signal.Signals) -> None:
    program = KERNEL.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": str(Path(ml.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as kernel:
        assert kernel.stdout is not None and kernel.stdout.readline() == "ready\n"
        started = ids(tmp_path) + guards_of(kernel)
        assert len(started) == 6 and not any(map(gone, started))
        kernel.send_signal(end)
        kernel.wait(WAIT)
    assert all_gone(started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of the end of its parent")
def test_gone_when_the_guard_dies(tmp_path: Path) -> None:
    """The command dies with the guard, but no process is left to end its children."""
    with running_workers(1, listening(tmp_path)):
        worker, child = ids(tmp_path)
        guard = psutil.Process(worker).parent()
        assert guard is not None and guard.ppid() == os.getpid()
        guard.kill()
        assert all_gone([worker])
        os.kill(child, signal.SIGKILL)


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    def fails(port: int) -> tuple[str, ...]:
        return sys.executable, "-S", "-c", f"import sys; print('starting'); sys.exit('no room for {port}')"

    with pytest.raises(ml.ResourceError, match=r"port \d+ ended at once: no room for \d+$"), running_workers(1, fails):
        pass

    def silent(port: int) -> tuple[str, ...]:
        return sys.executable, "-S", "-c", "import time; time.sleep(600)"

    before = psutil.Process().children(recursive=True)
    late = pytest.raises(ml.ResourceError, match="does not listen after 0 s: no output")
    with late, running_workers(1, silent, seconds=0.3):
        pass
    assert psutil.Process().children(recursive=True) == before


def test_waiting_for_a_command_to_end() -> None:
    with guarded_process((sys.executable, "-S", "-c", "print(6 * 7)")) as good, guarded_process(("false",)) as bad:
        wait_for_all([good], WAIT)
        assert good.last_line() == "42"
        with pytest.raises(ml.ResourceError, match="ended with status 1: no output"):
            wait_for_all([bad], WAIT)
    with guarded_process(("sleep", "600")) as slow, pytest.raises(ml.ResourceError, match="has not ended after 0 s"):
        wait_for_all([slow], 0.1)


def test_processes_meet_and_time_it() -> None:
    found = worker_processes.time_all_reduce(2, (256, 65536))
    assert list(found) == [256, 65536] and all(0 < seconds < 1 for seconds in found.values())


def test_virtual_devices_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    monkeypatch.setenv("MINILLAMA_OTHER", "kept")
    ask = "import os; print(os.environ.get('JAX_NUM_CPU_DEVICES'), os.environ['MINILLAMA_OTHER'])"
    with guarded_process((sys.executable, "-S", "-c", ask)) as one:
        wait_for_all([one], WAIT)
        assert one.last_line() == "None kept"


def test_ports_are_free_and_different() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8 and all(1024 < port < 65536 for port in ports)


def test_the_command_is_what_one_would_type() -> None:
    assert worker_processes.worker_command(50052)[3:] == ("worker", "--host", "127.0.0.1", "--port", "50052", "-t", "1")


@pytest.mark.slow
def test_two_workers_are_measured_and_gone(builtin_model: Path) -> None:
    before = psutil.Process().children(recursive=True)
    assert 0 < worker_processes.token_seconds(builtin_model, 2, tokens=4, repetitions=1) < 10
    assert psutil.Process().children(recursive=True) == before
