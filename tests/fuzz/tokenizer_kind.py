"""Vocabularies: damaged lists, names and ids, and random texts."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_bytes import build, pair
from vocabularies import MERGES, WORDS, bpe_metadata, character_metadata, spm_metadata

from minillama.gguf.header_parser import parse_header
from minillama.tokenizer import load_chat_template, load_tokenizer
from minillama.tokenizer.merging import byte_pairs
from minillama.tokenizer.pretokenizers import PRETOKENIZERS
from tests.fuzz import hostile_values
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.gguf_parts import Value, typed_value
from tests.fuzz.tokenizer_check import check_tokenizer
from tests.fuzz.tokenizer_mutations import mutate_tokenizer

SPECIAL = (("<|im_start|>", 3), ("<|im_end|>", 3), ("<tool>", 4), ("  ", 4))
PIECES = (
    "the cat",
    " ",
    "\n",
    "\t",
    "12345",
    "é",
    "日本語",
    "한국어",
    "👩‍👩‍👧",
    "\u0301",
    "\u200d",
    "'s",
    "<|im_end|>",
    "...",
    "a",
    "Ⅷ",
    "\u3000",
)


@dataclass(frozen=True)
class Vocabulary:
    """Metadata of a file, and texts to encode."""

    values: Mapping[bytes, Value]
    texts: tuple[str, ...]

    def header(self) -> bytes:
        """A file of these metadata."""
        return build([pair(key, value.kind, value.content) for key, value in self.values.items()])


class TokenizerKind(Kind[Vocabulary]):
    """Tokenizers that are loaded from the metadata of a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        seeds = (
            spm_metadata(WORDS, SPECIAL),
            bpe_metadata(MERGES, SPECIAL),
            bpe_metadata(MERGES, without=("ä", "Ġt")),
            character_metadata(("▁ t", "h e", "▁t he", "\n \n", "▁ ▁", "日 本"), SPECIAL),
        )
        self._seeds = [{key.encode(): typed_value(value) for key, value in seed.items()} for seed in seeds]

    def make(self, rng: random.Random) -> Vocabulary:
        values = dict(rng.choice(self._seeds))
        if b"tokenizer.ggml.pre" in values:
            values[b"tokenizer.ggml.pre"] = Value(8, rng.choice(sorted(PRETOKENIZERS)).encode())
        if rng.random() < 0.85:
            values = mutate_tokenizer(rng, values)
        return Vocabulary(values, tuple(random_text(rng) for _ in range(4)))

    def run(self, given: Vocabulary) -> str:
        metadata = parse_header(given.header(), "vocabulary.gguf").metadata
        tokenizer = load_tokenizer(metadata)
        check_tokenizer(tokenizer, metadata, given.texts)
        load_chat_template(metadata)
        if metadata["tokenizer.ggml.model"] == "gpt2":
            _check_both_mergers(metadata, given.texts)
        return "loaded"

    def files(self, given: Vocabulary) -> dict[str, bytes]:
        texts = "\n".join(map(ascii, given.texts))
        return {"vocabulary.gguf": given.header(), "texts.txt": texts.encode()}


def random_text(rng: random.Random) -> str:
    """A text of pieces that tokenizers split in different ways, sometimes a long run of one of them."""
    if rng.random() < 0.1:
        return rng.choice(PIECES) * rng.choice((50, 300, 1500))
    pieces = (rng.choice(PIECES) if rng.random() < 0.8 else hostile_values.text(rng) for _ in range(rng.randrange(20)))
    return "".join(pieces)


def _check_both_mergers(metadata: Mapping[str, object], texts: tuple[str, ...]) -> None:
    """Short and long texts are merged by different code, which must agree."""
    short, limit = load_tokenizer(metadata), byte_pairs.LONG_TEXT
    ids = [short.encode(text) for text in texts]
    try:
        byte_pairs.LONG_TEXT = -1
        long = load_tokenizer(metadata)
        for text, expected in zip(texts, ids, strict=True):
            if (found := long.encode(text)) != expected:
                raise Finding(f"{text[:50]!r} is {expected[:20]} in Python, but {found[:20]} in the library")
    finally:
        byte_pairs.LONG_TEXT = limit


KIND = TokenizerKind
