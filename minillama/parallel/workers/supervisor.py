"""A worker: waits for a leader, makes sure of it, and gives it a fresh process that follows it until it leaves.

JAX runs in that process alone, for a group that has lost a member cannot go on, and JAX may then end the process.
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
from minillama.parallel.workers.identity import local_identity, parse_identity
from minillama.parallel.workers.secret import is_loopback, refuse, verify_leader
from minillama.parallel.workers.wire import HANGUP_EVENTS, Connection, Message

HANDSHAKE_SECONDS = 10.0  # for the whole, and half of it for each answer
GRACE_SECONDS = 3.0  # that a follower has to end when its leader is gone
_STRANGERS = 8  # handshakes at a time
_WORDS = 1 << 14  # bytes of a follower's last words that are kept
_FATAL = re.compile(r"F\d{4} \S+\s+\d+ \S+\] (.*)")  # absl's line before it aborts


@dataclass(frozen=True)
class WorkerOptions:
    """How to follow: the command that follows a leader (it gets `--fd N`), and what this machine gives.

    threads: cores for a follower; 0 leaves it to the leader. platform: `cpu`, `cuda`, `tpu`, or nothing: the same.
    """

    command: Sequence[str]
    secret: bytes | None
    log: Callable[[str], None]
    threads: int = 0
    platform: str = ""


def listen(host: str, port: int, secret: bytes | None) -> socket.socket:
    """The socket on which leaders are awaited; port 0 takes a free one.

    Raises OptionError where other machines could come in without a secret, ResourceError where the port is taken or
    the address is not this machine's.
    """
    if secret is None and not is_loopback(host):
        raise OptionError(
            f"--host {host} lets other machines in, so a secret is needed: make one with "
            "`(umask 77; openssl rand -hex 32 > token)`, and give both sides --token-file token"
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
    """Serves one leader after another on a listening socket, until `stop` or an exception such as Ctrl-C."""

    listener: socket.socket
    worker: WorkerOptions
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _leader: Connection | None = None
    _process: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    def serve(self) -> None:
        """Wait for leaders; no process is left behind when it returns or raises."""
        strangers = threading.BoundedSemaphore(_STRANGERS)
        try:
            while not self._stopped:
                try:
                    client, address = self.listener.accept()
                except OSError:
                    if self._stopped:
                        return
                    time.sleep(0.1)  # out of file descriptors, or the client has gone again
                    continue
                if not strangers.acquire(blocking=False):
                    client.close()
                    continue
                arguments = (client, address[0], strangers)
                threading.Thread(target=self._meet, args=arguments, daemon=True).start()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the waiting and the process that follows a leader; may be called from any thread."""
        self._stopped = True
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            process = self._process
        if process is not None:
            _kill(process)

    def _meet(self, client: socket.socket, host: str, strangers: threading.BoundedSemaphore) -> None:
        """One connection, from its first byte to its end; every failure is one line."""
        connection = Connection(client, f"leader {host}")
        try:
            timer = threading.Timer(HANDSHAKE_SECONDS, connection.close)
            timer.daemon = True
            timer.start()
            try:
                self._agree(connection)
            finally:
                timer.cancel()
                strangers.release()
            try:
                ending = self._follow(connection)
            finally:
                self._release()
            if not self._stopped:
                self.worker.log(f"{ending}; ready again")
        except MinillamaError as error:
            self.worker.log(str(error))
        finally:
            connection.close()

    def _agree(self, connection: Connection) -> None:
        """Make sure of the leader; afterwards the worker is its own."""
        verify_leader(connection, self.worker.secret, HANDSHAKE_SECONDS / 2)
        theirs = parse_identity(
            connection.receive(HANDSHAKE_SECONDS / 2, head_limit=4096, arrays_limit=0), connection.name
        )
        ours = local_identity(threads=self.worker.threads, platform=self.worker.platform, port=free_ports(1)[0])
        if theirs.versions != ours.versions:
            refuse(
                connection, f"the worker runs {ours.versions}, the leader {theirs.versions}; install the same on both"
            )
        until = time.monotonic() + HANDSHAKE_SECONDS / 2
        while (busy := self._claim(connection)) is not None:
            # A leader that is gone is still let out: the next one may come at once.
            if not busy.peer_closed(0.0) or time.monotonic() > until:
                refuse(connection, f"busy with a {busy.name}; try again when it has left")
            time.sleep(0.05)
        try:
            connection.send(ours.message())
        except MinillamaError:
            self._release()
            raise

    def _claim(self, connection: Connection) -> Connection | None:
        """Make this the leader's connection; if there is another leader, its connection."""
        with self._lock:
            if self._leader is None:
                self._leader = connection
                return None
            return self._leader

    def _release(self) -> None:
        with self._lock:
            self._leader = None

    def _follow(self, connection: Connection) -> str:
        """Run the process that follows, to its end; how it ended, in words."""
        handle = connection.socket.fileno()
        try:
            process = subprocess.Popen(
                [*self.worker.command, "--fd", str(handle)],
                pass_fds=(handle,),
                stdin=subprocess.PIPE,  # whose end tells the process that this one has died
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is for this process, which ends the other
            )
        except OSError as error:
            self._tell(connection, f"cannot start {self.worker.command[0]}: {error.strerror}", None)
            return f"{connection.name} found no follower: cannot start {self.worker.command[0]}: {error.strerror}"
        with self._lock:
            self._process = process
        if self._stopped:
            _kill(process)
        self.worker.log(f"{connection.name} has come")
        try:
            words = _listen_until_end(process, connection, self.worker.log)
        finally:
            _end(process)
            with self._lock:
                self._process = None
        status = process.returncode
        if connection.peer_closed(0.0):
            return f"{connection.name} has left" if status == 0 else f"{connection.name} is gone; its work was ended"
        reason = _why(status, words)
        self._tell(connection, reason, status)
        return f"following {connection.name} has failed: {reason}"

    def _tell(self, connection: Connection, reason: str, status: int | None) -> None:
        with suppress(MinillamaError):
            connection.send(Message("ended", {"reason": reason, "status": status}))


def _listen_until_end(process: subprocess.Popen[bytes], connection: Connection, log: Callable[[str], None]) -> bytes:
    """Pass on what the follower has to say, until it ends or has outlived its leader; its last words."""
    assert process.stdout is not None
    output, words, line = process.stdout.fileno(), b"", b""
    poll, until = select.poll(), None
    poll.register(output, select.POLLIN)
    poll.register(connection.socket, HANGUP_EVENTS)
    while until is None or time.monotonic() < until:
        for handle, _ in poll.poll(None if until is None else 100):
            if handle != output:
                poll.unregister(handle)
                until = time.monotonic() + GRACE_SECONDS
                continue
            read = os.read(output, 1 << 16)
            if not read:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                return words
            words = (words + read)[-_WORDS:]
            *lines, line = (line + read)[-_WORDS:].split(b"\n")
            for whole in lines:
                text = whole.decode(errors="replace").strip()
                if text.startswith("minillama: ") and not text.startswith("minillama: error: "):
                    log(text.removeprefix("minillama: "))
    return words


def _why(status: int, words: bytes) -> str:
    """Why a follower ended, in one line."""
    lines = [line.strip() for line in words.decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if status == 2 and line.startswith("minillama: error: "):
            return line.removeprefix("minillama: error: ")[:300]
    if status < 0:
        fatal = next((found[1] for line in lines if (found := _FATAL.match(line))), "")
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"its process was ended by {name}" + (f" ({fatal[:200]})" if fatal else "")
    return f"its process ended with status {status}" + (f": {lines[-1][:200]}" if lines else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
