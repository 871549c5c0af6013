"""Workers and leaders in real processes: failures are reported in bounded time."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from minillama.errors import OptionError, ResourceError
from minillama.parallel.workers import leader, supervisor
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.handshakes import MOST_STRANGERS
from minillama.parallel.workers.heartbeat import LEADER_PATIENCE
from minillama.parallel.workers.identity import local_identity
from minillama.parallel.workers.leader import connect_workers
from minillama.parallel.workers.secret import PROTOCOL
from minillama.parallel.workers.supervisor import Supervisor, WorkerOptions, listen
from minillama.parallel.workers.wire import Connection, Message, SilenceError, encode
from minillama.parallel.workers.worker_group import LEAVE_SECONDS, MOST_UNREAD, WorkerGroup, root_cause_rank

WORKER_PROGRAM = Path(__file__).parents[1] / "helpers" / "fake_worker.py"
ROOT = WORKER_PROGRAM.parents[2]


@dataclass
class Running:
    """A worker in a thread of this process, and its log."""

    address: Address
    lines: list[str]
    supervisor: Supervisor

    def has_logged(self, text: str, seconds: float = 10.0) -> None:
        """Wait for a line that contains a text."""
        until = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert time.monotonic() < until, f"{text!r} is not in {self.lines}"
            time.sleep(0.01)


Start = Callable[..., Running]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Start workers that run the fake worker process; end all their processes after the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of the user's own secret
    running: list[tuple[Running, threading.Thread]] = []

    def begin(*options: str, secret: bytes | None = None, threads: int = 1) -> Running:
        listener, lines = listen("127.0.0.1", 0, secret), []
        worker = WorkerOptions((sys.executable, str(WORKER_PROGRAM), *options), secret, lines.append, threads)
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
    while left := [
        child for child in psutil.Process().children(recursive=True) if str(WORKER_PROGRAM) in _command(child)
    ]:
        assert time.monotonic() < until, f"still running: {left}"
        time.sleep(0.02)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def join(*workers: Running, secret: bytes | None = None, timeout: float = 60.0, silence: float = 0.0) -> WorkerGroup:
    addresses = [worker.address for worker in workers]
    return connect_workers(addresses, secret, log=lambda line: None, timeout=timeout, silence=silence)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_consecutive_groups(start: Start) -> None:
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
    one.has_logged("leader 127.0.0.1 has connected")
    one.has_logged("leader 127.0.0.1 has left; ready again")


def test_killed_process_is_reported_on_all_sides(start: Start) -> None:
    one, two = start("plain"), start("plain")
    with join(one, two) as group:
        group.send(Message("who"), 1)
        victim = group.receive(1).values["pid"]
        threading.Timer(0.2, os.kill, (victim, signal.SIGKILL)).start()
        with within(3.0), pytest.raises(ResourceError) as caught:
            group.receive(0)  # the other worker sends nothing
        line = f"worker {two.address} has failed: its process was killed by SIGKILL; the other workers are released"
        assert str(caught.value) == line
        with pytest.raises(ResourceError) as again:
            group.send(Message("echo"))
        assert str(again.value) == line
    two.has_logged("the worker process of leader 127.0.0.1 has failed: its process was killed by SIGKILL; ready again")
    one.has_logged("; ready again")
    with within(10.0), join(one, two) as group:
        group.send(Message("echo"))
        group.receive(1)


def test_killed_leader_releases_its_workers(start: Start) -> None:
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
        worker.has_logged("leader 127.0.0.1 was refused: busy with a leader 127.0.0.1")
        process.kill()
    with within(supervisor.GRACE_SECONDS + 3):
        worker.has_logged("leader 127.0.0.1 has disconnected; its worker process was ended; ready again")
    with join(worker) as group:
        group.send(Message("echo"))
        group.receive()


def test_leader_waits_for_the_release_of_another(start: Start) -> None:
    worker = start("plain")
    group = join(worker)
    group.send(Message("sleep"))
    for connection in group.connections:
        connection.close()
    with within(supervisor.GRACE_SECONDS + 5), join(worker) as second:
        second.send(Message("echo"))
        second.receive()


def test_failed_process_reports_its_error(start: Start) -> None:
    good, bad = start("plain"), start("broken")
    with within(5.0), pytest.raises(ResourceError) as caught:
        join(good, bad)
    assert str(caught.value) == f"worker {bad.address} has failed: the roof leaks; the other workers are released"
    bad.has_logged("the worker process of leader 127.0.0.1 has failed: the roof leaks; ready again")
    good.has_logged("; ready again")


def test_missing_command(start: Start) -> None:
    worker = start("plain")
    object.__setattr__(worker.supervisor.options, "command", ("/nowhere/python",))
    with pytest.raises(ResourceError, match="cannot start /nowhere/python: No such file"):
        join(worker)
    worker.has_logged("cannot start /nowhere/python: No such file or directory; ready again")


def test_slow_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "_SLOW_SECONDS", 0.5)
    worker, said = start("slow", "plain"), []
    with connect_workers([worker.address], None, log=said.append):
        pass
    assert said == [f"waiting for worker {worker.address} to start"]
    with within(1.5 + LEAVE_SECONDS), pytest.raises(ResourceError, match=r"has not joined within 0\.7 s"):
        connect_workers([worker.address], None, log=said.append, timeout=0.7)


def test_secrets(start: Start) -> None:
    worker = start("plain", secret=b"open sesame")
    with join(worker, secret=b"open sesame"):
        pass
    with within(2.0), pytest.raises(ResourceError, match="the secrets of leader and worker differ"):
        join(worker, secret=b"open barley")
    worker.has_logged("leader 127.0.0.1 was refused: the secrets of leader and worker differ")
    with within(2.0), pytest.raises(ResourceError, match="requires a secret"):
        join(worker)


def test_version_mismatch(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = local_identity()
    monkeypatch.setattr(leader, "local_identity", lambda: type(ours)(**{**vars(ours), "jax": "0.9.9"}))
    worker = start("plain")
    with within(2.0), pytest.raises(ResourceError) as caught:
        join(worker)
    assert f"the worker runs {ours.versions}, the leader minillama" in str(caught.value)
    assert "jax 0.9.9" in str(caught.value)
    worker.has_logged("jax 0.9.9")


def test_unreachable_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        within(2.0),
        pytest.raises(ResourceError, match="cannot be reached: connection refused; is `minillama worker`"),
    ):
        connect_workers([Address("127.0.0.1", port)], None, log=print)
    with within(15.0), pytest.raises(ResourceError, match=r"worker no\.such\.host\.invalid:1 cannot be reached"):
        connect_workers([Address("no.such.host.invalid", 1)], None, log=print)


def test_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "_CONNECT_SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        within(3.0),
        pytest.raises(ResourceError, match=r"has not answered within 0\.5 s"),
    ):
        connect_workers([Address("127.0.0.1", server.getsockname()[1])], None, log=print)


def test_idle_strangers_make_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is dropped for a new connection, also for the leader's."""
    monkeypatch.setattr(supervisor, "HANDSHAKE_SECONDS", 60.0)
    worker = start("plain")
    peers = [socket.create_connection((worker.address.host, worker.address.port)) for _ in range(3 * MOST_STRANGERS)]
    with within(10.0), join(worker):
        pass
    peers[-1].settimeout(5.0)
    assert peers[-1].recv(4) == b"mlm1"  # one of the newest still has its challenge
    peers[0].settimeout(5.0)
    while peers[0].recv(1 << 12):
        pass  # to the end of the connection
    for peer in peers:
        peer.close()


