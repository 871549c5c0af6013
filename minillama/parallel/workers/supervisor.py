"""Worker server: authenticates each leader and runs a new worker process for it.

Only that process runs JAX: a group that has lost a member cannot continue, and JAX may then abort the process.
"""

import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from minillama.errors import MinillamaError, OptionError, ResourceError
from minillama.parallel.workers.addresses import free_ports
from minillama.parallel.workers.handshakes import Handshakes
from minillama.parallel.workers.identity import local_identity, parse_identity
from minillama.parallel.workers.secret import is_loopback, refuse, verify_leader
from minillama.parallel.workers.wire import HANGUP_EVENTS, Connection, Message, close_after

HANDSHAKE_SECONDS = 10.0  # in total; half of it for each answer
GRACE_SECONDS = 3.0  # until a worker process is killed after its leader has left
_OUTPUT_TAIL = 1 << 14  # bytes of output that explain a failure
_FATAL = re.compile(r"F\d{4} \S+\s+\d+ \S+\] (.*)")  # absl's message before it aborts


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker.

    command: starts a worker process; `--fd N` is appended. secret: None for the user's own, on loopback.
    log: prints a line. threads: CPU cores; 0 lets the leader choose. platform: cpu, cuda, tpu, or empty likewise.
    """

    command: Sequence[str]
    secret: bytes | None
    log: Callable[[str], None]
    threads: int = 0
    platform: str = ""


def listen(host: str, port: int, secret: bytes | None) -> socket.socket:
    """Open the socket on which leaders connect; port 0 selects a free port.

    Raises OptionError if other machines could connect without a secret, ResourceError if the port is in use or the
    address is not local.
    """
    if secret is None and not is_loopback(host):
        raise OptionError(
            f"--host {host} accepts connections from other machines, which requires a secret: create one with "
            "`(umask 77; openssl rand -hex 32 > token)` and give both sides --token-file token"
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        remedy = (
            "another --port" if "in use" in reason else "an address of this machine, or 0.0.0.0 for all, with --host"
        )
        raise ResourceError(f"cannot listen on {host}:{port}: {reason.lower()}; choose {remedy}") from error


@dataclass
class Supervisor:
    """Serve one leader after another, until `stop` or an exception such as KeyboardInterrupt."""

    listener: socket.socket
    options: WorkerOptions
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _leader: Connection | None = None
    _process: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    def serve(self) -> None:
        """Accept leaders; end all processes before returning or raising."""
        handshakes = Handshakes()
        try:
            while not self._stopped:
                try:
                    client, address = self.listener.accept()
                except OSError:
                    if self._stopped:
                        return
                    time.sleep(0.1)  # out of file descriptors, or the client has disconnected
                    continue
                connection = Connection(client, f"leader {address[0]}")
                handshakes.add(connection)
                try:
                    threading.Thread(target=self._handle, args=(connection, handshakes), daemon=True).start()
                except RuntimeError:  # no more threads
                    handshakes.remove(connection)
                    connection.close()
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop accepting leaders and end the worker process; callable from any thread."""
        self._stopped = True
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            process = self._process
        if process is not None:
            _kill(process)

    def _handle(self, connection: Connection, handshakes: Handshakes) -> None:
        """Handle one connection to its end; log every failure in one line."""
        try:
            try:
                with close_after(connection, HANDSHAKE_SECONDS):
                    self._handshake(connection, handshakes)
            finally:
                handshakes.remove(connection)
            try:
                ending = self._run_process(connection)
            finally:
                self._release()
            if not self._stopped:
                self.options.log(f"{ending}; ready again")
        except MinillamaError as error:
            self.options.log(str(error))
        finally:
            connection.close()

    def _handshake(self, connection: Connection, handshakes: Handshakes) -> None:
        """Authenticate a leader, compare versions, and claim this worker for it."""
        verify_leader(connection, self.options.secret, HANDSHAKE_SECONDS / 2)
        handshakes.remove(connection)  # no stranger any more
        theirs = parse_identity(
            connection.receive(HANDSHAKE_SECONDS / 2, head_limit=4096, arrays_limit=0), connection.name
        )
        ours = local_identity(threads=self.options.threads, platform=self.options.platform, port=free_ports(1)[0])
        if theirs.versions != ours.versions:
            refuse(
                connection, f"the worker runs {ours.versions}, the leader {theirs.versions}; install the same on both"
            )
        until = time.monotonic() + HANDSHAKE_SECONDS / 2
        while (busy := self._claim(connection)) is not None:
            # While a disconnected leader is being released, the next one waits.
            if not busy.peer_closed(0.0) or time.monotonic() > until:
                refuse(connection, f"busy with a {busy.name}; try again when it has left")
            time.sleep(0.05)
        try:
            connection.send(ours.message())
        except MinillamaError:
            self._release()
            raise

    def _claim(self, connection: Connection) -> Connection | None:
        """Claim this worker; if it is busy, return the connection of its leader."""
        with self._lock:
            if self._leader is None:
                self._leader = connection
                return None
            return self._leader

    def _release(self) -> None:
        with self._lock:
            self._leader = None

    def _run_process(self, connection: Connection) -> str:
        """Run a worker process to its end; return a line that describes the end."""
        handle = connection.socket.fileno()
        try:
            process = subprocess.Popen(
                [*self.options.command, "--fd", str(handle)],
                pass_fds=(handle,),
                stdin=subprocess.PIPE,  # closes when this process dies, which ends the worker process
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the worker process
            )
        except OSError as error:
            self._send_ended(connection, f"cannot start {self.options.command[0]}: {error.strerror}", None)
            return f"no worker process for {connection.name}: cannot start {self.options.command[0]}: {error.strerror}"
        with self._lock:
            self._process = process
        if self._stopped:
            _kill(process)
        self.options.log(f"{connection.name} has connected")
        try:
            output = _forward_output(process, connection, self.options.log)
        finally:
            _end(process)
            with self._lock:
                self._process = None
        status = process.returncode
        if connection.peer_closed(0.0):
            how = "has left" if status == 0 else "has disconnected; its worker process was ended"
            return f"{connection.name} {how}"
        reason = _exit_reason(status, output)
        self._send_ended(connection, reason, status)
        return f"the worker process of {connection.name} has failed: {reason}"

    def _send_ended(self, connection: Connection, reason: str, status: int | None) -> None:
        with suppress(MinillamaError):
            connection.send(Message("ended", {"reason": reason, "status": status}))


