"""Messages between a leader and its workers: a line of JSON and raw arrays, in frames of bounded size over TCP.

A frame is 16 bytes (magic, bytes of the head, bytes of the arrays; little-endian), the head as JSON, and the arrays,
each at a multiple of 16. Nothing that arrives is executed or unpickled, and nothing large is read before its size is
known to be allowed.
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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from minillama.errors import FormatError, ResourceError, UnsupportedError

MAGIC = b"mlm1"
HEAD_LIMIT = 1 << 20  # bytes of JSON in a message
ARRAYS_LIMIT = 1 << 28  # bytes of arrays in a message
SEND_SECONDS = 30.0  # a peer that takes nothing for so long, or stops in the middle of a message, is lost
KEEPALIVE_IDLE_SECONDS = 5  # of silence before TCP asks whether the other machine is still there
KEEPALIVE_PROBES = 3  # questions without an answer, one every KEEPALIVE_INTERVAL_SECONDS, before it is lost
KEEPALIVE_INTERVAL_SECONDS = 3

_PREFIX = struct.Struct("<4sIQ")
_ALIGNMENT = 16
_ARRAYS = 1024  # most arrays in a message
_AXES = 8
_DTYPES = {
    name: np.dtype(name)
    for name in ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
}  # fmt: skip
HANGUP_EVENTS = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


@dataclass(frozen=True)
class Message:
    """What is to be done (`op`), plain values that JSON can say, and numeric arrays."""

    op: str
    values: Mapping[str, object] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


class Connection:
    """A TCP connection that carries messages; one thread may send while another receives.

    name: how errors call the other side, such as `worker 10.0.0.2:50052`.
    Raises UnsupportedError on systems without poll(2).
    """

    def __init__(self, opened: socket.socket, name: str) -> None:
        if os.name != "posix":
            raise UnsupportedError("workers need Linux or macOS; on Windows use WSL")
        self.name = name
        self.socket = opened
        opened.settimeout(SEND_SECONDS)
        if opened.family != socket.AF_UNIX:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _watch_silence(opened)
        self._sending, self._receiving = threading.Lock(), threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message whole; raises ResourceError where the other side is gone or takes nothing for 30 s."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """The same for a message that is encoded already, for several receivers."""
        try:
            with self._sending:
                self.socket.sendall(frame)
        except OSError as error:
            raise ResourceError(f"{self.name} cannot be reached any more: {_reason(error)}") from error

    def receive(
        self, timeout: float | None = None, *, head_limit: int = HEAD_LIMIT, arrays_limit: int = ARRAYS_LIMIT
    ) -> Message:
        """The next message.

        timeout: seconds until it must have begun; None waits for ever (a machine that vanishes is noticed by TCP).
        Raises ResourceError where the connection ends or the time is over, FormatError for anything but a message.
        """
        with self._receiving:
            if timeout is not None and not self.wait_readable(timeout):
                raise ResourceError(f"{self.name} has not answered within {timeout:g} s")
            magic, head, arrays = _PREFIX.unpack(self._read(_PREFIX.size, first=True))
            if magic != MAGIC:
                raise FormatError(f"{self.name} does not speak minillama's protocol; is another program there?")
            if head > head_limit or arrays > arrays_limit:
                raise FormatError(f"{self.name} announces a message of {head} + {arrays} bytes, which is too large")
            return decode(self._read(head), self._read(arrays), self.name)

    def __iter__(self) -> Iterator[Message]:
        """Messages until the other side leaves; raises as `receive` does where it vanishes instead."""
        while (message := self.receive()).op != "leave":
            yield message

    def wait_readable(self, timeout: float) -> bool:
        """Whether a message, or the end of the connection, is there within so many seconds."""
        return self._poll(select.POLLIN, timeout)

    def peer_closed(self, timeout: float) -> bool:
        """Whether the other side has closed the connection, even where messages are left to be read.

        timeout: seconds to wait for that.
        """
        return self._poll(HANGUP_EVENTS, timeout)

    def close(self) -> None:
        """End the connection; a thread that waits for a message gets a ResourceError."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _poll(self, events: int, seconds: float) -> bool:
        poll = select.poll()
        try:
            poll.register(self.socket, events)
            return bool(poll.poll(1000 * seconds))
        except (OSError, ValueError):
            return True  # closed by another thread: reading says so

    def _read(self, size: int, *, first: bool = False) -> bytearray:
        """So many bytes; the first ones of a message may be long in coming, the others not."""
        whole = bytearray(size)
        view, done = memoryview(whole), 0
        while done < size:
            try:
                if first and done == 0:
                    self._wait()
                count = self.socket.recv_into(view[done:])
            except OSError as error:
                raise ResourceError(f"{self.name} cannot be reached any more: {_reason(error)}") from error
            if count == 0:
                raise ResourceError(f"{self.name} has closed the connection")
            done += count
        return whole

    def _wait(self) -> None:
        while not self.wait_readable(3600.0):
            pass


def encode(message: Message) -> bytes:
    """The frame of a message; raises FormatError for arrays or sizes that may not travel."""
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


def decode(head: bytearray, body: bytearray, name: str) -> Message:
    """The message in a frame's two parts; raises FormatError naming the sender for anything else."""
    try:
        op, values, kinds = json.loads(head)
        if not (isinstance(op, str) and isinstance(values, dict) and isinstance(kinds, list)):
            raise ValueError("not an operation with values and arrays")
        if len(kinds) > _ARRAYS:
            raise ValueError(f"{len(kinds)} arrays")
        arrays, start = [], 0
        for kind, shape in kinds:
            dtype, size = _DTYPES[kind], _elements(shape)
            start += -start % _ALIGNMENT
            arrays.append(np.frombuffer(body, dtype, size, start).reshape(shape) if size else np.empty(shape, dtype))
            start += size * dtype.itemsize
        if start != len(body):
            raise ValueError(f"{len(body)} bytes of arrays, not {start}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{name} has sent a malformed message ({type(error).__name__})") from error
    return Message(op, values, tuple(arrays))


def _elements(shape: list[int]) -> int:
    if not isinstance(shape, list) or len(shape) > _AXES:
        raise ValueError("not a shape")
    if not all(type(length) is int and 0 <= length <= ARRAYS_LIMIT for length in shape):
        raise ValueError("impossible lengths")
    return math.prod(shape)


def _watch_silence(opened: socket.socket) -> None:
    """Let TCP notice, in about 15 s, that the other machine or the way to it has vanished without a word."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    wanted = {
        idle: KEEPALIVE_IDLE_SECONDS,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
        "TCP_KEEPCNT": KEEPALIVE_PROBES,
    }
    lost = KEEPALIVE_IDLE_SECONDS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS
    for option, value in (wanted | {"TCP_USER_TIMEOUT": 1000 * lost}).items():
        number = getattr(socket, option, None)
        if number is not None:
            with suppress(OSError):  # systems that do not know it
                opened.setsockopt(socket.IPPROTO_TCP, number, value)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing moves for {SEND_SECONDS:g} s"
    if error.errno == errno.EBADF:
        return "the connection was closed here"
    return (error.strerror or str(error) or type(error).__name__).lower()