def test_strangers_have_little_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HANDSHAKE_SECONDS", 0.6)
    worker = start("plain")
    peers = [socket.create_connection((worker.address.host, worker.address.port)) for _ in range(3)]
    peers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    peers[1].sendall(encode(Message("alive"))[:-1])  # the last byte never comes
    worker.has_logged("does not use minillama's protocol")
    worker.has_logged("has not answered within 0.3 s")
    with within(5.0):
        peers[1].settimeout(5.0)
        while peers[1].recv(1 << 12):
            pass
    for peer in peers:
        peer.close()


def frames() -> list[bytes]:
    """What strangers send: other protocols, broken frames, and answers of every type."""

    def frame(op: object, values: object, kinds: object = (), body: bytes = b"", **sizes: int) -> bytes:
        head = json.dumps((op, values, kinds)).encode()
        return struct.pack("<4sIQ", b"mlm1", sizes.get("head", len(head)), sizes.get("arrays", len(body))) + head + body

    def raw(head: bytes) -> bytes:
        return struct.pack("<4sIQ", b"mlm1", len(head), 0) + head

    answers = [
        {"nonce": "x", "proof": ""},
        {"nonce": {"a": 1}, "proof": ["\u00e9\ud800"]},
        {"nonce": "\ud800", "proof": "\udfff"},
        {"nonce": "a", "proof": None},
        {"nonce": "a" * 3000, "proof": "0" * 64},
    ]
    return [
        b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"mlm1", b"mlm1" + b"\xff" * 12, b"",
        frame("answer", {}, head=2**32 - 1), frame("answer", {}, arrays=2**63), frame("answer", {}, head=4096)[:16],
        raw(b"[" * 4000), raw(b"1" * 4000), raw(b'["\xff\xfe",{},[]]'), raw(b'["answer",{"protocol":1e999},[]]'),
        frame("answer", {"protocol": float("nan")}), frame("answer", {"protocol": True}), frame("leave", {}),
        frame("answer", [1]), frame("answer\n\x1b[31mred", {}), frame("alive", {}), frame("alive", {}) * 50,
        frame("answer", {}, [["<i4", [2**20]]]), frame("answer", {}, [["|O", [1]]]),
        frame("answer", {}, [["<i4", [2**28] * 8]]), frame("answer", {}, [["<i4", [0, *[2**28] * 7]]]),
        *(frame("answer", {"protocol": PROTOCOL, **answer}) for answer in answers),
    ]  # fmt: skip


