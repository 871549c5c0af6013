"""Wire protocol between leader and workers: JSON and raw arrays in bounded frames over TCP.

A frame is a prefix of 16 bytes (magic, bytes of the head, bytes of the arrays; little-endian), the head as JSON, and
the arrays, each aligned to 16 bytes. Received data is never executed or unpickled. Sizes are checked before reading.
"""

import errno
import json
import math
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from minillama.errors import FormatError, ResourceError, UnsupportedError

MAGIC = b"mlm1"
ALIVE = "alive"  # the operation of a sign of life, which no caller of `receive` sees
HEAD_LIMIT = 1 << 20  # bytes of JSON in a message
ARRAYS_LIMIT = 1 << 28  # bytes of arrays in a message
SEND_SECONDS = 30.0  # a peer that stalls this long in the middle of a message is lost
KEEPALIVE_IDLE_SECONDS = 5  # of silence before the first TCP keepalive probe
KEEPALIVE_PROBES = 3  # unanswered probes until the peer is lost
KEEPALIVE_INTERVAL_SECONDS = 3

_PREFIX = struct.Struct("<4sIQ")
_ALIGNMENT = 16
_MAX_ARRAYS = 1024  # in a message
_MAX_AXES = 8
_DTYPES = {
    name: np.dtype(name)
    for name in ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
}  # fmt: skip
HANGUP_EVENTS = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


@dataclass(frozen=True)
class Message:
    """A message: an operation (`op`), JSON values and numeric arrays."""

    op: str
    values: Mapping[str, object] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


class SilenceError(ResourceError):
    """A peer that is connected, but sends no signs of life any more."""


