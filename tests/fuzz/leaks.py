"""Growth over the reports of a process: memory by its slope, the rest by number.

A process keeps the pages of its largest case: one step, and then the same for ten thousand cases. A leak goes on. So
the slope is the least one of three parts of the reports; a step changes at most two of them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

WARM_UP = 3  # reports in which caches fill
MIN_REPORTS = 9  # after them
PARTS = 3
MAX_GROWTH = 24 << 20  # bytes, over the reports of a process
STABLE = ("descriptors", "threads", "files")

Report = tuple[int, Mapping[str, int]]


def growth(reports: Sequence[Report], limit: int) -> str | None:
    """What grows, or None.

    reports: cases so far in this process, and what it used then. limit: bytes of memory for each case.
    """
    kept = reports[WARM_UP:]
    if len(kept) < MIN_REPORTS:
        return None
    for name in STABLE:
        values = [used[name] for _, used in kept]
        if values[-1] > values[0] + 2 and all(b >= a for a, b in pairwise(values)):
            return f"{name} grow from {values[0]} to {values[-1]} over {kept[-1][0] - kept[0][0]} cases"
    slope, rise = memory_slope(kept)
    if slope > limit and rise > MAX_GROWTH:
        return f"memory grows by {slope:.0f} bytes a case, {rise >> 20} MiB over {kept[-1][0] - kept[0][0]} cases"
    return None


def memory_slope(reports: Sequence[Report]) -> tuple[float, int]:
    """Bytes per case that grow in every part, and the rise from the least to the last."""
    memory = [used["memory"] for _, used in reports]
    bounds = [place * len(reports) // PARTS for place in range(PARTS + 1)]
    slopes = [_slope(reports[first:last]) for first, last in pairwise(bounds)]
    return max(0.0, min(slopes)), memory[-1] - min(memory)


def _slope(reports: Sequence[Report]) -> float:
    """Bytes per case by least squares."""
    cases, memory = [count for count, _ in reports], [used["memory"] for _, used in reports]
    mean_x, mean_y = sum(cases) / len(cases), sum(memory) / len(memory)
    spread = sum((x - mean_x) ** 2 for x in cases) or 1
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(cases, memory, strict=True)) / spread