def test_what_strangers_send(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is a traceback: every failure is one line. The worker serves its leader afterwards."""
    monkeypatch.setattr(supervisor, "HANDSHAKE_SECONDS", 1.0)
    tracebacks: list[object] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    worker = start("plain", secret=b"open sesame")
    for number in range(300):
        data = bytearray(frames()[number % len(frames())])
        rng = np.random.default_rng(number)
        for _ in range(rng.integers(0, 4) if number > len(frames()) and data else 0):
            data[rng.integers(len(data))] = rng.integers(256)
        with socket.create_connection((worker.address.host, worker.address.port)) as peer, suppress(OSError):
            peer.sendall(data)
            if number < len(frames()):
                peer.shutdown(socket.SHUT_WR)
                peer.settimeout(5.0)
                while peer.recv(1 << 12):
                    pass
    with join(worker, secret=b"open sesame"):
        pass
    worker.has_logged("; ready again")
    assert not tracebacks
    assert all("\n" not in line and line.isprintable() and len(line) < 500 for line in worker.lines)


class TestStopped:
    """Processes that are stopped, not dead (SIGSTOP): their connections stay, and their signs of life end."""

    SILENCE = 1.0

    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_worker_is_named_and_released(self, start: Start, victim: int) -> None:
        one, two = start("plain"), start("plain")
        with join(one, two, silence=self.SILENCE) as group:
            group.send(Message("who"))
            pids = [group.receive(worker).values["pid"] for worker in (0, 1)]
            os.kill(pids[victim], signal.SIGSTOP)
            with within(self.SILENCE + 3.0), pytest.raises(ResourceError) as caught:
                group.receive(0)
            address = (one, two)[victim].address
            line = f"worker {address} is lost: no sign of life for 1 s; is it stopped, or its machine out of memory?"
            assert str(caught.value) == f"{line}; the other workers are released"
            with pytest.raises(ResourceError, match="no sign of life"):
                group.send(Message("echo"))
        with within(supervisor.GRACE_SECONDS + 5):
            for worker in (one, two):
                worker.has_logged("; ready again")
        with join(one, two) as group:
            group.send(Message("echo"))
            group.receive(1)

    def test_a_worker_that_computes_for_long_is_not_lost(self, start: Start) -> None:
        """Its thread sends signs of life meanwhile; nor does a leader that waits get lost."""
        worker = start("plain")
        with join(worker, silence=0.3) as group:
            group.send(Message("busy", {"seconds": 2.0}))
            group.send(Message("echo"))
            assert group.receive(0).op == "echo"

    def test_a_worker_that_goes_on_in_time_is_not_lost(self, start: Start) -> None:
        worker = start("plain")
        with join(worker, silence=2.0) as group:
            group.send(Message("who"))
            pid = group.receive().values["pid"]
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(0.5, os.kill, (pid, signal.SIGCONT)).start()
            group.send(Message("echo"))
            assert group.receive().op == "echo"

    def test_a_leader_is_given_up(self, start: Start) -> None:
        worker = start("plain")
        with leading_process(worker, 0.5) as process:
            process.send_signal(signal.SIGSTOP)
            with within(LEADER_PATIENCE * 0.5 + 3):
                worker.has_logged("failed: the leader is lost: no sign of life for 2 s")
            with join(worker) as group:
                group.send(Message("echo"))
                group.receive()
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            assert b"has failed: the leader is lost: no sign of life for 2 s" in process.stdout.read()

    def test_an_interrupt_ends_the_wait_at_once(self, start: Start) -> None:
        """Without a limit of silence: Ctrl-C alone ends it."""
        worker = start("plain")
        with leading_process(worker, 0.0) as process:
            process.send_signal(signal.SIGINT)
            with within(LEAVE_SECONDS):
                process.wait(LEAVE_SECONDS)
            assert process.stdout is not None and b"KeyboardInterrupt" in process.stdout.read()
        worker.has_logged("; ready again")


@contextmanager
def leading_process(worker: Running, silence: float) -> Iterator[subprocess.Popen[bytes]]:
    """A leader that waits for an answer which never comes, in a process; it prints its exception."""
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from minillama.parallel.workers.leader import connect_workers\n"
        "from minillama.parallel.workers.addresses import Address\n"
        f"address = Address('127.0.0.1', {worker.address.port})\n"
        f"with connect_workers([address], None, log=print, silence={silence}) as group:\n"
        "    try:\n        print('leading', flush=True)\n        group.receive()\n"
        "    except BaseException as error:\n        print(repr(error), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"leading\n"
        try:
            yield process
        finally:
            process.kill()


def test_an_interrupt_does_not_wait_for_workers_that_do_not_answer() -> None:
    """A worker that accepts connections and says nothing, as a stopped supervisor does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            with within(3.0), pytest.raises(KeyboardInterrupt):
                connect_workers([address], None, log=print)
        finally:
            signal.signal(signal.SIGINT, before)


def test_unread_messages_wait_in_the_connection() -> None:
    left, right = socket.socketpair()
    group, other = WorkerGroup([Connection(left, "worker x")]), Connection(right, "the leader")
    for number in range(MOST_UNREAD + 50):
        other.send(Message("told", {"number": number}))
    time.sleep(0.2)
    assert len(group._unread[0]) <= MOST_UNREAD
    assert [group.receive().values["number"] for _ in range(MOST_UNREAD + 50)] == list(range(MOST_UNREAD + 50))
    other.close()
    with pytest.raises(ResourceError, match=r"worker x is lost: its connection has ended$"):
        group.receive()
    group.close()


def test_listen() -> None:
    with pytest.raises(
        OptionError, match=r"--host 0\.0\.0\.0 accepts connections from other machines, which requires a secret"
    ):
        listen("0.0.0.0", 0, None)
    listen("0.0.0.0", 0, b"open sesame").close()
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(ResourceError, match="in use; choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1], None)
    with pytest.raises(ResourceError, match=r"cannot listen on 192\.0\.2\.1:0: .*; choose an address of this machine"):
        listen("192.0.2.1", 0, b"open sesame")


def test_other_machines_require_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "is_loopback", lambda host: False)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OptionError, match="is on another machine, which requires a secret"),
    ):
        connect_workers([Address("127.0.0.1", server.getsockname()[1])], None, log=print)


