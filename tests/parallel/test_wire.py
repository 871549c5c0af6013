"""Frames over a socket: round trips, and rejection of all other data."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from minillama.errors import FormatError, ResourceError
from minillama.parallel.workers import wire
from minillama.parallel.workers.wire import Connection, Message, decode, encode

DTYPES = sorted(wire._DTYPES)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda name: arrays_of.arrays(name, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
VALUES = st.dictionaries(st.text(max_size=5), PLAIN, max_size=4)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, Connection]]:
    left, right = socket.socketpair()
    ends = Connection(left, "the left"), Connection(right, "the right")
    yield ends
    for end in ends:
        end.close()


def parts(frame: bytes) -> tuple[bytearray, bytearray]:
    magic, head, body = struct.unpack("<4sIQ", frame[:16])
    assert magic == wire.MAGIC and len(frame) == 16 + head + body
    return bytearray(frame[16 : 16 + head]), bytearray(frame[16 + head :])


@given(st.text(max_size=9), VALUES, st.tuples(ARRAYS, ARRAYS))
def test_round_trip(op: str, values: dict[str, object], arrays: tuple[np.ndarray, ...]) -> None:
    message = Message(op, values, arrays)
    found = decode(*parts(encode(message)), "x")
    assert (found.op, found.values) == (message.op, message.values)
    for before, after in zip(message.arrays, found.arrays, strict=True):
        assert after.dtype == before.dtype and after.shape == before.shape and after.tobytes() == before.tobytes()
        assert not after.size or after.flags.aligned


def test_array_layouts() -> None:
    rows = np.arange(12, dtype=">i4").reshape(3, 4)
    for array in (rows, rows.T, rows[::2, ::-1], np.array(2.5)):
        np.testing.assert_array_equal(decode(*parts(encode(Message("x", {}, (array,)))), "x").arrays[0], array)


@given(VALUES, ARRAYS, st.data())
def test_corrupt_messages(values: dict[str, object], array: np.ndarray, data: st.DataObject) -> None:
    head, body = parts(encode(Message("step", values, (array,))))
    for part in (head, body):
        if part and data.draw(st.booleans()):
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
        if part and data.draw(st.booleans()):
            del part[data.draw(st.integers(0, len(part) - 1)) :]
    try:
        found = decode(head, body, "peer")
    except FormatError as error:
        assert str(error).startswith("peer has sent a malformed message")
    else:
        assert sum(array.nbytes for array in found.arrays) <= len(body)


@given(st.binary(max_size=200))
def test_random_bytes(noise: bytes) -> None:
    left, right = socket.socketpair()
    connection = Connection(right, "peer")
    left.sendall(noise)
    left.close()
    with pytest.raises((FormatError, ResourceError), match=r"^peer "):
        connection.receive(1.0)
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b"1",
        b'["x",{},[["|O8",[1]]]]',
        b'["x",{},[["<f4",[4611686018427387904,0]]]]',
        b'["x",{},[["<f4",[-1]]]]',
        b'["x",{},[["<f4",[true]]]]',
        b'["x",{},[["<f4",[16777216,16777216]]]]',
        b'["x",{},[["<f4",[1]]]]',
        b'["x",[],[]]',
        b'["x",{"n":' + b"9" * 10_000 + b"},[]]",
        b"\xff",
        json.dumps(["x", {}, [["|u1", [0]]] * 2000]).encode(),
    ],
)
def test_invalid_heads(head: bytes) -> None:
    with pytest.raises(FormatError, match=r"^x has sent a malformed message"):
        decode(bytearray(head), bytearray(), "x")


@pytest.mark.parametrize("sizes", [(wire.HEAD_LIMIT + 1, 0), (0, wire.ARRAYS_LIMIT + 1), (2**32 - 1, 2**64 - 1)])
def test_size_limits(pair: tuple[Connection, Connection], sizes: tuple[int, int]) -> None:
    left, right = pair
    left.socket.sendall(struct.pack("<4sIQ", wire.MAGIC, *sizes))
    with pytest.raises(FormatError, match="which is too large"):
        right.receive(1.0)


def test_unsupported_arrays(pair: tuple[Connection, Connection]) -> None:
    with pytest.raises(FormatError, match="an array of object"):
        pair[0].send(Message("x", {}, (np.array([None]),)))
    with pytest.raises(FormatError, match="too large to send"):
        pair[0].send(Message("x", {}, (np.zeros(wire.ARRAYS_LIMIT + 1, np.uint8),)))


def test_other_program(pair: tuple[Connection, Connection]) -> None:
    pair[0].socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with pytest.raises(FormatError, match="the right does not use minillama's protocol"):
        pair[1].receive(1.0)


def test_timeouts_and_closed_connections(pair: tuple[Connection, Connection]) -> None:
    left, right = pair
    started = time.monotonic()
    with pytest.raises(ResourceError, match=r"^the right has not answered within 0\.05 s"):
        right.receive(0.05)
    assert not right.wait_readable(0.0) and not right.peer_closed(0.0)
    threading.Timer(0.05, left.close).start()
    with pytest.raises(ResourceError, match=r"^the right has closed the connection"):
        right.receive()
    assert right.peer_closed(0.0)
    threading.Timer(0.05, left.close).start()
    assert time.monotonic() - started < 5
    with pytest.raises(ResourceError, match=r"^the left is no longer reachable"):
        left.send(Message("x"))


def test_close_wakes_receive(pair: tuple[Connection, Connection]) -> None:
    threading.Timer(0.05, pair[1].close).start()
    with pytest.raises(ResourceError, match=r"^the right"):
        pair[1].receive()


def test_iteration_ends_at_leave(pair: tuple[Connection, Connection]) -> None:
    left, right = pair
    for op in ("a", "b", "leave", "c"):
        left.send(Message(op))
    assert [message.op for message in right] == ["a", "b"]
    assert right.receive().op == "c"


def test_concurrent_senders(pair: tuple[Connection, Connection]) -> None:
    left, right = pair
    sent = [Message("x", {"n": number}, (np.full(5000, number),)) for number in range(8)]
    threads = [threading.Thread(target=lambda m=message: [left.send(m) for _ in range(5)]) for message in sent]
    for thread in threads:
        thread.start()
    found = [right.receive(5.0) for _ in range(40)]
    for thread in threads:
        thread.join()
    assert sorted(m.values["n"] for m in found) == sorted(list(range(8)) * 5)
    assert all((m.arrays[0] == m.values["n"]).all() for m in found)


def test_socket_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as opened:
        connection = Connection(opened, "x")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


class CountedSocket:
    """A socket that counts its calls."""

    def __init__(self, plain: socket.socket) -> None:
        self.plain, self.calls = plain, Counter[str]()

    def __getattr__(self, name: str) -> object:
        self.calls[name] += 1
        return getattr(self.plain, name)


def test_a_message_is_few_calls(pair: tuple[Connection, Connection]) -> None:
    """Latency: one call sends a message; its prefix, its head and its arrays are read in one each."""
    left, right = pair
    left.socket, right.socket = CountedSocket(left.socket), CountedSocket(right.socket)
    message = Message("step", {"n": 1, "position": 512}, (np.zeros(32, np.float32),))
    for _ in range(10):
        left.send(message)
        right.receive()
    assert left.socket.calls["sendall"] == left.socket.calls.total() == 10
    assert right.socket.calls["recv_into"] == 30
