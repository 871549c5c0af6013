"""Mutual authentication of leader and worker."""

import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minillama.errors import MinillamaError, OptionError, ResourceError
from minillama.parallel.workers import secret as module
from minillama.parallel.workers.secret import is_loopback, own_secret, read_secret, verify_leader, verify_worker
from minillama.parallel.workers.wire import Connection, Message


@pytest.fixture(autouse=True)
def own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the user's own secret, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "minillama" / "worker-secret"


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


def test_the_own_secret_on_loopback() -> None:
    assert handshake(None, None, loopback=True) == ("", "")
    assert handshake(None, b"open sesame", loopback=True) == ("", "")


def test_a_worker_of_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each side reads its own user's file, and neither believes the other."""
    found = iter([b"the secret of one user", b"the secret of another"])
    monkeypatch.setattr(module, "own_secret", lambda: next(found))
    worker, leader = handshake(None, None, loopback=True)
    line = "leader and worker belong to different users or machines, and have no common secret; give both"
    assert worker.startswith(f"leader was refused: {line}") and leader.startswith(f"worker: {line}")


def test_a_worker_that_only_claims_to_be_the_users_own() -> None:
    """A program of another user, on a port that the leader connects to, must prove the secret too."""
    left, right = socket.socketpair()
    fake, leader = Connection(left, "leader"), Connection(right, "worker")
    fake.send(Message("challenge", {"protocol": module.PROTOCOL, "nonce": "x", "secret": "own"}))
    fake.send(Message("welcome", {"proof": ""}))
    with pytest.raises(ResourceError, match="worker does not have the leader's secret"):
        verify_worker(leader, None, 1.0, loopback=True)
    fake.close()
    leader.close()


class TestOwnSecret:
    def test_it_is_made_once_and_only_the_user_can_read_it(self, own_file: Path) -> None:
        first = own_secret()
        assert len(first) == 64 and own_secret() == first == own_file.read_bytes()
        assert stat.S_IMODE(own_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(own_file.parent.stat().st_mode) == 0o700
        assert [path.name for path in own_file.parent.iterdir()] == ["worker-secret"]

    def test_starts_at_the_same_time_agree(self, own_file: Path) -> None:
        begin = threading.Barrier(8)

        def make(_: int) -> bytes:
            begin.wait()
            return own_secret()

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(make, range(8))) == {own_secret()}
        assert [path.name for path in own_file.parent.iterdir()] == ["worker-secret"]

    def test_a_file_that_others_can_read_is_refused(self, own_file: Path) -> None:
        own_secret()
        own_file.chmod(0o640)
        with pytest.raises(OptionError, match="worker-secret must be a file of your own that no other user can read"):
            own_secret()

    def test_a_file_of_another_user_is_refused(self, own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own_secret()
        monkeypatch.setattr(module, "ensure_private", lambda folder: None)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(OptionError, match="must be a file of your own"):
            own_secret()

    def test_a_link_is_refused(self, own_file: Path, tmp_path: Path) -> None:
        own_secret()
        own_file.rename(tmp_path / "elsewhere")
        own_file.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ResourceError, match=r"no secret of your own for workers, .*worker-secret: "):
            own_secret()

    def test_a_folder_that_others_can_write_is_refused(self, own_file: Path) -> None:
        own_secret()
        own_file.parent.chmod(0o777)
        with pytest.raises(ResourceError, match=r"no secret of your own for workers, .*: other users can write it"):
            own_secret()

    def test_an_empty_file_is_refused(self, own_file: Path) -> None:
        own_secret()
        own_file.write_bytes(b"")
        with pytest.raises(ResourceError, match="holds no secret; delete it"):
            own_secret()

    def test_a_folder_that_cannot_be_made(self, own_file: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"a file")
        with pytest.raises(ResourceError, match=r"no secret of your own for workers, .*--token-file"):
            own_secret()


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
    worker, leader = handshake(None, b"open sesame", loopback=False)
    assert worker.startswith("leader was refused") and leader.startswith(
        "worker: leader and worker belong to different"
    )


def test_reflection_and_replay() -> None:
    """The role in the proof defeats a leader that reflects the worker's messages."""
    proofs = {module._proof(b"open sesame", role, a, b) for role in ("worker", "leader") for a, b in ("xy", "yx")}
    assert len(proofs) == 4
    left, right = socket.socketpair()
    worker, leader = Connection(left, "leader"), Connection(right, "worker")
    for attempt in (
        {"nonce": "a", "proof": ""},
        {"nonce": None},
        {},
        {"nonce": "\ud800", "proof": "\udfff"},  # no text that can be encoded
        {"nonce": "é", "proof": "é"},
        {"nonce": {"a": 1}, "proof": ["é\ud800"]},
        {"nonce": "a", "proof": True},
        {"nonce": "a" * 3000, "proof": "0" * 64},
    ):
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
    Connection(left, "leader").send(Message("challenge", {"protocol": module.PROTOCOL + 1, "nonce": "x"}))
    with pytest.raises(
        ResourceError, match=f"worker uses protocol {module.PROTOCOL + 1}, the leader {module.PROTOCOL}"
    ):
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
