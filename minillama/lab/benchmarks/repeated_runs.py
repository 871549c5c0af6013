"""Simulated repetitions of a benchmark: which statistic is wrong under which noise."""

from dataclasses import dataclass

import numpy as np

from minillama.errors import OptionError
from minillama.lab.benchmarks.ratio_interval import Interval
from minillama.lab.language import message


@dataclass(frozen=True)
class Noise:
    """Noise of one call whose typical time is 1.

    spread: standard deviation of the logarithm; outliers: share of calls that take `size` times as long.
    """

    spread: float = 0.05
    outliers: float = 0.05
    size: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread < 5:
            raise OptionError(f"spread is {self.spread}; it is a standard deviation from 0 to 5")
        if not 0 <= self.outliers <= 1:
            raise OptionError(f"outliers is {self.outliers}; it is a share from 0 to 1")
        if not self.size >= 1:
            raise OptionError(f"size is {self.size}; an outlier takes at least 1 time as long")

    def calls(self, random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Times of calls, [reports, repetitions]."""
        times = np.exp(self.spread * random.standard_normal(shape))
        return times * np.where(random.random(shape) < self.outliers, self.size, 1.0)


def statistics_of_reports(
    noise: Noise, repetitions: int, *, reports: int = 2000, seed: int = 11
) -> dict[str, Interval]:
    """Each statistic of `repetitions` calls over the truth.

    An interval goes from 5 % to 95 % of many reports. Raises OptionError without a repetition.
    """
    if repetitions < 1:
        raise OptionError(f"repetitions is {repetitions}; a report needs at least 1 call")
    times = noise.calls(np.random.default_rng(seed), (reports, repetitions))
    found = {
        message("one call"): times[:, 0],
        message("best"): times.min(axis=1),
        message("mean"): times.mean(axis=1),
        message("median"): np.median(times, axis=1),
    }
    return {name: Interval(*np.percentile(values, (5, 50, 95)).tolist()) for name, values in found.items()}
