"""Byte-level byte-pair encoding (`tokenizer.ggml.model` = gpt2; Llama 3, Qwen, GLM, Phi-2 ...), on `tokenizers`.

The pre-tokenizer splits the text. The UTF-8 bytes of each piece are written in GPT-2's alphabet of 256 printable
characters. Then the pair that comes first in the list of merges is merged, repeatedly, until no pair is in the list.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from minillama.errors import FormatError, quoted
from minillama.gguf.byte_alphabet import CHARACTER_TO_BYTE
from minillama.tokenizer.merging.merge_pairs import merge_pairs, merge_ranks
from minillama.tokenizer.pretokenizers import PreTokenizer

log = logging.getLogger("minillama")


UTF8_BYTES = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}  # no text contains the others
LONG_TEXT = 20_000  # characters; Python merges shorter texts itself, which starts faster
# Python's representation of bytes that are not UTF-8
SURROGATE = re.compile("[\ud800-\udfff]")


def byte_pair_merger(
    ids: Mapping[str, int], merges: Sequence[str], pretokenizer: PreTokenizer
) -> Callable[[str], list[int]]:
    """Build a function from text to token ids.

    merges: lines of two texts, separated by a space. The function raises FormatError if a text needs a merge whose
    result is not in the vocabulary. Checking all merges first would slow down every start.
    """
    to_alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Sequence([*splitters(pretokenizer), to_alphabet])
    if not ids.keys() >= CHARACTER_TO_BYTE.keys():
        return _library_merger(ids, merges, pretokenizer, cut)
    ranks = cache(partial(merge_ranks, merges))  # 300,000 in Llama 3, whose usual words are tokens already
    library = cache(partial(_library_merger, ids, merges, pretokenizer, cut))

    def rank(left: str, right: str) -> int | None:
        return ranks().get(f"{left} {right}")

    def merge(text: str) -> list[int]:
        if len(text) > LONG_TEXT or library.cache_info().currsize:
            return library()(text)
        found: list[int] = []
        try:
            for piece, _ in cut.pre_tokenize_str(SURROGATE.sub("\ufffd", text)):
                whole = ids.get(piece) if pretokenizer.ignore_merges else None
                found += [ids[part] for part in merge_pairs(piece, rank)] if whole is None else [whole]
        except KeyError:  # the result of a merge is not a token
            return library()(text)
        return found

    return merge


def splitters(pretokenizer: PreTokenizer) -> list[pre_tokenizers.PreTokenizer]:
    """The expressions of a pre-tokenizer, for the `tokenizers` library."""
    return [pre_tokenizers.Split(Regex(text), behavior="isolated") for text in pretokenizer.expressions]


def _library_merger(
    ids: Mapping[str, int], merges: Sequence[str], pretokenizer: PreTokenizer, cut: pre_tokenizers.PreTokenizer
) -> Callable[[str], list[int]]:
    """Merge with the `tokenizers` library: slow setup for a large vocabulary, then much faster."""
    pairs = _parse_merges(merges)
    bytes_missing = sorted(CHARACTER_TO_BYTE.keys() - ids.keys())
    if any(CHARACTER_TO_BYTE[text] in UTF8_BYTES for text in bytes_missing):
        log.warning("some bytes of UTF-8 have no token; text with these bytes loses characters")
    try:
        bpe, replacements = _build(ids, pairs, bytes_missing, pretokenizer.ignore_merges)
    except Exception:  # `tokenizers` raises this type: a merge needs a text without a token
        missing = sorted(set(bytes_missing).union(map("".join, pairs), *zip(*pairs, strict=True)) - ids.keys())
        if pretokenizer.ignore_merges:
            text = max(missing, key=len)
            raise FormatError(
                f"tokenizer.ggml.merges needs {quoted(text)}, which is not a token; convert the model again"
            ) from None
        bpe, replacements = _build(ids, pairs, missing, pretokenizer.ignore_merges)
    bpe.pre_tokenizer = cut

    def merge(text: str) -> list[int]:
        found = bpe.encode(SURROGATE.sub("\ufffd", text), add_special_tokens=False).ids
        if not replacements:
            return found
        return [index for raw in found for index in replacements.get(raw, (raw,))]

    return merge


def _build(
    ids: Mapping[str, int], pairs: Sequence[tuple[str, str]], missing: Sequence[str], ignore_merges: bool
) -> tuple[Tokenizer, dict[int, list[int]]]:
    """Build the tokenizer of `tokenizers`, which needs a token for every byte and every merge.

    A placeholder with an id past the end takes the place of a token that the vocabulary lacks. The dictionary has the
    ids that replace it afterwards: those of its single characters, as far as llama.cpp finds them.
    """
    vocabulary = dict(ids)
    if SURROGATE.search("".join(ids)):  # tokens that are not UTF-8; no text produces them
        vocabulary = {text: index for text, index in ids.items() if not SURROGATE.search(text)}
    base = max(ids.values()) + 1
    vocabulary |= {text: base + place for place, text in enumerate(missing)}
    if _longest(map("".join, pairs)) > _longest(vocabulary):  # the library panics in place of raising an exception
        raise ValueError("the result of a merge is longer than all tokens")
    replacements = {
        base + place: [ids[character] for character in text if character.isascii() and character in ids]
        for place, text in enumerate(missing)
    }
    return Tokenizer(models.BPE(vocabulary, list(pairs), ignore_merges=ignore_merges)), replacements


def _longest(texts: Iterable[str]) -> int:
    """Bytes of the longest text."""
    return max(map(len, map(str.encode, texts)), default=0)


def alphabet_to_bytes(text: str) -> bytes:
    """Bytes of a token's text; other characters become llama.cpp's `[UNK_BYTE_...]`."""
    try:
        return bytes(map(CHARACTER_TO_BYTE.__getitem__, text))
    except KeyError:
        parts = []
        for character in text:
            raw = character.encode("utf-8", "surrogateescape")
            unknown = b"[UNK_BYTE_0x" + raw.hex().encode() + text.encode("utf-8", "surrogateescape") + b"]"
            parts.append(bytes([CHARACTER_TO_BYTE[character]]) if character in CHARACTER_TO_BYTE else unknown)
        return b"".join(parts)


def _parse_merges(merges: Sequence[str]) -> list[tuple[str, str]]:
    """The two texts of each merge, without repeated merges and lines without two texts."""
    if SURROGATE.search("".join(merges)):  # not UTF-8; no text produces them
        merges = [merge for merge in merges if not SURROGATE.search(merge)]
    if len(set(merges)) < len(merges):
        merges = list(dict.fromkeys(merges))
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    return [pair for pair in pairs if len(pair) == 2 and pair[0]]
