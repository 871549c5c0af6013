"""Lab 11: intervals, simulated repetitions, equal quality, and checks that name mistakes."""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_checks import solutions

from minillama.errors import OptionError
from minillama.lab.benchmarks.equal_quality import fair_shrink, smallest_equal
from minillama.lab.benchmarks.interval_plots import ratio_intervals
from minillama.lab.benchmarks.ratio_interval import Interval, dropped_pairs, few_rounds_interval, ratio_interval
from minillama.lab.benchmarks.recorded_calls import recorded_calls
from minillama.lab.benchmarks.repeated_runs import Noise, statistics_of_reports
from minillama.lab.checks import lab11
from minillama.lab.checks.items.lab11_reports import LOOK_AT, RIGHT
from minillama.lab.checks.items.lab11_timer import TickingDevice
from minillama.lab.grading.check import Item

SIZES = {"F16": 400, "Q8_0": 200, "Q4_0": 120, "Q2_K": 90}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_an_interval_is_inside_the_ratios_or_open(ratios: list[float]) -> None:
    found = ratio_interval(ratios)
    assert found.low <= found.middle <= found.high
    assert ratio_interval(ratios[::-1]) == found
    if len(ratios) < 6:
        assert (found.low, found.high, found.side) == (0.0, math.inf, 0)
    else:
        assert found.low in ratios and found.high in ratios


@pytest.mark.parametrize("noise", [np.random.Generator.standard_normal, np.random.Generator.standard_cauchy])
@pytest.mark.parametrize("count", [6, 10, 25])
def test_an_interval_covers_the_median(noise: Callable[..., np.ndarray], count: int) -> None:
    """Of 2000 intervals at least 95 % hold the true ratio, also with the wildest noise."""
    ratios = 1.7 * np.exp(np.clip(noise(np.random.default_rng(count), (2000, count)), -50, 50))
    found = [ratio_interval(row.tolist()) for row in ratios]
    assert fmean(each.low <= 1.7 <= each.high for each in found) >= 0.94


def test_dropped_pairs() -> None:
    assert [dropped_pairs(count) for count in (0, 1, 5, 6, 8, 9, 11, 12, 20)] == [None, None, None, 0, 0, 1, 1, 2, 5]


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [1.0, math.nan], [math.inf], [-2.0]])
def test_ratios_that_are_refused(ratios: list[float]) -> None:
    with pytest.raises(OptionError, match="ratio"):
        ratio_interval(ratios)


def test_few_rounds_need_an_assumption() -> None:
    """Student's t on three logarithms; `ratio_interval` says nothing about them."""
    steady, logs = few_rounds_interval([2.0, 2.0, 2.0]), np.log([1.0, 1.2, 1.5])
    assert steady.low == pytest.approx(2.0) and steady.high == pytest.approx(2.0) and steady.side == 1
    found, margin = few_rounds_interval(np.exp(logs).tolist()), 4.302653 * logs.std(ddof=1) / 3**0.5  # t of 2 degrees
    expected = np.exp([logs.mean() - margin, logs.mean(), logs.mean() + margin])
    np.testing.assert_allclose([found.low, found.middle, found.high], expected, rtol=1e-5)
    assert few_rounds_interval([3.0]) == Interval(0.0, pytest.approx(3.0), math.inf)
    assert ratio_interval([1.0, 1.2, 1.5]) == Interval(0.0, 1.2, math.inf)


def test_statistics_of_reports() -> None:
    quiet = statistics_of_reports(Noise(0.0, 0.0), 10)
    assert all(each == Interval(1.0, 1.0, 1.0) for each in quiet.values())
    few, many = (statistics_of_reports(Noise(0.2, 0.05), count) for count in (3, 100))
    assert many["best"].middle < few["best"].middle < 1  # the best goes on falling
    assert many["mean"].low > 1.1  # the mean becomes exact about the wrong thing
    assert many["median"].low <= 1.03 and abs(many["median"].middle - 1) < 0.03
    broken = statistics_of_reports(Noise(0.05, 0.7), 50)
    assert broken["median"].middle > 5 and broken["best"].middle < 1


@pytest.mark.parametrize("noise", [{"spread": -1}, {"outliers": 1.2}, {"size": 0.5}, {"spread": math.nan}])
def test_noise_that_is_refused(noise: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(noise))):
        Noise(**noise)
    with pytest.raises(OptionError, match="repetitions is 0"):
        statistics_of_reports(Noise(), 0)


