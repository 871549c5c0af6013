"""The plot area of a static figure: axes, pixels, grid and tick labels."""

from dataclasses import dataclass

import plotly.graph_objects as go

from minillama.lab.svg.axis import Axis, Tick
from minillama.lab.svg.svg_elements import element, plain, text_width, words

TICK_SIZE, AXIS_TITLE_SIZE = 12.0, 13.0
TURNED = -35.0  # degrees of labels that have no room side by side


@dataclass(frozen=True)
class Frame:
    """Edges of the plot area in pixels, and its axes."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def across(self, units: float) -> float:
        """Horizontal pixel of a place on the x axis."""
        return self.left + self.x.fraction(units) * self.width

    def down(self, units: float) -> float:
        """Vertical pixel of a place on the y axis."""
        return self.bottom - self.y.fraction(units) * self.height

    def point(self, x: object, y: object) -> tuple[float, float]:
        """Pixels of a pair of values."""
        return self.across(self.x.units(x)), self.down(self.y.units(y))

    def holds(self, x: float, y: float) -> bool:
        """True if pixels are in the plot area, edges included."""
        return self.left - 1 <= x <= self.right + 1 and self.top - 1 <= y <= self.bottom + 1


def labels_are_turned(marks: list[Tick], width: float) -> bool:
    """True if the labels of the x axis overlap side by side."""
    widest = max((text_width(label, TICK_SIZE) for _, label in marks), default=0.0)
    return len(marks) > 1 and (widest + 8) * len(marks) > width


def room_below(layout: go.Layout, marks: list[Tick], width: float) -> float:
    """Pixels below the plot area for tick labels and the title."""
    widest = max((text_width(label, TICK_SIZE) for _, label in marks), default=0.0)
    labels = min(widest * 0.58 + 20, 140) if labels_are_turned(marks, width) else 20 if marks else 4
    return labels + (26 if layout.xaxis.title.text else 8)


def room_left(layout: go.Layout, marks: list[Tick]) -> float:
    """Pixels left of the plot area."""
    widest = max((text_width(label, TICK_SIZE) for _, label in marks), default=0.0)
    return 14 + widest + (26 if layout.yaxis.title.text else 4)


def axes_markup(frame: Frame, layout: go.Layout, x_ticks: list[Tick], y_ticks: list[Tick]) -> list[str]:
    """Grid lines, tick labels and titles of both axes."""
    made = _grid(frame, layout, x_ticks, y_ticks)
    turned = labels_are_turned(x_ticks, frame.width)
    for place, label in x_ticks:
        x = frame.across(place)
        anchor, turn = ("end", TURNED) if turned else ("middle", 0.0)
        made.append(words(x, frame.bottom + 16, label, anchor=anchor, size=TICK_SIZE, turn=turn))
    font = layout.yaxis.tickfont.family
    made += [
        words(frame.left - 6, frame.down(place), label, anchor="end", size=TICK_SIZE, middle=True, font=font)
        for place, label in y_ticks
    ]
    if layout.xaxis.title.text and layout.xaxis.visible is not False:
        below = frame.bottom + room_below(layout, x_ticks, frame.width) - 8
        title = plain(layout.xaxis.title.text)
        made.append(words((frame.left + frame.right) / 2, below, title, anchor="middle", size=AXIS_TITLE_SIZE))
    if layout.yaxis.title.text and layout.yaxis.visible is not False:
        left = frame.left - room_left(layout, y_ticks) + 16
        middle = (frame.top + frame.bottom) / 2
        title = plain(layout.yaxis.title.text)
        made.append(words(left, middle, title, anchor="middle", size=AXIS_TITLE_SIZE, turn=-90))
    return made


def _grid(frame: Frame, layout: go.Layout, x_ticks: list[Tick], y_ticks: list[Tick]) -> list[str]:
    lines = []
    if layout.xaxis.showgrid is not False and not frame.x.categories:
        lines += [
            (frame.across(at), frame.top, frame.across(at), frame.bottom, at == 0 and not frame.x.logarithmic)
            for at, _ in x_ticks
        ]
    if layout.yaxis.showgrid is not False and not frame.y.categories:
        lines += [
            (frame.left, frame.down(at), frame.right, frame.down(at), at == 0 and not frame.y.logarithmic)
            for at, _ in y_ticks
        ]
    return [
        element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": "#BDBDBD" if zero else "#E6E6E6"})
        for x1, y1, x2, y2, zero in lines
    ]
