"""`minillama perplexity`: llama-perplexity's lines on stdout, and what is said on stderr."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from choice_tasks import HELLASWAG, MULTIPLE_CHOICE, WINOGRANDE
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.cli.output import perplexity_lines
from minillama.measure.quality import kl_divergence, perplexity
from minillama.measure.quality.kl_divergence import Divergence
from minillama.measure.quality.multiple_choice import ChoiceResult
from minillama.measure.quality.perplexity import Estimate, running_perplexity

TEXT = "the ant sat on the north end of the sand and the hen ran there " * 4
NUMBER = r"-?\d+\.\d"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_tiny(tmp_path / "m.gguf", "llama")
    (tmp_path / "text").write_text(TEXT + "\n")
    return ["perplexity", "-m", str(tmp_path / "m.gguf"), "-c", "32"]


def estimates(tmp_path: Path, **options: int) -> list[Estimate]:
    llm = ml.load(tmp_path / "m.gguf", progress=False)
    return list(running_perplexity(llm, llm.tokenizer.encode(TEXT), ctx_size=32, **options))


def test_the_running_line_and_the_estimate(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = estimates(tmp_path)
    assert main([*words, "-f", str(tmp_path / "text")]) == 0
    out, err = capsys.readouterr()
    running, final, *rest = out.split("\n")
    assert running == "".join(f"[{e.chunk}]{e.ppl:.4f}," for e in expected)
    assert final == f"Final estimate: PPL = {expected[-1].ppl:.4f} +/- {expected[-1].error:.5f}" and rest == [""]
    chunks = len(expected)
    assert f"perplexity: calculating perplexity over {chunks} chunks, n_ctx=32, batch_size=2048, n_seq=16\n" in err
    assert re.search(r"^perplexity: \d+\.\d\d seconds per pass - ETA 0\.\d\d minutes$", err, re.MULTILINE)
    assert f" ms /   {32 * chunks} tokens (" in err


def test_columns_chunks_and_strides(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "-p", TEXT, "--ppl-output-type", "1", "--chunks", "2", "--no-perf"]) == 0
    one, two = estimates(tmp_path, chunks=2)
    out = capsys.readouterr().out
    assert out == "".join(
        f"{start:8d}  {e.ppl:.4f}  {e.nll:4f}  {e.nll_error:4f}\n" for start, e in ((0, one), (32, two))
    ) + "\n" + perplexity_lines.final(replace(two))
    assert main([*words, "-bf", str(tmp_path / "text"), "--ppl-stride", "8", "--chunks", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == "".join(map(perplexity_lines.running, estimates(tmp_path, stride=8, chunks=3))) + "\n"
    assert "perplexity: computing over 3 chunks, n_ctx=36," in err


def test_divergence_in_two_steps(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base.kld"
    assert main([*words, "-p", TEXT * 2, "--save-all-logits", str(base)]) == 0
    assert f"saving all logits to {base}" in capsys.readouterr().err
    write_tiny(tmp_path / "m.gguf", "llama", seed=1)
    assert main([*words, "--kl-divergence-base", str(base), "--kl-divergence"]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.split("\n\n")[0].strip().split("\n")
    assert head.split("  ")[0] == "chunk" and "Δp RMS" in head
    assert [int(row[:4]) for row in rows] == list(range(1, len(rows) + 1))
    pair = rf" +{NUMBER}+ ± +{NUMBER}+"
    assert all(re.fullmatch(rf" +\d+{pair}{pair}{pair}{pair} %{pair} %", row) for row in rows), rows
    labels = re.findall(r"^(?:Mean|Cor|Maximum|Minimum|Median|RMS|Same| *\d).*?(?=:)", out, re.MULTILINE)
    assert len(labels) == 6 + 12 + 16 and re.search(rf"^99\.9%   KLD: +{NUMBER}+$", out, re.MULTILINE)
    assert f"kl_divergence: computing over {len(rows)} chunks, n_ctx=32" in err


def test_statistics_in_llama_cpps_columns() -> None:
    values = np.array([0.5, 1.5, 2.5], np.float32)
    found = Divergence(7, 9, values, values, values / 100, values / 50, values > 1, 0.0)
    assert perplexity_lines.divergence_row(found) == (
        "   7       4.4817 ±    0.0000       0.00000 ±    0.00000       0.01500 ±    0.00000"
        "     3.416 ±  0.000 %    66.667 ± 33.333 %\n"
    )
    line = np.linspace(1, 2, 201, dtype=np.float32)
    found = Divergence(7, 9, line, line, line / 100, line / 50, line > 1, 0.0)
    lines = perplexity_lines.divergence_statistics(found).split("\n")
    assert lines[0] == "====== Perplexity statistics ======"
    assert lines[1] == "Mean PPL(Q)                   :   4.481689 ±   0.091938"
    assert lines[3] == "Cor(ln(PPL(Q)), ln(PPL(base))): 100.00%"
    assert "Median  KLD:   0.015000" in lines and "75.0%   Δp:  3.500%" in lines and " 5.0%   KLD:   0.010500" in lines


@pytest.mark.parametrize(
    ("flag", "content", "count"),
    [("hellaswag", HELLASWAG, 2), ("winogrande", WINOGRANDE, 4), ("multiple-choice", MULTIPLE_CHOICE, 3)],
)
def test_tasks(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, content: str | bytes, count: int
) -> None:
    (tmp_path / "tasks").write_bytes(content if isinstance(content, bytes) else content.encode())
    words = [*words[:-1], "256", f"--{flag}", "-bf", str(tmp_path / "tasks")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert f"{count} tasks" in err
    numbers = [int(row.split("\t")[0]) for row in out.split("\n") if row[:1].isdigit()]
    assert numbers == list(range(1, count + 1))
    assert main([*words, f"--{flag}-tasks", "1"]) == 0
    out, err = capsys.readouterr()
    assert sum(row[:1].isdigit() for row in out.split("\n")) == 1 and "selecting 1 random" in err


def test_rows_of_tasks() -> None:
    answer = ChoiceResult(120, 120, (-1.25, -2.5), 0, frozenset({1}), 90, 300)
    row = "120\t84.16666667%\t[76.5907%, 89.6230%]\n"  # llama-perplexity's own
    assert perplexity_lines.hellaswag_row(replace(answer, correct=101)) == row
    assert perplexity_lines.winogrande_row(answer) == "120\t75.0000\t -1.250000   -2.500000  1  2\n"
    assert perplexity_lines.winogrande_final(answer) == "Final Winogrande score(120 tasks): 75.0000 +/- 3.9694\n"
    assert perplexity_lines.winogrande_final(replace(answer, task=99)) == ""
    assert perplexity_lines.multiple_choice_row(answer) == "120\t75.00000000\n"
    assert perplexity_lines.multiple_choice_final(answer).split("\n")[1] == "Random chance: 40.0000 +/- 4.4909"


def test_remaining_time() -> None:
    assert perplexity_lines.eta(1.25, 10) == "1.25 seconds per pass - ETA 0.20 minutes"
    assert perplexity_lines.eta(100, 75) == "100.00 seconds per pass - ETA 2 hours 5.00 minutes"


@pytest.mark.parametrize("kind", ["perplexity", "base", "divergence"])
def test_an_interrupt_reports_what_was_done(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    base, words = tmp_path / "base.kld", [*words, "-ub", "32"]
    more = ["-p", TEXT]
    if kind != "perplexity":
        more += ["--kl-divergence-base", str(base)]
    if kind == "divergence":
        assert main([*words, *more]) == 0
        more = [*more[2:], "--kl-divergence"]
    module = kl_divergence if kind != "perplexity" else perplexity
    name = "Divergence" if kind == "divergence" else "Tally"
    real, capsys_before = getattr(module, name), capsys.readouterr()
    assert capsys_before.out or kind != "divergence"
    made = iter(range(100))

    def interrupted(*arguments: object) -> object:
        if next(made) == (1 if kind == "divergence" else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(module, name, interrupted)
    assert main([*words, *more]) == 130
    out, err = capsys.readouterr()
    assert re.search(r"interrupted after [012] of \d+ chunks", err) and "Traceback" not in err
    assert base.exists() is (kind == "divergence")
    assert "Final estimate" not in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give the text with one of -p, -f and -bf, not none"),
        (["-p", "a", "-f", "b"], "not -p and -f"),
        (["-f", "/nowhere/text"], "/nowhere/text: No such file"),
        (["-p", "too short"], "you need at least 64 tokens to evaluate perplexity with a context of 32; the text has"),
        (["-p", "\udcff\udcfe"], "you need at least 64 tokens"),  # bytes that are no UTF-8
        (["-p", TEXT, "-c", "0"], "-c 0"),
        (["-p", TEXT, "--chunks", "0"], "chunks is 0"),
        (["-p", TEXT, "--ppl-output-type", "2"], "--ppl-output-type 2"),
        (["-p", TEXT, "--ppl-stride", "-1"], "--ppl-stride -1"),
        (["-p", TEXT, "--ppl-stride", "33"], "the stride is 33"),
        (["-p", TEXT, "--ppl-stride", "8", "--kl-divergence-base", "x"], "--ppl-stride: files"),
        (["--kl-divergence"], "with --kl-divergence-base"),
        (["--kl-divergence", "--kl-divergence-base", "/nowhere/x"], "/nowhere/x: No such file"),
        (["--kl-divergence", "--hellaswag"], "--hellaswag and --kl-divergence: choose one"),
        (["--hellaswag", "-p", "a"], "1 lines"),
        (["-p", TEXT, "--color"], "--color: not an option of minillama perplexity, but of minillama run, cli"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*words, *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err.strip().splitlines()[-1] and "Traceback" not in err
