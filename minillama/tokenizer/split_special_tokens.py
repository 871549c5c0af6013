"""Split a text at special tokens as llama.cpp does: the longest special token first."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# C's isspace: the blanks that a token with rstrip removes
BLANKS = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A token that is found as plain text first; `rstrip` removes the blanks after it."""

    text: str
    id: int
    rstrip: bool = False


def split_special(text: str, specials: Sequence[SpecialToken]) -> list[str | int]:
    """Split a text into texts and token ids, in order.

    specials: sorted, longest first. This differs from a search for the leftmost match: in "abcd", the token "bcd" has
    priority over "ab".
    """
    parts: list[str | int] = [text] if text else []
    if not specials or not text:
        return parts
    # A vocabulary can have thousands of special tokens, a text has few or none. Comparing the first two characters
    # avoids most searches.
    heads = set(text).union(map("".join, pairwise(text)))
    for special in specials:
        if special.text[:2] in heads and special.text in text:
            parts = [piece for part in parts for piece in _split_one(part, special)]
    return parts


def _split_one(part: str | int, special: SpecialToken) -> list[str | int]:
    if isinstance(part, int) or special.text not in part:
        return [part]
    first, *rest = part.split(special.text)
    pieces: list[str | int] = [first]
    for text in rest:
        pieces += [special.id, text.lstrip(BLANKS) if special.rstrip else text]
    return [piece for piece in pieces if piece != ""]
