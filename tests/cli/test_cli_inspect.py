"""`minillama inspect`: tables for people, JSON for programs, and no JAX."""

import json
import subprocess
import sys
from pathlib import Path

import gguf_bytes
import pytest
from gguf_bytes import pair
from tiny_models import write_tiny

from minillama.cli import main
from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import read_config
from minillama.model.state_sizes import state_growth
from minillama.random_models.model_writer import write_random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("inspect") / "tiny.gguf", "tiny", "Q4_K_M")


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of one table: the lines under its rule, up to an empty line."""
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.split()[:1] == [heading])
    columns = [len(dashes) for dashes in lines[start + 1].split("  ")]
    rows = []
    for line in lines[start + 2 :]:
        if not line:
            break
        cells, at = [], 0
        for width in columns[:-1]:
            cells.append(line[at : at + width].strip())
            at += width + 2
        rows.append([*cells, line[at:].strip()])
    return rows


def test_everything(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model)]) == 0
    out, file = capsys.readouterr().out, open_gguf(model)
    assert out.startswith(
        f"file    {model} (GGUF version 3)\nmodel   llama ?B Q4_K - Medium\nname    Tiny (random weights)\n"
    )
    assert "in 21 tensors, 1.44 M parameters, " in out
    metadata = {key: (kind, text) for key, kind, text in table(out, "metadata")}
    assert list(metadata) == list(file.metadata)
    assert metadata["llama.embedding_length"] == ("u32", "256")
    assert metadata["tokenizer.ggml.tokens"] == (
        "string[512]",
        "['<unk>', '<s>', '</s>', '<0x00>', '<0x01>', '<0x02>', ... 512 in all]",
    )
    assert metadata["tokenizer.chat_template"][1].endswith(
        f"... {len(file.metadata['tokenizer.chat_template'])} characters"
    )
    tensors = table(out, "tensor")
    assert [row[0] for row in tensors] == list(file.tensors)
    assert ["blk.1.ffn_down.weight", "256 x 512", "Q6_K", "0.10 MiB"] in tensors
    types = table(out, "type")
    assert sum(int(row[1]) for row in types) == 21
    assert sum(float(row[4].split()[0]) for row in types) == pytest.approx(100, abs=0.2)
    assert table(out, "context") == [
        ["512", f"{file.nbytes / 2**20:.2f} MiB", "0.50 MiB", f"{file.nbytes / 2**20 + 0.5:.2f} MiB"]
    ]
    assert "f16 KV cache" in out
    assert main(["inspect", str(model), "-ctk", "q8_0", "-ctv", "f32"]) == 0
    out = capsys.readouterr().out
    assert "q8_0/f32 KV cache" in out
    assert table(out, "context")[0][2] == f"{512 * 2 * 2 * 64 * (34 / 32 + 4) / 2**20:.2f} MiB"


def test_only_one_part(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "-m", str(model), "--tensors"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tensor ")
    assert len(out.splitlines()) == 2 + 21
    assert main(["inspect", "-m", str(model), "--metadata"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("metadata ")
    assert "blk.0" not in out


def test_json_has_everything(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(model)]) == 0
    found, file = json.loads(capsys.readouterr().out), open_gguf(model)
    assert (found["parameters"], found["nbytes"], found["version"]) == (file.parameters, file.nbytes, 3)
    assert [found[f"cache_type_{side}"] for side in "kv"] == ["f16", "f16"]
    assert found["cache_bytes_per_token"] == 2 * 2 * 2 * 64 * 2
    assert list(found["metadata"]) == list(file.metadata)
    assert tuple(found["metadata"]["tokenizer.ggml.tokens"]) == file.metadata["tokenizer.ggml.tokens"]
    assert found["metadata"]["tokenizer.ggml.token_type"] == file.metadata["tokenizer.ggml.token_type"].tolist()
    for mine, tensor in zip(found["tensors"], file.tensors.values(), strict=True):
        assert mine == {
            "name": tensor.name, "shape": list(tensor.shape), "type": tensor.type.name, "nbytes": tensor.nbytes,
            "offset": tensor.offset, "file": str(model),
        }  # fmt: skip
    assert main(["inspect", "--json", "--tensors", str(model)]) == 0
    assert "metadata" not in json.loads(capsys.readouterr().out)


def test_odd_values_are_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files may contain control characters, invalid UTF-8, and values that JSON lacks."""
    pairs = [
        pair("general.architecture", 8, "llama"),
        pair("general.name", 8, "\x1b[2Jred\nline"),
        pair("evil\x1b[0m\nkey", 8, b"caf\xe9\x07"),
        pair("numbers", 9, (6, [1.5, float("inf"), float("nan")])),
        pair("minus", 12, float("-inf")),
        pair("flags", 9, (7, [True, False])),
        pair("nothing", 9, (8, [])),
    ]
    path = tmp_path / "odd.gguf"
    path.write_bytes(gguf_bytes.build(pairs))
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in out)
    rows = {row[0]: row[2] for row in table(out, "metadata")}
    assert rows["evil\\x1b[0m\\nkey"] == "caf\\udce9\\x07"
    assert rows["numbers"] == "[1.5, inf, nan]"
    assert (rows["flags"], rows["nothing"]) == ("[True, False]", "[]")
    assert "a vocabulary only" in out
    assert main(["inspect", "--json", str(path)]) == 0
    metadata = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["metadata"]
    assert metadata["numbers"] == [1.5, None, None]
    assert metadata["minus"] is None
    assert metadata["flags"] == [True, False]