def models(worse: dict[str, float]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    base = random.gamma(2.0, 2.5, 1500)
    return {name: base + worse[name] + 0.02 * random.standard_normal(1500) for name in SIZES}


def test_the_smallest_of_equal_quality() -> None:
    nll = models({"F16": 0, "Q8_0": 0, "Q4_0": 0.01, "Q2_K": 0.15})
    assert smallest_equal(nll, SIZES, "F16") == "Q4_0"
    assert smallest_equal(nll, SIZES, "F16", worse=1.0) == "Q2_K"
    assert fair_shrink(nll, SIZES, "F16") == Interval(400 / 120, 400 / 120, 400 / 120)
    close = fair_shrink(models({"F16": 0, "Q8_0": 0, "Q4_0": math.log(1.02), "Q2_K": 0.15}), SIZES, "F16")
    assert (close.low, close.high) == (2.0, 400 / 120)  # at the limit the text cannot tell
    with pytest.raises(OptionError, match="F32"):
        smallest_equal(nll, SIZES, "F32")


def test_recorded_calls() -> None:
    for seed in range(50):
        calls = recorded_calls(seed)
        assert calls == recorded_calls(seed) and calls[0]["cached_tokens"] == 0
        assert all(0 <= each["cached_tokens"] < each["prompt_tokens"] for each in calls)
        assert all(0 < each["first_token"] < each["total"] and each["generated_tokens"] >= 2 for each in calls)
        assert calls[0]["total"] > 3 and max(each["cached_tokens"] for each in recorded_calls(11)) > 0
    prompts, generated = solutions("11")["corrected"](recorded_calls(11))
    assert abs(prompts / 1000 - 1) < 0.1 and abs(generated / 125 - 1) < 0.1  # the planted costs: 1 ms, 8 ms


def test_the_plot_says_what_it_shows() -> None:
    rows = {"A": Interval(2.0, 3.0, 4.0), "B": Interval(0.5, 1.0, 2.0), "C": Interval(0.1, 0.2, 0.3),
            "D": Interval(0.0, 1.0, math.inf)}  # fmt: skip
    figure = ratio_intervals(rows, "title", "axis", said={"A": 2.5, "Z": 1.0})
    lines = figure.text.splitlines()
    assert [line.split()[0] for line in lines[4:]] == ["A", "B", "C", "D"]
    assert "too much" in lines[4] and "2.5" in lines[4] and "cannot tell" in lines[5] and "too little" in lines[6]
    assert [trace.y[0] for trace in figure.plotly.data[:4]] == list(rows), "images keep the order of appearance"
    assert "0 to infinity" in lines[7] and "<svg" not in figure.text and "<img" in figure.static_html()


# ---- checks ----


def timer(calls: int, blocks: int, *, warm: bool = True, wait: bool = True, middle: Callable = median) -> Callable:
    def fair_time(f: Callable, x: object, clock: Callable[[], float]) -> float:
        if warm:
            f(x).block_until_ready()
        times = []
        for _ in range(blocks):
            start = clock()
            for _ in range(calls):
                result = f(x)
            if wait:
                result.block_until_ready()
            times.append((clock() - start) / calls)
        return middle(times)

    return fair_time


def log(name: str) -> Callable:
    return lambda calls: (median(each[name] for each in calls[1:]), 1.0)


WRONG: list[tuple[Item, Callable, str]] = [
    (lab11.fair_time, timer(50, 9, warm=False, middle=fmean), "first call compiles"),
    (lab11.fair_time, timer(50, 9, wait=False), "only \\*queues\\*"),
    (lab11.fair_time, timer(1, 30), "whole ticks"),
    (lab11.fair_time, timer(3, 30, middle=max), "whole ticks"),
    (lab11.fair_time, timer(50, 9, middle=fmean), "take the median"),
    (lab11.fair_time, timer(100, 9, middle=max), "take the median"),
    (lab11.fair_time, timer(600, 5), "so long that most hold an outlier"),
    (lab11.fair_time, timer(50, 9, middle=sum), "is that a sum"),
    (lab11.fair_time, lambda f, x, clock: -timer(50, 9)(f, x, clock), "end minus start"),
    (lab11.fair_time, lambda f, x, clock: timer(50, 9)(f, x, time.perf_counter), "its own time"),
    (lab11.fair_time, lambda f, x, clock: 0.0004, "never called"),
    (lab11.fair_time, timer(28, 1), "one slow call would spoil it"),
    (lab11.flaws, lambda: {"A": RIGHT["A"]}, "no name for B, C"),
    (lab11.flaws, list, "dictionary"),
    (lab11.flaws, lambda: {**RIGHT, "C": "cache"}, "C: 'cache' is no name"),
    (lab11.flaws, lambda: {**RIGHT, "C": ["cache"]}, "is no name"),
    (lab11.unfair, lambda a, b, studied: [], "is studied, and the reports differ|perplexity of both"),
    (lab11.unfair, lambda a, b, studied: "threads", "list of names"),
    (lab11.corrected, log("first_token"), "wrong value"),
    (lab11.corrected, lambda calls: 1.0, "shape"),
    (lab11.speed_up, lambda before, after: (1.0, 2.0, 1), "wrong value"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert re.search(said, result.message), result.message


@pytest.mark.parametrize("letter", RIGHT)
def test_a_wrong_flaw_gets_a_hint_and_no_name(letter: str) -> None:
    for name in lab11.FLAWS:
        result = lab11.flaws(lambda name=name: {**RIGHT, letter: name})
        assert result.passed == (name == RIGHT[letter])
        if not result.passed:
            assert result.message == f"{letter}: {LOOK_AT[letter]}"
            assert not any(other in result.message for other in lab11.FLAWS)


def test_the_list_of_flaws_has_the_names_to_copy() -> None:
    assert lab11.flaw_list().splitlines() == sorted(lab11.FLAWS) and {*RIGHT.values()} < {*lab11.FLAWS}


@pytest.mark.parametrize("answer", [timer(50, 9), timer(40, 15), timer(100, 11), timer(200, 5)])
def test_good_timers_pass(answer: Callable) -> None:
    assert lab11.fair_time(answer).passed, lab11.fair_time(answer).message


def test_the_device_ticks() -> None:
    device = TickingDevice()
    readings = {round(device.read_clock() / device.tick, 6) for _ in range(5) if device.f(0).block_until_ready()}
    assert all(value == round(value) for value in readings)


def test_right_answers_pass() -> None:
    found = solutions("11")
    for item in lab11.ITEMS:
        assert item(found[item.name]).passed, item(found[item.name]).message
    assert str(lab11.score()).startswith("lab 11: 5 of 5 solved")
