"""Merging by score, as in SentencePiece models (`tokenizer.ggml.model` = llama; also Gemma and Phi-3).

The two neighbours whose merged text is the token with the highest score are merged, repeatedly.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from minillama.tokenizer.merging.character_merge import SPACE, CharacterMerger, adjacent_pairs

# Python represents a byte that is not UTF-8 as a surrogate from DC80 to DCFF, which becomes that byte's token. The
# other surrogates are not characters.
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def score_merger(
    ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]
) -> Callable[[str], list[int]]:
    """Build a function from text to token ids.

    scores: one number for each id. byte_ids: the token of each byte value, None to drop the byte.
    """

    def cost(left: str, right: str) -> float | None:
        index = ids.get(left + right)
        return None if index is None else -scores[index]

    merger = CharacterMerger(ids, cost, byte_ids, adjacent_pairs(ids))

    def merge(text: str) -> list[int]:
        return merger(LONE_SURROGATE.sub("\ufffd", text).replace(" ", SPACE))

    return merge


def byte_fallback_ids(ids: Mapping[str, int], unknown: int | None) -> list[int | None]:
    """Token of each of the 256 byte values.

    `<0x0A>` if it exists, otherwise the byte itself as a text, otherwise the unknown token.
    """
    found: list[int | None] = []
    for byte in range(256):
        text = bytes([byte]).decode("utf-8", "surrogateescape")
        found.append(ids.get(f"<0x{byte:02X}>", ids.get(text, unknown)))
    return found
