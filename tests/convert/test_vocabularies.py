"""Vocabularies: SentencePiece files, special tokens, chat templates, and the pre-tokenizer by hash or expression."""

import json
from pathlib import Path

import numpy as np
import pytest
from hf_folders import MERGES, PATTERN, SPECIALS, byte_pairs, sentencepiece_model, write_json, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from minillama.convert.vocab import known_pretokenizer
from minillama.convert.vocab.byte_pair_vocabulary import byte_pair_entries, load_tokenizer_json
from minillama.convert.vocab.entries import Entries
from minillama.convert.vocab.known_pretokenizer import EXPRESSIONS, pretokenizer_name
from minillama.convert.vocab.pretokenizer_hashes import HASHES, TEXT, hash_of
from minillama.convert.vocab.sentencepiece_file import read_pieces
from minillama.convert.vocab.special_ids import read_merges, read_special_tokens
from minillama.errors import FormatError, MinillamaError, ResourceError, UnsupportedError
from minillama.tokenizer.pretokenizers import PRETOKENIZERS

EXAMPLE = "The 1234 players don't like\n\n  tabs\tand été, 中文 or 3.14 € -- DON'T!"


def values(entries: Entries) -> dict[str, object]:
    return {key.removeprefix("tokenizer.").removeprefix("ggml."): entry.value for key, entry in entries.items()}


