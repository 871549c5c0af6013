"""`minillama convert` on the command line, and other commands on the file that it makes."""

import sys
from pathlib import Path

import pytest
from hf_folders import write_folder

from minillama.cli import convert, main
from minillama.convert.families.family_table import FAMILIES
from minillama.gguf import open_gguf


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_folder(tmp_path / "tiny", "llama"), tmp_path / "tiny-f16.gguf"
    assert main(["convert", str(folder), "-o", str(tmp_path / "tiny-{ftype}.gguf"), "--model-name", "Mine"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n" and shown.err == "llama: 21 tensors, 0.19 MiB, f16\n"
    assert open_gguf(out).metadata["general.name"] == "Mine"
    assert main(["tokenize", "-m", str(out), "-p", "er", "--ids"]) == 0
    assert capsys.readouterr().out == "[1, 259, 261]\n"


@pytest.mark.slow
def test_run_what_was_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_folder(tmp_path / "tiny", "llama"), tmp_path / "tiny.gguf"
    assert main(["convert", str(folder), "-o", str(out)]) == 0
    capsys.readouterr()
    assert main(["run", "-m", str(out), "-no-cnv", "-p", "the", "-n", "3", "--temp", "0", "--no-perf"]) == 0
    assert capsys.readouterr().out.startswith("the")


def test_dry_run_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "tiny", "qwen3")
    assert main(["convert", str(folder), "--outtype", "q8_0", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("/tiny/Tiny-123K-Q8_0.gguf\n") and "blk.1.attn_q_norm.weight" in shown.err
    assert "token_embd.weight                    Q8_0   [64, 288]" in shown.err and not list(folder.glob("*.gguf"))
    for words, message in (
        (["--outtype", "q4_0"], "--outtype q4_0: no such type; known: auto, f32, f16, bf16, q8_0"),
        (["--mmproj"], "--mmproj: only the text model is written; leave it out"),
        (["-o", str(folder / "config.json")], "config.json exists; overwrite it with --force, or name another file"),
        (["-o", str(tmp_path / "no" / "out")], "create it, or name another file"),
    ):
        assert main(["convert", str(folder), *words]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for path, message in (
        (folder / "config.json", "config.json is a file; name the folder that holds config.json and model.safetensors"),
        (tmp_path / "empty", "empty has no config.json; name the folder of a Hugging Face model"),
    ):
        assert main(["convert", str(path)]) == 2
        assert capsys.readouterr().err.endswith(f"{message}\n")
    assert main(["convert", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.endswith("nowhere is no folder; name the folder of a Hugging Face model\n")


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("minillama.convert", "safetensors"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(["convert", str(tmp_path)]) == 2
    expected = "minillama: error: the Python package safetensors is missing; install it: pip install safetensors\n"
    assert capsys.readouterr().err == expected


def test_the_help_lists_the_architectures() -> None:
    assert convert._LISTING.split(":", 1)[1].split() == sorted({family.name for family in FAMILIES})
