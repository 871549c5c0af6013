"""Text quality: rows checked on their own texts, and the command."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import minillama as ml
from minillama.cli import main
from minillama.engine.llm import LLM
from minillama.errors import OptionError
from minillama.measure.texts import text_quality
from minillama.measure.texts.diversity import distinct, self_bleu, words
from minillama.measure.texts.relevance import Score, Scorer
from minillama.measure.texts.text_quality import (
    Prompt,
    QualityRow,
    heldout_texts,
    measure_quality,
    tokenise_continuation,
)
from minillama.measure.texts.text_quality_table import quality_foot

FOX = "Tell me a story about a little fox."
COMMAND = ["quality", "-m", "storyteller", "-p", FOX, "-n", "8", "--samples", "2", "-s", "1"]


class Letters(Scorer):
    """A scorer without a model, by shared letters; it counts its calls."""

    @property
    def name(self) -> str:
        return "letters"

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def __call__(self, candidates: list[str], references: list[str]) -> list[Score]:
        pairs = list(zip(candidates, references, strict=True))
        self.pairs += pairs
        shares = [len(set(a) & set(b)) / len(set(b)) for a, b in pairs]
        return [Score(share, share, share) for share in shares]


@pytest.fixture(scope="module")
def llm(builtin_model: Path) -> LLM:
    return ml.load(builtin_model, progress=False)


@pytest.fixture(scope="module")
def rows(llm: LLM) -> list[QualityRow]:
    """Two prompts under two settings; the first setting always writes the same."""
    prompts = [Prompt(FOX, "a fox"), "Once"]
    settings = [llm.sampling(temp=0.0), llm.sampling(temp=1.5)]
    return list(measure_quality(llm, prompts, settings, samples=2, n=8, seed=3, scorer=Letters()))


def test_rows(rows: list[QualityRow], llm: LLM) -> None:
    same, hot = rows
    assert [row.setting.temp for row in rows] == [0.0, 1.5] and {row.setting.seed for row in rows} == {3}
    assert [sample.seed for sample in hot.samples] == [3, 4, 3, 4]
    assert [sample.prompt.target for sample in hot.samples] == ["a fox", "a fox", "Once", "Once"]
    assert same.diversity.self_bleu == pytest.approx(1) and hot.diversity.self_bleu < 1
    assert hot.diversity.distinct_1 > same.diversity.distinct_1
    assert hot.fluency.log_likelihood < same.fluency.log_likelihood < 0
    for row in rows:
        of_prompts = [[words(sample.text) for sample in row.samples[start : start + 2]] for start in (0, 2)]
        assert row.diversity.distinct_2 == pytest.approx(sum(distinct(texts, 2) for texts in of_prompts) / 2)
        assert row.diversity.self_bleu == pytest.approx(sum(self_bleu(texts) for texts in of_prompts) / 2)
        parts = [sample.fluency for sample in row.samples]
        nats = sum(part.log_likelihood * part.tokens for part in parts)
        assert row.fluency.log_likelihood == pytest.approx(nats / sum(part.tokens for part in parts))
        assert row.fluency.perplexity == pytest.approx(math.exp(-row.fluency.log_likelihood))


def test_samples_are_those_of_chat_with_their_seeds(rows: list[QualityRow], llm: LLM) -> None:
    sample = rows[1].samples[1]
    answer = llm.chat([{"role": "user", "content": FOX}], n=8, temp=1.5, seed=4)
    assert sample.text == answer.text
    assert sample.fluency.log_likelihood == pytest.approx(sum(answer.logprobs) / len(answer.logprobs), abs=1e-4)


def test_relevance_is_rescaled_by_unrelated_texts(rows: list[QualityRow]) -> None:
    row = rows[1]
    raw = [Letters()([sample.text], [sample.prompt.target])[0].f1 for sample in row.samples]
    base = row.baseline.f1
    assert 0 < base < 1
    assert [s.relevance.f1 for s in row.samples] == pytest.approx([(value - base) / (1 - base) for value in raw])
    assert row.relevance.f1 == pytest.approx(sum(s.relevance.f1 for s in row.samples) / 4)


def test_baseline_pairs_are_of_the_sizes_at_hand(llm: LLM) -> None:
    scorer = Letters()
    corpus = ["one two three four five six", "seven eight nine ten eleven twelve"]
    options = {"samples": 1, "n": 3, "seed": 1, "scorer": scorer, "corpus": corpus}
    next(iter(measure_quality(llm, [Prompt("Hi", "a")], [llm.sampling()], **options)))
    pairs = scorer.pairs[: text_quality.BASELINE_PAIRS]
    sizes = {tuple(len(llm.tokenizer.encode(text, add_special=False)) for text in pair) for pair in pairs}
    assert sizes == {(3, 1)} and all(a[:2] != b[:2] for a, b in pairs)


def test_a_judge_agrees_with_the_writer_if_it_is_the_same_model(rows: list[QualityRow], llm: LLM) -> None:
    settings = [replace(rows[1].setting, seed=-1)]
    (row,) = measure_quality(llm, [FOX], settings, samples=2, n=8, seed=3, judge=llm, scorer=Letters())
    for judged, own in zip(row.samples, rows[1].samples, strict=False):
        assert judged.text == own.text
        assert judged.fluency.log_likelihood == pytest.approx(own.fluency.log_likelihood, abs=0.02)


def test_answers_begin_where_the_tokens_differ(llm: LLM) -> None:
    whole = llm.tokenizer.encode("Once upon a time")
    assert tokenise_continuation(llm, "Once upon", " a time") == text_quality.Continuation(
        tuple(whole), len(llm.tokenizer.encode("Once upon"))
    )
    inside = tokenise_continuation(
        llm, "Once up", "on a time"
    )  # the first token of the answer is also the prompt's end
    assert inside.ids == tuple(whole) and llm.tokenizer.decode(whole[inside.start :]).endswith("on a time")
    assert tokenise_continuation(llm, "", "Once").start == 1  # after BOS
    assert tokenise_continuation(llm, "Once", "") == text_quality.Continuation(tuple(llm.tokenizer.encode("Once")), 2)


def test_default_scorer_and_empty_answers(llm: LLM) -> None:
    never = llm.sampling(temp=0.0, logit_bias=((llm.tokenizer.eos, 1e4),))  # ends at once
    (row,) = measure_quality(llm, ["Once"], [never], samples=2, n=4, seed=1)
    assert [sample.text for sample in row.samples] == ["", ""] and "layer 2 of 3" in row.scorer
    assert math.isnan(row.fluency.log_likelihood) and row.fluency.tokens == 0
    plain = json.loads(json.dumps(row.as_dict(), allow_nan=False))
    assert plain["fluency"] == {"log_likelihood": None, "tokens": 0, "perplexity": None}
    assert plain["diversity"]["distinct_1"] is None and plain["diversity"]["self_bleu"] == 1


def test_python_errors(llm: LLM) -> None:
    setting = llm.sampling()
    with pytest.raises(OptionError, match="samples is 0"):
        measure_quality(llm, ["a"], [setting], samples=0)
    with pytest.raises(OptionError, match="prompts is 0"):
        measure_quality(llm, [], [setting])
    with pytest.raises(OptionError, match="the corpus has 1 texts"):
        measure_quality(llm, ["a"], [setting], corpus=["one"])
    assert len(heldout_texts()) == 25


def test_table(builtin_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--temp", "0,1.5", "--top-k", "20,40"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert all(len(line) == len(lines[0]) for line in lines[:6]) and err == ""
    head, *table = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6] if "--" not in line)
    assert head[:3] == ["temp", "top_k", "distinct-1"] and head[-1] == "tokens"
    assert [row[:2] for row in table] == [["0", "20"], ["0", "40"], ["1.5", "20"], ["1.5", "40"]]
    bleu = head.index("self-BLEU")
    assert [row[bleu] for row in table[:2]] == ["1.000", "1.000"] and all(float(row[bleu]) < 1 for row in table[2:])
    assert lines[6] == "" and "2 texts a row, of 1 prompt, seeds from 1" in lines[7]
    assert "only within this table" in out


def test_json_has_the_texts(builtin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, references = tmp_path / "prompts.txt", tmp_path / "references.txt"
    prompts.write_text("Hello\\tyou\n\nA fox\n", encoding="utf-8")
    references.write_text("one\n两个\n", encoding="utf-8")
    words = ["quality", "-f", str(prompts), "--reference", str(references), "-n", "4", "--samples", "1", "-o", "json"]
    assert main([*words, "--judge", "storyteller-f16", "--layer", "1", "-no-cnv"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert [sample["prompt"] for sample in row["samples"]] == [
        {"text": "Hello\tyou", "reference": "one"},
        {"text": "A fox", "reference": "两个"},
    ]
    assert row["judge"] == "storyteller-f16.gguf" and row["model"] == "storyteller-q8_0.gguf"
    assert "layer 1 of 3 of storyteller-f16.gguf" in row["scorer"]
    assert row["diversity"]["self_bleu"] is None  # of one text
    assert all(sample["fluency"]["log_likelihood"] < 0 and sample["text"] for sample in row["samples"])


@pytest.mark.parametrize("output", ["md", "json"])
def test_an_interrupt_keeps_the_finished_rows(
    output: str,
    rows: list[QualityRow],
    builtin_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*arguments: object, **options: object) -> Iterator[QualityRow]:
        yield rows[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(text_quality, "measure_quality", interrupted)
    assert main([*COMMAND, "-o", output]) == 130
    out, err = capsys.readouterr()
    assert "interrupted; the results so far are above" in err
    if output == "json":
        assert [row["setting"]["temp"] for row in json.loads(out)] == [0.0]
    else:
        assert out.count("\n|") == 2 and out.endswith(quality_foot(rows[0]))


def test_an_interrupt_while_writing_is_passed_on(llm: LLM) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(measure_quality(llm, [FOX], [llm.sampling()], samples=1, n=2, scorer=Letters(), advance=interrupt))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give prompts with -p, which may be repeated, or with -f FILE"),
        (["-p", "a", "-f", "b"], "give prompts with -p"),
        (["-p", "a", "--temp", "0.2,x"], "--temp 0.2,x: expected a number"),
        (["-p", "a", "--temp", "0.2", "--top-p", "0.9,3"], "top_p is 3.0"),
        (["-p", "a", "--samples", "0"], "--samples 0: should be at least 1"),
        (["-p", "a", "-n", "-1"], "-n -1: should be at least 1"),
        (["-p", "a", "-o", "csv"], "-o csv: use one of md, json"),
        (["-p", "a", "--layer", "1", "--bert-score", "x"], "leave it or --bert-score out"),
        (["-p", "a", "--layer", "9"], "layer is 9; storyteller-q8_0.gguf has layers 1 to 3"),
        (["-p", "a", "--judge", "/absent/large.gguf"], "/absent/large.gguf: no such file"),
        (["-f", "{tabs}"], "has 2 tabs; expected at most one"),
        (["-f", "{empty}"], "there is no text in it"),
        (["-f", "{two}", "--reference", "{two}"], "leave one out"),
        (["-p", "a", "-p", "b", "-p", "c", "--reference", "{two}"], "2 references for 3 prompts"),
    ],
)  # fmt: skip
def test_errors(
    words: list[str], message: str, builtin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("tabs", "a\tb\tc\n"), ("empty", "\n \n"), ("two", "a\tb\nc\n")):
        (tmp_path / name).write_text(text)
    files = {name: str(tmp_path / name) for name in ("tabs", "empty", "two")}
    assert main(["quality", *(word.format(**files) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("minillama: error: ") and err.count("\n") == 1 and "|" not in out
