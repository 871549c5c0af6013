"""Token ids against llama.cpp's own test vectors, 46 texts for each vocabulary, and a small real model."""

import json
import os
from pathlib import Path

import pytest

from minillama.gguf import open_gguf
from minillama.tokenizer import load_tokenizer

VOCABULARIES = ["llama-spm", "llama-bpe", "qwen2"]
MORE_VOCABULARIES = [
    "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "mpt", "phi-3", "qwen35", "refact",
    "starcoder",
]  # fmt: skip


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_of_llama_cpp(reference: Path, name: str) -> None:
    check_vectors(reference / "vocab", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_VOCABULARIES)
def test_ids_of_a_checkout_of_llama_cpp(name: str) -> None:
    folder = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "models"
    if not folder.is_dir():
        pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp")
    check_vectors(folder, name)


def check_vectors(folder: Path, name: str) -> None:
    path = folder / f"ggml-vocab-{name}.gguf"
    tokenizer = load_tokenizer(open_gguf(path).metadata)
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().removesuffix("\n").split("\n")
    assert len(lines) >= 46
    if texts[-1] == "":
        texts.pop()
    for text, line in zip(texts, lines, strict=True):
        ids = [int(word) for word in line.split()]
        assert tokenizer.encode(text, add_special=False, parse_special=False) == ids, text
        assert tokenizer.fewest_tokens(text) <= len(ids)
        decoder = tokenizer.decoder()
        streamed = "".join([decoder.push(token) for token in ids] + [decoder.flush()])
        assert streamed == b"".join(map(tokenizer.piece, ids)).decode()
        if name in ("llama-spm", "phi-3"):
            assert streamed == (" " + text if text else "")
        else:
            assert streamed == text


@pytest.mark.parametrize(
    ("name", "bos", "eog", "add_bos"),
    [
        ("llama-spm", 1, {2}, True),
        ("llama-bpe", 128000, {128001, 128009}, True),
        ("qwen2", 151643, {128247, 151643, 151645}, False),  # 128247 is </s>, an end to llama.cpp wherever it occurs
    ],
)
def test_special_ids_of_llama_cpp(reference: Path, name: str, bos: int, eog: set[int], add_bos: bool) -> None:
    tokenizer = load_tokenizer(open_gguf(reference / "vocab" / f"ggml-vocab-{name}.gguf").metadata)
    assert (tokenizer.bos, tokenizer.eog, tokenizer.add_bos) == (bos, eog, add_bos)
    text = tokenizer.tokens[bos]
    assert tokenizer.encode(text, add_special=False) == [bos]
    assert len(tokenizer.encode(text, add_special=False, parse_special=False)) > 1


def test_prompts_of_a_real_model(reference: Path) -> None:
    tokenizer = load_tokenizer(open_gguf(reference / "real" / "stories260K.gguf").metadata)
    for prompt in json.loads((reference / "real" / "expected.json").read_text())["prompts"]:
        assert tokenizer.encode(prompt["prompt"]) == prompt["ids"]
        assert tokenizer.decode(prompt["ids"][1:]) == prompt["prompt"]
        # BOS uses up the one leading blank that llama.cpp removes
        assert tokenizer.decode(prompt["ids"]) == " " + prompt["prompt"]
