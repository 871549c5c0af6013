"""Transfer of model files to workers, with a cache on each worker.

A worker uses the file at the leader's path or in its cache if size and sampled digest match, which is fast even for
40 GB. Otherwise the leader sends the file once. A received file gets its final name only after its full digest matches.
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

from minillama.atomic_file import atomic_write
from minillama.errors import FormatError, ResourceError
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_group import WorkerGroup
from minillama.private_files import ensure_private, make_private

CHUNK = 4 << 20  # bytes of a file in one message
MIN_FREE = 64 << 20  # bytes that stay free on the disk
_HEAD, _SAMPLES, _SAMPLE = 1 << 20, 64, 4096
_NAME_LIMIT = 200
_MAX_FILES = 1000

Progress = Callable[[int], object]  # called with the bytes sent or received since the last call


@dataclass(frozen=True)
class OfferedFile:
    """A model file on the leader. mark: its `fingerprint`."""

    path: str
    size: int
    mark: str


def fingerprint(path: Path) -> str:
    """Digest of a file's size, its first MiB, its end and 64 samples in between."""
    size = path.stat().st_size
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_HEAD))
        for number in range(1, _SAMPLES + 1):
            file.seek(max(0, size * number // _SAMPLES - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def send_model(group: WorkerGroup, paths: Sequence[Path], progress: Progress | None = None) -> None:
    """Send a model's files to workers that lack them; return when all have them.

    The workers run `receive_model`. Transfers to several workers run concurrently.
    Raises ResourceError if a worker is lost or its disk is full. The group is then closed, as after Ctrl-C.
    """
    files = [OfferedFile(str(path.absolute()), path.stat().st_size, fingerprint(path)) for path in paths]
    group.send(Message("model", {"files": [asdict(file) for file in files]}))
    with ThreadPoolExecutor(len(group)) as pool:
        done = [pool.submit(_serve_worker, group, worker, files, progress) for worker in range(len(group))]
        try:
            for future in done:
                future.result()
        except BaseException:  # includes Ctrl-C: otherwise the other threads would run to their end
            group.close()
            raise


def receive_model(
    connection: Connection, message: Message, folder: Path, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Return local paths of the files of a `model` message; receive the missing ones.

    folder: the cache, `env.models_dir()`. Processes of one machine share it; each file is sent to one of them.
    Raises ResourceError if the disk is full or the leader is lost, FormatError if the received file is wrong.
    """
    files = _parse_offer(message)
    key = hashlib.blake2b("".join(file.mark for file in files).encode(), digest_size=8).hexdigest()
    paths = []
    for number, file in enumerate(files):
        path = next((path for path in _candidates(folder, key, file) if _matches(path, file)), None)
        if path != Path(file.path):
            _check_cache(folder)
        if path is None:
            path = _candidates(folder, key, file)[-1]
            with _lock(path):
                if not _matches(path, file):  # another process may have received it meanwhile
                    _receive_file(connection, path, number, file, progress)
        paths.append(path)
    connection.send(Message("model-there"))
    return _in_one_folder(paths, folder / key)


def _serve_worker(group: WorkerGroup, worker: int, files: Sequence[OfferedFile], progress: Progress | None) -> None:
    """Send one worker the files that it requests, until it has all."""
    while (message := group.receive(worker)).op != "model-there":
        number = message.values.get("file")
        if message.op != "model-need" or type(number) is not int or not 0 <= number < len(files):
            raise FormatError(
                f"{group.connections[worker].name} has sent {message.op[:20]!r}, expected a request for a model file"
            )
        _send_file(group, worker, files[number], progress)


def _send_file(group: WorkerGroup, worker: int, file: OfferedFile, progress: Progress | None) -> None:
    digest, left = hashlib.blake2b(), file.size
    try:
        with open(file.path, "rb") as opened:
            while left:
                chunk = np.fromfile(opened, np.uint8, min(CHUNK, left))
                if not chunk.size:
                    raise ResourceError(f"{file.path} has been truncated during the transfer")
                digest.update(chunk.data)
                group.send(Message("model-part", {}, (chunk,)), worker)
                left -= chunk.size
                if progress is not None:
                    progress(chunk.size)
    except OSError as error:
        raise ResourceError(f"cannot read {file.path}: {error.strerror}") from error
    group.send(Message("model-end", {"digest": digest.hexdigest()}), worker)


def _receive_file(
    connection: Connection, path: Path, number: int, file: OfferedFile, progress: Progress | None
) -> None:
    """Request a file and write it; rename it to `path` once its digest matches."""
    free = shutil.disk_usage(path.parent).free
    if free < file.size + MIN_FREE:
        raise ResourceError(
            f"{path.parent} has {free / 2**30:.1f} GiB free, and {path.name} of {file.size / 2**30:.1f} GiB does not "
            "fit; free some space, or copy the model to the same path as on the leader"
        )
    connection.send(Message("model-need", {"file": number}))
    digest, left = hashlib.blake2b(), file.size
    with atomic_write(path) as target:
        while (message := connection.receive(60.0)).op == "model-part":
            chunk = message.arrays[0] if len(message.arrays) == 1 else np.empty(0, np.uint8)
            if chunk.dtype != np.uint8 or not 0 < chunk.size <= left:
                raise FormatError(f"{connection.name} has sent invalid data for {path.name}")
            target.write(chunk.data)
            digest.update(chunk.data)
            left -= chunk.size
            if progress is not None:
                progress(chunk.size)
        if message.op != "model-end" or left or message.values.get("digest") != digest.hexdigest():
            raise FormatError(f"{path.name} was corrupted during the transfer; try again")
    if not _matches(path, file):
        path.unlink()
        raise FormatError(f"{path.name} is not the offered file; was it modified during the transfer?")


def _candidates(folder: Path, key: str, file: OfferedFile) -> tuple[Path, Path]:
    """Possible local paths of a file: the leader's path, and the cache."""
    return Path(file.path), folder / key / Path(file.path).name


def _in_one_folder(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Link the files into one folder, because a split model needs all parts there."""
    if len({path.parent for path in paths}) == 1:
        return tuple(paths)
    try:
        make_private(folder)
        for path in paths:
            link = folder / path.name
            if not (link.exists() and link.samefile(path)):
                link.unlink(missing_ok=True)
                with suppress(FileExistsError):  # created by another process of this machine
                    link.symlink_to(path.absolute())
    except OSError as error:
        raise ResourceError(f"cannot store a model in {folder}: {error.strerror}") from error
    return tuple(folder / path.name for path in paths)


def _check_cache(folder: Path) -> None:
    """Create the cache; raises ResourceError if that fails or another user can write in it."""
    try:
        ensure_private(folder)
    except OSError as error:
        raise ResourceError(f"cannot store a model in {folder}: {error.strerror}") from error


def _matches(path: Path, file: OfferedFile) -> bool:
    try:
        found = path.stat()
        return S_ISREG(found.st_mode) and found.st_size == file.size and fingerprint(path) == file.mark
    except (OSError, ValueError):
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock of a cached file; the system releases it if this process dies."""
    try:
        make_private(path.parent)
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ResourceError(f"cannot store a model in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _parse_offer(message: Message) -> tuple[OfferedFile, ...]:
    offered = message.values.get("files")
    try:
        if not isinstance(offered, list) or not 0 < len(offered) <= _MAX_FILES:
            raise ValueError("not a list of files")
        files = tuple(OfferedFile(item["path"], item["size"], item["mark"]) for item in offered)
        for file in files:
            if not (type(file.size) is int and 0 <= file.size < 1 << 62 and isinstance(file.mark, str)):
                raise ValueError("invalid size or mark")
            name = Path(file.path).name
            if not name or name.startswith(".") or len(name) > _NAME_LIMIT or not file.path.isprintable():
                raise ValueError("invalid file name")
        if len({Path(file.path).name for file in files}) < len(files):
            raise ValueError("two files with one name")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the leader has sent an invalid list of model files ({error})") from error
    return files
