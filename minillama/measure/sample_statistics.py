"""Mean and sample standard deviation."""

import math
from collections.abc import Sequence


def mean(values: Sequence[int] | Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[int] | Sequence[float]) -> float:
    """The sample standard deviation, with n - 1 in the denominator; 0 for one value."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
