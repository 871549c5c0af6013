"""Graded item of lab 11: correct speeds from a log of calls."""

from collections.abc import Callable, Sequence
from statistics import fmean, median

import numpy as np

from minillama.lab.benchmarks.recorded_calls import Call, recorded_calls
from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_seed
from minillama.lab.language import translate

LAB = "11"
SEEDS = (1101, 1102, 1103, 1104)
Of = Callable[[Call], float]


def _read(each: Call) -> float:
    return each["prompt_tokens"] - each["cached_tokens"]


def _later(each: Call) -> float:
    return each["total"] - each["first_token"]


def _corrected(
    calls: Sequence[Call], *, skip: int = 1, middle: Callable[[list[float]], float] = median, read: Of = _read,
    written: Of = lambda each: each["generated_tokens"] - 1, first: Of = lambda each: each["first_token"],
    later: Of = _later,
) -> np.ndarray:  # fmt: skip
    """The right pair; each keyword makes one mistake."""
    rows = calls[skip:]
    return np.array([middle([read(each) / first(each) for each in rows]),
                     middle([written(each) / later(each) for each in rows])])  # fmt: skip


def _of_sums(calls: Sequence[Call]) -> np.ndarray:
    rows = calls[1:]
    return np.array([sum(map(_read, rows)) / sum(each["first_token"] for each in rows),
                     sum(each["generated_tokens"] - 1 for each in rows) / sum(map(_later, rows))])  # fmt: skip


CALLS_MISTAKES = (
    Mistake("the first call compiles: drop it", lambda c: _corrected(c, skip=0)),
    Mistake("two calls were disturbed, and pull the mean: take the median of the calls",
            lambda c: _corrected(c, middle=fmean)),
    Mistake("sums let the disturbed calls count most: tokens a second of each call, then the median", _of_sums),
    Mistake("the best call is not the typical one: take the median", lambda c: _corrected(c, middle=max)),
    Mistake("cached tokens were not computed: only the others took time",
            lambda c: _corrected(c, read=lambda each: each["prompt_tokens"])),
    Mistake("those are the tokens that were *not* computed: prompt minus cached",
            lambda c: _corrected(c, read=lambda each: each["cached_tokens"])),
    Mistake("the first generated token comes with the prompt: one token less in the time after it",
            lambda c: _corrected(c, written=lambda each: each["generated_tokens"])),
    Mistake("`total` has the time of the prompt in it: subtract first_token for the generated tokens",
            lambda c: _corrected(c, later=lambda each: each["total"])),
    Mistake("a prompt is read when its first token comes: divide by first_token, not by total",
            lambda c: _corrected(c, first=lambda each: each["total"])),
    Mistake("seconds a token; the wanted numbers are tokens a second", lambda c: 1 / _corrected(c)),
    Mistake("the prompt's speed comes first, then that of the generated tokens", lambda c: _corrected(c)[::-1]),
)  # fmt: skip


@graded(LAB, "3. correct speeds from a log")
def corrected(answer: Answer) -> str:
    """`corrected(calls) -> (tokens a second of prompts, of generated tokens)`."""
    for seed in SEEDS:
        calls = recorded_calls(hidden_seed(seed))
        case = translate("a log of {count} calls", count=len(calls))
        expect_equal(answer, (calls,), _corrected, CALLS_MISTAKES, tolerance=1e-6, case=case)
    return "warm calls, the tokens that were really computed, and the median of the calls."
