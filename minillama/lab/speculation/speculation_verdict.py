"""Verdicts on measured ratios that look at the noise first."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy.special import stdtrit

from minillama.lab.language import translate

CONFIDENCE = 0.95
UNSURE = 1.5  # high over low end of an interval that says nothing


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Confidence interval of the mean ratio of some rounds: Student's t on the logarithms.

    Infinite for a single round.
    """
    if len(ratios) < 2:
        return 0.0, math.inf
    logs = [math.log(ratio) for ratio in ratios]
    margin = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean(logs) - margin), math.exp(mean(logs) + margin)


def gain_or_loss(ratios: Sequence[float]) -> str:
    """A gain or a loss where the interval does not hold 1, otherwise "cannot tell"."""
    low, high = interval(ratios)
    return translate("a gain") if low > 1 else translate("a loss") if high < 1 else translate("cannot tell")


def as_predicted(predicted: float, ratios: Sequence[float], *, margin: float = 0.1) -> str:
    """Say if a prediction fits the rounds of a measurement.

    margin: relative error that a prediction may have beyond the interval.
    """
    low, high = interval(ratios)
    if high > UNSURE * low:
        return translate("cannot tell")
    if low * (1 - margin) <= predicted <= high * (1 + margin):
        return translate("fits")
    return translate("too low") if predicted < low else translate("too high")


def cost_sentence(rows: int, ratios: Sequence[float]) -> str:
    """The price of a pass in words, from the ratios of rounds."""
    low, high = interval(ratios)
    if high > UNSURE * low:
        return translate(
            "a pass of {rows} tokens: cannot tell, the interval is ×{low:.2f} to ×{high:.2f}",
            rows=rows, low=low, high=high,
        )  # fmt: skip
    share = math.sqrt(low * high) / rows
    return translate(
        "a pass of {rows} tokens takes ×{low:.2f} to ×{high:.2f} of one token's time, {share:.0%} of {rows} passes",
        rows=rows, low=low, high=high, share=share,
    )  # fmt: skip
