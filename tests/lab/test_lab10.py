"""Lab 10: recorded runs are whole, numbers equal references, and checks name mistakes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_checks import solutions

import minillama as ml
from minillama.engine.loading.model_files import data_file
from minillama.lab.checks import lab10
from minillama.lab.checks.items.lab10_scores import Scored, window_values
from minillama.lab.experiments.quantised_storytellers import heldout_text
from minillama.lab.grading.check import Item
from minillama.lab.recorded import record_runs
from minillama.lab.recorded.comparison_plots import (
    claims_table,
    joined_tables,
    load_words,
    own_dots,
    program_dots,
    rates_and_roof,
    ratio_words,
    share_words,
)
from minillama.lab.recorded.own_runs import run_against, scored_places, text_log_likelihoods
from minillama.lab.recorded.recorded_runs import (
    DEPTH,
    LARGE,
    LLAMA,
    MODEL,
    OURS,
    ROOF,
    SMALLER,
    STORYTELLER,
    decode_row,
    number,
    recorded,
    recorded_work,
    settings,
    trial_name,
)
from minillama.measure.limits.roofline import Roofline, model_work
from minillama.measure.quality.perplexity import perplexity
from minillama.measure.trial import Trial


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The record


def test_all_runs_are_recorded_with_command_and_date() -> None:
    records = recorded()
    wanted = {
        record_runs.command_of(program, (*words, *record_runs.REPEATS))
        for programs, words in record_runs.SPEEDS
        for program in programs
    }
    assert {run.command for run in records.speeds} == wanted
    assert {run.command for run in records.scored} == {
        record_runs.command_of("llama-perplexity", words) for words in record_runs.SCORED
    }
    assert records.processor and all("0c1e570" in run.build for run in records.scored)
    assert all(run.date.startswith("20") and 0 <= run.other_load <= 1 for run in records.speeds)


def test_speeds_are_those_of_their_samples_and_tables() -> None:
    for run in recorded().speeds:
        for row in run.rows:
            tokens = number(row, "n_prompt") + number(row, "n_gen")
            rates = [1e9 * tokens / sample for sample in row["samples_ns"]]
            assert number(row, "avg_ts") == pytest.approx(mean(rates), rel=1e-6)
            assert number(row, "stddev_ts") == pytest.approx(stdev(rates), rel=1e-3)
            assert any(f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}" in line for line in run.table), run.command
        assert run.rows[0]["model_filename"] in run.command


def test_log_likelihoods_give_almost_the_printed_perplexities() -> None:
    for run in recorded().scored:
        ppl, error = run.final
        assert 0.95 * ppl < np.exp(-run.log_likelihoods.mean()) <= 1.001 * ppl, "the floor of the base file"
        assert np.isnan(run.in_text()).sum() == len(run.in_text()) - len(run.log_likelihoods)
        assert 0.01 < error / ppl < 0.2


def test_a_run_that_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match=r"no recorded run of llama-bench: .*pp512, depth 7, 1 threads"):
        recorded().row(LLAMA, LARGE, "pp512", 7)


def test_work_of_a_decode_step_is_the_formulas() -> None:
    work = model_work(data_file(STORYTELLER), Trial(0, 64))
    assert recorded_work(STORYTELLER, "tg64").bytes == pytest.approx(work.bytes)
    row = decode_row(OURS, LARGE, DEPTH)
    assert row["cache_bytes"] == 6144
    whole = row["weight_bytes"] + row["cache_bytes"] * (DEPTH + 32.5)
    assert whole == pytest.approx(recorded_work(LARGE, "tg64", DEPTH).bytes, rel=1e-6)


def test_the_recorder_keeps_the_quietest_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter((0.5, 0.3, 0.7, 0.05))
    monkeypatch.setattr(record_runs, "is_quiet", lambda pause: True)
    monkeypatch.setattr(
        record_runs, "speed_run",
        lambda binaries, folder, program, words: {
            "command": record_runs.command_of(program, words), "other_load": next(loads)
        },
    )  # fmt: skip
    runs: list[dict[str, object]] = []
    for kept in (0.5, 0.3, 0.3, 0.05, 0.05):  # the last one is not measured again
        record_runs.record_turn(runs, tmp_path, tmp_path, (LLAMA,), ("-m", "a"), 0.0)
        assert [run["other_load"] for run in runs] == [kept]


def test_a_record_is_json_with_a_line_a_run() -> None:
    text = record_runs.as_text({"machine": {"cores": 2}, "runs": [{"a": 1}, {"a": 2}]})
    assert json.loads(text) == {"machine": {"cores": 2}, "runs": [{"a": 1}, {"a": 2}]}
    assert '{"a": 1},\n{"a": 2}\n' in text


# Own runs, lines and figures


def test_log_likelihoods_of_a_text_give_the_engines_perplexity(builtin_model: Path) -> None:
    llm, text = ml.load(builtin_model, progress=False), heldout_text()[:1500]
    ids = llm.tokenizer.encode(text)
    values, engine = text_log_likelihoods(llm, ids, 64), perplexity(llm, text, ctx_size=64)
    places = scored_places(len(ids), 64)
    assert len(places) == engine.count
    assert np.exp(-values[places].mean()) == pytest.approx(engine.ppl, rel=1e-3)
    assert np.isnan(values[::64]).all() and not np.isnan(values[1:64]).any()
    kept = text_log_likelihoods(llm, ids, 64, floor=2.0)[places]
    assert (kept >= values[places]).all() and (kept > values[places]).any()


def test_without_a_binary_there_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    run_against(None, {}, ())
    assert "no llama-bench here" in capsys.readouterr().out


def row_of(speed: float, deviation: float) -> dict[str, object]:
    return {"avg_ts": speed, "stddev_ts": deviation, "samples_ns": [1, 2, 3, 4]}


@given(st.floats(1, 1e4), st.floats(0.2, 5.0), st.floats(0.001, 0.5))
def test_a_ratio_says_only_what_its_error_allows(speed: float, ratio: float, noise: float) -> None:
    words = ratio_words(row_of(speed * ratio, noise * speed * ratio), row_of(speed, noise * speed))
    error = ratio * math.sqrt(2) * noise / 2
    if abs(abs(ratio - 1) - 2 * error) > 1e-9:
        assert words.endswith("cannot tell" if abs(ratio - 1) <= 2 * error else "faster" if ratio > 1 else "slower")


def test_disturbed_runs_allow_nothing() -> None:
    quiet, disturbed = row_of(50.0, 0.1), {**row_of(10.0, 0.1), "run_load": 0.4}
    assert ratio_words(quiet, disturbed).endswith("cannot tell, other programs used 40% of the cores")
    assert ratio_words(quiet, row_of(10.0, 0.1)).endswith("faster")


def test_figures_name_programs_and_roofs() -> None:
    records = recorded()
    dots = program_dots(records, LARGE, (0, DEPTH))
    assert {"llama-bench, tg64", "minillama bench, pp512 @ d1024"} <= set(dots) and len(dots) == 8
    assert dots["llama-bench, tg64"].intensity < dots["llama-bench, pp512"].intensity
    own = {**records.row(OURS, LARGE, "tg64"), "avg_ts": 12.5}
    assert list(own_dots([own])) == ["random Q8_0, tg64"]
    roof = Roofline(1e9, 1e12, "Q8_0", 1, "cpu")
    figure = rates_and_roof(records, LARGE, "tg64", 0, [own], roof)
    assert "minillama bench, here" in figure.text and "12.5" in figure.text
    assert "here" not in rates_and_roof(records, LARGE, "tg64", DEPTH, [own], roof).text
    assert records.roofs[ROOF].threads == 1
    assert "of the cores" in load_words(records)
    assert "cache" in share_words([0.5, 1.2]) and "takes 50%" in share_words([0.5]) and "no shares" in share_words([])


def test_tables_show_the_settings() -> None:
    records = recorded()
    rows = tuple(settings(LLAMA, records.row(LLAMA, LARGE, "tg64", depth)) for depth in (0, DEPTH))
    text = claims_table([{"claim": "a depth", "compared": ("n_depth",), "rows": rows}])
    assert "0: a depth" in text and "tg64 @ d1024" in text and "auto" in text
    joined = joined_tables([["h", "-", "1", "build"], ["h", "-", "2", "build"], ["g", "-", "3", "build"]])
    assert joined == "h\n-\n1\n2\n\ng\n-\n3\n\nbuild"
    assert trial_name(rows[0]) == "tg64"


# Checks


def windows_of(values: np.ndarray, ctx: int) -> tuple[float, float]:
    """Reference implementation: token by token."""
    kept = [-value for place, value in enumerate(values[: len(values) - len(values) % ctx]) if place % ctx > ctx // 2]
    ppl = math.exp(mean(kept))
    return ppl, ppl * stdev(kept) / math.sqrt(len(kept))


RIGHT: dict[Item, Callable] = {
    lab10.tokens_per_second: lambda s, n: (
        mean(1e9 * n / x for x in s), stdev(1e9 * n / x for x in s) if len(s) > 1 else 0
    ),
    lab10.share_of_roof: lambda r, b: (
        mean(r["weight_bytes"] + r["cache_bytes"] * (r["n_depth"] + i + 1) for i in range(r["n_gen"])) * r["avg_ts"] / b
    ),
    lab10.perplexity_of: windows_of,
}  # fmt: skip


def test_right_answers_pass() -> None:
    found = solutions("10")
    for item in lab10.ITEMS:
        for answer in (found[item.name], RIGHT.get(item, found[item.name])):
            assert item(answer).passed, item(answer).message
    assert str(lab10.score()).startswith("lab 10: 5 of 5 solved")


@given(st.integers(2, 40), st.integers(40, 200), st.integers(0, 9))
def test_the_solution_scores_the_reference_tokens(half: int, tokens: int, seed: int) -> None:
    ctx = min(2 * half, tokens)
    ctx -= ctx % 2
    values = window_values(tokens, ctx, seed)
    assert solutions("10")["perplexity_of"](values, ctx) == pytest.approx(windows_of(values, ctx))


def errors_apart(a: Scored, b: Scored) -> str:
    change = b.log_likelihoods.mean() - a.log_likelihoods.mean() if len(a.tokens) == len(b.tokens) else 0.0
    if not np.array_equal(a.tokens, b.tokens):
        return "not comparable"
    error = np.hypot(a.log_likelihoods.std(), b.log_likelihoods.std()) / len(a.tokens) ** 0.5
    return "cannot tell" if abs(change) < 2 * error else "better" if change > 0 else "worse"


WRONG: list[tuple[Item, Callable, str]] = [
    (lab10.tokens_per_second, lambda s, n: (1e9 * n * len(s) / sum(s), 0.0), "wrong value|mean of the *rates*"),
    (lab10.tokens_per_second, lambda s, n: (np.mean([1e9 * n / x for x in s]), np.std([1e9 * n / x for x in s])),
     "ddof=1"),
    (lab10.tokens_per_second, lambda s, n: 1e9 * n / np.mean(s), "shape"),
    (lab10.tokens_per_second, lambda s, n: (mean(1e9 * n / x for x in s), stdev(1e9 * n / x for x in s)),
     "StatisticsError"),
    (lab10.share_of_roof, lambda r, b: r["weight_bytes"] * r["avg_ts"] / b, "reads the cache"),
    (lab10.share_of_roof, lambda r, b: 0.5, "wrong value"),
    (lab10.unfair, lambda claims: [1, 4], "wrong value|every setting"),
    (lab10.unfair, lambda claims: list(range(6)), "results differ|must"),
    (lab10.unfair, lambda claims: [], "shape"),
    (lab10.unfair, lambda claims: [{"a": 1}], "should be numbers"),
    (lab10.perplexity_of, lambda v, c: windows_of(v, 2 * c), "wrong value|nan"),
    (lab10.perplexity_of, lambda v, c: (np.exp(-np.nanmean(v)), 0.0), "wrong value|only the second half"),
    (lab10.perplexity_of, lambda v, c: v.fill(0), "None|changed its input"),
    (lab10.differ, errors_apart, "error bars"),
    (lab10.differ, lambda a, b: "cannot tell", "not comparable|other tokens|yours is"),
    (lab10.differ, lambda a, b: 1, "the answer is one of"),
    (lab10.differ, lambda a, b: "equal", "the answer is one of"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


def test_claims_of_the_lab_hold_two_unfair_ones() -> None:
    """The planted ones differ in the threads, and in the depth."""
    source = next(Path(__file__).resolve().parents[2].glob("labs/src/10_*.py")).read_text(encoding="utf-8")
    cell = source.partition("def claim(")[2].partition("print(claims_table")[0]
    names = {
        "records": recorded(), "settings": settings, "LLAMA": LLAMA, "OURS": OURS, "LARGE": LARGE, "MODEL": MODEL,
        "PROGRAM": ("program", "build_commit"), "SMALLER": SMALLER, "DEPTH": DEPTH,
        "CACHE": ("type_k", "type_v"),
    }  # fmt: skip
    exec("def claim(" + cell, names)
    assert solutions("10")["unfair"](names["claims"]) == [1, 4]
