"""Byte pairs against a reference implementation, pre-tokenizers against the pieces of llama.cpp."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from vocabularies import MERGES, bpe_metadata, byte_alphabet

from minillama.errors import FormatError
from minillama.tokenizer import load_tokenizer
from minillama.tokenizer.merging.byte_pairs import LONG_TEXT, alphabet_to_bytes
from minillama.tokenizer.pretokenizers import PRETOKENIZERS

OF_BYTES = sorted(name for name in PRETOKENIZERS if not PRETOKENIZERS[name].characters)
GPT2 = regex.compile(PRETOKENIZERS["gpt-2"].expressions[0])


def slow_pieces(text: str) -> list[str]:
    pieces, end = [], 0
    for match in GPT2.finditer(text):
        pieces += [text[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in [*pieces, text[end:]] if piece]


def slow_merge(piece: str, ids: Mapping[str, int], merges: Sequence[str]) -> list[int]:
    symbols = [byte_alphabet()[byte] for byte in piece.encode()]
    while True:
        pairs = [f"{a} {b}" for a, b in pairwise(symbols)]
        known = [(merges.index(pair), place) for place, pair in enumerate(pairs) if pair in merges]
        if not known:
            break
        place = min(known)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    return [ids[part] for symbol in symbols for part in ([symbol] if symbol in ids else symbol) if part in ids]


@st.composite
def merge_lists(draw: st.DrawFn) -> list[str]:
    """Merges that build on each other, some twice, in any order."""
    texts, merges = list("abĠ."), []
    for _ in range(draw(st.integers(0, 12))):
        first, second = draw(st.sampled_from(texts)), draw(st.sampled_from(texts))
        merges.append(f"{first} {second}")
        texts.append(first + second)
    return draw(st.permutations(merges))


@given(merge_lists(), st.text("ab .", max_size=40))
@example(["a a"], "aaaaa")
@example(["a b", "b a"], "ababab")
def test_agrees_with_the_reference_implementation(merges: list[str], text: str) -> None:
    tokenizer = load_tokenizer(bpe_metadata(merges))
    ids = {token: index for index, token in enumerate(tokenizer.tokens)}
    expected = [index for piece in slow_pieces(text) for index in slow_merge(piece, ids, merges)]
    assert tokenizer.encode(text, add_special=False) == expected


CHAINS = ["a b", "ab a", "b a", "a a", "ab ba", "aa ab"]


@given(st.lists(st.sampled_from(CHAINS), unique=True), st.text("ab", max_size=20))
def test_a_merge_without_a_token_is_undone(merges: list[str], text: str) -> None:
    tokenizer = load_tokenizer(bpe_metadata(merges, without=("ab", "ba", "aa")))
    ids = {token: index for index, token in enumerate(tokenizer.tokens)}
    assert tokenizer.encode(text, add_special=False) == slow_merge(text, ids, merges)


@given(st.text(max_size=60), st.sampled_from(OF_BYTES))
@example("\x00\u0378 \r\n\r\n  x", "default")
def test_decoding_gives_the_text_back(text: str, pre: str) -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES, pre=pre))
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    assert b"".join(map(tokenizer.piece, ids)).decode() == text
    if not tokenizer.clean_spaces:
        assert tokenizer.decode(ids) == text


def test_a_piece_that_is_a_token_is_taken_whole_when_merges_are_ignored() -> None:
    metadata = bpe_metadata(MERGES, special=[("cats", 1)], pre="llama-bpe")
    tokenizer = load_tokenizer(metadata)
    assert [tokenizer.tokens[index] for index in tokenizer.encode("cats", add_special=False)] == ["cats"]
    tokenizer = load_tokenizer(metadata | {"tokenizer.ggml.pre": "gpt-2"})
    assert [tokenizer.tokens[index] for index in tokenizer.encode("cats", add_special=False)] == ["c", "at", "s"]


def test_missing_bytes_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(bpe_metadata(["a c", "a b"], without="b"))
    assert "loses characters" in caplog.text
    ids = tokenizer.encode("abc", add_special=False)
    # The lost b still stands between its neighbours while merging
    assert [tokenizer.tokens[index] for index in ids] == ["ab", "c"]
    assert [tokenizer.tokens[index] for index in tokenizer.encode("cbc", add_special=False)] == ["c", "c"]


def test_merges_outside_the_vocabulary() -> None:
    metadata = bpe_metadata(MERGES, pre="llama-bpe") | {"tokenizer.ggml.merges": ("h e", "q q")}
    tokenizer = load_tokenizer(metadata)
    assert [tokenizer.tokens[index] for index in tokenizer.encode("he", add_special=False)] == ["he"]
    with pytest.raises(FormatError, match="'qq', which is not a token"):
        tokenizer.encode("heqq", add_special=False)


def test_lines_that_are_not_merges_are_ignored() -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES) | {"tokenizer.ggml.merges": ("", " ", "he", "h e", " a")})
    assert [tokenizer.tokens[index] for index in tokenizer.encode("he", add_special=False)] == ["he"]


def test_text_that_is_not_utf8_becomes_a_replacement_character() -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES))
    assert tokenizer.decode(tokenizer.encode("a\udcff\ud800b", add_special=False)) == "a\ufffd\ufffdb"


def test_tokens_that_are_not_utf8_are_ignored() -> None:
    metadata = bpe_metadata([*MERGES, "\udcff e"], special=[("\udcfe", 1)])
    tokenizer = load_tokenizer(metadata)
    assert [tokenizer.tokens[index] for index in tokenizer.encode("he", add_special=False)] == ["he"]


def test_a_token_outside_the_alphabet_is_shown_as_llama_cpp_shows_it() -> None:
    assert alphabet_to_bytes("Ġa") == b" a"
    assert alphabet_to_bytes("a b") == b"a[UNK_BYTE_0x20a b]b"


def cut(name: str, text: str) -> list[str]:
    pieces = [text]
    for expression in PRETOKENIZERS[name].expressions:
        split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
        pieces = [part for piece in pieces for part, _ in split.pre_tokenize_str(piece)]
    return pieces


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("llama-bpe", "It's 12345  OK!\n\n x", ["It", "'s", " ", "123", "45", " ", " OK", "!\n\n", " x"]),
        ("llama-bpe", "DON'T\r\n\t你好。", ["DON", "'T", "\r\n", "\t你好", "。"]),
        ("qwen2", "in 2024: 你好", ["in", " ", "2", "0", "2", "4", ":", " 你好"]),
        ("qwen35", "क्षि 12", ["क्षि", " ", "1", "2"]),
        ("gpt-2", "It'S 2024  OK", ["It", "'", "S", " 2024", " ", " OK"]),
        ("starcoder", "x=10", ["x", "=", "1", "0"]),
        ("falcon", "12345 a<=b", ["123", "45", " a", "<=", "b"]),
        ("default", "12345 a<=b`", ["123", "45", " a", "<=", "b", "`"]),
        ("deepseek-llm", "Hello world!\n你好 12345  ", ["Hello", " world", "!", "\n", "你好", " ", "12345", "  "]),
        ("deepseek-coder", "x = 12;\n你好", ["x", " = ", "1", "2", ";", "\n", "你好"]),
        ("deepseek-v3", "foo.bar 1234 日本", ["foo", ".bar", " ", "123", "4", " ", "日本"]),
        ("tekken", "camelCase HTTPServer 12/\n", ["camel", "Case", " HTTPServer", " ", "1", "2", "/\n"]),
        ("gpt-4o", "camelCase's 1234", ["camel", "Case's", " ", "123", "4"]),
        ("command-r", "a 12", ["a", " ", "1", "2"]),
        ("tiny_aya", "ab1234567", ["ab", "1", "234", "567"]),
        ("superbpe", "1234567", ["1", "234", "567"]),
        ("viking", "a.b 12", ["a", ".", "b", " ", "1", "2"]),
    ],
)
def test_pieces_written_by_hand(name: str, text: str, pieces: list[str]) -> None:
    assert cut(name, text) == pieces


def test_pieces_of_llama_cpp() -> None:
    """Lengths of the pieces that llama.cpp's unicode_regex_split cuts, for all of its names."""
    table = json.loads(Path(__file__).with_name("llama_cpp_pieces.json").read_text())
    different, names = [], []
    for row in table["rows"]:
        for text, lengths in zip(table["texts"], row["lengths"], strict=True):
            ends = [0, *accumulate(map(int, lengths.split()))]
            pieces = [text[start:end] for start, end in pairwise(ends)]
            different += [(name, text) for name in row["names"].split() if cut(name, text) != pieces]
        names += row["names"].split()
    assert not different
    assert sorted(names) == sorted(PRETOKENIZERS)


