"""Merging by score: the heap over split text against a reference implementation of ten lines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from vocabularies import WORDS, spm_metadata

from minillama.tokenizer import load_tokenizer
from minillama.tokenizer.merging.score_merge import byte_fallback_ids, score_merger

PIECES = st.text("▁ab.", min_size=1, max_size=4)
SCORES = st.sampled_from([-3.0, -2.0, -1.0, 0.0])  # few, so that many tie


def slow_merge(text: str, ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]) -> list[int]:
    symbols = list(text.replace(" ", "▁"))
    while True:
        joined = [(ids.get(a + b), place) for place, (a, b) in enumerate(pairwise(symbols))]
        found = [(-scores[index], place) for index, place in joined if index is not None]
        if not found:
            break
        place = min(found)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    spelt = [[ids[symbol]] if symbol in ids else [byte_ids[byte] for byte in symbol.encode()] for symbol in symbols]
    return [index for part in spelt for index in part if index is not None]


@given(st.dictionaries(PIECES, SCORES, max_size=30), st.text(" ▁ab.é", max_size=40))
@example({"ab": -1.0, "ba": -1.0}, "ababa")  # equal scores: the leftmost pair first
@example({"aa": -1.0}, "aaaaa")
@example({"ab": 0.0, "abab": 0.0}, "abababab")
def test_agrees_with_the_reference_implementation(pieces: dict[str, float], text: str) -> None:
    ids = {piece: place for place, piece in enumerate(pieces)} | {f"<0x{byte:02X}>": 100 + byte for byte in range(256)}
    scores = list(pieces.values()) + [0.0] * 400
    byte_ids = byte_fallback_ids(ids, None)
    assert score_merger(ids, scores, byte_ids)(text) == slow_merge(text, ids, scores, byte_ids)


@given(st.text(max_size=60))
def test_decoding_gives_the_text_back(text: str) -> None:
    tokenizer = load_tokenizer(spm_metadata(WORDS))
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    # SentencePiece's sign for a blank cannot be told from a blank
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_the_highest_score_wins() -> None:
    tokenizer = load_tokenizer(spm_metadata(WORDS))
    texts = [tokenizer.tokens[index] for index in tokenizer.encode("the cat  as", add_special=False)]
    assert texts == ["▁the", "▁cat", "▁▁", "as"]


def test_byte_fallback_outside_the_vocabulary() -> None:
    tokenizer = load_tokenizer(spm_metadata(WORDS))
    ids = tokenizer.encode("é", add_special=False)
    assert [tokenizer.tokens[index] for index in ids] == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids) == "é"


def test_bytes_that_are_not_text_keep_their_value() -> None:
    tokenizer = load_tokenizer(spm_metadata(WORDS))
    text = b"\xff\xc3".decode("utf-8", "surrogateescape")  # as Python hands over a command line
    assert [tokenizer.tokens[index] for index in tokenizer.encode(text, add_special=False)] == ["▁", "<0xFF>", "<0xC3>"]
    replaced = tokenizer.encode("\ud800", add_special=False)
    assert tokenizer.decode(replaced) == "\ufffd"


def test_unknown_token_without_byte_tokens() -> None:
    byte_ids = byte_fallback_ids({"<unk>": 0, "a": 1, "<0x0A>": 2}, unknown=0)
    assert (byte_ids[0x0A], byte_ids[ord("a")], byte_ids[ord("b")]) == (2, 1, 0)
    assert byte_fallback_ids({"a": 0}, unknown=None)[ord("b")] is None
