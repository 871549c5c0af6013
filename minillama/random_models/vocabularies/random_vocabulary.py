"""Synthetic vocabularies that a tokenizer can use: bytes, letters, and merged pieces."""

from dataclasses import dataclass

import numpy as np

from minillama.gguf.byte_alphabet import BYTE_TO_CHARACTER
from minillama.random_models.vocabularies.vocabulary_specs import VocabularySpec

NORMAL, UNKNOWN, BYTE = 1, 2, 6
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"  # by frequency in English, so that early pieces are plausible
LONGEST_PIECE = 12


@dataclass(frozen=True)
class RandomTokens:
    """Tokenizer arrays of a file: `scores` only for SentencePiece, `merges` only for BPE."""

    texts: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]


def random_tokens(vocabulary: VocabularySpec, rng: np.random.Generator) -> RandomTokens:
    """Tokens of the whole vocabulary, with the real ids of special tokens."""
    make = {"llama": _sentencepiece, "gemma4": _character_pairs}.get(vocabulary.model, _byte_pairs)
    return make(vocabulary, rng)


def _byte_pairs(vocabulary: VocabularySpec, rng: np.random.Generator) -> RandomTokens:
    alphabet = list(BYTE_TO_CHARACTER.values())
    special = {place: (text, kind) for place, text, kind in vocabulary.special}
    merges = _merges("Ġ", vocabulary.size - len(special) - len(alphabet), set(alphabet), rng)
    ordinary = iter(alphabet + [left + right for left, right in merges])
    both = [special.get(place) or (next(ordinary), NORMAL) for place in range(vocabulary.size)]
    texts, types = zip(*both, strict=True)
    return RandomTokens(list(texts), list(types), [], [f"{left} {right}" for left, right in merges])


def _sentencepiece(vocabulary: VocabularySpec, rng: np.random.Generator) -> RandomTokens:
    """Special tokens, 256 bytes, pieces with decreasing scores, then single characters, as in real models."""
    texts, types, _ = _bytes_and_pieces(vocabulary, rng)
    first = texts.index("<0xFF>") + 1
    scores = [0.0] * first + [float(-place) for place in range(len(texts) - first)]
    return RandomTokens(texts, types, scores, [])


def _character_pairs(vocabulary: VocabularySpec, rng: np.random.Generator) -> RandomTokens:
    """The same tokens with merges in place of scores."""
    texts, types, merges = _bytes_and_pieces(vocabulary, rng)
    return RandomTokens(texts, types, [], [f"{left} {right}" for left, right in merges])


def _bytes_and_pieces(
    vocabulary: VocabularySpec, rng: np.random.Generator
) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Texts, types, and the merges that make the pieces."""
    texts = [text for _, text, _ in vocabulary.special] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [kind for _, _, kind in vocabulary.special] + [BYTE] * 256
    characters = ["▁", *LETTERS, *(chr(code) for code in range(ord("!"), 127) if chr(code) not in LETTERS)]
    merges = _merges("▁", vocabulary.size - len(texts) - len(characters), set(characters), rng)
    pieces = [left + right for left, right in merges] + characters
    return texts + pieces, types + [NORMAL] * len(pieces), merges


def _merges(space: str, count: int, taken: set[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    """`count` pairs of earlier pieces with new, distinct results; a space is always first."""
    starts, inner = [space, *LETTERS], list(LETTERS)
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        # Cubes favour early pieces, as short and frequent ones are in a trained vocabulary.
        for left_at, right_at in (rng.random((4096, 2)) ** 3).tolist():
            left, right = starts[int(left_at * len(starts))], inner[int(right_at * len(inner))]
            piece = left + right
            if piece in taken or len(piece) > LONGEST_PIECE:
                continue
            taken.add(piece)
            merges.append((left, right))
            starts.append(piece)
            if not piece.startswith(space):
                inner.append(piece)
            if len(merges) == count:
                break
    return merges