@given(st.sampled_from(sorted(PRETOKENIZERS)), st.text(max_size=50))
def test_pretokenizers_keep_all_text(name: str, text: str) -> None:
    assert "".join(cut(name, text)) == text


@pytest.mark.parametrize(("pre", "said"), [(None, "names no pre-tokenizer"), ("new-2027", "'new-2027'")])
def test_an_unknown_pretokenizer_causes_a_warning(pre: str | None, said: str, caplog: pytest.LogCaptureFixture) -> None:
    metadata = bpe_metadata(MERGES)
    del metadata["tokenizer.ggml.pre"]
    if pre is not None:
        metadata["tokenizer.ggml.pre"] = pre
    tokenizer = load_tokenizer(metadata)
    assert said in caplog.text and "'default'" in caplog.text and "llama-bpe" in caplog.text
    assert all(record.name == "minillama" and record.levelno == logging.WARNING for record in caplog.records)
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


@given(merge_lists(), st.text(max_size=60))
def test_a_long_text_gives_the_tokens_of_its_short_parts(merges: list[str], text: str) -> None:
    """The library merges long texts, Python short ones: both must agree."""
    short, long = (load_tokenizer(bpe_metadata(merges)) for _ in range(2))
    long.encode("a" * (LONG_TEXT + 1), add_special=False)  # from here on the library serves
    assert short.encode(text, add_special=False) == long.encode(text, add_special=False)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_a_merge_longer_than_all_tokens(pre: str) -> None:
    """The library panics in this case instead of raising an exception."""
    metadata = bpe_metadata(MERGES, pre=pre, without=("Ā",))
    metadata["tokenizer.ggml.merges"] = ("a" * 40 + " " + "b" * 40, "h e")
    if pre == "llama-bpe":
        with pytest.raises(FormatError, match=r"merges needs '.{60,70}', which is not a token"):
            load_tokenizer(metadata)
    else:
        tokenizer = load_tokenizer(metadata)
        assert [tokenizer.tokens[index] for index in tokenizer.encode("he", add_special=False)] == ["he"]
