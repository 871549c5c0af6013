"""Latency and memory usage: against other clocks, by hand, and through the command."""

import json
import statistics
import time
from itertools import pairwise
from pathlib import Path

import jax
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.engine.llm import LLM
from minillama.engine.memory_usage import Usage, memory_usage, peak_resident
from minillama.engine.session import Session
from minillama.errors import OptionError
from minillama.measure.host import other_load
from minillama.measure.speed import latency, latency_tables
from minillama.measure.speed.latency import (
    ColdStart,
    Latency,
    measure_cold,
    measure_latency,
    percentiles,
    random_prompts,
)

COLD = ColdStart(32, 1.0, 0.5, 0.25, 0.125, 0.0625, 2.0)
WARM = Latency(32, 3, (0.2, 0.4), (0.1, 0.3), (0.1, 0.1), (0.01, 0.02, 0.03, 0.04), (0.23, 0.47))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(other_load, "load_warning", lambda share, when: None)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("latency") / "tiny.gguf", "llama"), progress=False)


@given(st.lists(st.floats(0.001, 10.0), min_size=2, max_size=50))
def test_percentiles(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert percentiles(values) == pytest.approx([cuts[p - 1] for p in (50, 90, 95, 99)])
    assert percentiles(values[:1]) == (values[0],) * 4
    assert percentiles([]) == (0.0,) * 4


def test_the_parts_are_what_a_clock_outside_sees(llm: LLM) -> None:
    started = time.perf_counter()
    ticks: list[float] = []
    found = measure_latency(llm, 20, n=6, repeats=3, advance=lambda: ticks.append(time.perf_counter()))
    assert len(ticks) == 4 and ticks[0] > started  # the first run is not counted
    outside = [later - earlier for earlier, later in pairwise(ticks)]
    assert len(found.total) == 3 and len(found.between) == 3 * 5
    for total, clock in zip(found.total, outside, strict=True):
        assert 0 < total <= clock
    for first, prompt, step in zip(found.first_token, found.prompt, found.first_step, strict=True):
        assert first == pytest.approx(prompt + step) and prompt > 0
    assert sum(found.total) == pytest.approx(sum(found.first_token) + sum(found.between))
    assert (found.prompt_tokens, found.generated_tokens) == (20, 6)


def test_prompts_differ_and_begin_with_bos(llm: LLM) -> None:
    prompts = random_prompts(llm.tokenizer, 10)
    first, second = next(prompts), next(prompts)
    assert first != second and len(first) == 10
    assert first[0] == second[0] == llm.tokenizer.bos
    assert first == next(random_prompts(llm.tokenizer, 10))


def test_what_cannot_be_waited_for(llm: LLM) -> None:
    with pytest.raises(OptionError, match="do not fit in a context of 512"):
        measure_latency(llm, 500, n=20)
    for wrong in ({"prompt_tokens": 0}, {"prompt_tokens": 4, "n": 0}, {"prompt_tokens": 4, "repeats": 0}):
        with pytest.raises(OptionError, match="each should be 1 or more"):
            measure_latency(llm, **wrong)


def test_a_fresh_process(llm: LLM) -> None:
    started = time.time()
    found = measure_cold(llm.path, 8, ctx_size=256)
    assert 0 < found.total < time.time() - started
    parts = (found.start, found.load, found.compile, found.prompt, found.first_step)
    assert all(part > 0 for part in parts) and sum(parts) <= found.total + 0.05


# Memory


def test_a_call_with_its_timings_and_memory(llm: LLM) -> None:
    session = llm.session()
    found = llm.measure("Once", session=session, n=3, temp=0.0, ignore_eos=True)
    assert found.completion.tokens == llm.generate("Once", n=3, temp=0.0, ignore_eos=True).tokens
    assert found.completion.timings.generated_tokens == 3
    usage = found.usage
    assert usage.weights == usage.weights_held == llm.file.nbytes or usage.weights < usage.weights_held
    assert usage.cache == session.capacity * 2 * 2 * 2 * 16 * 2  # layers, heads, key and value, head size, bytes
    assert usage.cache_held == session.nbytes and usage.cache <= usage.cache_held <= usage.cache + 64
    assert usage.compute > 0 and usage.compute_held > 0
    assert usage.resident <= usage.peak == pytest.approx(peak_resident(), rel=0.1)
    assert json.loads(json.dumps(usage.as_dict())) == usage.as_dict()
    assert usage.device_in_use is None or jax.default_backend() != "cpu"


def usage_of(llm: LLM, session: Session) -> Usage:
    return memory_usage(llm.local, session, llm.batches, llm.cache_types, llm.file.nbytes)


def test_the_cache_weighs_more_when_it_has_grown(llm: LLM) -> None:
    session = llm.session()
    small = usage_of(llm, session)
    session = ml.load(llm.path, ctx_size=1024, progress=False).session()
    session.reserve(1024)
    assert session.capacity == 1024
    assert usage_of(llm, session).cache_held == pytest.approx(2 * small.cache_held, rel=0.01)


def test_the_peak_is_that_of_this_process() -> None:
    before, now = peak_resident(), psutil.Process().memory_info().rss
    block = b"1" * (before - now + (64 << 20))
    assert before + (32 << 20) < peak_resident() < before + (96 << 20) and block


# Tables and the command


def test_tables() -> None:
    cold = latency_tables.cold_table([COLD]).splitlines()
    assert [cell.strip() for cell in cold[2].split("|")[1:-1]] == [
        "32 tokens", "1000.00", "500.00", "250.00", "125.00", "62.50", "2000.00",
    ]  # fmt: skip
    warm = latency_tables.warm_table([WARM]).splitlines()
    assert [cell.strip() for cell in warm[2].split("|")[1:-1]] == [
        "32 + 3 tokens", "300.00", "200.00", "100.00", "25.00", "37.00", "38.50", "39.70", "350.00",
    ]  # fmt: skip
    usage = Usage(1 << 20, 1 << 21, 1 << 20, 1 << 20, 1 << 20, None, 1 << 30, None, 1 << 30, None, None)
    rows = latency_tables.usage_table(usage).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "weights", "key/value cache", "compute buffers", "process, resident", "process, peak",
    ]  # fmt: skip
    assert "1.00 MiB |    2.00 MiB" in rows[0]
    values = WARM.as_dict()
    assert values["between_p50"] == pytest.approx(0.025) and values["first_token_p50"] == pytest.approx(0.3)


