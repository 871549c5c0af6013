"""Mutual authentication of leader and worker."""

import socket
import threading
from pathlib import Path

import pytest

from minillama.errors import MinillamaError, OptionError, ResourceError
from minillama.parallel.workers import secret as module
from minillama.parallel.workers.secret import is_loopback, read_secret, verify_leader, verify_worker
from minillama.parallel.workers.wire import Connection, Message


def handshake(theirs: bytes | None, ours: bytes | None, *, loopback: bool) -> tuple[str, str]:
    """Errors of worker and leader after a handshake; empty if it succeeds."""
    left, right = socket.socketpair()
    worker, leader = Connection(left, "leader"), Connection(right, "worker")
    errors = {"worker": "", "leader": ""}

    def serve() -> None:
        try:
            verify_leader(worker, theirs, 5.0)
        except MinillamaError as error:
            errors["worker"] = str(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        verify_worker(leader, ours, 5.0, loopback=loopback)
    except MinillamaError as error:
        errors["leader"] = str(error)
    leader.close()
    thread.join(10.0)
    worker.close()
    return errors["worker"], errors["leader"]


@pytest.mark.parametrize("loopback", [True, False])
def test_same_secret(loopback: bool) -> None:
    assert handshake(b"open sesame", b"open sesame", loopback=loopback) == ("", "")


def test_no_secret_on_loopback() -> None:
    assert handshake(None, None, loopback=True) == ("", "")
    assert handshake(None, b"open sesame", loopback=True) == ("", "")


@pytest.mark.parametrize("loopback", [True, False])
def test_wrong_secret(loopback: bool) -> None:
    worker, leader = handshake(b"open sesame", b"open barley", loopback=loopback)
    assert worker.startswith("leader was refused: the secrets of leader and worker differ")
    assert leader.startswith("worker: the secrets of leader and worker differ; give both")


def test_missing_secret() -> None:
    worker, leader = handshake(b"open sesame", None, loopback=True)
    assert leader.startswith("worker requires a secret")
    assert "closed the connection" in worker


def test_remote_worker_must_prove_the_secret() -> None:
    _, leader = handshake(None, b"open sesame", loopback=False)
    assert leader.startswith("worker does not have the leader's secret")


def test_reflection_and_replay() -> None:
    """The role in the proof defeats a leader that reflects the worker's messages."""
    proofs = {module._proof(b"open sesame", role, a, b) for role in ("worker", "leader") for a, b in ("xy", "yx")}
    assert len(proofs) == 4
    left, right = socket.socketpair()
    worker, leader = Connection(left, "leader"), Connection(right, "worker")
    for attempt in ({"nonce": "a", "proof": ""}, {"nonce": None}, {}):
        leader.send(Message("answer", {"protocol": module.PROTOCOL} | attempt))
        with pytest.raises(ResourceError, match="was refused"):
            verify_leader(worker, b"open sesame", 1.0)
    worker.close()
    leader.close()


def test_secret_is_never_sent() -> None:
    left, right = socket.socketpair()
    sent: list[bytes] = []
    connection = Connection(left, "leader")
    send = connection.send
    connection.send = lambda message: (sent.append(str(message).encode()), send(message))[1]  # type: ignore[method-assign]
    thread = threading.Thread(target=verify_leader, args=(connection, b"open sesame", 5.0))
    thread.start()
    verify_worker(Connection(right, "worker"), b"open sesame", 5.0, loopback=False)
    thread.join()
    assert len(sent) == 2 and not any(b"open sesame" in message for message in sent)
    connection.close()
    right.close()


def test_limit_before_authentication() -> None:
    left, right = socket.socketpair()
    worker, peer = Connection(left, "leader"), Connection(right, "worker")
    peer.send(Message("answer", {"nonce": "x" * 10_000}))
    with pytest.raises(MinillamaError, match="too large"):
        verify_leader(worker, b"open sesame", 1.0)
    worker.close()
    peer.close()


def test_protocol_version(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    leader = Connection(right, "worker")
    Connection(left, "leader").send(Message("challenge", {"protocol": 2, "nonce": "x", "secret": False}))
    with pytest.raises(ResourceError, match="worker uses protocol 2, the leader 1"):
        verify_worker(leader, None, 1.0, loopback=True)
    left.close()
    leader.close()


def test_read_secret(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("open sesame\n")
    file.chmod(0o600)
    assert read_secret(file, "another one") == b"open sesame"
    assert read_secret(None, " open sesame ") == b"open sesame"
    assert read_secret(None, None) is None
    with pytest.raises(OptionError, match="holds 3 characters"):
        read_secret(None, "abc")
    with pytest.raises(ResourceError, match="cannot read the token file"):
        read_secret(tmp_path / "none", None)
    file.chmod(0o644)
    with pytest.raises(OptionError, match="chmod 600"):
        read_secret(file, None)


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.2", "::", "fe80::1%eth0", "node3", "")))
