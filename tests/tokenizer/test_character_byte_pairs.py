"""Byte pairs of characters (Gemma 4, Sarvam) against a reference implementation of ten lines."""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vocabularies import CONTROL, NORMAL, character_metadata

from minillama.tokenizer import load_tokenizer

MERGES = ("▁ t", "h e", "▁t he", "\n \n", "\n\n \n\n", "▁ ▁", "你 好")


def slow_merge(line: str, ids: Mapping[str, int], merges: Sequence[str]) -> list[int]:
    symbols = list(line)
    while True:
        pairs = [f"{a} {b}" for a, b in pairwise(symbols)]
        known = [(merges.index(pair), place) for place, pair in enumerate(pairs) if pair in merges]
        if not known:
            break
        place = min(known)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    bytes_of = [[symbol] if symbol in ids else [f"<0x{byte:02X}>" for byte in symbol.encode()] for symbol in symbols]
    return [ids[text] for texts in bytes_of for text in texts]


@st.composite
def merge_lists(draw: st.DrawFn) -> list[str]:
    """Merges that build on each other, some twice, in any order."""
    texts, merges = list("abé▁\n"), []
    for _ in range(draw(st.integers(0, 12))):
        first, second = draw(st.sampled_from(texts)), draw(st.sampled_from(texts))
        merges.append(f"{first} {second}")
        texts.append(first + second)
    return draw(st.permutations(merges))


@given(merge_lists(), st.text("abé \n中", max_size=40), st.booleans())
@example(["a a"], "aaaaa", True)
@example(["a b", "b a"], "ababab", True)
@example(["\n \n", "\n\n \n"], "\n" * 5, False)
def test_agrees_with_the_reference_implementation(merges: list[str], text: str, is_gemma: bool) -> None:
    metadata = character_metadata(merges)
    if not is_gemma:
        metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "sarvam-moe"}
    tokenizer = load_tokenizer(metadata)
    ids = {token: index for index, token in enumerate(tokenizer.tokens)}
    expected: list[int] = []
    for is_end, group in groupby(text.replace(" ", "▁"), "\n".__eq__):
        line = "".join(group)
        expected += [ids[line]] if is_gemma and is_end and line in ids else slow_merge(line, ids, merges)
    assert tokenizer.encode(text, add_special=False) == expected


@given(st.text(max_size=60))
def test_decoding_gives_the_text_back(text: str) -> None:
    tokenizer = load_tokenizer(
        character_metadata(MERGES) | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "sarvam-moe"}
    )
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def texts_of(metadata: Mapping[str, object], text: str) -> list[str]:
    tokenizer = load_tokenizer(metadata)
    return [tokenizer.tokens[index] for index in tokenizer.encode(text, add_special=False)]


def test_newlines_of_gemma_are_one_token_if_there_is_one() -> None:
    metadata = character_metadata(MERGES, special=[("\n\n\n", NORMAL)])
    assert texts_of(metadata, "the\n\n\n the") == ["t", "he", "\n\n\n", "▁the"]
    assert texts_of(metadata, "\n" * 5) == ["\n\n\n\n", "\n"]
    metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "sarvam-moe"}
    assert texts_of(metadata, "\n\n\n") == ["\n\n", "\n"]


def test_a_character_without_a_token_becomes_bytes() -> None:
    assert texts_of(character_metadata(MERGES), "你好é") == ["你好", "<0xC3>", "<0xA9>"]
    metadata = character_metadata(MERGES)
    lost = tuple("lost" if text == "<0xA9>" else text for text in metadata["tokenizer.ggml.tokens"])
    metadata |= {
        "tokenizer.ggml.tokens": lost,
        "tokenizer.ggml.token_type": metadata["tokenizer.ggml.token_type"].copy(),
    }
    metadata["tokenizer.ggml.token_type"][lost.index("lost")] = NORMAL
    assert texts_of(metadata, "é") == ["<0xC3>"]


def test_gemma_begins_with_bos_whatever_the_file_says() -> None:
    metadata = character_metadata(MERGES) | {"tokenizer.ggml.add_bos_token": False}
    assert load_tokenizer(metadata).encode("the")[0] == 2
    for role in ("bos", "eos"):
        del metadata[f"tokenizer.ggml.{role}_token_id"]
    tokenizer = load_tokenizer(metadata)
    assert (tokenizer.bos, tokenizer.eos) == (None, None)
    assert tokenizer.eog == {1}  # <eos>, by its text


def test_tags_of_gemma() -> None:
    special = [
        (text, CONTROL) for text in ("<|turn>", "<turn|>", "<|tool_response>", "</s>", "<|channel>", "<channel|>")
    ]
    tokenizer = load_tokenizer(character_metadata(MERGES, special))
    assert {tokenizer.tokens[index] for index in tokenizer.eog} == {"<eos>", "<turn|>", "<|tool_response>"}
    assert tokenizer.decode(tokenizer.encode("</s>", parse_special=False)) == "</s>"


@pytest.mark.parametrize("pre", ["granite-embed-multi-311m", "gemma4"])
def test_the_pretokenizer_in_other_files(pre: str) -> None:
    metadata = character_metadata(MERGES) | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre}
    assert texts_of(metadata, "the the") == ["t", "he", "▁the"]
    assert load_tokenizer(metadata).encode("the")[0] == 2
