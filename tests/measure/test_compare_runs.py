"""Comparison of two runs: interval by simulation, matching tests, files of both programs."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_example import RECORD

from minillama.errors import FormatError, ResourceError
from minillama.measure.speed.compare_runs import (
    RunComparison,
    compare_results,
    ratio_interval,
    read_results,
    result_of,
    run_comparison_columns,
)
from minillama.measure.tables import md_row

BASE = result_of(replace(RECORD, samples_ts=(10.0, 11.0, 12.0)))


def test_interval_by_hand() -> None:
    """Each step of the formula by hand, with Student's t from a table."""
    base, new = (10.0, 11.0, 12.0), (20.0, 22.0, 24.0)
    part = statistics.variance(base) / (3 * 11.0**2)  # the same for both: the second is twice the first
    half = 2.7764 * math.sqrt(2 * part)
    assert ratio_interval(base, new) == pytest.approx((2 / math.exp(half), 2 * math.exp(half)), rel=1e-4)
    low, high = ratio_interval(base, new, 0.5)
    assert 2 / math.exp(half) < low < 2 < high < 2 * math.exp(half)
    assert ratio_interval((5.0, 5.0), (10.0, 10.0)) == pytest.approx((2.0, 2.0))
    assert ratio_interval((5.0,), new) is None


def test_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        low, high = ratio_interval(rng.normal(100, 5, 5).tolist(), rng.normal(110, 9, 6).tolist())
        held += low <= 1.1 <= high
    assert 930 <= held <= 970


def test_the_same_test_is_found() -> None:
    others = [
        replace(RECORD, samples_ts=(20.0, 22.0, 24.0), model_filename="/elsewhere/tiny.gguf"),
        replace(RECORD, n_threads=2),
        replace(RECORD, n_depth=5),
        replace(RECORD, model_filename="other.gguf"),
    ]
    (found,) = compare_results([BASE], [result_of(record) for record in others])
    assert found.ratio == 2 and found.verdict == "faster"
    assert RunComparison(found.new, found.base).verdict == "slower"
    assert RunComparison(BASE, BASE).verdict == "no difference seen"
    assert RunComparison(BASE, replace(BASE, speeds=(1.0,))).verdict == "run once"
    cells = [cell.strip() for cell in md_row(run_comparison_columns(), found).split("|")[1:-1]]
    assert cells[:6] == ["tiny.gguf", "1", "pp8", "11.00 ± 1.00", "22.00 ± 2.00", "2.000"]
    assert cells[7] == "faster"
    values = json.loads(json.dumps(found.as_dict()))
    assert values["ratio"] == 2 and values["ratio_low"] < 2 < values["ratio_high"]


def test_settings_tell_apart_what_the_rest_does_not() -> None:
    f16, f32 = RECORD, replace(RECORD, type_k="f32")
    assert len(compare_results([result_of(f16)], [result_of(f32)])) == 1  # that may be what is compared
    both = [result_of(f16), result_of(f32)]
    found = compare_results(both, both)
    assert [(each.base.settings, each.new.settings) for each in found] == [(run.settings,) * 2 for run in both]


def test_files_of_both_programs(tmp_path: Path) -> None:
    record = RECORD.as_dict()
    theirs = {name: record[name] for name in ("model_filename", "n_prompt", "n_gen", "n_depth", "n_threads")}
    theirs |= {"samples_ts": [16433.4, 16809.5], "n_batch": 2048, "n_ubatch": 512}
    texts = {
        "array.json": json.dumps([record, theirs], indent=2),
        "lines.jsonl": f"{json.dumps(record)}\n{json.dumps(theirs)}\n",
        "compared.json": json.dumps({"results": [record, theirs], "comparison": []}, indent=2),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        first, second = read_results(tmp_path / name)
        assert first == result_of(RECORD) and first.key == second.key and second.speeds == (16433.4, 16809.5)


@pytest.mark.parametrize("text", ["", "x", "{}", "[1]", '[{"n_prompt": 1}]', "| model |", '{"a": 1}\n{"b": 2}'])
def test_files_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    if text:
        with pytest.raises(FormatError, match="no benchmark results in JSON"):
            read_results(path)
    else:
        assert read_results(path) == []


def test_samples_must_be_speeds(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for samples in ([], [0.0], [-1.0], [math.inf]):
        path.write_text(json.dumps([RECORD.as_dict() | {"samples_ts": samples}]))
        with pytest.raises(FormatError, match="speeds above 0"):
            read_results(path)
    with pytest.raises(ResourceError, match="cannot be read"):
        read_results(tmp_path / "missing.json")