def test_root_cause() -> None:
    """Of several failures, the root cause ranks first."""
    endings = [
        Message("ended", {"status": -9, "reason": "killed"}),
        ResourceError("its connection has ended"),
        Message("ended", {"status": 2, "reason": "an error of its own"}),
        Message("ended", {"status": 1, "reason": "traceback"}),
        Message("ended", {"status": -6, "reason": "abort"}),
    ]
    assert [root_cause_rank(ending) for ending in endings] == [0, 1, 2, 3, 4]
    assert root_cause_rank(SilenceError("silent")) == 0


def test_all_reduce_of_two_processes(start: Start) -> None:
    one, two = start(), start()
    with join(one, two) as group:
        assert [member.platform for member in group.members] == ["cpu", "cpu"]
        group.send(Message("who"))
        answers = [group.receive(worker).values for worker in (0, 1)]
        cores = [answer["cores"] for answer in answers]
        if sys.platform == "linux":
            assert [answer["idle_threads"] for answer in answers] == [1, 1]
        if (os.cpu_count() or 1) > 1:
            assert len(cores[0]) == len(cores[1]) == 1 and cores[0] != cores[1]
        for worker in (0, 1):
            group.send(Message("sum", {}, (np.arange(4, dtype=np.float32) + worker,)), worker)
        for worker in (0, 1):
            np.testing.assert_array_equal(group.receive(worker).arrays[0], [1, 3, 5, 7])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_death_during_a_collective(start: Start, victim: int) -> None:
    """Worker 0 is the coordinator: its death makes JAX abort the others."""
    workers = [start() for _ in range(3)]
    with join(*workers) as group:
        group.send(Message("who"))
        pids = [group.receive(worker).values["pid"] for worker in range(3)]
        group.send(Message("sums", {}, (np.ones(2048, np.float32),)))
        threading.Timer(2.0, os.kill, (pids[victim], signal.SIGKILL)).start()
        with within(6.0), pytest.raises(ResourceError) as caught:
            group.receive((victim + 1) % 3)
        assert str(caught.value).startswith(
            f"worker {workers[victim].address} has failed: its process was killed by SIGKILL"
        )
    with within(2 * supervisor.GRACE_SECONDS + 2):
        for worker in workers:
            worker.has_logged("; ready again")
    with within(30.0), join(*workers) as group:
        group.send(Message("sum", {}, (np.ones(1, np.float32),)))
        assert [group.receive(worker).arrays[0].tolist() for worker in range(3)] == [[3.0]] * 3


