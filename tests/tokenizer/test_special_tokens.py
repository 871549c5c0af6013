"""Tokens that end an answer, in the vocabularies of many families, and llama.cpp's own lists."""

import os
import re
from pathlib import Path

import pytest
from vocabularies import CONTROL, MERGES, bpe_metadata

from minillama.tokenizer import load_tokenizer
from minillama.tokenizer.pretokenizers import PRETOKENIZERS, PreTokenizer
from minillama.tokenizer.special_tokens import END_TEXTS, ROLE_TEXTS, SHOWN_TEXTS

GPT_OSS = "<|endoftext|> <|return|> <|constrain|> <|channel|> <|start|> <|end|> <|message|> <|call|>"
SOLAR = "<|endoftext|> <|begin|> <|end|> <|content|> <|think|> <|flush|> <|calls|>"
GEMMA_4 = "<bos> <eos> <|turn> <turn|> <|channel> <channel|> <|tool_call> <|tool_response> </s>"


@pytest.mark.parametrize(
    ("special", "roles", "ends"),
    [
        # the file names some ids; the others are found by their texts
        ("<|endoftext|> <|im_start|> <|im_end|> <think> </think>", {"eos": "<|im_end|>"}, "<|endoftext|> <|im_end|>"),
        ("<|endoftext|> <|user|> <|observation|> <|assistant|>",
         {"eos": "<|endoftext|>", "eot": "<|user|>", "eom": "<|observation|>"},
         "<|endoftext|> <|user|> <|observation|>"),
        (GPT_OSS, {"eos": "<|return|>"}, "<|endoftext|> <|return|> <|call|>"),
        (SOLAR, {"eos": "<|endoftext|>"}, "<|endoftext|> <|flush|> <|calls|>"),
        (GEMMA_4, {"eos": "<turn|>"}, "<eos> <turn|> <|tool_response>"),
        ("<s> </s> [INST] [/INST] [THINK] [/THINK]", {"eos": "</s>"}, "</s>"),
        ("<seed:bos> <seed:eos> <seed:think>", {"eos": "<seed:eos>"}, "<seed:eos>"),
        ("]~b] [e~[ ]~!b[", {"eos": "[e~["}, "[e~["),
        ("<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜>", {"eos": "<｜end▁of▁sentence｜>"},
         "<｜end▁of▁sentence｜>"),
        ("<|end_of_text|> <fim_pad> <reponame> <|start_of_role|>", {"eos": "<|end_of_text|>"},
         "<|end_of_text|> <fim_pad> <reponame>"),
        ("<|END_OF_TURN_TOKEN|> <|START_THINKING|>", {"eos": "<|END_OF_TURN_TOKEN|>"}, "<|END_OF_TURN_TOKEN|>"),
        ("[|endofturn|] [|assistant|]", {"eos": "[|endofturn|]"}, "[|endofturn|]"),
        ("<|begin_of_text|> <|eot_id|> <|eom_id|>", {"eos": "<|eot_id|>"}, "<|eot_id|> <|eom_id|>"),
        ("[BOS] [EOS] [EOT] [PAD] <|im_end|> <|im_middle|>", {"eos": "[EOS]"}, "[EOS] [EOT] [PAD] <|im_end|>"),
    ],
)  # fmt: skip
def test_ends_of_families(special: str, roles: dict[str, str], ends: str) -> None:
    metadata = bpe_metadata(MERGES, [(text, CONTROL) for text in special.split()])
    places = {text: place for place, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    metadata |= {f"tokenizer.ggml.{role}_token_id": places[text] for role, text in roles.items()}
    tokenizer = load_tokenizer(metadata)
    assert {tokenizer.tokens[index] for index in tokenizer.eog} == set(ends.split())


@pytest.mark.parametrize("text", ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>"])
def test_marks_of_gpt_oss_are_shown(text: str) -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES, [(text, CONTROL) for text in GPT_OSS.split()]))
    assert tokenizer.piece(tokenizer.tokens.index(text)) == text.encode()
    assert tokenizer.control_tokens_in([text]) == frozenset()


def test_control_tokens_of_a_marker() -> None:
    special = [(text, CONTROL) for text in ("<|open|>", "<|sep|>", "<|close|>")]
    tokenizer = load_tokenizer(bpe_metadata(MERGES, special))
    found = tokenizer.control_tokens_in(["<|open|>think<|sep|>"])
    assert {tokenizer.tokens[index] for index in found} == {"<|open|>", "<|sep|>"}
    assert tokenizer.control_tokens_in([]) == frozenset()


@pytest.fixture
def source() -> str:
    """llama-vocab.cpp of a checkout of llama.cpp."""
    path = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "src" / "llama-vocab.cpp"
    if not path.is_file():
        pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp")
    return path.read_text()


def test_texts_of_llama_cpp(source: str) -> None:
    detection = source[source.index("auto-detect special tokens by text") : source.index("// sanity checks")]
    theirs = set(re.findall(r't\.first == "([^"]+)"', detection))
    assert theirs == {*END_TEXTS, *SHOWN_TEXTS, *(text for texts in ROLE_TEXTS.values() for text in texts)}


def test_pretokenizers_of_llama_cpp(source: str) -> None:
    """All names, and the flags that go with them."""
    choice = source[source.index("if (tokenizer_pre.empty())") : source.index("unknown pre-tokenizer type")]
    condition = r'\(((?:\s*tokenizer_pre == "[^"]+"\s*(?:\|\|)?)+)\)\s*\{(.*?)\}'
    theirs = {
        name: {
            "ignore_merges": "ignore_merges = true" in body,
            "clean_spaces": "clean_spaces = false" not in body,
            "add_bos": "add_bos = true" in body,
            "has_bos": "special_bos_id = LLAMA_TOKEN_NULL" not in body,
            "mark_spaces": "escape_whitespaces = true" in body,
        }
        for names, body in re.findall(condition, choice, re.DOTALL)
        for name in re.findall(r'"([^"]+)"', names)
    }

    def flags(row: PreTokenizer) -> dict[str, bool]:
        return {name: getattr(row, name) for name in theirs["default"]}

    assert theirs == {name: flags(row) for name, row in PRETOKENIZERS.items()}
