"""Writing the file: names, nothing half-written, memory, values in parts."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hf_folders import digests, write_folder, write_safetensors

from minillama.convert import gguf_output, plan_folder, write_plan
from minillama.convert.folder import safetensors_files
from minillama.convert.gguf_output import output_path
from minillama.convert.weights.lazy_weight import constant_weight
from minillama.errors import FormatError, OptionError, ResourceError


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "Tiny-Llama-1B-Chat", "llama")


def test_names(llama: Path) -> None:
    plan = plan_folder(llama, "q8_0")
    assert output_path(plan, "a-{ftype}-{FTYPE}-{outtype}.gguf") == Path("a-q8_0-Q8_0-q8_0.gguf")
    assert output_path(plan, "{x}.gguf") == Path("{x}.gguf")
    assert output_path(plan, None).name == "Tiny-Llama-99K-1b-Chat-Q8_0.gguf"
    assert output_path(plan_folder(llama, vocabulary_only=True), None).name.endswith("-vocab.gguf")
    with pytest.raises(OptionError, match="--outtype q4_0: no such type; known: auto, f32, f16, bf16, q8_0"):
        plan_folder(llama, "q4_0")


def test_nothing_is_left_after_ctrl_c(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(plan_folder(llama), out, interrupt)
    assert out.read_bytes() == b"old" and {path.name for path in tmp_path.iterdir()} == {llama.name, "out.gguf"}


def test_a_weight_of_another_shape(llama: Path, tmp_path: Path) -> None:
    plan = plan_folder(llama)
    wrong = (constant_weight(plan.weights[0].name, np.zeros((2, 64), np.float32)), *plan.weights[1:])
    with pytest.raises(FormatError, match=r"output\.weight has 256 bytes, not 36864; the checkpoint is damaged"):
        write_plan(replace(plan, weights=wrong), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_no_room(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_output, "METADATA_ROOM", 2**60)
    with pytest.raises(ResourceError, match=r"out\.gguf takes .* GiB free; free some space"):
        write_plan(plan_folder(llama), tmp_path / "out.gguf")


@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss-mxfp4", "gemma3-bf16"])
def test_parts_give_the_same_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / name, name)
    whole = digests(write_plan(plan_folder(folder, "q8_0"), tmp_path / "whole.gguf"))
    monkeypatch.setattr(safetensors_files, "PIECE_VALUES", 1000)
    monkeypatch.setattr(gguf_output, "CHUNK_VALUES", 500)
    assert digests(write_plan(plan_folder(folder, "q8_0"), tmp_path / "parts.gguf")) == whole


def test_memory_is_that_of_a_part(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large embedding that nothing changes is never whole in memory."""
    monkeypatch.setattr(safetensors_files, "PIECE_VALUES", 2**16)
    values = np.zeros((2**16, 64), np.uint16)  # 8 MB, 16 MB as float32
    write_safetensors(llama / "model.safetensors", {"model.embed_tokens.weight": (values, "BF16")})
    del values
    plan = plan_folder(llama, "f32")
    tracemalloc.start()
    write_plan(plan, tmp_path / "out.gguf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out.gguf").stat().st_size > 2**24 and peak < 2**22