@pytest.mark.slow
def test_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    """After SIGKILL of the supervisor its worker process ends, too."""
    program = (
        "import sys\nfrom minillama.parallel.workers.supervisor import *\n"
        "listener = listen('127.0.0.1', 0, None)\nprint(listener.getsockname()[1], flush=True)\n"
        f"options = WorkerOptions((sys.executable, {str(WORKER_PROGRAM)!r}, 'plain'), None, print)\n"
        "Supervisor(listener, options).serve()\n"
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
            errors = process.stderr.read()
            assert errors.count(b"Traceback") == (number == signal.SIGINT) == errors.endswith(b"KeyboardInterrupt\n")


@pytest.mark.slow
def test_gloo_idle_priority(start: Start) -> None:
    """Speed of all-reduces on one core each, with and without idle priority (measured: 26 times)."""
    if sys.platform != "linux":
        pytest.skip("only Linux has SCHED_IDLE")
    one, two = start(), start()
    with join(one, two) as group:
        ratios = []
        for _ in range(5):
            seconds = {}
            for op in ("normal", "idle"):
                group.send(Message(op))
                assert [group.receive(worker).values["threads"] for worker in (0, 1)] == [1, 1]
                group.send(Message("time"))
                seconds[op] = min(group.receive(worker).values["seconds"] for worker in (0, 1))
            ratios.append(seconds["normal"] / seconds["idle"])
        if psutil.cpu_percent(1.0) > 10.0:
            pytest.skip(f"other load on this machine; ratios: {[round(ratio, 1) for ratio in ratios]}")
        assert max(ratios) > 2.0, ratios
