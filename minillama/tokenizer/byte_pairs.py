"""Byte-level byte-pair encoding (`tokenizer.ggml.model` = gpt2; Llama 3, Qwen, GLM, Phi-2 ...), on `tokenizers`.

A text is cut by the pre-tokenizer, its UTF-8 bytes are written in GPT-2's alphabet of 256 printable characters, and
inside each piece the pair that comes first in the list of merges is joined, again and again.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from minillama.errors import FormatError
from minillama.gguf.byte_alphabet import CHARACTER_TO_BYTE
from minillama.tokenizer.pretokenizers import PreTokenizer

log = logging.getLogger("minillama")


UTF8_BYTES = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}  # the others occur in no text
LONG_TEXT = 2000  # characters; up to here Python joins pairs itself, and a program starts sooner
NO_RANK = 1 << 62
# What Python makes of bytes that are no UTF-8
SURROGATE = re.compile("[\ud800-\udfff]")


def byte_pair_merger(
    ids: Mapping[str, int], merges: Sequence[str], pretokenizer: PreTokenizer
) -> Callable[[str], list[int]]:
    """A function from text to token ids.

    `merges` are lines of two texts with a blank between. The function raises FormatError for a text that leads through
    a merge which cannot belong to the vocabulary; to look through all of them first would cost every start its time.
    """
    splits = [pre_tokenizers.Split(Regex(text), behavior="isolated") for text in pretokenizer.expressions]
    to_alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Sequence([*splits, to_alphabet])
    if not ids.keys() >= CHARACTER_TO_BYTE.keys():
        return _library_merger(ids, merges, pretokenizer, cut)
    ranks = dict(zip(merges, range(len(merges)), strict=True))
    if len(ranks) < len(merges):  # the first of equal ones counts
        ranks = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))
    library = cache(partial(_library_merger, ids, merges, pretokenizer, cut))

    def merge(text: str) -> list[int]:
        if len(text) > LONG_TEXT or library.cache_info().currsize:
            return library()(text)
        found: list[int] = []
        try:
            for piece, _ in cut.pre_tokenize_str(SURROGATE.sub("\ufffd", text)):
                whole = ids.get(piece) if pretokenizer.ignore_merges else None
                found += [ids[part] for part in merge_pairs(piece, ranks)] if whole is None else [whole]
        except KeyError:  # a merge makes what is no token
            return library()(text)
        return found

    return merge


def merge_pairs(piece: str, ranks: Mapping[str, int]) -> list[str]:
    """Byte-pair encoding as it is defined (Sennrich et al. 2016): join the pair of the lowest rank until none is left.

    ranks: of two texts with a blank between.
    """
    parts = list(piece)
    while len(parts) > 1:
        pairs = [ranks.get(f"{a} {b}", NO_RANK) for a, b in pairwise(parts)]
        rank = min(pairs)
        if rank == NO_RANK:
            break
        at = pairs.index(rank)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _library_merger(
    ids: Mapping[str, int], merges: Sequence[str], pretokenizer: PreTokenizer, cut: pre_tokenizers.PreTokenizer
) -> Callable[[str], list[int]]:
    """The merging of `tokenizers`: slow to set up for a large vocabulary, then faster by far."""
    pairs = _parse_merges(merges)
    bytes_missing = sorted(CHARACTER_TO_BYTE.keys() - ids.keys())
    if any(CHARACTER_TO_BYTE[text] in UTF8_BYTES for text in bytes_missing):
        log.warning("some bytes of UTF-8 are no tokens; text that needs them loses characters")
    try:
        bpe, replacements = _build(ids, pairs, bytes_missing, pretokenizer.ignore_merges)
    except Exception:  # the only kind that `tokenizers` raises: a merge needs a text that is no token
        missing = sorted(set(bytes_missing).union(map("".join, pairs), *zip(*pairs, strict=True)) - ids.keys())
        if pretokenizer.ignore_merges:
            text = max(missing, key=len)
            raise FormatError(
                f"tokenizer.ggml.merges needs {text!r}, which is no token; convert the model again"
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
    """The merging of `tokenizers`, which wants a token for every byte and every merge.

    Where the vocabulary lacks one, a stand-in with an id past the end takes part in the merging; the dictionary says
    which ids replace it afterwards: those of its single characters, as far as llama.cpp finds them.
    """
    vocabulary = dict(ids)
    if SURROGATE.search("".join(ids)):  # tokens that are no UTF-8; no text leads to them
        vocabulary = {text: index for text, index in ids.items() if not SURROGATE.search(text)}
    base = max(ids.values()) + 1
    vocabulary |= {text: base + place for place, text in enumerate(missing)}
    replacements = {
        base + place: [ids[character] for character in text if character.isascii() and character in ids]
        for place, text in enumerate(missing)
    }
    return Tokenizer(models.BPE(vocabulary, list(pairs), ignore_merges=ignore_merges)), replacements


def alphabet_to_bytes(text: str) -> bytes:
    """The bytes of a token's text; a character outside the alphabet is spelt out as llama.cpp does."""
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
    """Both texts of each merge; the first of equal merges counts, and lines without two texts do not."""
    if SURROGATE.search("".join(merges)):  # no UTF-8; no text leads to them
        merges = [merge for merge in merges if not SURROGATE.search(merge)]
    if len(set(merges)) < len(merges):
        merges = list(dict.fromkeys(merges))
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    return [pair for pair in pairs if len(pair) == 2 and pair[0]]