class Connection:
    """TCP connection for messages; one thread may send while another receives.

    name: the peer's name in error messages, such as `worker 10.0.0.2:50052`.
    Raises UnsupportedError on systems without poll(2).
    """

    def __init__(self, opened: socket.socket, name: str) -> None:
        if os.name != "posix":
            raise UnsupportedError("workers need Linux or macOS; on Windows use WSL")
        self.name = name
        self.socket = opened
        self._silence_limit = 0.0
        self._heard: float | None = None  # time of the last message, where signs of life are due
        opened.settimeout(SEND_SECONDS)
        if opened.family != socket.AF_UNIX:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _enable_keepalive(opened)
        self._sending, self._receiving = threading.Lock(), threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message; raises ResourceError if the peer is gone or stalls for 30 s."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded message, so that several receivers share the encoding."""
        try:
            with self._sending:
                self.socket.sendall(frame)
        except OSError as error:
            raise ResourceError(f"{self.name} is no longer reachable: {_reason(error)}") from error

    def expect_signs_of_life(self, limit: float, *, already: bool) -> None:
        """From now on, count the peer as lost after some seconds without any message.

        limit: seconds; 0 for no limit. already: False if the peer is starting; its first message then counts.
        """
        self._silence_limit = limit
        self._heard = time.monotonic() if limit and already else None

    def send_sign_of_life(self) -> None:
        """Tell the peer that this process runs; never waits, and never fails.

        Not sent where a message is on its way, or where the peer reads nothing.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            if self._poll(select.POLLOUT, 0.0):
                self.socket.sendall(_ALIVE_FRAME)
        except OSError:
            return  # the receiving thread finds out
        finally:
            self._sending.release()

    def receive(
        self, timeout: float | None = None, *, head_limit: int = HEAD_LIMIT, arrays_limit: int = ARRAYS_LIMIT
    ) -> Message:
        """Receive the next message.

        timeout: seconds until its first byte; None waits as long as the peer lives (TCP keepalive detects a lost
        machine).
        Raises ResourceError if the connection ends, the peer is silent or the timeout expires, FormatError for invalid
        data.
        """
        message = self.next_message(timeout, head_limit=head_limit, arrays_limit=arrays_limit)
        if message is None:
            raise ResourceError(f"{self.name} has not answered within {timeout:g} s")
        return message

    def next_message(
        self, timeout: float | None, *, head_limit: int = HEAD_LIMIT, arrays_limit: int = ARRAYS_LIMIT
    ) -> Message | None:
        """The next message, or None if it has not begun within some seconds; see `receive`."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        with self._receiving:
            while self._wait_for_data(until):
                magic, head, arrays = _PREFIX.unpack(self._read(_PREFIX.size))
                if magic != MAGIC:
                    raise FormatError(
                        f"{self.name} does not use minillama's protocol; is another program listening there?"
                    )
                if head > head_limit or arrays > arrays_limit:
                    raise FormatError(f"{self.name} announces a message of {head} + {arrays} bytes, which is too large")
                message = decode(self._read(head), self._read(arrays), self.name)
                if self._silence_limit:
                    self._heard = time.monotonic()
                if message.op != ALIVE:
                    return message
        return None

    def __iter__(self) -> Iterator[Message]:
        """Iterate over messages until the peer sends `leave`; raises as `receive` does."""
        while (message := self.receive()).op != "leave":
            yield message

    def wait_readable(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True on data or the end of the connection."""
        return self._poll(select.POLLIN, timeout)

    def peer_closed(self, timeout: float) -> bool:
        """Return True if the peer has closed the connection, even if messages are still unread.

        timeout: seconds to wait.
        """
        return self._poll(HANGUP_EVENTS, timeout)

    def close(self) -> None:
        """Close the connection; a thread in `receive` gets a ResourceError."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _poll(self, events: int, seconds: float) -> bool:
        poll = select.poll()
        try:
            poll.register(self.socket, events)
            return bool(poll.poll(1000 * seconds))
        except (OSError, ValueError):
            return True  # closed by another thread: the next read raises

    def _wait_for_data(self, until: float) -> bool:
        """Wait for data until a time; raises SilenceError."""
        while True:
            silent = math.inf
            if self._heard is not None:
                silent = self._heard + self._silence_limit
            if self.wait_readable(max(0.0, min(until, silent, time.monotonic() + 3600.0) - time.monotonic())):
                return True
            now = time.monotonic()
            if now >= silent:
                raise SilenceError(
                    f"{self.name} is lost: no sign of life for {self._silence_limit:g} s; "
                    "is it stopped, or its machine out of memory?"
                )
            if now >= until:
                return False

    def _read(self, size: int) -> bytearray:
        """Read `size` bytes of a message that has begun."""
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            try:
                count = self.socket.recv_into(view[done:])
            except OSError as error:
                raise ResourceError(f"{self.name} is no longer reachable: {_reason(error)}") from error
            if count == 0:
                raise ResourceError(f"{self.name} has closed the connection")
            done += count
        return data


@contextmanager
def close_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Close a connection if a block takes longer; the peer may send byte after byte."""
    timer = threading.Timer(seconds, connection.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def encode(message: Message) -> bytes:
    """Encode a message as a frame; raises FormatError for unsupported array types and sizes."""
    kinds, parts, total = [], [b"", b""], 0
    for array in message.arrays:
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            raise FormatError(f"an array of {array.dtype} cannot be sent in {message.op}; convert it first")
        padding = -total % _ALIGNMENT
        parts += (bytes(padding), little.data.cast("B") if little.size else b"")
        total += padding + little.nbytes
        kinds.append((little.dtype.str, array.shape))
    head = json.dumps((message.op, message.values, kinds), separators=(",", ":")).encode()
    if len(head) > HEAD_LIMIT or total > ARRAYS_LIMIT:
        raise FormatError(f"message {message.op} of {len(head)} + {total} bytes is too large to send")
    parts[:2] = _PREFIX.pack(MAGIC, len(head), total), head
    return b"".join(parts)


_ALIVE_FRAME = encode(Message(ALIVE))


def decode(head: bytearray, body: bytearray, name: str) -> Message:
    """Decode a frame's head and body; raises FormatError naming the sender for invalid data."""
    try:
        op, values, kinds = json.loads(head)
        if not (isinstance(op, str) and isinstance(values, dict) and isinstance(kinds, list)):
            raise ValueError("not an operation with values and arrays")
        if len(kinds) > _MAX_ARRAYS:
            raise ValueError(f"{len(kinds)} arrays")
        arrays, start = [], 0
        for kind, shape in kinds:
            dtype, size = _DTYPES[kind], _elements(shape)
            start += -start % _ALIGNMENT
            if start + size * dtype.itemsize > len(body):
                raise ValueError("arrays that are larger than the message")
            arrays.append(np.frombuffer(body, dtype, size, start).reshape(shape) if size else np.empty(shape, dtype))
            start += size * dtype.itemsize
        if start != len(body):
            raise ValueError(f"{len(body)} bytes of arrays, not {start}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{name} has sent a malformed message ({type(error).__name__})") from error
    return Message(op, values, tuple(arrays))


def _elements(shape: list[int]) -> int:
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise ValueError("not a shape")
    if not all(type(length) is int and 0 <= length <= ARRAYS_LIMIT for length in shape):
        raise ValueError("impossible lengths")
    return math.prod(shape)


def _enable_keepalive(opened: socket.socket) -> None:
    """Enable TCP keepalive, which detects a lost machine or network in about 15 s."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    options = {
        idle: KEEPALIVE_IDLE_SECONDS,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
        "TCP_KEEPCNT": KEEPALIVE_PROBES,
    }
    lost = KEEPALIVE_IDLE_SECONDS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS
    for option, value in (options | {"TCP_USER_TIMEOUT": 1000 * lost}).items():
        number = getattr(socket, option, None)
        if number is not None:
            with suppress(OSError):  # not supported by this system
                opened.setsockopt(socket.IPPROTO_TCP, number, value)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no progress for {SEND_SECONDS:g} s"
    if error.errno == errno.EBADF:
        return "the connection was closed here"
    return (error.strerror or str(error) or type(error).__name__).lower()
