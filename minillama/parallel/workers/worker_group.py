"""A group of connected workers: exchange messages, notice the loss of a worker, name it.

A thread for each worker receives its messages, so that the silence of any worker is noticed. The first loss is not
always the cause: where a process dies, others fail because of it. So the group waits a moment for other losses.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from minillama.errors import FormatError, MinillamaError, ResourceError
from minillama.parallel.workers.heartbeat import send_signs_of_life
from minillama.parallel.workers.rendezvous import ProcessConfig, ReachedWorker
from minillama.parallel.workers.wire import Connection, Message, SilenceError, encode
from minillama.printable_text import printable_line

LEAVE_SECONDS = 6.0  # for workers to finish; a worker kills its process after half of it
MOST_UNREAD = 1024  # messages of a worker; the others stay in its connection
_ROOT_CAUSE_SECONDS = 1.0  # to find out whether the first failure is a consequence of another
_ABORT = -6  # SIGABRT: JAX aborts a process that has lost its coordinator

Ending = Message | MinillamaError  # the last message of a worker, or the error that ends its connection


@dataclass(frozen=True)
class GroupMember:
    """A worker of a group, with its process configuration, JAX devices and platform."""

    reached: ReachedWorker
    place: ProcessConfig
    devices: int
    platform: str


class WorkerGroup:
    """A group of connected workers. As a context manager it ends their processes on exit.

    When a worker is lost, the group fails: pending and later calls raise the same ResourceError, and the other workers
    are released. silence: seconds without a sign of life after which a worker is lost; 0 for no limit.
    """

    members: tuple[GroupMember, ...] = ()

    def __init__(self, connections: Sequence[Connection], silence: float = 0.0) -> None:
        self.connections = tuple(connections)
        self._changed = threading.Condition()  # guards all that follows
        self._unread: tuple[deque[Message], ...] = tuple(deque() for _ in self.connections)
        self._endings: dict[int, Ending] = {}
        self._failure = ""
        self._closed = False
        self._stop_signs = send_signs_of_life(self.connections, silence) if silence else lambda: None
        for number, connection in enumerate(self.connections):
            connection.expect_signs_of_life(silence, already=False)
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def __enter__(self) -> "WorkerGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.connections)

    def send(self, message: Message, worker: int | None = None) -> None:
        """Send to one worker, or to all."""
        chosen = self.connections if worker is None else (self.connections[worker],)
        if self._failure:
            raise ResourceError(self._failure)
        try:
            frame = encode(message)
            for connection in chosen:
                connection.send_frame(frame)
        except ResourceError as error:
            raise self._loss(error) from error

    def receive(self, worker: int = 0, timeout: float | None = None) -> Message:
        """Receive the next message of a worker.

        timeout: seconds; the ResourceError of a timeout does not fail the group.
        """
        message = self.next_message(worker, timeout)
        if message is None:
            raise ResourceError(f"{self.connections[worker].name} has not answered within {timeout:g} s")
        return message

    def next_message(self, worker: int, timeout: float | None) -> Message | None:
        """The next message of a worker; None after a timeout in seconds."""
        unread = self._unread[worker]
        with self._changed:
            if not self._changed.wait_for(lambda: unread or self._failure or self._closed, timeout):
                return None
            if not unread:
                raise ResourceError(self._failure or "the workers have been released")
            self._changed.notify_all()
            return unread.popleft()

    def close(self) -> None:
        """End all worker processes and wait for them, up to LEAVE_SECONDS; idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._stop_signs()
        for connection in self.connections:
            with suppress(MinillamaError, OSError):
                connection.send(Message("leave"))
                connection.socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LEAVE_SECONDS
        for connection in self.connections:
            connection.peer_closed(max(0.0, until - time.monotonic()))
            connection.close()

    def _loss(self, error: ResourceError) -> ResourceError:
        """Error of a failed call: names the lost worker, once that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._closed, 3 * _ROOT_CAUSE_SECONDS)
            return ResourceError(self._failure) if self._failure else error

    def _listen(self, number: int) -> None:
        """Receive a worker's messages to its end."""
        unread = self._unread[number]
        ending: Ending
        try:
            while (ending := self.connections[number].receive()).op != "ended":
                with self._changed:
                    self._changed.wait_for(lambda: len(unread) < MOST_UNREAD or self._failure or self._closed)
                    unread.append(ending)
                    self._changed.notify_all()
        except MinillamaError as error:
            ending = error
        self._end(number, ending)

    def _end(self, number: int, ending: Ending) -> None:
        """Record the end of a worker; the first one fails the group.

        It waits a moment for the root cause.
        """
        with self._changed:
            self._endings[number] = ending
            self._changed.notify_all()
            if self._closed or len(self._endings) > 1:
                return
            self._changed.wait_for(self._is_certain, _ROOT_CAUSE_SECONDS)
            first = min(self._endings, key=lambda number: root_cause_rank(self._endings[number]))
            self._failure = self._failure_message(first)
            self._changed.notify_all()
        self._stop_signs()
        for connection in self.connections:  # wakes the other threads and releases the other workers
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _is_certain(self) -> bool:
        """Whether the root cause is known: its rank is certain, or all have ended."""
        return len(self._endings) == len(self) or any(not root_cause_rank(end) for end in self._endings.values())

    def _failure_message(self, number: int) -> str:
        ending, name = self._endings[number], self.connections[number].name
        if isinstance(ending, Message):
            reason = f"{name} has failed: {printable_line(str(ending.values.get('reason')), 300)}"
        elif isinstance(ending, SilenceError | FormatError):
            reason = str(ending)
        else:
            reason = f"{name} is lost: its connection has ended"
        return reason + ("; the other workers are released" if len(self) > 1 else "")


def root_cause_rank(ending: Ending) -> int:
    """Rank the end of a worker: the lower, the more likely this worker failed first.

    Order: stopped or killed by a signal, lost connection, its own error, another exit status, aborted by JAX.
    """
    if isinstance(ending, SilenceError):
        return 0
    if not isinstance(ending, Message):
        return 1
    status = ending.values.get("status")
    if type(status) is not int:
        return 2
    return 4 if status == _ABORT else 0 if status < 0 else 2 if status == 2 else 3
