"""llama.cpp's file format for a base model's log-probabilities, the reference of a KL divergence.

Layout, little-endian: `_logits_`, int32 tokens per window, int32 vocabulary size, int32 windows, int32 tokens. Then one
record of uint16 words per window and scored position, in order: a float32 scale and a float32 minimum log-probability
(two words each), one code per token of the vocabulary, and one more word if the vocabulary size is odd. A
log-probability is minimum + scale x code; codes reach down to 16 nats below the likeliest token.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int32, UInt16
from minillama.atomic_file import atomic_write
from minillama.errors import FormatError, ResourceError

MAGIC = b"_logits_"
RANGE = 16.0  # nats below the likeliest token; less likely tokens get code 0
_MAX_CODE = 65535.0
_HEADER_WORDS = 4  # of a record, before its codes


class Codes(NamedTuple):
    """Log-probabilities of some positions: minimum + scale x code."""

    scale: Float[Array, "n"]
    minimum: Float[Array, "n"]
    codes: UInt16[Array, "n V"]


def encode(logits: Float[Array, "n V"]) -> Codes:
    """Encode log-probabilities in 16 bits."""
    largest = jnp.max(logits, axis=-1)
    least = jnp.maximum(jnp.min(logits, axis=-1), largest - RANGE)
    total = jnp.log(jnp.sum(jnp.exp(logits - largest[:, None]), axis=-1))
    scale = (largest - least) / _MAX_CODE
    inverse = jnp.where(scale > 0, 1 / scale, 0)
    codes = jnp.round(jnp.maximum(logits - least[:, None], 0) * inverse[:, None])
    return Codes(scale, least - largest - total, jnp.minimum(codes, _MAX_CODE).astype(jnp.uint16))


def record_words(vocab_size: int) -> int:
    """Number of uint16 words of a record."""
    return 2 * ((vocab_size + 1) // 2) + _HEADER_WORDS


def scored_tokens(window: int) -> int:
    """Number of scored tokens of a window, which is the number of its records."""
    return window - 1 - window // 2


def pack(codes: Codes) -> UInt16[np.ndarray, "n words"]:
    """The records of some positions as they are in the file."""
    scale, minimum, values = map(np.asarray, codes)
    records = np.zeros((len(values), record_words(values.shape[1])), "<u2")
    records[:, :_HEADER_WORDS] = np.stack([scale, minimum], axis=1).astype("<f4").view("<u2")
    records[:, _HEADER_WORDS : _HEADER_WORDS + values.shape[1]] = values
    return records


def unpack(records: UInt16[np.ndarray, "n words"], vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales [n], minimum log-probabilities [n] and codes [n, V] of records."""
    front = np.ascontiguousarray(records[:, :_HEADER_WORDS]).view("<f4")
    return front[:, 0], front[:, 1], records[:, _HEADER_WORDS : _HEADER_WORDS + vocab_size]


@dataclass(frozen=True)
class BaseFile:
    """An open base file: its tokens, and its records as a memory map."""

    path: Path
    vocab_size: int
    tokens: Int32[np.ndarray, "windows T"]
    records: UInt16[np.memmap, "windows scored words"]

    def check_complete(self) -> None:
        """Raise ResourceError if the file is shorter than its mapped records."""
        if self.path.stat().st_size < self.records.offset + self.records.nbytes:
            raise ResourceError(f"{self.path} has become shorter since it was opened; record it again")


def open_base(path: str | Path) -> BaseFile:
    """Map a base file of minillama or llama.cpp.

    Raises ResourceError if it cannot be read, FormatError if it has another format or is truncated.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            front = file.read(len(MAGIC) + 12)
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror or error}") from error
    if not front.startswith(MAGIC) or len(front) < len(MAGIC) + 12:
        raise FormatError(f"{path} does not look like a file containing log-probabilities")
    window, vocab_size, count = (int(number) for number in np.frombuffer(front, "<i4", 3, len(MAGIC)))
    if window < 4 or vocab_size < 1 or count < 1:
        raise FormatError(f"{path}: {count} windows of {window} tokens over a vocabulary of {vocab_size}")
    scored, words = scored_tokens(window), record_words(vocab_size)
    offset = len(front) + 4 * count * window
    needed = offset + 2 * count * scored * words
    if size < needed:
        raise FormatError(f"{path} has {size} bytes, but its {count} windows take {needed}; it is truncated")
    tokens = np.fromfile(path, "<i4", count * window, offset=len(front)).reshape(count, window)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise FormatError(f"{path}: token {wrong} in a text over a vocabulary of {vocab_size}")
    records = np.memmap(path, "<u2", "r", offset, (count, scored, words))
    return BaseFile(path, vocab_size, tokens, records)


@contextmanager
def create_base(path: str | Path, vocab_size: int, tokens: Int32[np.ndarray, "windows T"]) -> Iterator[BinaryIO]:
    """Open a new base file for records, to be written in order.

    The file gets its name when all records are written; otherwise it is deleted. Raises ResourceError (not writable).
    """
    windows, size = tokens.shape
    with suppress(_Incomplete), atomic_write(path) as file:
        file.write(MAGIC + np.array([size, vocab_size, windows], "<i4").tobytes() + tokens.astype("<i4").tobytes())
        front = file.tell()
        yield file
        if file.tell() - front != 2 * windows * scored_tokens(size) * record_words(vocab_size):
            raise _Incomplete


class _Incomplete(Exception):
    """Some records of a new file are missing."""
