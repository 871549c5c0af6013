"""llama.cpp's file of a base model's log-probabilities, the other side of a KL divergence.

Layout, little-endian: `_logits_`, int32 tokens of a window, int32 vocabulary, int32 windows, int32 tokens. Then a
record of uint16 for each window and scored position, in order: a float32 scale and a float32 minimum log-probability
(two words each), one code a token of the vocabulary, and a word more where the vocabulary is odd. A log-probability is
minimum + scale x code; codes reach down to 16 nats below the likeliest token.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int32, UInt16

from minillama.errors import FormatError, ResourceError

MAGIC = b"_logits_"
RANGE = 16.0  # nats below the likeliest token that codes reach
_MAX_CODE = 65535.0
_HEADER_WORDS = 4  # words of a record before its codes


class Codes(NamedTuple):
    """Log-probabilities of some positions: minimum + scale x code."""

    scale: Float[Array, "n"]
    minimum: Float[Array, "n"]
    codes: UInt16[Array, "n V"]


def encode(logits: Float[Array, "n V"]) -> Codes:
    """The log-probabilities in 16 bits."""
    largest = jnp.max(logits, axis=-1)
    least = jnp.maximum(jnp.min(logits, axis=-1), largest - RANGE)
    total = jnp.log(jnp.sum(jnp.exp(logits - largest[:, None]), axis=-1))
    scale = (largest - least) / _MAX_CODE
    inverse = jnp.where(scale > 0, 1 / scale, 0)
    codes = jnp.round(jnp.maximum(logits - least[:, None], 0) * inverse[:, None])
    return Codes(scale, least - largest - total, jnp.minimum(codes, _MAX_CODE).astype(jnp.uint16))


def record_words(vocab_size: int) -> int:
    """uint16 words of a record."""
    return 2 * ((vocab_size + 1) // 2) + _HEADER_WORDS


def scored_tokens(window: int) -> int:
    """Tokens of a window that are predicted, and so its records."""
    return window - 1 - window // 2


def pack(codes: Codes) -> UInt16[np.ndarray, "n words"]:
    """The records of some positions."""
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
    """An open file of a base model: its tokens, and records that are read where they are asked for."""

    path: Path
    vocab_size: int
    tokens: Int32[np.ndarray, "windows T"]
    records: UInt16[np.ndarray, "windows scored words"]  # mapped


def open_base(path: str | Path) -> BaseFile:
    """Map a file that this module or llama.cpp has written.

    Raises ResourceError where it cannot be read, FormatError where it is something else or too short.
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
        raise FormatError(f"{path} has {size} bytes, but its {count} windows take {needed}; it was cut off")
    tokens = np.fromfile(path, "<i4", count * window, offset=len(front)).reshape(count, window)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise FormatError(f"{path}: token {wrong} in a text over a vocabulary of {vocab_size}")
    records = np.memmap(path, "<u2", "r", offset, (count, scored, words))
    return BaseFile(path, vocab_size, tokens, records)


@contextmanager
def create_base(path: str | Path, vocab_size: int, tokens: Int32[np.ndarray, "windows T"]) -> Iterator[BinaryIO]:
    """A file to write records to, in order. It gets its name when all are there; else nothing is left of it."""
    path, (windows, size) = Path(path), tokens.shape
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(MAGIC + np.array([size, vocab_size, windows], "<i4").tobytes() + tokens.astype("<i4").tobytes())
            front = file.tell()
            yield file
            records = file.tell() - front
        if records == 2 * windows * scored_tokens(size) * record_words(vocab_size):
            os.replace(unfinished, path)
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
