"""Verdicts on measured ratios that look at the noise first."""

from collections.abc import Sequence

from minillama.lab.benchmarks.ratio_interval import few_rounds_interval
from minillama.lab.language import message, translate

UNSURE = 1.5  # high over low end of an interval that says nothing


def gain_or_loss(ratios: Sequence[float]) -> str:
    """A gain or a loss where the interval does not hold 1, otherwise "cannot tell"."""
    words = {1: message("a gain"), 0: message("cannot tell"), -1: message("a loss")}
    return translate(words[few_rounds_interval(ratios).side])


def as_predicted(predicted: float, ratios: Sequence[float], *, margin: float = 0.1) -> str:
    """Say if a prediction fits the rounds of a measurement.

    margin: relative error that a prediction may have beyond the interval.
    """
    found = few_rounds_interval(ratios)
    if found.high > UNSURE * found.low:
        return translate("cannot tell")
    if found.low * (1 - margin) <= predicted <= found.high * (1 + margin):
        return translate("fits")
    return translate("too low") if predicted < found.low else translate("too high")


def cost_sentence(rows: int, ratios: Sequence[float]) -> str:
    """The price of a pass in words, from the ratios of rounds."""
    found = few_rounds_interval(ratios)
    if found.high > UNSURE * found.low:
        return translate(
            "a pass of {rows} tokens: cannot tell, the interval is ×{low:.2f} to ×{high:.2f}",
            rows=rows, low=found.low, high=found.high,
        )  # fmt: skip
    share = found.middle / rows
    return translate(
        "a pass of {rows} tokens takes ×{low:.2f} to ×{high:.2f} of one token's time, {share:.0%} of {rows} passes",
        rows=rows, low=found.low, high=found.high, share=share,
    )  # fmt: skip
