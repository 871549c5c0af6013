"""Small models of every architecture: the tensors of published files, tokens, and the commands."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import VARIANTS, all_tensors

from minillama.cli import main
from minillama.engine.loading.load_params import config_of, unread_tensors
from minillama.gguf import dequantize, open_gguf
from minillama.model import FAMILIES
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.layer_tensors import FILES
from minillama.random_models.model_writer import write_random_model
from minillama.random_models.tiny_shapes import TINY
from minillama.tokenizer import load_tokenizer

# Files of the reference whose names are not those of the architectures; converters wrote their tensors' names.
REFERENCES = {
    "llama": "llama3", "deepseek2": "deepseek2-v3", "gemma4": "gemma4-e2b", "nemotron_h": "nemotron-h",
    "ernie4_5": "ernie4-5", "ernie4_5-moe": "ernie4-5-moe", "seed_oss": "seed-oss",
}  # fmt: skip
PREDICTED = "nextn."  # tensors of layers that predict the token after the next, which tiny models have not


def kinds_of_tensors(names: list[str]) -> set[str]:
    """Names without the numbers of layers."""
    return {name.split(".", 2)[2] if name.startswith("blk.") else name for name in names}


def test_every_architecture_has_a_row() -> None:
    assert FILES.keys() == TINY.keys() == FAMILIES.keys()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_tensors_are_those_of_converted_files(reference: Path, architecture: str) -> None:
    name = f"{REFERENCES.get(architecture, architecture)}.gguf"
    path = next(path for path in (reference / "families" / name, reference / "arch" / name) if path.exists())
    expected = {kind for kind in kinds_of_tensors(list(open_gguf(path).tensors)) if not kind.startswith(PREDICTED)}
    shape = shape_named(f"tiny-{architecture}")
    got = kinds_of_tensors([tensor for tensor, _ in shape.tensors()])
    head = {"output.weight"}  # some sizes of a family share it with the embedding, others do not
    assert got - head == expected - head


@pytest.mark.parametrize("architecture", sorted(FAMILIES.keys() - {"glm4"}))  # its files have q, k, v apart, or in one
def test_tensors_are_those_of_the_models_of_other_tests(architecture: str) -> None:
    """Those are written down by hand, the ones here follow from the tables of the reader."""
    variant = VARIANTS[{"llama": "llama3"}.get(architecture, architecture)]
    expected = kinds_of_tensors(list(all_tensors(variant, width=64, feed=96, rows=300)))
    got = kinds_of_tensors([tensor for tensor, _ in shape_named(f"tiny-{architecture}").tensors()])
    head = {"output.weight", "output.bias"}
    assert got - head == expected - head


def test_no_jax_is_needed(tmp_path: Path) -> None:
    source = f"from minillama.cli import main; main(['synth', 'tiny-gemma', {str(tmp_path / 'm.gguf')!r}])"
    check = "import sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"{source}; {check}"], check=False).returncode == 0


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_file_is_read_as_it_was_planned(tmp_path: Path, architecture: str) -> None:
    shape = shape_named(f"tiny-{architecture}")
    file = open_gguf(write_random_model(tmp_path / "m.gguf", shape, shape.file_type))
    assert config_of(file) == shape.config
    assert not unread_tensors(file, shape.config)
    assert 1e6 < file.parameters == shape.parameters < 1e7
    for name in ("ssm_a", "rope_freqs.weight"):
        for tensor in (tensor for tensor in file.tensors.values() if tensor.name.endswith(name)):
            values = dequantize(tensor)
            assert np.all(values < 0 if name == "ssm_a" else values >= 1)
    assert file.metadata["general.size_label"] == f"{shape.parameters / 1e6:.2f}M"


@pytest.mark.parametrize("architecture", FAMILIES)
def test_any_text_is_tokens_and_special_tokens_are_whole(tmp_path: Path, architecture: str) -> None:
    shape = shape_named(f"tiny-{architecture}")
    file = open_gguf(write_random_model(tmp_path / "m.gguf", shape, shape.file_type))
    tokenizer, vocabulary = load_tokenizer(file.metadata), shape.vocabulary
    text = "Hello, wörld: 3 × 14!\n"
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode()) or vocabulary.model == "gpt2"
    for place, special, _ in vocabulary.special:
        assert tokenizer.encode(special, add_special=False, parse_special=True) == [place]
    begins = tokenizer.encode(text)[0] == vocabulary.bos
    assert begins == vocabulary.add_bos


@pytest.mark.parametrize("architecture", FAMILIES)
def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", f"tiny-{architecture}", "f.gguf"]) == 0
    assert main(["inspect", "f.gguf"]) == 0
    assert architecture in capsys.readouterr().out
    assert main(["run", "-m", "f.gguf", "-p", "Hello", "-n", "4", "-s", "1"]) == 0
    assert capsys.readouterr().out.strip()
