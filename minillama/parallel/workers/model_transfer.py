"""The model at every worker: found where the leader has it, or in the worker's cache, or sent once and kept there.

A file is known by its size and a digest of samples, which takes no time even for 40 GB; what is sent is checked as a
whole, and bears its name only when it is complete and right.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISREG

import numpy as np

from minillama.errors import FormatError, ResourceError
from minillama.parallel.workers.leader import WorkerGroup
from minillama.parallel.workers.wire import Connection, Message

CHUNK = 4 << 20  # bytes of a file in one message
SPARE = 64 << 20  # bytes that have to stay free on the disk
_HEAD, _SAMPLES, _SAMPLE = 1 << 20, 64, 4096
_NAME_LIMIT = 200
_FILES = 1000

Progress = Callable[[int], object]  # gets the number of bytes that were sent or received since the last call


@dataclass(frozen=True)
class File:
    """A file as the leader offers it. mark: `fingerprint`."""

    path: str
    size: int
    mark: str


def fingerprint(path: Path) -> str:
    """Digest of a file's size, its first MiB, its end and 64 samples between: another file has another."""
    size = path.stat().st_size
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_HEAD))
        for number in range(1, _SAMPLES + 1):
            file.seek(max(0, size * number // _SAMPLES - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def send_model(group: WorkerGroup, paths: Sequence[Path], progress: Progress | None = None) -> None:
    """Let every worker have these files, all of one model; returns when all of them do.

    The workers answer by `receive_model`. Those that lack a file get it, all at the same time.
    Raises ResourceError where a worker is lost or has no room; the group is closed then, and after Ctrl-C.
    """
    files = [File(str(path.absolute()), path.stat().st_size, fingerprint(path)) for path in paths]
    group.send(Message("model", {"files": [asdict(file) for file in files]}))
    with ThreadPoolExecutor(len(group)) as pool:
        done = [pool.submit(_serve, group, worker, files, progress) for worker in range(len(group))]
        try:
            for future in done:
                future.result()
        except BaseException:  # Ctrl-C as well: the other threads would go on to the end
            group.close()
            raise


def receive_model(
    connection: Connection, message: Message, folder: Path, progress: Progress | None = None
) -> tuple[Path, ...]:
    """The worker's side: where the files of a `model` message are here, after they were sent if need be.

    folder: the cache, `env.models_dir()`. Processes of one machine share it, and each file is sent to one of them.
    Raises ResourceError where the disk is full or the leader is lost, FormatError where what was sent is not the file.
    """
    files = _files(message)
    key = hashlib.blake2b("".join(file.mark for file in files).encode(), digest_size=8).hexdigest()
    paths = []
    for number, file in enumerate(files):
        path = next((path for path in _places(folder, key, file) if _is_it(path, file)), None)
        if path is None:
            path = _places(folder, key, file)[-1]
            with _alone(path):
                if not _is_it(path, file):  # another process may have got it meanwhile
                    _receive(connection, path, number, file, progress)
        paths.append(path)
    connection.send(Message("model-there"))
    return _together(paths, folder / key)


def _serve(group: WorkerGroup, worker: int, files: Sequence[File], progress: Progress | None) -> None:
    """Send one worker what it asks for, until it has all."""
    while (message := group.receive(worker)).op != "model-there":
        number = message.values.get("file")
        if message.op != "model-need" or type(number) is not int or not 0 <= number < len(files):
            raise FormatError(
                f"{group.connections[worker].name} says {message.op[:20]!r} where it should have the model"
            )
        _send(group, worker, files[number], progress)


def _send(group: WorkerGroup, worker: int, file: File, progress: Progress | None) -> None:
    digest, left = hashlib.blake2b(), file.size
    try:
        with open(file.path, "rb") as opened:
            while left:
                chunk = np.fromfile(opened, np.uint8, min(CHUNK, left))
                if not chunk.size:
                    raise ResourceError(f"{file.path} has become shorter while it was sent")
                digest.update(chunk.data)
                group.send(Message("model-part", {}, (chunk,)), worker)
                left -= chunk.size
                if progress is not None:
                    progress(chunk.size)
    except OSError as error:
        raise ResourceError(f"cannot read {file.path}: {error.strerror}") from error
    group.send(Message("model-end", {"digest": digest.hexdigest()}), worker)


def _receive(connection: Connection, path: Path, number: int, file: File, progress: Progress | None) -> None:
    """Ask for a file and write it; it bears its name when all of it is there and right."""
    free = shutil.disk_usage(path.parent).free
    if free < file.size + SPARE:
        raise ResourceError(
            f"{path.parent} has {free / 2**30:.1f} GiB free, and {path.name} of {file.size / 2**30:.1f} GiB is to be "
            "sent there; make room, or put the model where the leader has it"
        )
    connection.send(Message("model-need", {"file": number}))
    part = path.with_name(f"{path.name}.part")
    digest, left = hashlib.blake2b(), file.size
    try:
        with part.open("wb") as target:
            while (message := connection.receive(60.0)).op == "model-part":
                chunk = message.arrays[0] if len(message.arrays) == 1 else np.empty(0, np.uint8)
                if chunk.dtype != np.uint8 or not 0 < chunk.size <= left:
                    raise FormatError(f"{connection.name} has sent something else than {path.name}")
                target.write(chunk.data)
                digest.update(chunk.data)
                left -= chunk.size
                if progress is not None:
                    progress(chunk.size)
        if message.op != "model-end" or left or message.values.get("digest") != digest.hexdigest():
            raise FormatError(f"{path.name} has not arrived as it was sent; try again")
        os.replace(part, path)
    except OSError as error:
        raise ResourceError(f"cannot write {part}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    if not _is_it(path, file):
        path.unlink()
        raise FormatError(f"{path.name} is not the file that was offered; was it written to meanwhile?")


def _places(folder: Path, key: str, file: File) -> tuple[Path, Path]:
    """Where a file may be: where the leader has it, and in the cache."""
    return Path(file.path), folder / key / Path(file.path).name


def _together(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """The files in one folder, where a split model's parts look for each other."""
    if len({path.parent for path in paths}) == 1:
        return tuple(paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            beside = folder / path.name
            if not (beside.exists() and beside.samefile(path)):
                beside.unlink(missing_ok=True)
                with suppress(FileExistsError):  # another process of this machine does the same
                    beside.symlink_to(path.absolute())
    except OSError as error:
        raise ResourceError(f"cannot keep a model in {folder}: {error.strerror}") from error
    return tuple(folder / path.name for path in paths)


def _is_it(path: Path, file: File) -> bool:
    try:
        found = path.stat()
        return S_ISREG(found.st_mode) and found.st_size == file.size and fingerprint(path) == file.mark
    except (OSError, ValueError):
        return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file in the cache; the system frees it if this process dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ResourceError(f"cannot keep a model in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _files(message: Message) -> tuple[File, ...]:
    offered = message.values.get("files")
    try:
        if not isinstance(offered, list) or not 0 < len(offered) <= _FILES:
            raise ValueError("no list of files")
        files = tuple(File(item["path"], item["size"], item["mark"]) for item in offered)
        for file in files:
            if not (type(file.size) is int and file.size >= 0 and isinstance(file.mark, str)):
                raise ValueError("no size or mark")
            name = Path(file.path).name
            if not name or name.startswith(".") or len(name) > _NAME_LIMIT or not file.path.isprintable():
                raise ValueError("no name for a file")
        if len({Path(file.path).name for file in files}) < len(files):
            raise ValueError("two files of one name")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the leader offers a model in a way that cannot be understood ({error})") from error
    return files