def test_command(llm: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "measure_cold", lambda *_, **__: COLD)
    words = ["latency", "-m", str(llm.path), "-p", "8,16", "-n", "3", "-r", "2"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.count(" cold, ms |") == out.count("| warm, ms") == out.count("| memory ") == 1 and err == ""
    assert " 8 + 3 tokens |" in out and " 16 + 3 tokens |" in out
    assert main([*words, "--no-cold", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cold"] == [] and [each["prompt_tokens"] for each in found["warm"]] == [8, 16]
    assert found["memory"]["weights"] == llm.file.nbytes and found["model_filename"] == str(llm.path)


def test_an_interrupt_leaves_what_was_measured(
    llm: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Latency:
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "measure_cold", lambda *_, **__: COLD)
    monkeypatch.setattr(latency, "measure_latency", interrupted)
    assert main(["latency", "-m", str(llm.path), "-p", "8", "-o", "json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["cold"] == [COLD.as_dict()] and "interrupted" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "csv"], "-o csv: use one of md, json"),
        (["-n", "0"], "-n 0: expected at least 1"),
        (["-r", "0"], "-r 0: expected at least 1"),
        (["-p", "0"], "'0' should be at least 1"),
        (["-m", "missing.gguf"], "missing.gguf: no such file"),
        (["--lock-timeout", "-1"], "--lock-timeout -1.0: should be a number of seconds"),
    ],
)
def test_wrong_use_is_one_line_and_two(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
