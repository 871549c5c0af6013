"""The texts of a vocabulary as a trie of characters, in numpy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minillama.array_types import Int

Tail = tuple[int, int]  # the first bytes of a character: their bits, and the number of bytes still to come
WHOLE: Tail = (0, 0)
LONGEST = 4  # bytes of a character


@dataclass(frozen=True)
class DecodedPiece:
    """Characters of a token, and the beginning of one more at its end."""

    characters: str
    tail: Tail


def decode_piece(piece: bytes, tail: Tail = WHOLE) -> DecodedPiece | None:
    """Decode the bytes of a token; None if they are not UTF-8.

    tail: the beginning of a character before them."""
    value, missing = tail
    if missing:
        head, piece = piece[:missing], piece[missing:]
        if any(byte >> 6 != 2 for byte in head):
            return None
        for byte in head:
            value = value << 6 | byte & 63
        if len(head) < missing:
            return DecodedPiece("", (value, missing - len(head)))
        if value > 0x10FFFF:
            return None
    first = chr(value) if missing else ""
    for length in range(min(LONGEST, len(piece) + 1)):  # bytes of the unfinished character at the end
        end = len(piece) - length
        tail = _begun(piece[end:]) if length else WHOLE
        if tail is not None:
            try:
                return DecodedPiece(first + piece[:end].decode("utf-8"), tail)
            except UnicodeDecodeError:
                continue
    return None


def _begun(first_bytes: bytes) -> Tail | None:
    """The beginning of a character, if these bytes are one."""
    lead = first_bytes[0]
    for length, mark, bits in ((2, 0b110, 5), (3, 0b1110, 4), (4, 0b11110, 3)):
        if lead >> bits == mark and len(first_bytes) < length:
            value = lead & (1 << bits) - 1
            for byte in first_bytes[1:]:
                if byte >> 6 != 2:
                    return None
                value = value << 6 | byte & 63
            return value, length - len(first_bytes)
    return None


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """A trie, whose nodes are numbered level by level.

    The children of a node follow each other. Node 0 is the empty text.
    characters: the code point that leads to a node. first_child, child_count: its children. first_token, token_count:
    places in `tokens` of those that end here. first_cut, cut_count: places in `cut_tokens` of those that end within the
    next character, and in `cut_tails` of the number of its beginning in `tails`. late: tokens that begin within a
    character.
    """

    pieces: Sequence[bytes]
    characters: Int[np.ndarray, "N"]
    first_child: Int[np.ndarray, "N"]
    child_count: Int[np.ndarray, "N"]
    tokens: Int[np.ndarray, "T"]
    first_token: Int[np.ndarray, "N"]
    token_count: Int[np.ndarray, "N"]
    first_cut: Int[np.ndarray, "N"]
    cut_count: Int[np.ndarray, "N"]
    cut_tokens: Int[np.ndarray, "C"]
    cut_tails: Int[np.ndarray, "C"]
    tails: Sequence[Tail]
    late: Sequence[int]

    @cached_property
    def alphabet(self) -> tuple[Int[np.ndarray, "A"], Int[np.ndarray, "N"]]:
        """The characters of all tokens, and for each node which of them leads to it."""
        alphabet, places = np.unique(self.characters, return_inverse=True)
        return alphabet, places.reshape(-1)


def build_trie(pieces: Sequence[bytes]) -> TokenTrie:
    """The trie of all tokens, by their bytes; an empty one (a token without text) is left out."""
    tokens: list[int] = []
    texts: list[str] = []
    tails: list[Tail] = []
    late: list[int] = []
    for token, piece in enumerate(pieces):
        if not piece or 0 in piece:
            continue
        try:
            text, tail = piece.decode("utf-8"), WHOLE
        except UnicodeDecodeError:
            if piece[0] >> 6 == 2:
                late.append(token)
            decoded = decode_piece(piece)
            if decoded is None:
                continue
            text, tail = decoded.characters, decoded.tail
        tokens.append(token)
        texts.append(text)
        tails.append(tail)
    return _from_texts(pieces, np.array(tokens, np.int64), texts, tails, late)


def _from_texts(
    pieces: Sequence[bytes], tokens: Int[np.ndarray, "T"], texts: list[str], tails: list[Tail], late: list[int]
) -> TokenTrie:
    flat = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.int64)
    lengths = np.array([len(text) for text in texts], np.int64)
    offsets = np.cumsum(lengths) - lengths
    node_of = np.zeros(len(texts), np.int64)
    levels, parents, starts = [np.zeros(1, np.int64)], [np.full(1, -1)], [0, 1]
    active = np.flatnonzero(lengths > 0)
    depth = 0
    while active.size:
        keys = node_of[active] << 21 | flat[offsets[active] + depth]
        unique, inverse = np.unique(keys, return_inverse=True)
        node_of[active] = starts[-1] + inverse.reshape(-1)
        levels.append(unique & (1 << 21) - 1)
        parents.append(unique >> 21)
        starts.append(starts[-1] + len(unique))
        depth += 1
        active = active[lengths[active] > depth]
    count = starts[-1]
    child_count = np.bincount(np.concatenate(parents[1:] or [np.zeros(0, np.int64)]), minlength=count)
    kinds = list(dict.fromkeys(tail for tail in tails if tail != WHOLE))
    numbers = {tail: number for number, tail in enumerate(kinds)}
    kind = np.array([numbers.get(tail, -1) for tail in tails], np.int64)
    whole, cut = (
        chosen[np.argsort(node_of[chosen], kind="stable")] for chosen in map(np.flatnonzero, (kind < 0, kind >= 0))
    )
    token_count, cut_count = (np.bincount(node_of[chosen], minlength=count) for chosen in (whole, cut))
    return TokenTrie(
        pieces,
        characters=np.concatenate(levels),
        first_child=1 + np.cumsum(child_count) - child_count,
        child_count=child_count,
        tokens=tokens[whole],
        first_token=np.cumsum(token_count) - token_count,
        token_count=token_count,
        first_cut=np.cumsum(cut_count) - cut_count,
        cut_count=cut_count,
        cut_tokens=tokens[cut],
        cut_tails=kind[cut],
        tails=kinds,
        late=late,
    )


def listed(first: Int[np.ndarray, "N"], count: Int[np.ndarray, "N"]) -> Int[np.ndarray, "M"]:
    """first[0], first[0] + 1, ... count[0] of them, then those of first[1], and so on."""
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))
