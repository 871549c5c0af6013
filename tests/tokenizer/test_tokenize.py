"""The tokenizer as a whole: special tokens, BOS and EOS, pieces, decoding, streaming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import CONTROL, MERGES, NORMAL, UNUSED, USER_DEFINED, WORDS, bpe_metadata, spm_metadata

from minillama.errors import OptionError
from minillama.tokenizer import Tokenizer, load_tokenizer
from minillama.tokenizer.split_special_tokens import SpecialToken, split_special

SPECIAL = (("<|end|>", CONTROL), ("<|sys|>", CONTROL), ("[x]", USER_DEFINED), ("<gone>", UNUSED))


def spm(**changes: object) -> Tokenizer:
    """The SentencePiece vocabulary, with keys under `tokenizer.ggml.` changed."""
    return load_tokenizer(
        spm_metadata(WORDS, SPECIAL) | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    )


def bpe(pre: str = "gpt-2", **changes: object) -> Tokenizer:
    """The byte-pair vocabulary, with keys under `tokenizer.ggml.` changed."""
    metadata = bpe_metadata(MERGES, SPECIAL, pre=pre)
    return load_tokenizer(metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


def texts(tokenizer: Tokenizer, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[str]:
    ids = tokenizer.encode(text, add_special=add_special, parse_special=parse_special)
    return [tokenizer.tokens[index] for index in ids]


def test_sentencepiece_puts_a_blank_before_the_text_and_after_special_tokens() -> None:
    assert texts(spm(), "the<|end|>the[x] cat") == ["▁the", "<|end|>", "▁the", "[x]", "▁", "▁cat"]
    assert texts(spm(add_space_prefix=False), "the<|end|>the[x] cat")[:3] == ["t", "he", "<|end|>"]
    for tokenizer in (bpe(), bpe(add_space_prefix=True)):  # byte pairs ignore the flag here, as in llama.cpp
        assert texts(tokenizer, "the<|end|>the[x] cat") == ["t", "he", "<|end|>", "t", "he", "[x]", "Ġcat"]


def test_control_tokens_are_plain_text_unless_they_are_parsed() -> None:
    for tokenizer in (spm(), bpe()):
        assert "<|end|>" in texts(tokenizer, "a<|end|>[x]")
        plain = texts(tokenizer, "a<|end|>[x]", parse_special=False)
        assert "<|end|>" not in plain and plain[-1] == "[x]"
        assert "<gone>" not in texts(tokenizer, "<gone>")


def test_begin_and_end_tokens() -> None:
    assert texts(spm(), "the", add_special=True) == ["<s>", "▁the"]
    assert texts(spm(), "", add_special=True) == ["<s>"] and texts(spm(), "") == []
    assert texts(spm(add_bos_token=False, add_eos_token=True), "the", add_special=True) == ["▁the", "</s>"]
    assert texts(bpe(), "he", add_special=True) == ["he"]
    assert texts(bpe(add_bos_token=True), "he", add_special=True) == [bpe().tokens[0], "he"]
    assert bpe("llama-bpe").add_bos and not bpe("llama-bpe", add_bos_token=False).add_bos


def test_defaults_where_the_file_names_no_ids() -> None:
    def without(metadata: dict[str, object]) -> Tokenizer:
        return load_tokenizer({key: value for key, value in metadata.items() if not key.endswith("_token_id")})

    assert (without(spm_metadata(WORDS)).bos, without(spm_metadata(WORDS)).eos) == (1, 2)
    assert (without(bpe_metadata(MERGES)).bos, without(bpe_metadata(MERGES)).eos) == (11, 11)
    assert (without(bpe_metadata(MERGES, pre="glm4")).bos, without(bpe_metadata(MERGES, pre="glm4")).eos) == (None, 11)


def test_a_doubled_begin_token_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert texts(spm(), "<s>the", add_special=True) == ["<s>", "<s>", "▁the"]
    assert "'<s>'" in caplog.text


def test_end_of_generation_tokens() -> None:
    tokenizer = spm()
    end = tokenizer.tokens.index("<|end|>")
    assert tokenizer.eog == {2, end}
    assert bpe(eot_token_id=70).eog == {1, 70, bpe().tokens.index("<|end|>")}


def test_end_tokens_with_type_normal_are_control_tokens() -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES, [("<|im_end|>", NORMAL), ("<|fim_prefix|>", NORMAL)]))
    end, prefix = tokenizer.size - 2, tokenizer.size - 1
    assert end in tokenizer.eog and prefix not in tokenizer.eog
    assert tokenizer.piece(end) == tokenizer.piece(prefix) == b""
    assert tokenizer.encode("<|im_end|>", add_special=False) == [end]


def test_gpt_oss_ends_an_answer_with_return_not_with_end() -> None:
    special = [("<|return|>", CONTROL), ("<|call|>", CONTROL), ("<|end|>", CONTROL), ("<|channel|>", CONTROL)]
    tokenizer = load_tokenizer(bpe_metadata(MERGES, special))
    first = tokenizer.size - 4
    assert tokenizer.eog == {1, first, first + 1}
    assert tokenizer.piece(first + 2) == b"<|end|>" and tokenizer.piece(first + 3) == b"<|channel|>"


def test_phi3_special_tokens_strip_the_blanks_after_them() -> None:
    metadata = spm_metadata(WORDS, SPECIAL) | {"general.name": "Phi-3 Mini"}
    tokenizer = load_tokenizer(metadata)
    assert texts(tokenizer, "<|end|> \n\tthe<s> the") == ["<|end|>", "▁the", "<s>", "▁", "▁the"]
    assert texts(spm(), "<|end|> the") == ["<|end|>", "▁", "▁the"]


def test_the_longest_special_token_has_priority() -> None:
    specials = [SpecialToken("bcd", 1), SpecialToken("ab", 2), SpecialToken("b", 3)]
    assert split_special("abcdab b", specials) == ["a", 1, 2, " ", 3]
    assert split_special("", specials) == [] and split_special("xyz", specials) == ["xyz"]


@given(st.text("<|end>[x] ", max_size=40))
def test_splitting_at_special_tokens_keeps_all_text(text: str) -> None:
    specials = spm().specials
    fragments = split_special(text, specials)
    assert "".join(part if isinstance(part, str) else spm().tokens[part] for part in fragments) == text
    assert not any(special.text in part for part in fragments if isinstance(part, str) for special in specials)


def test_pieces() -> None:
    tokenizer = spm()
    ids = {text: index for index, text in enumerate(tokenizer.tokens)}
    assert tokenizer.piece(ids["▁the"]) == b" the" and tokenizer.piece(ids["<0xC3>"]) == b"\xc3"
    assert tokenizer.piece(ids["<s>"]) == b"" and tokenizer.piece(ids["<s>"], special=True) == b"<s>"
    assert tokenizer.piece(ids["<unk>"]) == b"" and tokenizer.piece(ids["[x]"]) == b"[x]"
    assert tokenizer.piece(ids["<gone>"], special=True) == b""
    for wrong in (-1, tokenizer.size):
        with pytest.raises(OptionError, match=f"{wrong}; expected 0 to {tokenizer.size - 1}"):
            tokenizer.piece(wrong)


def test_decoding_removes_one_leading_blank_of_the_very_first_token() -> None:
    tokenizer = spm()
    the, cat = tokenizer.encode("the cat", add_special=False)
    assert tokenizer.decode([the, cat]) == "the cat" and tokenizer.decode([1, the, cat]) == " the cat"
    assert tokenizer.decode([1, the, 2], special=True) == "<s> the</s>"
    assert spm(add_space_prefix=False).decode([the, cat]) == " the cat"
    assert tokenizer.decode([]) == ""
    pairs = bpe(add_space_prefix=True)
    assert pairs.decode(pairs.encode(" the cat", add_special=False)) == "the cat"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Hi , you ! a ? b .", "Hi, you! a? b."),
        ("it 's we 're I 'm you 've", "it's we're I'm you've"),
        ("he 'll he 'd can 't", "he 'll he 'd can 't"),
        ("a ' b ' c", "a'b'c"),
        ("x  .", "x ."),
        ("end '", "end '"),
    ],
)
def test_decoding_cleans_up_spaces(text: str, cleaned: str) -> None:
    assert bpe("gpt-2").decode(bpe("gpt-2").encode(text)) == cleaned
    assert bpe("qwen2").decode(bpe("qwen2").encode(text)) == text


def test_a_stream_waits_for_whole_characters() -> None:
    tokenizer = bpe()
    decoder = tokenizer.decoder()
    ids = tokenizer.encode("é", add_special=False)
    assert [decoder.push(index) for index in ids] == ["", "é"]
    assert decoder.push(ids[0]) == "" and decoder.flush() == "\ufffd"
    assert decoder.flush() == "" and decoder.push(tokenizer.encode("a")[0]) == "a"
    assert tokenizer.decoder(special=True).push(tokenizer.size - 4) == "<|end|>"


@given(st.lists(st.integers(0, 283), max_size=30))
def test_a_stream_gives_what_decoding_all_bytes_gives(ids: list[int]) -> None:
    for tokenizer in (spm(), bpe()):
        decoder = tokenizer.decoder()
        pushed = [decoder.push(index % tokenizer.size) for index in ids]
        whole = b"".join(tokenizer.piece(index % tokenizer.size) for index in ids)
        assert "".join([*pushed, decoder.flush()]) == whole.decode("utf-8", "replace")


@given(st.text("the ca").map(lambda text: text.replace("ca", "<|end|>")), st.sampled_from(["spm", "bpe"]))
def test_no_text_has_fewer_tokens_than_the_bound(text: str, kind: str) -> None:
    tokenizer = spm() if kind == "spm" else bpe()
    assert tokenizer.fewest_tokens(text) <= len(tokenizer.encode(text, add_special=False))
    assert tokenizer.fewest_tokens("x" * 700) == 700 // max(map(len, tokenizer.tokens))