@given(
    pieces=st.lists(
        st.tuples(st.text(max_size=300), st.floats(width=32, allow_nan=False), st.integers(1, 6)), min_size=1
    )
)
def test_pieces_come_back(pieces: list[tuple[str, float, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "tokenizer.model"
    path.write_bytes(sentencepiece_model([(text.encode("utf-8", "replace").decode(), *more) for text, *more in pieces]))
    found = read_pieces(path)
    assert [(piece.score, piece.type) for piece in found] == [(score, kind) for _, score, kind in pieces]
    assert [piece.text for piece in found] == [text.encode("utf-8", "replace").decode() for text, *_ in pieces]


@given(raw=st.binary(max_size=64))
def test_other_bytes(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.model"
    path.write_bytes(raw)
    try:
        assert read_pieces(path)
    except FormatError as error:
        assert "download it again" in str(error)


def test_byte_pairs(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "bpe")
    found = values(byte_pair_entries(tmp_path, 275, None))
    tokens, kinds = found["tokens"], found["token_type"]
    assert tokens[256:] == [*(merge.replace(" ", "") for merge in MERGES), *SPECIALS["bpe"], "<think>", "<tool call>",
                            "[PAD271]", "[PAD272]", "[PAD273]", "[PAD274]"]  # fmt: skip
    assert kinds[265:] == [1, 3, 3, 3, 4, 4, 5, 5, 5, 5] and found["pre"] == "qwen2"
    with pytest.raises(FormatError, match=r"has the token id 270, config\.json a vocab_size of 270"):
        byte_pair_entries(tmp_path, 270, None)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match=r"tokenizer\.json is no tokenizer"):
        byte_pair_entries(tmp_path, 275, None)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ResourceError, match=r"has no tokenizer\.json or tokenizer\.model"):
        byte_pair_entries(tmp_path, 275, None)


def test_ids_by_rank_of_the_files(tmp_path: Path) -> None:
    """Texts of tokenizer_config.json first, then ids of config.json; ids outside the vocabulary are left out."""
    write_json(
        tmp_path / "config.json", {"bos_token_id": 1, "eos_token_id": [2, 3], "text_config": {"sep_token_id": 9}}
    )
    assert values(read_special_tokens(tmp_path).entries()) == {"bos_token_id": 1, "seperator_token_id": 9}
    assert values(read_special_tokens(tmp_path, size=9).entries()) == {"bos_token_id": 1}
    write_tokenizer(tmp_path, "bos")
    found = values(read_special_tokens(tmp_path).entries())
    del found["chat_template"]
    assert found == {"bos_token_id": 266, "eos_token_id": 268, "padding_token_id": 266, "seperator_token_id": 9,
                     "add_bos_token": True}  # fmt: skip


def test_a_template_that_adds_an_end(tmp_path: Path) -> None:
    """The last token of the post-processor is EOS, and the stated EOS ends a turn."""
    content = byte_pairs(SPECIALS["bos"], bos=True)
    single = content["post_processor"]["single"]
    end = {"SpecialToken": {"id": "<|end_of_text|>", "type_id": 0}}
    content["post_processor"] |= {"single": [*single, end], "pair": []}
    write_json(tmp_path / "tokenizer.json", content)
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|eot_id|>", "bos_token": "<|begin_of_text|>"})
    assert values(read_special_tokens(tmp_path).entries()) == {
        "bos_token_id": 266, "eos_token_id": 267, "eot_token_id": 268, "add_bos_token": True, "add_eos_token": True,
    }  # fmt: skip


def test_chat_templates(tmp_path: Path) -> None:
    """In a setting, in a file of its own, several with names."""
    settings = tmp_path / "tokenizer_config.json"
    write_json(settings, {"model_max_length": 64})
    assert values(read_special_tokens(tmp_path).entries()) == {}
    write_json(tmp_path / "chat_template.json", {"chat_template": "old"})
    assert values(read_special_tokens(tmp_path).entries()) == {"chat_template": "old"}
    (tmp_path / "chat_template.jinja").write_text("file")
    assert values(read_special_tokens(tmp_path).entries()) == {"chat_template": "file"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool-use.jinja").write_text("tools")
    named = {"chat_template.tool_use": "tools", "chat_templates": ["tool_use"], "chat_template": "file"}
    assert values(read_special_tokens(tmp_path).entries()) == named
    write_json(settings, {"chat_template": [{"name": "default", "template": "mine"}, {"name": 3}, 4]})
    assert values(read_special_tokens(tmp_path).entries()) == {"chat_template": "mine"}


def test_merges(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", {"model": {"merges": [["a", "b"], ["a b", "c"]]}})
    assert read_merges(tmp_path) == ["a b", "aĠb c"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n# b\n\nonly\n")
    assert read_merges(tmp_path) == ["a b", "# b"]


class TestPreTokenizer:
    def name(self, folder: Path, pattern: str = PATTERN, **model: object) -> str:
        content = byte_pairs(SPECIALS["bpe"], pattern=pattern)
        content["model"] |= model
        write_json(folder / "tokenizer.json", content)
        return pretokenizer_name(folder, load_tokenizer_json(folder))

    @pytest.mark.parametrize("expressions", EXPRESSIONS, ids=list(EXPRESSIONS.values()))
    def test_expressions_split_as_the_name_does(self, expressions: tuple[str, ...], tmp_path: Path) -> None:
        """The parts of a text are those of our own pre-tokenizer of that name."""
        from tokenizers import Regex, pre_tokenizers

        made = {"ByteLevel": pre_tokenizers.ByteLevel(add_prefix_space=False), "Digits": pre_tokenizers.Digits(True)}
        steps = [made.get(each) or pre_tokenizers.Split(Regex(each), "isolated") for each in expressions]
        spans = [span for _, span in pre_tokenizers.Sequence(steps).pre_tokenize_str(EXAMPLE)]
        parts = [(0, len(EXAMPLE))]
        for expression in PRETOKENIZERS[EXPRESSIONS[expressions]].expressions:
            split = pre_tokenizers.Split(Regex(expression), "isolated")
            parts = [(a + c, a + d) for a, b in parts for _, (c, d) in split.pre_tokenize_str(EXAMPLE[a:b])]
        assert [EXAMPLE[a:b] for a, b in spans] == [EXAMPLE[a:b] for a, b in parts]

    def test_of_a_known_model_by_its_hash(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.name(tmp_path) == "qwen2"
        ids = load_tokenizer_json(tmp_path).encode(TEXT).ids
        monkeypatch.setattr(known_pretokenizer, "HASHES", {hash_of(ids): "megrez"})
        assert self.name(tmp_path) == "megrez"
        monkeypatch.setattr(known_pretokenizer, "HASHES", {hash_of([266, *ids]): "stablelm2"})
        write_json(tmp_path / "tokenizer_config.json", {"bos_token": {"content": "<|endoftext|>"}})
        assert self.name(tmp_path) == "stablelm2"  # transformers adds the token

    def test_of_a_model_with_other_tokens_by_its_expressions(self, tmp_path: Path) -> None:
        three = PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
        assert self.name(tmp_path, three) == "llama-bpe"
        assert self.name(tmp_path, three, ignore_merges=False) == "smaug-bpe"

    def test_unknown_ones_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedError, match=r"is unknown: .*; name one that splits alike with --pretokenizer"):
            self.name(tmp_path, "a+b")
        assert values(byte_pair_entries(tmp_path, None, "llama-bpe"))["pre"] == "llama-bpe"

    def test_the_table_of_hashes(self) -> None:
        """Numbers of convert_hf_to_gguf.py; every name is known to our tokenizer, or is of an embedding model."""
        assert len(TEXT) == 350 and hash_of(list(range(3))) == hash_of([0, 1, 2])
        assert HASHES["0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5"] == "llama-bpe"
        assert HASHES["d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c"] == "qwen2"
        assert len(HASHES) == 95 and set(EXPRESSIONS.values()) <= set(PRETOKENIZERS)


def test_damaged_added_tokens(tmp_path: Path) -> None:
    from minillama.convert.vocab.sentencepiece_vocabulary import sentencepiece_table

    write_tokenizer(tmp_path, "spm")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for damaged in ({"x": {"content": "a"}}, {"1": {}}, {"1": None}, [1]):
        write_json(tmp_path / "tokenizer_config.json", settings | {"added_tokens_decoder": damaged})
        with pytest.raises(MinillamaError, match=r"the added tokens of .* are damaged"):
            sentencepiece_table(tmp_path, 288)
    write_json(tmp_path / "tokenizer_config.json", settings | {"added_tokens_decoder": {"999": {"content": "a"}}})
    assert np.shape(sentencepiece_table(tmp_path, 288).texts) == (288,)