def _forward_output(process: subprocess.Popen[bytes], connection: Connection, log: Callable[[str], None]) -> bytes:
    """Log a worker process's messages until it ends; return the tail of its output.

    After the leader has disconnected, this returns within GRACE_SECONDS.
    """
    assert process.stdout is not None
    pipe, tail, line = process.stdout.fileno(), b"", b""
    poll, until = select.poll(), None
    poll.register(pipe, select.POLLIN)
    poll.register(connection.socket, HANGUP_EVENTS)
    while until is None or time.monotonic() < until:
        for handle, _ in poll.poll(None if until is None else 100):
            if handle != pipe:
                poll.unregister(handle)
                until = time.monotonic() + GRACE_SECONDS
                continue
            read = os.read(pipe, 1 << 16)
            if not read:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                return tail
            tail = (tail + read)[-_OUTPUT_TAIL:]
            *lines, line = (line + read)[-_OUTPUT_TAIL:].split(b"\n")
            for raw in lines:
                text = raw.decode(errors="replace").strip()
                if text.startswith("minillama: ") and not text.startswith("minillama: error: "):
                    log(text.removeprefix("minillama: "))
    return tail


def _exit_reason(status: int, output: bytes) -> str:
    """Reason for the end of a worker process, in one line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if status == 2 and line.startswith("minillama: error: "):
            return line.removeprefix("minillama: error: ")[:300]
    if status < 0:
        fatal = next((found[1] for line in lines if (found := _FATAL.match(line))), "")
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"its process was killed by {name}" + (f" ({fatal[:200]})" if fatal else "")
    return f"its process ended with status {status}" + (f": {lines[-1][:200]}" if lines else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all processes that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
