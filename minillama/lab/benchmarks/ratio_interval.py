"""Intervals of a ratio: from many pairs of any noise, or from few rounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from scipy.special import stdtrit

from minillama.errors import OptionError
from minillama.lab.language import translate

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A ratio with the ends of its interval."""

    low: float
    middle: float
    high: float

    @property
    def side(self) -> int:
        """Side of 1: 1 above, -1 below, 0 if the interval holds 1."""
        return 1 if self.low > 1 else -1 if self.high < 1 else 0

    def __str__(self) -> str:
        return translate("×{middle:.3g} ({low:.3g} to {high:.3g})", middle=self.middle, low=self.low, high=self.high)


def dropped_pairs(pairs: int, confidence: float = CONFIDENCE) -> int | None:
    """Ratios to drop at each end of a sorted series; None with too few pairs.

    The rest holds the true median with the given confidence. Each ratio is below the true median with probability 1/2,
    whatever the noise is. The interval misses the median on one side if at most k of n ratios are on that side; the
    binomial distribution says how often.
    """
    missed, dropped = 0.0, None
    for count in range(pairs // 2 + 1):
        missed += math.comb(pairs, count) / 2**pairs
        if missed > (1 - confidence) / 2:
            break
        dropped = count
    return dropped


def ratio_interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Median of the ratios with its interval.

    With too few ratios it goes from 0 to infinity. Raises OptionError if there is none, or one that is not a
    positive number.
    """
    if not len(ratios):
        raise OptionError("an interval of no ratios; measure at least one pair")
    for ratio in ratios:
        if not (math.isfinite(ratio) and ratio > 0):
            raise OptionError(f"a ratio is a finite positive number, not {ratio}; was one side measured as 0 seconds?")
    ordered, dropped = sorted(map(float, ratios)), dropped_pairs(len(ratios), confidence)
    if dropped is None:
        return Interval(0.0, median(ordered), math.inf)
    return Interval(ordered[dropped], median(ordered), ordered[-1 - dropped])


def few_rounds_interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean of the ratios with its interval: Student's t on the logarithms.

    For rounds that are too few or too long for `ratio_interval`, which needs six. It assumes that the logarithms have
    normal noise (Student, Biometrika 6, 1908). From 0 to infinity for a single round.
    """
    logs = [math.log(ratio) for ratio in ratios]
    middle = mean(logs)
    if len(logs) < 2:
        return Interval(0.0, math.exp(middle), math.inf)
    margin = float(stdtrit(len(logs) - 1, (1 + confidence) / 2)) * stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(middle - margin), math.exp(middle), math.exp(middle + margin))