HOSTILE = "\x1b]0;title\x07\x9b2J\u202e\r\n\u2028\x7f" + "x" * 100_000


@pytest.mark.parametrize("words", [[], ["--metadata"], ["--tensors"], ["--json"]])
def test_names_do_not_control_the_terminal(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b.gguf"
    strings = [
        pair(HOSTILE[:60_000], 8, HOSTILE),
        pair("general.name", 8, HOSTILE),
        pair("list", 9, (8, [HOSTILE] * 3)),
    ]
    architecture = pair("general.architecture", 8, "\x1b[31mllama")
    tensors = [gguf_bytes.tensor("\x1b[31m\n" + "y" * 50_000, [32], 0, 0)]
    path.write_bytes(gguf_bytes.build([architecture, *strings], tensors, bytes(128)))
    assert main(["inspect", str(path), *words]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    if "--json" not in words:
        assert max(map(len, out.splitlines())) < 700
    else:
        assert json.loads(out)["metadata"]["general.name"] == HOSTILE


def test_refusals(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "-ctk", "q4_k"]) == 2
    assert "cache_type_k is 'q4_k'; supported: f32, f16, bf16, q8_0" in capsys.readouterr().err
    assert main(["inspect", str(model), "-m", "other.gguf"]) == 2
    assert "both a file" in capsys.readouterr().err
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(model.read_bytes()[:-1])
    assert main(["inspect", str(bad)]) == 2
    caught = capsys.readouterr()
    assert "truncated or malformed" in caught.err
    assert len(caught.err.splitlines()) == 1
    assert caught.out == ""


def test_the_environment_gives_way_to_the_file(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODEL", "absent.gguf")
    assert main(["inspect", str(model), "--tensors"]) == 0
    monkeypatch.setenv("LLAMA_ARG_MODEL", str(model))
    assert main(["inspect", "--tensors"]) == 0
    assert capsys.readouterr().out.count("token_embd.weight") == 2


def test_the_builtin_model_is_the_default(builtin_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect"]) == 0
    assert builtin_model.name in capsys.readouterr().out


def test_no_jax_is_imported(model: Path) -> None:
    code = (
        "import sys; from minillama.cli import main; "
        f"assert main(['inspect', {str(model)!r}]) == 0; assert 'jax' not in sys.modules, 'jax'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama", "f16: 256 bytes a token in 2 layers"),
        ("qwen35", "with a recurrent state"),
        ("gemma2", "with a sliding window"),
        ("deepseek2", "f16: 192 bytes a token in 2 layers"),
    ],
)
def test_states_by_kind_of_layer(tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiny(tmp_path / "m.gguf", name)
    config = read_config(open_gguf(path).metadata, 300)
    growth = state_growth(config, CacheTypes(), 512)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("cache "))
    assert said in line
    for context, _, cache, _ in table(out, "context"):
        size = min(int(context), config.context_length) * growth.per_token + growth.windows + growth.recurrent
        assert cache == f"{size / 2**20:.2f} MiB"
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = ("per_token", "windows", "recurrent")
    assert [found[f"cache_bytes_{name}"] for name in names] == [getattr(growth, name) for name in names]


def test_a_model_that_does_not_run_has_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.gguf"
    tensors = [gguf_bytes.tensor("token_embd.weight", [32], 0, 0)]
    path.write_bytes(gguf_bytes.build([pair("general.architecture", 8, "bert")], tensors, bytes(128)))
    assert main(["inspect", str(path)]) == 0
    assert "cache   unknown: " in capsys.readouterr().out
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache_bytes_per_token"] is None
