"""Merging by score, the way of SentencePiece models (`tokenizer.ggml.model` = llama; also Gemma and Phi-3).

A text becomes single characters; then, again and again, the two neighbours whose joined text is the token with the
highest score are joined, the leftmost pair of equal ones first. What is no token in the end is spelt in bytes.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

SPACE = "▁"  # how SentencePiece writes a blank
SHIFT = 21  # a Unicode code point has 21 bits
# Python keeps a byte that is no UTF-8 as a surrogate DC80 to DCFF, and it becomes that byte's token; the other
# surrogates are no characters.
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class ScoreMerger:
    """Text -> token ids; call it.

    Nothing is ever joined across two characters that are neighbours in no token, so the text is cut there first.
    The pieces, words mostly, are independent of each other and repeat; each is merged once.
    """

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]) -> None:
        """`scores` has one number for every id; `byte_ids` has the token of each byte value, None to leave it out."""
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
            # Long pieces do not repeat; keeping them would only hold memory.
            ids.extend(self._merge_cached(word) if len(word) < 64 else self._merge(word))
        return ids

    def _merge(self, word: str) -> tuple[int, ...]:
        if word in self._ids and len(word) == 1:
            return (self._ids[word],)
        texts = list(word)  # "" once it is joined to its left neighbour
        before = list(range(-1, len(texts) - 1))
        after = [*range(1, len(texts)), -1]
        queue: list[tuple[float, int, int, int]] = []
        for left in range(len(texts) - 1):
            index = self._ids.get(texts[left] + texts[left + 1])
            if index is not None:
                queue.append((-self._scores[index], left, left + 1, 2))
        heapify(queue)
        while queue:
            _, left, right, length = heappop(queue)
            # Outdated: one of the two is gone or has grown since.
            if not texts[left] or not texts[right] or len(texts[left]) + len(texts[right]) != length:
                continue
            texts[left] += texts[right]
            texts[right] = ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            for first, second in ((before[left], left), (left, after[left])):
                if first >= 0 and second >= 0:
                    joined = texts[first] + texts[second]
                    index = self._ids.get(joined)
                    if index is not None:
                        heappush(queue, (-self._scores[index], first, second, len(joined)))
        ids: list[int] = []
        for text in filter(None, texts):
            index = self._ids.get(text)
            ids += [index] if index is not None else self._byte_fallback(text)
        return tuple(ids)

    def _byte_fallback(self, character: str) -> list[int]:
        spelt = (self._byte_ids[byte] for byte in character.encode("utf-8", "surrogateescape"))
        return [index for index in spelt if index is not None]


def byte_fallback_ids(ids: Mapping[str, int], unknown: int | None) -> list[int | None]:
    """The token of each of the 256 byte values: `<0x0A>`, else the byte itself as a text, else the unknown token."""
    found: list[int | None] = []
    for byte in range(256):
        text = bytes([byte]).decode("utf-8", "surrogateescape")
        found.append(ids.get(f"<0x{byte:02X}>", ids.get(text, unknown)))
    return found


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _adjacent_pairs(texts: Mapping[str, int]) -> np.ndarray:
    """All pairs of characters that are neighbours in some text, as sorted numbers; never empty."""
    codes = _codes("".join(texts))
    ends = np.cumsum([len(text) for text in texts])[:-1]
    pairs = np.delete(codes[:-1] << SHIFT | codes[1:], ends - 1)
    return np.unique(np.append(pairs, -1))
