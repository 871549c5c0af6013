"""Graded item of lab 11: a speed-up from pairs, with its interval and a verdict."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from minillama.lab.benchmarks.ratio_interval import Interval, dropped_pairs, ratio_interval
from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import translate

LAB = "11"
Seconds = Sequence[float]


def _row(found: Interval) -> np.ndarray:
    return np.array([found.low, found.high, found.side])


def _ratios(before: Seconds, after: Seconds) -> list[float]:
    return [a / b for a, b in zip(before, after, strict=True)]


def _speed_up(before: Seconds, after: Seconds) -> np.ndarray:
    return _row(ratio_interval(_ratios(before, after)))


def _dropping(change: Callable[[int, int], int]) -> Answer:
    """The right answer with another number of dropped ratios: `change(k, n)`."""

    def wrong(before: Seconds, after: Seconds) -> np.ndarray:
        ordered = sorted(_ratios(before, after))
        dropped = dropped_pairs(len(ordered))
        if dropped is None:
            return _speed_up(before, after)
        dropped = min(max(0, change(dropped, len(ordered))), (len(ordered) - 1) // 2)
        return _row(Interval(ordered[dropped], 1.0, ordered[-1 - dropped]))

    return wrong


def _of_means(before: Seconds, after: Seconds) -> np.ndarray:
    ratios = np.array(_ratios(before, after))
    error = 2 * ratios.std(ddof=1) / math.sqrt(len(ratios))
    return _row(Interval(ratios.mean() - error, ratios.mean(), ratios.mean() + error))


def _by_middle(before: Seconds, after: Seconds) -> np.ndarray:
    found = ratio_interval(_ratios(before, after))
    return np.array([found.low, found.high, np.sign(found.middle - 1)])


def _of_few(before: Seconds, after: Seconds) -> np.ndarray:
    ratios = sorted(_ratios(before, after))
    return _row(Interval(ratios[0], 1.0, ratios[-1])) if len(ratios) < 6 else _speed_up(before, after)


SPEED_UP_MISTAKES = (
    Mistake("inverted: a speed-up is seconds before over seconds after", lambda b, a: _speed_up(a, b)),
    Mistake("the verdict's sign: 1 is faster, where even the low end is above 1",
            lambda b, a: _speed_up(b, a) * np.array([1, 1, -1])),
    Mistake("keep the pairs together: sort the ratios, not the times", lambda b, a: _speed_up(sorted(b), sorted(a))),
    Mistake("an outlier moves mean and deviation: use the sorted ratios", _of_means),
    Mistake("the smallest and the largest ratio are too wide an interval with many pairs: drop k at each end",
            _dropping(lambda k, n: 0)),
    Mistake("one ratio too many is dropped: the chance of k or fewer must be at most 2.5 %",
            _dropping(lambda k, n: k + 1)),
    Mistake("one ratio too few is dropped: k is the *largest* number with a chance of at most 2.5 %",
            _dropping(lambda k, n: k - 1)),
    Mistake("the verdict comes from the interval: if it holds 1, you cannot tell", _by_middle),
    Mistake("with fewer than 6 pairs even k = 0 is too likely by chance: from 0 to infinity, cannot tell", _of_few),
)  # fmt: skip


def _pairs(count: int, gain: float, seed: int, *, spread: float = 0.04, outliers: int = 1) -> tuple[Seconds, Seconds]:
    """Times of pairs with a drift that both sides share, and some outliers."""
    random = hidden_random(seed)
    drift = 1 + random.permutation(count) / count
    before, after = drift * gain * random.lognormal(0, spread, count), drift * random.lognormal(0, spread, count)
    hit = random.choice(count, outliers, replace=False)
    before[hit] *= 8
    return before.tolist(), after.tolist()


def _cases() -> tuple[tuple[Seconds, Seconds], ...]:
    return (
        _pairs(20, 0.8, 2, outliers=2), _pairs(10, 1.3, 1), _pairs(15, 1.0, 3), _pairs(5, 1.5, 4, outliers=0),
        _pairs(6, 1.4, 5, outliers=0), _pairs(40, 1.02, 6, spread=0.02, outliers=3), _pairs(9, 1.005, 7),
    )  # fmt: skip


@graded(LAB, "5. a speed-up with its interval")
def speed_up(answer: Answer) -> str:
    """`speed_up(before, after) -> (low, high, verdict)` from paired seconds."""
    cases = _cases()
    for before, after in cases:
        case = translate("{count} pairs", count=len(before))
        expect_equal(answer, (before, after), _speed_up, SPEED_UP_MISTAKES, tolerance=1e-9, case=case)
    return translate("{count} series; an outlier moves none of them.", count=len(cases))
