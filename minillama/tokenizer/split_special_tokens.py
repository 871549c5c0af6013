"""Cut a text at special tokens, as llama.cpp does it: the longest special token first, over the whole text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# C's isspace: what a right-rstrip token eats
BLANKS = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A token that is looked for as plain text before anything else; `strips` eats the blanks that follow it."""

    text: str
    id: int
    rstrip: bool = False


def split_special(text: str, specials: Sequence[SpecialToken]) -> list[str | int]:
    """Texts and token ids in order; `specials` must be sorted, longest first.

    Not the same as one search for the leftmost match: in "abcd" the token "bcd" wins over "ab".
    """
    fragments: list[str | int] = [text] if text else []
    if not specials or not text:
        return fragments
    # Vocabularies have up to thousands of special tokens, texts have few or none: a look at the first two characters
    # spares the search for most.
    heads = set(text).union(map("".join, pairwise(text)))
    for special in specials:
        if special.text[:2] in heads and special.text in text:
            fragments = [piece for fragment in fragments for piece in _split_one(fragment, special)]
    return fragments


def _split_one(fragment: str | int, special: SpecialToken) -> list[str | int]:
    if isinstance(fragment, int) or special.text not in fragment:
        return [fragment]
    first, *rest = fragment.split(special.text)
    pieces: list[str | int] = [first]
    for text in rest:
        pieces += [special.id, text.lstrip(BLANKS) if special.rstrip else text]
    return [piece for piece in pieces if piece != ""]
