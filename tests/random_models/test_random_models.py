"""Random models: exact shapes, plausible numbers, valid files, and the command."""

import hashlib
import json
import math
import os
import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minillama.cli import build_parser, main
from minillama.errors import OptionError, ResourceError
from minillama.gguf import TensorType, dequantize, open_gguf
from minillama.gguf.byte_alphabet import BYTE_TO_CHARACTER
from minillama.gguf.display_names import format_parameters, model_type
from minillama.gguf.quantisation_mixes import ALL_MIX_NAMES, MIX_NAMES, Mix
from minillama.gguf.types import BLOCKS
from minillama.model import FAMILIES
from minillama.random_models.known_shapes import SHAPES, shape_named
from minillama.random_models.model_writer import tensor_specs, write_random_model
from minillama.random_models.random_blocks import random_blocks
from minillama.random_models.vocabularies.random_vocabulary import random_tokens

WRITTEN_TYPES = sorted(
    {
        tensor.type
        for name in ALL_MIX_NAMES
        for shape in ("tiny", "gpt-oss-20b-4l")
        for tensor in tensor_specs(SHAPES[shape], Mix.named(name))
    }
)

# Parameter counts as the models' pages on the hub give them; llama 3.2 with the 32 rope factors of its GGUF file.
PARAMETERS = {
    "tinyllama-1.1b": 1_100_048_384,
    "llama-3.2-1b": 1_235_814_400 + 32,
    "qwen2.5-0.5b": 494_032_768,
    "llama-2-7b": 6_738_415_616,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_real_number_of_parameters(name: str) -> None:
    assert shape_named(name).parameters == PARAMETERS[name]


def test_gpt_oss_is_the_published_file_but_for_its_layers() -> None:
    """That of 24 layers has 20.91 B parameters in 11.27 GiB; its experts are MXFP4, other matrices Q8_0."""
    shape = replace(shape_named("gpt-oss-20b-4l"), layers=24)
    planned = tensor_specs(shape, Mix.named(shape.file_type))
    assert shape.parameters == pytest.approx(20.91e9, rel=3e-4)
    assert sum(tensor.nbytes for tensor in planned) == pytest.approx(11.27 * 2**30, rel=1e-3)
    types = {tensor.name.removeprefix("blk.3."): tensor.type.name for tensor in planned}
    assert [types[f"{name}.weight"] for name in ("ffn_down_exps", "attn_q", "output", "ffn_gate_inp")] == [
        "MXFP4", "Q8_0", "Q8_0", "F32",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked to forget pages")
def test_a_file_system_without_fadvise_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(descriptor: int, offset: int, size: int, advice: int) -> None:
        asked.append(advice)
        raise OSError("not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert open_gguf(write_random_model(tmp_path / "a.gguf", "tiny", "Q8_0")).tensors
    assert asked == [os.POSIX_FADV_DONTNEED]


def test_unknown_names() -> None:
    with pytest.raises(OptionError, match=r"unknown model shape gpt-5; the nearest of 48 known ones: tiny-gpt-oss, "):
        shape_named("gpt-5")


def test_rope_factors_are_those_of_a_converted_llama_3() -> None:
    shape = SHAPES["llama-3.2-1b"]
    factors = shape.rope_factors.values(shape.head_size, shape.rope_base)
    assert (factors.shape, factors.dtype) == ((32,), np.float32)
    assert np.all(factors[:15] == 1)
    assert np.all(factors[18:] == 32)
    assert np.all(np.diff(factors) >= 0)
    for place in (15, 16, 17):
        turns = 8192 / (2 * math.pi * 5e5 ** (2 * place / 64))
        smooth = (turns - 1) / 3
        assert factors[place] == pytest.approx(1 / ((1 - smooth) / 32 + smooth), rel=1e-6)


@pytest.mark.parametrize("type", WRITTEN_TYPES, ids=lambda type: type.name)
@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_random_blocks_have_mean_0_and_the_given_deviation(type: TensorType, deviation: float) -> None:
    block, size = BLOCKS[type]
    blocks = random_blocks(type, 2**18 // block, deviation, np.random.default_rng(5))
    assert (blocks.shape, blocks.dtype) == ((2**18 // block, size), np.uint8)
    from gguf import quants

    weights = quants.dequantize(blocks.reshape(-1), type)
    assert np.std(weights) == pytest.approx(deviation, rel=0.06)
    assert abs(np.mean(weights)) < 0.02 * deviation
    assert np.max(np.abs(weights)) < 8 * deviation


@pytest.mark.parametrize("name", ALL_MIX_NAMES)
def test_a_written_file_opens_as_planned(tmp_path: Path, name: str) -> None:
    path = write_random_model(tmp_path / "tiny.gguf", "tiny", name, seed=3)
    file, shape = open_gguf(path), SHAPES["tiny"]
    planned = tensor_specs(shape, Mix.named(name))
    assert [(tensor.name, tensor.shape, tensor.type) for tensor in file.tensors.values()] == [
        (tensor.name, tensor.shape, tensor.type) for tensor in planned
    ]
    assert file.parameters == shape.parameters
    for tensor in file.tensors.values():
        weights = dequantize(tensor)
        assert np.all(np.isfinite(weights))
        if len(tensor.shape) == 2:
            assert np.std(weights) == pytest.approx(tensor.shape[1] ** -0.5, rel=0.1)
            assert len(np.unique(tensor.data, axis=0)) == tensor.shape[0]
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_of_a_written_file(tmp_path: Path) -> None:
    real = SHAPES["qwen2.5-0.5b"]
    special = ((597, "<|endoftext|>", 3), (598, "<|im_start|>", 3), (599, "<|im_end|>", 3))
    vocabulary = replace(real.vocabulary, size=600, special=special, bos=597, eos=599, padding=597)
    small = replace(real, layers=2, embedding=64, heads=4, head_size=16, feed_forward=96, vocabulary=vocabulary)
    file = open_gguf(write_random_model(tmp_path / "q.gguf", small, "q8_0"))
    expected = {
        "general.architecture": "qwen2", "general.file_type": 7, "general.quantization_version": 2,
        "qwen2.block_count": 2, "qwen2.embedding_length": 64, "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2, "qwen2.attention.key_length": 16, "qwen2.context_length": 32768,
        "qwen2.rope.freq_base": 1e6, "qwen2.vocab_size": 600, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.eos_token_id": 599, "tokenizer.ggml.bos_token_id": 597,
        "tokenizer.ggml.padding_token_id": 597, "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip
    assert {key: file.metadata[key] for key in expected} == expected
    assert file.metadata["qwen2.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 600 == file.tensors["token_embd.weight"].shape[0]
    assert file.tensors["blk.1.attn_k.bias"].shape == (32,)
    assert "output.weight" not in file.tensors
    assert "<|im_start|>" in file.metadata["tokenizer.chat_template"]
    assert model_type(file) == "qwen2 ?B Q8_0"


@pytest.mark.parametrize("name", SHAPES)
def test_vocabularies_are_complete(name: str) -> None:
    vocabulary = SHAPES[name].vocabulary
    tokens = random_tokens(vocabulary, np.random.default_rng(1))
    assert len(tokens.texts) == len(tokens.types) == len(set(tokens.texts)) == vocabulary.size
    for place, text, kind in vocabulary.special:
        assert (tokens.texts[place], tokens.types[place]) == (text, kind)
    known = set(tokens.texts)
    if vocabulary.pre is None:
        assert all(tokens.texts[3 + byte] == f"<0x{byte:02X}>" and tokens.types[3 + byte] == 6 for byte in range(256))
        assert len(tokens.scores) == vocabulary.size
        assert {*map(chr, range(33, 127)), "▁"} <= known
    else:
        assert tokens.texts[:256] == list(BYTE_TO_CHARACTER.values())
        made = set(tokens.texts[:256])
        for merge in tokens.merges:
            left, right = merge.split(" ")
            assert left in made
            assert right in made
            assert left + right not in made
            made.add(left + right)
        assert made <= known


def test_special_tokens_have_the_ids_of_the_real_models() -> None:
    llama = {text: place for place, text, _ in SHAPES["llama-3.2-1b"].vocabulary.special}
    assert [llama[f"<|{name}|>"] for name in ("begin_of_text", "eot_id", "reserved_special_token_0")] == [
        128000,
        128009,
        128002,
    ]
    assert [llama[f"<|reserved_special_token_{number}|>"] for number in (1, 2, 3, 247)] == [
        128003,
        128005,
        128011,
        128255,
    ]
    qwen = {text: place for place, text, _ in SHAPES["qwen2.5-0.5b"].vocabulary.special}
    assert [qwen[text] for text in ("<|endoftext|>", "<|im_end|>", "<tool_call>", "<|file_sep|>")] == [
        151643,
        151645,
        151657,
        151664,
    ]


def test_byte_alphabet_is_that_of_the_real_vocabulary(reference: Path) -> None:
    tokens = open_gguf(reference / "vocab" / "ggml-vocab-llama-bpe.gguf").metadata["tokenizer.ggml.tokens"]
    assert list(BYTE_TO_CHARACTER.values()) == list(tokens[:256])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_decides_every_byte(tmp_path: Path) -> None:
    digests = [digest(write_random_model(tmp_path / "a.gguf", "tiny", "Q4_K_M", seed=seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = write_random_model(
        tmp_path / "a.gguf", "tiny", "Q8_0", progress=lambda done, total: calls.append((done, total))
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1] <= path.stat().st_size


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gguf"
    path.write_text("what was there before")

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random_model(path, "tiny", "Q8_0", progress=interrupted)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 10**6))
    with pytest.raises(ResourceError, match=r"takes 0\.00 GiB and .* has 0\.00 GiB free; free some space"):
        write_random_model(path, "tiny", "Q8_0")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "what was there before"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write"):
        write_random_model(tmp_path / "none" / "a.gguf", "tiny", "Q8_0")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "tiny", "--type", "q4_k_m", "--seed", "7"]) == 0
    assert capsys.readouterr().out == "tiny-Q4_K_M.gguf\n"
    before = digest(tmp_path / "tiny-Q4_K_M.gguf")
    assert main(["synth", "tiny", "--type", "Q4_K_M"]) == 2
    assert "tiny-Q4_K_M.gguf exists; overwrite it with --force" in capsys.readouterr().err
    assert digest(tmp_path / "tiny-Q4_K_M.gguf") == before
    assert main(["synth", "tiny", "--type", "Q4_K_M", "--force"]) == 0
    assert digest(tmp_path / "tiny-Q4_K_M.gguf") != before
    assert main(["synth", "tiny", "other.gguf"]) == main(["synth", "tiny", "-o", "third.gguf"]) == 0
    assert digest(tmp_path / "other.gguf") == digest(tmp_path / "third.gguf")
    assert model_type(open_gguf(tmp_path / "other.gguf")) == "llama ?B Q4_0"
    capsys.readouterr()
    assert main(["inspect", "other.gguf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_type"] == "llama ?B Q4_0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny-qwen3.5"], "unknown model shape tiny-qwen3.5; the nearest of 48 known ones: tiny-qwen35, "),
        (["tiny", "--type", "Q9"], "unknown file type Q9; known: F32"),
        (["tiny", "--seed", "-1"], "--seed -1: must be 0 or more"),
        (["tiny", "-o", "."], "is a folder; name a file in it"),
        (["tiny", "-o", "none/a.gguf"], "cannot write none/a.gguf"),
    ],
)
def test_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", *words]) == 2
    caught = capsys.readouterr()
    assert message in caught.err
    assert caught.out == ""
    assert not list(tmp_path.iterdir())


def test_help_lists_every_shape_and_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["synth", "--help"])
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    listed = text.partition("  tiny-ARCH ")[2].partition(":")[2].partition("types:")[0]
    assert listed.split() == list(FAMILIES)
    for shape in SHAPES.values():
        size = f"{format_parameters(shape.parameters)} parameters, {shape.layers} layers of {shape.embedding}"
        words = f"{shape.name} {shape.title} {size}"
        assert words.split() in lines
    assert list(MIX_NAMES) in lines
    assert list(ALL_MIX_NAMES[len(MIX_NAMES) :]) in lines


@pytest.mark.slow
def test_a_complete_model_in_a_real_shape(tmp_path: Path) -> None:
    """A real quantised file of this model has 770,928,608 bytes of weights and vocabulary; ours has fewer merges."""
    path = write_random_model(tmp_path / "llama.gguf", "llama-3.2-1b", "Q4_0")
    file = open_gguf(path)
    assert model_type(file) == "llama 1B Q4_0"
    assert file.nbytes == pytest.approx(763e6, rel=0.001)
    head = file.tensors["token_embd.weight"]  # a gigabyte as float32, so part by part
    parts = (dequantize(replace(head, data=rows)) for rows in np.array_split(head.data, 32))
    sums, squares, starts = zip(
        *((part.sum(dtype=np.float64), np.square(part).sum(dtype=np.float64), part[:, :64].copy()) for part in parts),
        strict=True,
    )
    assert np.sqrt(sum(squares) / head.size - (sum(sums) / head.size) ** 2) == pytest.approx(2048**-0.5, rel=0.05)
    assert len(np.unique(np.concatenate(starts), axis=0)) == head.shape[0]
