"""Merging of the characters of a text that no pre-tokenizer cuts into words.

The text is split into characters. Then the two neighbours of lowest cost are merged, repeatedly; the leftmost of equal
pairs comes first. SentencePiece's cost is a token's negative score, that of byte-pair encoding the rank of a merge. A
remaining text without a token becomes byte tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from minillama.tokenizer.merging.merge_pairs import merge_pairs

SPACE = "▁"  # SentencePiece's character for a space
SHIFT = 21  # a Unicode code point has 21 bits


class CharacterMerger:
    """Callable from text to token ids.

    No merge crosses two characters that nothing joins, so the text is split there first. The pieces (mostly words) are
    independent of each other and often repeat. The ids of short pieces are cached.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        cost: Callable[[str, str], float | None],
        byte_ids: Sequence[int | None],
        joined: np.ndarray,
    ) -> None:
        """Set up the merger.

        cost: of two texts, None if they are not merged. byte_ids: the token of each byte value, None to drop the byte.
        joined: all pairs of characters that a merge may join, and perhaps others, as sorted numbers.
        """
        self._ids = ids
        self._cost = cost
        self._byte_ids = byte_ids
        self._joined = joined
        self._merge_cached = lru_cache(maxsize=1 << 16)(self._merge)

    def __call__(self, text: str) -> list[int]:
        codes = _codes(text)
        pairs = codes[:-1] << SHIFT | codes[1:]
        places = np.minimum(np.searchsorted(self._joined, pairs), len(self._joined) - 1)
        cuts = [0, *(np.flatnonzero(self._joined[places] != pairs) + 1).tolist(), len(text)]
        ids: list[int] = []
        for start, end in pairwise(cuts):
            word = text[start:end]
            # Long pieces do not repeat; caching them would waste memory.
            ids.extend(self._merge_cached(word) if len(word) < 64 else self._merge(word))
        return ids

    def _merge(self, word: str) -> tuple[int, ...]:
        if word in self._ids and len(word) == 1:
            return (self._ids[word],)
        ids: list[int] = []
        for text in merge_pairs(word, self._cost):
            index = self._ids.get(text)
            ids += [index] if index is not None else self._byte_fallback(text)
        return tuple(ids)

    def _byte_fallback(self, text: str) -> list[int]:
        ids = (self._byte_ids[byte] for byte in text.encode("utf-8", "surrogateescape"))
        return [index for index in ids if index is not None]


def adjacent_pairs(texts: Iterable[str]) -> np.ndarray:
    """All pairs of characters that are adjacent in some text, as sorted numbers; never empty."""
    texts = [text for text in texts if len(text) > 1]
    return _pairs(_codes("".join(text[:-1] for text in texts)), _codes("".join(text[1:] for text in texts)))


def pairs_around_spaces(lines: Iterable[str]) -> np.ndarray:
    """All pairs of characters with a space between them, as sorted numbers; never empty.

    A merge joins the last character of its left text and the first one of its right text.
    """
    codes = _codes("\n".join(lines))
    spaces = np.flatnonzero(codes[1:-1] == ord(" ")) + 1
    return _pairs(codes[spaces - 1], codes[spaces + 1])


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.unique(np.append(first << SHIFT | second, -1))


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
