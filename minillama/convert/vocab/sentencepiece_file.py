"""Pieces of a SentencePiece model (tokenizer.model), read from its protocol buffer.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minillama.errors import FormatError, ResourceError

_PIECES, _TEXT, _SCORE, _TYPE = 1, 1, 2, 3  # numbers of fields
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Piece(NamedTuple):
    """A token: its text, its score, and its type."""

    text: str
    score: float
    type: int


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of a model, by id; raises ResourceError and FormatError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        pieces = [_piece(bytes(value)) for number, value in _fields(raw) if number == _PIECES]
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise FormatError(f"{path} is no SentencePiece model ({error}); download it again") from error
    if not pieces:
        raise FormatError(f"{path} has no pieces; download it again")
    return pieces


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    score = struct.unpack("<f", fields.get(_SCORE, b"\0\0\0\0"))[0]
    return Piece(bytes(fields.get(_TEXT, b"")).decode("utf-8"), score, int(fields.get(_TYPE, NORMAL)))


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field of a message."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            value, position = _varint(raw, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(raw, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of type {kind}")
        if position + size > len(raw):
            raise ValueError("it is truncated")
        yield tag >> 3, raw[position : position + size]
        position += size


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, and the position after it."""
    value = shift = 0
    while shift < 64:
        byte = raw[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number of more than 64 bits")
