"""Who may lead a worker."""

import socket
import threading
from pathlib import Path

import pytest

from minillama.errors import MinillamaError, OptionError, ResourceError
from minillama.parallel.workers import secret as module
from minillama.parallel.workers.secret import is_loopback, read_secret, verify_leader, verify_worker
from minillama.parallel.workers.wire import Connection, Message


def meet(theirs: bytes | None, ours: bytes | None, *, loopback: bool) -> tuple[str, str]:
    """What the worker and the leader say at the end; nothing where they agree."""
    left, right = socket.socketpair()
    worker, leader = Connection(left, "leader"), Connection(right, "worker")
    said = {"worker": "", "leader": ""}

    def serve() -> None:
        try:
            verify_leader(worker, theirs, 5.0)
        except MinillamaError as error:
            said["worker"] = str(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        verify_worker(leader, ours, 5.0, loopback=loopback)
    except MinillamaError as error:
        said["leader"] = str(error)
    leader.close()
    thread.join(10.0)
    worker.close()
    return said["worker"], said["leader"]


@pytest.mark.parametrize("loopback", [True, False])
def test_the_same_secret_opens(loopback: bool) -> None:
    assert meet(b"open sesame", b"open sesame", loopback=loopback) == ("", "")


def test_on_loopback_both_may_have_none() -> None:
    assert meet(None, None, loopback=True) == ("", "")
    assert meet(None, b"open sesame", loopback=True) == ("", "")


@pytest.mark.parametrize("loopback", [True, False])
def test_a_wrong_secret_is_refused_on_both_sides(loopback: bool) -> None:
    worker, leader = meet(b"open sesame", b"open barley", loopback=loopback)
    assert worker.startswith("leader was refused: the leader's secret is not the worker's")
    assert leader.startswith("worker: the leader's secret is not the worker's; give both")


def test_a_missing_secret_is_asked_for() -> None:
    worker, leader = meet(b"open sesame", None, loopback=True)
    assert leader.startswith("worker asks for its secret")
    assert "closed the connection" in worker


def test_a_worker_elsewhere_has_to_prove_itself_too() -> None:
    _, leader = meet(None, b"open sesame", loopback=False)
    assert leader.startswith("worker does not know the leader's secret")


def test_neither_an_echo_nor_a_recording_is_a_proof() -> None:
    """A leader without the secret sends back what it hears: the roles keep that from working."""
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


def test_the_secret_never_travels() -> None:
    left, right = socket.socketpair()
    heard: list[bytes] = []
    connection = Connection(left, "leader")
    send = connection.send
    connection.send = lambda message: (heard.append(str(message).encode()), send(message))[1]  # type: ignore[method-assign]
    thread = threading.Thread(target=verify_leader, args=(connection, b"open sesame", 5.0))
    thread.start()
    verify_worker(Connection(right, "worker"), b"open sesame", 5.0, loopback=False)
    thread.join()
    assert len(heard) == 2 and not any(b"open sesame" in message for message in heard)
    connection.close()
    right.close()


def test_a_stranger_cannot_make_it_read_much() -> None:
    left, right = socket.socketpair()
    worker, stranger = Connection(left, "leader"), Connection(right, "worker")
    stranger.send(Message("answer", {"nonce": "x" * 10_000}))
    with pytest.raises(MinillamaError, match="too large"):
        verify_leader(worker, b"open sesame", 1.0)
    worker.close()
    stranger.close()


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    leader = Connection(right, "worker")
    Connection(left, "leader").send(Message("challenge", {"protocol": 2, "nonce": "x", "secret": False}))
    with pytest.raises(ResourceError, match="worker speaks protocol 2, the leader 1"):
        verify_worker(leader, None, 1.0, loopback=True)
    left.close()
    leader.close()


def test_reading_a_secret(tmp_path: Path) -> None:
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
