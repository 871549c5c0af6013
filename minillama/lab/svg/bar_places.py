"""Places of bars: grouped, stacked or overlaid, with plotly's widths."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import plotly.graph_objects as go

from minillama.lab.svg.axis import Axis, as_number


@dataclass(frozen=True)
class Bar:
    """One bar in units of its axes: ends across, and from base to value."""

    side: float
    other_side: float
    base: float
    value: float


def is_horizontal(trace: go.Bar) -> bool:
    """True if the bars of a trace lie."""
    return trace.orientation == "h"


def bar_places(traces: Sequence[go.Bar], layout: go.Layout, along: Axis, up: Axis) -> list[list[Bar]]:
    """The bars of each trace. along: axis of the positions; up: axis of the values."""
    positions = [[along.units(p) for p in (t.y if is_horizontal(t) else t.x)] for t in traces]
    full = _room(positions) * (1 - (0.2 if layout.bargap is None else layout.bargap))
    mode = layout.barmode or "group"
    groups = len(traces) if mode == "group" and _overlap(positions) else 1
    width = full / groups
    ends: dict[tuple[float, bool], float] = {}
    made = []
    for number, (trace, places) in enumerate(zip(traces, positions, strict=True)):
        shift = width * (number - (groups - 1) / 2) if groups > 1 else 0.0
        bars = []
        for index, (place, value) in enumerate(zip(places, trace.x if is_horizontal(trace) else trace.y, strict=False)):
            length = as_number(value)
            base = as_number(trace.base[index] if isinstance(trace.base, tuple | list) else trace.base or 0.0)
            if mode in ("stack", "relative"):
                base = ends.get((place, length < 0), 0.0)
                ends[place, length < 0] = base + length
            middle = place + shift
            foot = up.units(base) if not up.logarithmic or base > 0 else min(up.low, up.high)
            bars.append(Bar(middle - width / 2, middle + width / 2, foot, up.units(base + length)))
        made.append(bars)
    return made


def _room(positions: Sequence[Sequence[float]]) -> float:
    """Distance of two neighbours."""
    places = sorted({place for each in positions for place in each if place == place})
    return min((after - before for before, after in pairwise(places)), default=1.0)


def _overlap(positions: Sequence[Sequence[float]]) -> bool:
    """True if two traces have a bar at one position."""
    places = [place for each in positions for place in set(each)]
    return len(places) > len(set(places))
