"""Workers and a leader in real processes, and everything that can go wrong between them, in bounded time."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from minillama.errors import OptionError, ResourceError
from minillama.parallel.workers import leader, supervisor
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.identity import local_identity
from minillama.parallel.workers.leader import WorkerGroup, connect_workers
from minillama.parallel.workers.supervisor import Supervisor, WorkerOptions, listen
from minillama.parallel.workers.wire import Message

FOLLOWER = Path(__file__).parents[1] / "helpers" / "fake_worker.py"
ROOT = FOLLOWER.parents[2]


@dataclass
class Running:
    """A worker in a thread of this process, and what it has said."""

    address: Address
    lines: list[str]
    supervisor: Supervisor

    def says(self, text: str, seconds: float = 10.0) -> None:
        """Wait until it has said so."""
        until = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert time.monotonic() < until, f"{text!r} is not in {self.lines}"
            time.sleep(0.01)


Start = Callable[..., Running]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start workers whose follower is this folder's; all of them, and all of their processes, end with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running: list[tuple[Running, threading.Thread]] = []

    def begin(*words: str, secret: bytes | None = None, threads: int = 1) -> Running:
        listener, lines = listen("127.0.0.1", 0, secret), []
        worker = WorkerOptions((sys.executable, str(FOLLOWER), *words), secret, lines.append, threads)
        found = Running(Address("127.0.0.1", listener.getsockname()[1]), lines, Supervisor(listener, worker))
        thread = threading.Thread(target=found.supervisor.serve)
        thread.start()
        running.append((found, thread))
        return found

    yield begin
    for found, thread in running:
        found.supervisor.stop()
        thread.join(10.0)
        assert not thread.is_alive()
    until = time.monotonic() + 5
    while left := [child for child in psutil.Process().children(recursive=True) if str(FOLLOWER) in _words(child)]:
        assert time.monotonic() < until, f"left behind: {left}"
        time.sleep(0.02)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def join(*workers: Running, secret: bytes | None = None, timeout: float = 60.0) -> WorkerGroup:
    return connect_workers([worker.address for worker in workers], secret, log=lambda line: None, timeout=timeout)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_a_group_answers_and_leaves_and_the_next_one_comes(start: Start) -> None:
    one, two = start("plain"), start("plain")
    for _ in range(2):
        with join(one, two) as group:
            assert len(group) == 2 and [member.devices for member in group.members] == [1, 1]
            group.send(Message("echo", {"to": "all"}))
            assert [group.receive(worker).values["to"] for worker in (0, 1)] == ["all", "all"]
            group.send(Message("echo", {}, (np.arange(3),)), 1)
            np.testing.assert_array_equal(group.receive(1).arrays[0], np.arange(3))
            with pytest.raises(ResourceError, match=r"^worker 127\.0\.0\.1:\d+ has not answered within 0\.01 s"):
                group.receive(0, timeout=0.01)
        group.close()
    one.says("leader 127.0.0.1 has come")
    one.says("leader 127.0.0.1 has left; ready again")


def test_a_killed_follower_is_named_to_every_side_at_once(start: Start) -> None:
    one, two = start("plain"), start("plain")
    with join(one, two) as group:
        group.send(Message("who"), 1)
        victim = group.receive(1).values["pid"]
        threading.Timer(0.2, os.kill, (victim, signal.SIGKILL)).start()
        with within(3.0), pytest.raises(ResourceError) as caught:
            group.receive(0)  # the other one, which has nothing to say
        line = f"worker {two.address} has failed: its process was ended by SIGKILL; the other workers are let go"
        assert str(caught.value) == line
        with pytest.raises(ResourceError) as again:
            group.send(Message("echo"))
        assert str(again.value) == line
    two.says("following leader 127.0.0.1 has failed: its process was ended by SIGKILL; ready again")
    one.says("; ready again")
    with within(10.0), join(one, two) as group:
        group.send(Message("echo"))
        group.receive(1)


def test_a_leader_that_is_killed_frees_its_workers(start: Start) -> None:
    worker = start("plain")
    program = (
        "import sys\nfrom minillama.parallel.workers.leader import connect_workers\n"
        "from minillama.parallel.workers.addresses import Address\n"
        "from minillama.parallel.workers.wire import Message\n"
        f"group = connect_workers([Address('127.0.0.1', {worker.address.port})], None, log=print)\n"
        "group.send(Message('sleep'))\nprint('leading', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"leading\n"
        with pytest.raises(ResourceError, match=r"busy with a leader 127\.0\.0\.1; try again when it has left"):
            join(worker)
        worker.says("leader 127.0.0.1 was refused: busy with a leader 127.0.0.1")
        process.kill()
    with within(supervisor.GRACE_SECONDS + 3):
        worker.says("leader 127.0.0.1 is gone; its work was ended; ready again")
    with join(worker) as group:
        group.send(Message("echo"))
        group.receive()


def test_a_leader_that_comes_while_another_is_let_out_waits_for_that(start: Start) -> None:
    worker = start("plain")
    group = join(worker)
    group.send(Message("sleep"))
    for connection in group.connections:
        connection.close()
    with within(supervisor.GRACE_SECONDS + 5), join(worker) as second:
        second.send(Message("echo"))
        second.receive()


def test_a_follower_that_fails_says_why(start: Start) -> None:
    good, bad = start("plain"), start("broken")
    with within(5.0), pytest.raises(ResourceError) as caught:
        join(good, bad)
    assert str(caught.value) == f"worker {bad.address} has failed: the roof leaks; the other workers are let go"
    bad.says("following leader 127.0.0.1 has failed: the roof leaks; ready again")
    good.says("; ready again")


def test_a_command_that_is_not_there(start: Start) -> None:
    worker = start("plain")
    object.__setattr__(worker.supervisor.worker, "command", ("/nowhere/python",))
    with pytest.raises(ResourceError, match="cannot start /nowhere/python: No such file"):
        join(worker)
    worker.says("cannot start /nowhere/python: No such file or directory; ready again")


def test_a_follower_that_is_slow_to_start_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "_SLOW_SECONDS", 0.5)
    worker, said = start("slow", "plain"), []
    with connect_workers([worker.address], None, log=said.append):
        pass
    assert said == [f"waiting for worker {worker.address} to start"]
    with within(1.5 + leader.LEAVE_SECONDS), pytest.raises(ResourceError, match=r"has not joined within 0\.7 s"):
        connect_workers([worker.address], None, log=said.append, timeout=0.7)


def test_secrets(start: Start) -> None:
    worker = start("plain", secret=b"open sesame")
    with join(worker, secret=b"open sesame"):
        pass
    with within(2.0), pytest.raises(ResourceError, match="the leader's secret is not the worker's"):
        join(worker, secret=b"open barley")
    worker.says("leader 127.0.0.1 was refused: the leader's secret is not the worker's")
    with within(2.0), pytest.raises(ResourceError, match="asks for its secret"):
        join(worker)


def test_other_versions_are_refused_naming_both(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = local_identity()
    monkeypatch.setattr(leader, "local_identity", lambda: type(ours)(**{**vars(ours), "jax": "0.9.9"}))
    worker = start("plain")
    with within(2.0), pytest.raises(ResourceError) as caught:
        join(worker)
    assert f"the worker runs {ours.versions}, the leader minillama" in str(caught.value)
    assert "jax 0.9.9" in str(caught.value)
    worker.says("jax 0.9.9")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        within(2.0),
        pytest.raises(ResourceError, match="cannot be reached: connection refused; is `minillama worker`"),
    ):
        connect_workers([Address("127.0.0.1", port)], None, log=print)
    with within(15.0), pytest.raises(ResourceError, match=r"worker no\.such\.host\.invalid:1 cannot be reached"):
        connect_workers([Address("no.such.host.invalid", 1)], None, log=print)


def test_somebody_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "_CALL_SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        within(3.0),
        pytest.raises(ResourceError, match=r"has not answered within 0\.5 s"),
    ):
        connect_workers([Address("127.0.0.1", server.getsockname()[1])], None, log=print)


def test_a_stranger_does_not_keep_the_worker(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HANDSHAKE_SECONDS", 0.6)
    worker = start("plain")
    strangers = [socket.create_connection((worker.address.host, worker.address.port)) for _ in range(20)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    worker.says("does not speak minillama's protocol")
    worker.says("has not answered within 0.3 s")
    with join(worker):
        pass
    for stranger in strangers:
        stranger.close()


def test_where_a_worker_may_listen() -> None:
    with pytest.raises(OptionError, match=r"--host 0\.0\.0\.0 lets other machines in, so a secret is needed"):
        listen("0.0.0.0", 0, None)
    listen("0.0.0.0", 0, b"open sesame").close()
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(ResourceError, match="in use; choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1], None)
    with pytest.raises(ResourceError, match=r"cannot listen on 192\.0\.2\.1:0: .*; choose an address of this machine"):
        listen("192.0.2.1", 0, b"open sesame")


def test_a_worker_elsewhere_needs_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "is_loopback", lambda host: False)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OptionError, match="is on another machine, which needs a secret"),
    ):
        connect_workers([Address("127.0.0.1", server.getsockname()[1])], None, log=print)


def test_who_is_to_blame() -> None:
    """Of several that end together, the one that was killed, and not those that only noticed."""
    endings = [
        Message("ended", {"status": -9, "reason": "killed"}),
        None,
        Message("ended", {"status": 2, "reason": "an error of its own"}),
        Message("ended", {"status": 1, "reason": "traceback"}),
        Message("ended", {"status": -6, "reason": "abort"}),
    ]
    assert [leader._guilt(ending) for ending in endings] == [0, 1, 2, 3, 4]


def test_two_processes_of_jax_sum_up(start: Start) -> None:
    one, two = start(), start()
    with join(one, two) as group:
        assert [member.platform for member in group.members] == ["cpu", "cpu"]
        group.send(Message("who"))
        answers = [group.receive(worker).values for worker in (0, 1)]
        cores = [answer["cores"] for answer in answers]
        if sys.platform == "linux":
            assert [answer["calmed"] for answer in answers] == [1, 1]
        if (os.cpu_count() or 1) > 1:
            assert len(cores[0]) == len(cores[1]) == 1 and cores[0] != cores[1]
        for worker in (0, 1):
            group.send(Message("sum", {}, (np.arange(4, dtype=np.float32) + worker,)), worker)
        for worker in (0, 1):
            np.testing.assert_array_equal(group.receive(worker).arrays[0], [1, 3, 5, 7])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_death_in_a_collective(start: Start, victim: int) -> None:
    """The first one is the coordinator, whose death makes JAX abort the others."""
    workers = [start() for _ in range(3)]
    with join(*workers) as group:
        group.send(Message("who"))
        pids = [group.receive(worker).values["pid"] for worker in range(3)]
        group.send(Message("sums", {}, (np.ones(2048, np.float32),)))
        threading.Timer(2.0, os.kill, (pids[victim], signal.SIGKILL)).start()
        with within(6.0), pytest.raises(ResourceError) as caught:
            group.receive((victim + 1) % 3)
        assert str(caught.value).startswith(
            f"worker {workers[victim].address} has failed: its process was ended by SIGKILL"
        )
    with within(2 * supervisor.GRACE_SECONDS + 2):
        for worker in workers:
            worker.says("; ready again")
    with within(30.0), join(*workers) as group:
        group.send(Message("sum", {}, (np.ones(1, np.float32),)))
        assert [group.receive(worker).arrays[0].tolist() for worker in range(3)] == [[3.0]] * 3


@pytest.mark.slow
def test_the_command_is_a_worker_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """kill -9 of the command itself: the process that follows a leader ends with it."""
    program = (
        "import sys\nfrom minillama.parallel.workers.supervisor import *\n"
        "listener = listen('127.0.0.1', 0, None)\nprint(listener.getsockname()[1], flush=True)\n"
        f"Supervisor(listener, WorkerOptions((sys.executable, {str(FOLLOWER)!r}, 'plain'), None, print)).serve()\n"
    )
    for number in (signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            address = Address("127.0.0.1", int(process.stdout.readline()))
            group = connect_workers([address], None, log=print)
            group.send(Message("who"))
            child = psutil.Process(group.receive().values["pid"])
            group.send(Message("sleep"))
            process.send_signal(number)
            with within(3.0):
                child.wait(3.0)
                with pytest.raises(ResourceError, match=rf"^worker {address} (is lost|has failed)"):
                    group.receive()
            group.close()
            assert process.stderr is not None
            words = process.stderr.read()
            assert words.count(b"Traceback") == (number == signal.SIGINT) == words.endswith(b"KeyboardInterrupt\n")


@pytest.mark.slow
def test_gloo_gives_way_to_what_computes(start: Start) -> None:
    """All-reduces of processes bound to a core each, with gloo's thread calmed and not: 26 times as fast here."""
    if sys.platform != "linux":
        pytest.skip("only Linux has threads that run when nothing else wants to")
    one, two = start(), start()
    with join(one, two) as group:
        ratios = []
        for _ in range(5):
            seconds = {}
            for op in ("restless", "calm"):
                group.send(Message(op))
                assert [group.receive(worker).values["threads"] for worker in (0, 1)] == [1, 1]
                group.send(Message("time"))
                seconds[op] = min(group.receive(worker).values["seconds"] for worker in (0, 1))
            ratios.append(seconds["restless"] / seconds["calm"])
        if psutil.cpu_percent(1.0) > 10.0:
            pytest.skip(f"others compute here; the ratios were {[round(ratio, 1) for ratio in ratios]}")
        assert max(ratios) > 2.0, ratios
