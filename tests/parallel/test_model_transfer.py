"""Model transfer: found locally or sent once, complete and correct or not at all."""

import os
import random
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minillama.errors import FormatError, MinillamaError, ResourceError
from minillama.parallel.workers import model_transfer
from minillama.parallel.workers.model_transfer import fingerprint, receive_model, send_model
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_group import WorkerGroup


def write(path: Path, size: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def transfer(paths: list[Path], *folders: Path, received: list[int] | None = None) -> list[tuple[Path, ...]]:
    """Send files to one simulated worker per folder, on machines without the leader's files."""
    pairs = [socket.socketpair() for _ in folders]
    workers = [Connection(right, "the leader") for _, right in pairs]

    def work(worker: Connection, folder: Path) -> tuple[Path, ...]:
        try:
            message = worker.receive(5.0)
            for item in message.values["files"]:  # type: ignore[attr-defined]
                item["path"] = item["path"].replace("/leader/", "/nowhere/")
            return receive_model(worker, message, folder, received.append if received is not None else None)
        except MinillamaError:
            worker.close()
            raise

    group = WorkerGroup([Connection(left, f"worker {number}") for number, (left, _) in enumerate(pairs)])
    with ThreadPoolExecutor(len(folders)) as pool:
        results = [pool.submit(work, *both) for both in zip(workers, folders, strict=True)]
        try:
            send_model(group, paths)
        finally:
            for worker in workers:
                worker.close()
            errors = [result.exception() for result in results]
            group.close()
    for error in errors:
        if error is not None:
            raise error
    return [result.result() for result in results]


def test_file_is_sent_once_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_transfer, "CHUNK", 1000)
    model, cache, received = write(tmp_path / "leader" / "model.gguf", 12_345), tmp_path / "cache", []
    for total in (12_345, 12_345):
        ((found,),) = transfer([model], cache, received=received)
        assert found.read_bytes() == model.read_bytes() and found.is_relative_to(cache)
        assert sum(received) == total
    assert not list(cache.rglob("*.tmp"))


def test_file_at_the_leaders_path_is_not_sent(tmp_path: Path) -> None:
    model = write(tmp_path / "leader" / "model.gguf", 5000)
    write(tmp_path / "nowhere" / "model.gguf", 5000)
    assert transfer([model], tmp_path / "cache") == [(tmp_path / "nowhere" / "model.gguf",)]
    assert not (tmp_path / "cache").exists()


def test_different_file_at_the_leaders_path(tmp_path: Path) -> None:
    model = write(tmp_path / "leader" / "model.gguf", 5000)
    write(tmp_path / "nowhere" / "model.gguf", 5000, seed=1)
    ((found,),) = transfer([model], tmp_path / "cache")
    assert found.read_bytes() == model.read_bytes() and found.is_relative_to(tmp_path / "cache")


def test_several_workers_and_an_empty_file(tmp_path: Path) -> None:
    model = write(tmp_path / "leader" / "model.gguf", 0)
    found = transfer([model], tmp_path / "a", tmp_path / "b")
    assert [path.is_relative_to(tmp_path / name) for (path,), name in zip(found, "ab", strict=True)] == [True, True]


def test_workers_of_one_machine_share_the_cache(tmp_path: Path) -> None:
    model, received = write(tmp_path / "leader" / "model.gguf", 50_000), []
    one, two = transfer([model], tmp_path / "cache", tmp_path / "cache", received=received)
    assert one == two and sum(received) == 50_000


def test_split_model(tmp_path: Path) -> None:
    parts = [write(tmp_path / "leader" / f"m-0000{number}-of-00002.gguf", 3000, number) for number in (1, 2)]
    write(tmp_path / "nowhere" / parts[0].name, 3000, 1)
    (found,) = transfer(parts, tmp_path / "cache")
    assert [path.name for path in found] == [part.name for part in parts]
    assert len({path.parent for path in found}) == 1
    assert [path.read_bytes() for path in found] == [part.read_bytes() for part in parts]
    write(tmp_path / "nowhere" / parts[0].name, 3000, 7)  # the local file has changed
    (found,) = transfer(parts, tmp_path / "cache")
    assert [path.read_bytes() for path in found] == [part.read_bytes() for part in parts]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write(tmp_path / "leader" / "model.gguf", 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 4000))
    with pytest.raises(ResourceError, match=r"0\.0 GiB free, and model\.gguf .* free some space|worker 0 is lost"):
        transfer([model], tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


@pytest.mark.parametrize("fault", ["short", "long", "changed", "cut"])
def test_corrupt_transfers_are_discarded(tmp_path: Path, fault: str) -> None:
    model = write(tmp_path / "leader" / "model.gguf", 5000)
    left, right = socket.socketpair()
    leader, worker = Connection(left, "worker"), Connection(right, "leader")
    data = bytearray(model.read_bytes())
    file = {"path": str(tmp_path / "nowhere" / "model.gguf"), "size": 5000, "mark": fingerprint(model)}

    def lead() -> None:
        import hashlib

        import numpy as np

        leader.receive(5.0)
        sent = {"short": data[:-1], "long": data + b"x", "changed": data, "cut": data[:100]}[fault]
        digest = hashlib.blake2b(sent).hexdigest()
        if fault == "changed":
            sent[700] ^= 1
        leader.send(Message("model-part", {}, (np.frombuffer(sent, np.uint8),)))
        if fault == "cut":
            leader.close()
        else:
            leader.send(Message("model-end", {"digest": digest}))

    thread = threading.Thread(target=lead)
    thread.start()
    with pytest.raises(ResourceError if fault == "cut" else FormatError):
        receive_model(worker, Message("model", {"files": [file]}), tmp_path / "cache")
    thread.join()
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["model.gguf.lock"]
    worker.close()
    leader.close()


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        [{"path": "/a/m.gguf"}],
        [{"path": "/a/..", "size": 1, "mark": "x"}],
        [{"path": "/a/.profile", "size": 1, "mark": "x"}],
        [{"path": "/a/b\0c", "size": 1, "mark": "x"}],
        [{"path": "/a/m", "size": -1, "mark": "x"}],
        [{"path": 3, "size": 1, "mark": "x"}],
        [{"path": "/a/m", "size": 1, "mark": "x"}, {"path": "/b/m", "size": 1, "mark": "y"}],
    ],
)
def test_invalid_offers(tmp_path: Path, files: object) -> None:
    left, right = socket.socketpair()
    connection = Connection(left, "leader")
    with pytest.raises(FormatError, match="the leader has sent an invalid list of model files"):
        receive_model(connection, Message("model", {"files": files}), tmp_path)
    connection.close()
    right.close()


def test_fingerprint(tmp_path: Path) -> None:
    """All bytes of small files; size, start, end and samples of large ones."""
    path = write(tmp_path / "a", 100_000)
    marks = {fingerprint(path)}
    for place in (0, 50_000, 99_999):
        changed = bytearray(path.read_bytes())
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        marks.add(fingerprint(tmp_path / "b"))
    (tmp_path / "b").write_bytes(path.read_bytes() + b"\0")
    marks.add(fingerprint(tmp_path / "b"))
    assert len(marks) == 5
    large = tmp_path / "large"
    with large.open("wb") as file:
        os.truncate(file.fileno(), 40 << 30)  # a sparse file
    first = fingerprint(large)
    with large.open("r+b") as file:
        file.seek((40 << 30) - 10)
        file.write(b"x")
    assert fingerprint(large) != first
