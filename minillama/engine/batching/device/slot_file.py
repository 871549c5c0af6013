"""A slot on disk: the tokens of a text and its key/value cache.

    4 bytes   magic MLSS
    4         version
    4         w, the number of words that follow
    4 w       the words: -1, 1, n, and n token ids; or token ids alone
    4         j, the length of the JSON
    j         {"model": fingerprint of the model and cache, "arrays": [[dtype, shape], ...]}
    ...       the arrays, one after the other
    32        SHA-256 of the token ids, the JSON and the arrays

Numbers are little-endian. A file is compared with the arrays that the engine expects before its own are read, so that
it does not decide how much memory is taken.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minillama.atomic_file import atomic_write, check_room
from minillama.errors import FormatError, ResourceError

MAGIC, VERSION = b"MLSS", 1
PACKED = (-1, 1)  # the words before the number of tokens
MOST_JSON = 1 << 20
DIGEST = 32
SAMPLES, SAMPLE_BYTES = 64, 4096  # of a model file

Array = np.ndarray  # of any shape and type


def model_fingerprint(path: Path, cache_types: object) -> str:
    """A hash of samples of a model file, and of the cache types."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {cache_types}".encode())
    with open(path, "rb") as file:
        for sample in range(SAMPLES):
            file.seek(sample * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def write_slot(path: Path, tokens: Sequence[int], model: str, arrays: Sequence[Array]) -> int:
    """Write a file and return its bytes; raises ResourceError where it cannot be written."""
    words = _words([*PACKED, len(tokens)])
    ids, text = _words(tokens), json.dumps(_contents(model, arrays)).encode()
    head = MAGIC + _word(VERSION) + _word((len(words) + len(ids)) // 4) + words
    size = len(head) + len(ids) + 4 + len(text) + sum(array.nbytes for array in arrays) + DIGEST
    check_room(path, size)
    digest = hashlib.sha256(ids + text)
    with atomic_write(path) as file:
        file.write(head + ids + _word(len(text)) + text)
        for array in arrays:
            data = np.ascontiguousarray(array).tobytes()
            file.write(data)
            digest.update(data)
        file.write(digest.digest())
    return size


@dataclass(frozen=True)
class SlotFile:
    """The contents of a file, and its bytes."""

    tokens: tuple[int, ...]
    arrays: list[Array]
    nbytes: int


def read_slot(path: Path, model: str, like: Callable[[int], Sequence[Array]], most_tokens: int) -> SlotFile:
    """Read a file.

    like: arrays of the shapes and types of a text of that many tokens. Raises ResourceError where the file cannot be
    opened, FormatError where it is damaged, of another model, or of more than `most_tokens` tokens.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, path).read(model, like, most_tokens)
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error


class _Reader:
    """Reads one file; every error names it."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._size = file, path, 0

    def read(self, model: str, like: Callable[[int], Sequence[Array]], most_tokens: int) -> SlotFile:
        if self._take(len(MAGIC)) != MAGIC or self._word() != VERSION:
            raise self._error("no slot that this version of minillama has saved")
        tokens = self._tokens(most_tokens)
        length = self._word()
        if length > MOST_JSON:
            raise self._error("damaged")
        text = self._take(length)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise self._error("damaged") from None
        expected = like(len(tokens))
        if found != _contents(model, expected):
            raise self._error("a slot of another model, of other cache types or of another context size")
        digest = hashlib.sha256(_words(tokens) + text)
        arrays = []
        for array in expected:
            data = self._take(array.nbytes)
            digest.update(data)
            arrays.append(np.frombuffer(data, array.dtype).reshape(array.shape))
        if self._take(DIGEST) != digest.digest() or self._file.read(1):
            raise self._error("damaged")
        return SlotFile(tokens, arrays, self._size)

    def _tokens(self, most: int) -> tuple[int, ...]:
        count = self._word()
        if count > most + len(PACKED) + 1:
            raise self._error(f"a text of {count} tokens; the context of a slot has {most}")
        words = np.frombuffer(self._take(4 * count), "<i4").tolist()
        if words[: len(PACKED)] == list(PACKED):
            if len(words) < 3 or words[2] != len(words) - 3:
                raise self._error("damaged")
            words = words[3:]
        if not 0 < len(words) <= most or min(words) < 0:
            raise self._error("damaged")
        return tuple(words)

    def _word(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise self._error("truncated")
        self._size += count
        return data

    def _error(self, reason: str) -> FormatError:
        return FormatError(f"{self._path}: {reason}")


def _word(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _words(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, "<i4").tobytes()


def _contents(model: str, arrays: Sequence[Array]) -> dict[str, object]:
    return {"model": model, "arrays": [[str(array.dtype), list(array.shape)] for array in arrays]}
