"""Whole folders: the files that llama.cpp's converter makes of them, names in the table, refused folders."""

import json
import random
import shutil
from pathlib import Path

import pytest
from hf_folders import digests, table, tensors_of, values_of, write_folder, write_json, write_safetensors

from minillama.convert import plan_folder, write_plan
from minillama.convert.families.family_table import FAMILIES
from minillama.errors import FormatError, MinillamaError, ResourceError, UnsupportedError
from minillama.gguf import open_gguf


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "Tiny-Llama-1B-Chat", "llama")


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("name", table())
def test_files_of_the_original_converter(name: str, kind: str, tmp_path: Path) -> None:
    path = write_plan(plan_folder(write_folder(tmp_path / name, name), kind), tmp_path / "out.gguf")
    assert digests(path) == table()[name]["digests"][kind]


def test_every_family_has_a_folder() -> None:
    classes = {row["config"]["architectures"][0] for row in table().values()}
    assert not [family.name for family in FAMILIES if not classes & set(family.classes)]


def test_types_and_values(llama: Path, tmp_path: Path) -> None:
    """Norms stay F32, matrices have the chosen type, and queries are in adjacent pairs (numbers of the original)."""
    file = open_gguf(write_plan(plan_folder(llama, "f16"), tmp_path / "out.gguf"))
    kinds = {name.split(".")[-2]: tensor.type.name for name, tensor in file.tensors.items()}
    assert kinds == {
        "token_embd": "F16",
        "output": "F16",
        "output_norm": "F32",
        "attn_norm": "F32",
        "ffn_norm": "F32",
    } | dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), "F16")
    metadata = file.metadata
    assert metadata["llama.attention.head_count_kv"] == 2 and metadata["llama.rope.dimension_count"] == 16
    assert metadata["general.name"] == "Tiny Llama 1B Chat" and metadata["general.finetune"] == "1b-Chat"
    assert metadata["general.file_type"] == 1 and metadata["general.sampling.temp"] == pytest.approx(0.6)
    assert metadata["tokenizer.ggml.tokens"][259:265] == ("▁", "▁the", "er", "<user>", "spare", "<|turn|>")
    assert list(metadata["tokenizer.ggml.token_type"][259:266]) == [1, 1, 1, 4, 5, 3, 5]


def test_the_model_card(llama: Path) -> None:
    (llama / "README.md").write_text("---\nlicense: mit\nlanguage:\n- en\nbase_model: a/B-1B\n---\n# Text\n")
    card = plan_folder(llama, name="My name").card
    assert (card.name, card.license, card.languages) == ("My name", "mit", ["en"])
    assert card.base_models[0]["repo_url"] == "https://huggingface.co/a/B-1B"
    (llama / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(FormatError, match=r"README\.md cannot be read .*; remove it"):
        plan_folder(llama)


def test_vocabulary_only(llama: Path, tmp_path: Path) -> None:
    (llama / "model.safetensors").unlink()
    file = open_gguf(write_plan(plan_folder(llama, vocabulary_only=True), tmp_path / "out.gguf"))
    assert not file.tensors and "llama.block_count" not in file.metadata
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 288


def test_auto_is_the_16_bit_type_of_the_folder(tmp_path: Path) -> None:
    found = {name: plan_folder(write_folder(tmp_path / name, name)).output.name for name in ("gemma3-bf16", "gemma3")}
    assert found == {"gemma3-bf16": "BF16", "gemma3": "F16"}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"architectures": ["LlamaForCausalML"]}, UnsupportedError, "nearest known: LlamaForCausalLM, "),
        ({"architectures": None}, FormatError, "names no architecture"),
        ({"num_hidden_layers": None}, FormatError, "config.json has no n_layers or num_hidden_layers"),
        ({"num_attention_heads": 3}, FormatError, "q_proj.weight has 64 rows, not 3 heads of whole pairs"),
        ({"num_attention_heads": -1}, FormatError, "num_attention_heads is -1; expected a whole number above 0"),
        ({"vocab_size": None}, FormatError, "config.json has no vocab_size"),
        ({"max_position_embeddings": "many"}, FormatError, "llama.context_length the value 'many'; expected uint32"),
        ({"rms_norm_eps": [1]}, FormatError, r"layer_norm_rms_epsilon the value \[1\]; expected float32"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            UnsupportedError,
            "quantised with 'gptq'",
        ),
    ],
)
def test_wrong_settings(change: dict[str, object], kind: type[MinillamaError], message: str, llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    write_json(llama / "config.json", {key: value for key, value in (config | change).items() if value is not None})
    with pytest.raises(kind, match=message):
        plan_folder(llama)


def test_damaged_folders(llama: Path, tmp_path: Path) -> None:
    for name, error in (
        ("config.json", "has no config.json"),
        ("tokenizer.model", "no tokenizer.json or tokenizer.model"),
        ("model.safetensors", "has no model.safetensors"),
    ):
        copy = tmp_path / f"without {name}"
        shutil.copytree(llama, copy)
        (copy / name).unlink()
        with pytest.raises(ResourceError, match=error):
            plan_folder(copy)
    with pytest.raises(ResourceError, match="nowhere is no folder"):
        plan_folder(tmp_path / "nowhere")
    for text in ("[", "[]", "[" * 100_000):
        (llama / "config.json").write_text(text)
        with pytest.raises(FormatError, match=r"config\.json (is no JSON|holds a list)"):
            plan_folder(llama)


def test_an_expert_is_missing(tmp_path: Path) -> None:
    row = table()["mixtral"]
    tensors = {name: shape for name, shape in row["tensors"].items() if ".experts." not in name or ".w1." not in name}
    folder = write_folder(tmp_path / "mixtral", "mixtral")
    kept = tensors_of({**row, "tensors": tensors})
    write_safetensors(folder / "model.safetensors", {name: values_of(name, *rest) for name, rest in kept.items()})
    with pytest.raises(FormatError, match=r"block_sparse_moe\.experts has 8 of 12 tensors"):
        plan_folder(folder)


def test_an_unknown_tensor(llama: Path) -> None:
    tensors = tensors_of(table()["llama"]) | {"model.layers.0.extra.weight": ([4, 4], "F32")}
    write_safetensors(llama / "model.safetensors", {name: values_of(name, *rest) for name, rest in tensors.items()})
    with pytest.raises(FormatError, match=r"the tensor model\.layers\.0\.extra\.weight has no known name"):
        plan_folder(llama)


STRANGE = (None, True, 0, -1, 3, 2**40, 1.5, float("inf"), "", "yarn", [], [1], ["a"], {}, {"a": 1}, [[]], [None])


@pytest.mark.parametrize(
    "name", ["llama3", "qwen35-mtp", "gemma4", "granitehybrid", "deepseek3", "glm4moe", "qwen3-fp8"]
)
def test_strange_values_in_json_files(name: str, tmp_path: Path) -> None:
    """Any value of config.json and the tokenizer's files may be of any kind: a file is written, or one line."""
    folder, rng = write_folder(tmp_path / name, name), random.Random(name)
    for file in ("config.json", "config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json") * 3:
        text = (folder / file).read_text()
        content = json.loads(text)
        part = content
        while True:
            key = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
            if not isinstance(part[key], dict | list) or not part[key] or rng.random() < 0.3:
                break
            part = part[key]
        part[key] = rng.choice(STRANGE)
        write_json(folder / file, content)
        try:
            write_plan(plan_folder(folder, "f16"), tmp_path / "out.gguf")
        except MinillamaError as error:
            assert "\n" not in str(error)
        (folder / file).write_text(text)
