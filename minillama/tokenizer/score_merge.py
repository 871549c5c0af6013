"""Merging by score, as in SentencePiece models (`tokenizer.ggml.model` = llama; also Gemma and Phi-3).

The text is split into characters. Then the two neighbours whose merged text is the token with the highest score are
merged, repeatedly; the leftmost of equal pairs comes first. A remaining text without a token becomes byte tokens.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from minillama.tokenizer.merge_pairs import merge_pairs

SPACE = "▁"  # SentencePiece's character for a space
SHIFT = 21  # a Unicode code point has 21 bits
# Python represents a byte that is not UTF-8 as a surrogate from DC80 to DCFF, which becomes that byte's token. The
# other surrogates are not characters.
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class ScoreMerger:
    """Callable from text to token ids.

    No merge crosses two characters that are adjacent in no token, so the text is split there first. The pieces (mostly
    words) are independent of each other and often repeat. The ids of short pieces are cached.
    """

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]) -> None:
        """Set up the merger.

        scores: one number for each id. byte_ids: the token of each byte value, None to drop the byte.
        """
        self._ids = ids
        self._scores = scores
        self._byte_ids = byte_ids
        self._adjacent_pairs = _adjacent_pairs(ids)
        self._merge_cached = lru_cache(maxsize=1 << 16)(self._merge)

    def __call__(self, text: str) -> list[int]:
        text = LONE_SURROGATE.sub("\ufffd", text).replace(" ", SPACE)
        codes = _codes(text)
        pairs = codes[:-1] << SHIFT | codes[1:]
        places = np.minimum(np.searchsorted(self._adjacent_pairs, pairs), len(self._adjacent_pairs) - 1)
        cuts = [0, *(np.flatnonzero(self._adjacent_pairs[places] != pairs) + 1).tolist(), len(text)]
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

    def _cost(self, left: str, right: str) -> float | None:
        index = self._ids.get(left + right)
        return None if index is None else -self._scores[index]

    def _byte_fallback(self, character: str) -> list[int]:
        ids = (self._byte_ids[byte] for byte in character.encode("utf-8", "surrogateescape"))
        return [index for index in ids if index is not None]


def byte_fallback_ids(ids: Mapping[str, int], unknown: int | None) -> list[int | None]:
    """Token of each of the 256 byte values.

    `<0x0A>` if it exists, otherwise the byte itself as a text, otherwise the unknown token.
    """
    found: list[int | None] = []
    for byte in range(256):
        text = bytes([byte]).decode("utf-8", "surrogateescape")
        found.append(ids.get(f"<0x{byte:02X}>", ids.get(text, unknown)))
    return found


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _adjacent_pairs(texts: Mapping[str, int]) -> np.ndarray:
    """All pairs of characters that are adjacent in some text, as sorted numbers; never empty."""
    codes = _codes("".join(texts))
    ends = np.cumsum([len(text) for text in texts])[:-1]
    pairs = np.delete(codes[:-1] << SHIFT | codes[1:], ends - 1)
    return np.unique(np.append(pairs, -1))
