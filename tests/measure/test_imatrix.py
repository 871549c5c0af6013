"""Importance matrices: what enters each matrix, llama-imatrix's numbers, and a file that quantize reads."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.errors import OptionError, UnsupportedError
from minillama.gguf import dequantize, open_gguf
from minillama.gguf.imatrix_file import read_imatrix, write_imatrix
from minillama.measure.quality.imatrix import split_chunks, sums_of_squares


def squares(x: np.ndarray) -> np.ndarray:
    return np.sum(np.square(x, dtype=np.float64), axis=0)


@pytest.mark.parametrize("name", ["gemma2", "chatglm"])
def test_sums_are_those_of_the_inputs(tmp_path: Path, name: str) -> None:
    """The reference implementation takes the inputs of the matrices from a trace."""
    llm = ml.load(write_tiny(tmp_path / "a.gguf", name), progress=False)
    chunks = np.array([[5, 9, 2, 77, 31, 8], [4, 4, 18, 99, 3, 7]], np.int32)
    traces = [llm.trace(chunk.tolist()) for chunk in chunks]
    found = sums_of_squares(llm, chunks, head=True)
    inner = "ffn_geglu" if name == "gemma2" else "ffn_swiglu"
    inputs = {"attn_output": ("kqv_out", "attn_out"), "ffn_down": (inner, "ffn_out")}
    for layer in range(llm.config.block_count):
        for matrix, (before, after) in inputs.items():
            weights = dequantize(llm.file.tensors[f"blk.{layer}.{matrix}.weight"])
            product = traces[0][f"{before}-{layer}"] @ weights.T
            np.testing.assert_allclose(product, traces[0][f"{after}-{layer}"], atol=1e-4)
    sources = {"attn_q": "attn_norm", "attn_qkv": "attn_norm", "attn_output": "kqv_out", "ffn_up": "ffn_norm"}
    for matrix, activation in {**sources, "ffn_down": inner}.items():
        key = f"blk.1.{matrix}.weight"
        assert (key in found) == (key in llm.file.tensors)
        if key in found:
            wanted = sum(squares(trace[f"{activation}-1"]) for trace in traces)
            np.testing.assert_allclose(found[key], wanted, rtol=1e-4)
    assert ("output.weight" in found) == ("output.weight" in llm.file.tensors)
    matrices = {n for n, t in llm.file.tensors.items() if len(t.shape) == 2 and n != "token_embd.weight"}
    assert set(found) == matrices


# From `llama-imatrix --chunks 2 -c 128 --process-output` on stories260K and the first 2000 bytes of the text: the first
# three columns, and the mean.
LLAMA = {
    "blk.0.attn_q.weight": ([0.342432, 0.466285, 0.395239], 1.292686),
    "blk.2.attn_output.weight": ([0.116827, 0.170039, 0.238725], 0.096685),
    "blk.3.ffn_up.weight": ([0.352737, 0.735952, 0.684740], 0.734030),
    "blk.4.ffn_down.weight": ([0.205605, 0.164335, 0.240640], 0.314170),
    "output.weight": ([2.631817, 1.673501, 1.700468], 4.004298),
}


def test_numbers_are_llama_imatrixs(reference: Path) -> None:
    text = (reference / "text" / "ppl_slice.txt").read_bytes()[:2000].decode()
    llm = ml.load(reference / "real" / "stories260K.gguf", progress=False)
    chunks = split_chunks(llm, llm.tokenizer.encode(text, parse_special=False), 128, most=2)
    found = sums_of_squares(llm, chunks, head=True)
    for name, (first, mean) in LLAMA.items():
        values = found[name] / chunks.size
        assert values.mean() == pytest.approx(mean, rel=2e-3)
        np.testing.assert_allclose(values[:3], first, atol=3e-3 * mean)


def test_chunks(tmp_path: Path) -> None:
    llm = ml.load(write_tiny(tmp_path / "a.gguf", "llama"), progress=False)
    begin = llm.tokenizer.bos if llm.tokenizer.add_bos else None
    chunks = split_chunks(llm, list(range(10, 33)), 5)
    assert chunks.shape == (4, 5)
    assert chunks[:, 1:].tolist() == [[11, 12, 13, 14], [16, 17, 18, 19], [21, 22, 23, 24], [26, 27, 28, 29]]
    assert chunks[:, 0].tolist() == ([begin] * 4 if begin is not None else [10, 15, 20, 25])
    assert split_chunks(llm, list(range(10, 33)), 5, first=1, most=2)[:, 1].tolist() == [16, 21]
    with pytest.raises(OptionError, match="9 tokens, and 10 are needed for two chunks of 5; give a longer text"):
        split_chunks(llm, list(range(9)), 5)


def test_experts_are_refused(tmp_path: Path) -> None:
    llm = ml.load(write_tiny(tmp_path / "a.gguf", "mixtral"), progress=False)
    with pytest.raises(UnsupportedError, match="imatrix does not support models with experts yet"):
        sums_of_squares(llm, np.ones((2, 4), np.int32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sums = {"b.weight": np.array([2, 4], np.float32), "a.weight": np.array([8, 6, 4], np.float32)}
    path = write_imatrix(tmp_path / "im.gguf", sums, 2, dataset="text", chunks=3, chunk_size=1)
    found = read_imatrix(path)
    means = {name: values.tolist() for name, values in found.entries.items()}
    assert means == {"a.weight": [4, 3, 2], "b.weight": [1, 2]}
    assert (found.datasets, found.chunks) == (("text",), 3)
    names = [f"{name}.weight{end}" for name in "ab" for end in (".in_sum2", ".counts")]
    assert list(open_gguf(path).tensors) == names
    assert [each.name for each in tmp_path.iterdir()] == ["im.gguf"]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "m.gguf", "llama")
    Path("text.txt").write_text("Once upon a time there was a little fox. " * 20)
    words = ["imatrix", "-m", "m.gguf", "-f", "text.txt", "-c", "32", "--chunks", "2"]
    assert main(words) == 0
    assert capsys.readouterr().out == "imatrix.gguf\n"
    found = read_imatrix("imatrix.gguf")
    assert (found.datasets, found.chunks) == (("text.txt",), 2)
    assert all(np.all(values > 0) for values in found.entries.values())
    assert main(words) == 2
    assert "imatrix.gguf exists; overwrite it with --force" in capsys.readouterr().err
    quantise = ["quantize", "--imatrix", "imatrix.gguf", "m.gguf", "a.gguf", "Q4_0"]
    assert main(quantise) == 0
    assert open_gguf("a.gguf").metadata["quantize.imatrix.chunks_count"] == 2
    assert main(["imatrix", "-m", "m.gguf", "-o", "b.gguf"]) == 2
    assert "give the text with one of -p, -f and -bf, not none" in capsys.readouterr().err
    assert not Path("b.gguf").exists()
    # --chunk is --from-chunk, as in llama-imatrix; other chunks have other numbers.
    text = Path("text.txt").read_text()
    more = ["-p", text, "-c", "32", "--chunk", "1", "--chunks", "2", "-o", "c.gguf", "-n", "3"]
    assert main(["imatrix", "-m", "m.gguf", *more]) == 0
    assert "-n 3 has no effect: no text is generated" in capsys.readouterr().err
    skipped = read_imatrix("c.gguf")
    assert (skipped.datasets, skipped.chunks) == (("",), 2)
    assert not all(np.allclose(skipped.entries[name], values) for name, values in found.entries.items())
