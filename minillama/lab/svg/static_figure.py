"""A plotly figure as a static SVG; viewers need no JavaScript.

Plotly's own export needs a browser. This draws the kinds of traces that the labs use, without a dependency.
"""

from collections.abc import Sequence

import plotly.graph_objects as go

from minillama.lab.svg.axis import Axis, axis_scale, ticks, with_range
from minillama.lab.svg.bar_places import Bar, bar_places, is_horizontal
from minillama.lab.svg.frame import Frame, axes_markup, room_below, room_left
from minillama.lab.svg.overlays import (
    LEGEND_ROW,
    annotations_markup,
    colour_bar_markup,
    legend_markup,
    legend_rows,
    shapes_markup,
)
from minillama.lab.svg.svg_elements import FONT, INK, element, escape, plain, words
from minillama.lab.svg.traces import (
    bars_markup,
    cell_edges,
    heatmap_markup,
    pattern_definitions,
    scatter_markup,
)
from minillama.lab.svg.treemap import treemap_markup

WIDTH = 880.0
DEFAULT_HEIGHT = 450.0  # plotly's
DEFAULT_COLOUR = "#0072B2"
KINDS = (go.Bar, go.Scatter, go.Heatmap)


def figure_svg(figure: go.Figure) -> str | None:
    """The figure as an SVG document; None if this module cannot draw it."""
    layout, traces = figure.layout, list(figure.data)
    height = float(layout.height or DEFAULT_HEIGHT)
    if len(traces) == 1 and isinstance(traces[0], go.Treemap):
        parts = treemap_markup(traces[0], (10, 44, WIDTH - 20, height - 54))
    elif all(isinstance(trace, KINDS) for trace in traces) and all(_on_first_axes(trace) for trace in traces):
        parts = _cartesian(traces, layout, height)
    else:
        return None
    title = plain(layout.title.text or "")
    head = [element("title", {}, escape(title)), element("rect", {"width": WIDTH, "height": height, "fill": "white"})]
    head.append(words(18, 26, title, size=16))
    look = {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH:g} {height:g}", "width": WIDTH, "height": height,
        "font-family": FONT, "fill": INK, "role": "img",
    }  # fmt: skip
    return element("svg", look, "".join([*head, *parts]))


def _on_first_axes(trace: go.Bar | go.Scatter | go.Heatmap) -> bool:
    """True if the trace uses the first pair of axes; others are not drawn."""
    return trace.xaxis in (None, "x") and trace.yaxis in (None, "y")


def _cartesian(traces: Sequence[go.Bar | go.Scatter | go.Heatmap], layout: go.Layout, height: float) -> list[str]:
    """Everything but the title of a figure with an x and a y axis."""
    colours = _colours(traces, layout)
    bars = [trace for trace in traces if isinstance(trace, go.Bar)]
    rows = legend_rows(_legend_entries(traces, colours, layout), WIDTH - 60)
    x, y, places = _axes(traces, bars, layout)
    frame = _frame(x, y, traces, layout, height, 44 + LEGEND_ROW * len(rows))
    x, y = frame.x, frame.y
    x_ticks = ticks(x, layout.xaxis, max(2, int(frame.width / (30 if x.categories else 75))))
    y_ticks = ticks(y, layout.yaxis, max(2, int(frame.height / (18 if y.categories else 40))))
    plot = {"x": frame.left, "y": frame.top, "width": frame.width, "height": frame.height}
    clip = element("clipPath", {"id": "plot"}, element("rect", plot))
    parts = [element("defs", {}, "".join([clip, *pattern_definitions(bars)]))]
    parts += axes_markup(frame, layout, x_ticks, y_ticks) + shapes_markup(layout, frame)
    waiting = iter(places)
    for trace, colour in zip(traces, colours, strict=True):
        if isinstance(trace, go.Bar):
            parts += bars_markup(trace, next(waiting), frame, colour)
        elif isinstance(trace, go.Scatter):
            parts += scatter_markup(trace, frame, colour)
        else:
            parts += heatmap_markup(trace, frame)
            parts += colour_bar_markup(trace, frame) if trace.showscale is not False else []
    return parts + annotations_markup(layout, frame) + legend_markup(rows, WIDTH - 30, 38)


def _colours(traces: Sequence[object], layout: go.Layout) -> list[str]:
    way = layout.colorway or (DEFAULT_COLOUR,)
    return [str(way[number % len(way)]) for number in range(len(traces))]


def _legend_entries(
    traces: Sequence[go.Bar | go.Scatter | go.Heatmap], colours: Sequence[str], layout: go.Layout
) -> list[tuple[go.Bar | go.Scatter, str]]:
    entries = [
        (trace, colour)
        for trace, colour in zip(traces, colours, strict=True)
        if not isinstance(trace, go.Heatmap) and trace.showlegend is not False and trace.name
    ]
    is_shown = layout.showlegend if layout.showlegend is not None else len(entries) > 1
    return entries if is_shown else []


def _axes(
    traces: Sequence[go.Bar | go.Scatter | go.Heatmap], bars: Sequence[go.Bar], layout: go.Layout
) -> tuple[Axis, Axis, list[list[Bar]]]:
    """Both axes with their ranges, and the places of the bars."""
    x, y = (
        axis_scale(settings, _values(traces, name)) for name, settings in (("x", layout.xaxis), ("y", layout.yaxis))
    )
    lies = bool(bars) and is_horizontal(bars[0])
    along, up = (y, x) if lies else (x, y)
    places = bar_places(bars, layout, along, up)
    sides = [end for each in places for bar in each for end in (bar.side, bar.other_side)]
    tips = [end for each in places for bar in each for end in (bar.base, bar.value)]
    if bars and not up.logarithmic:
        tips.append(0.0)
    x_ends = _ends(traces, "x", x) + (tips if lies else sides)
    y_ends = _ends(traces, "y", y) + (sides if lies else tips)
    has_marks = any(isinstance(trace, go.Scatter) and "markers" in (trace.mode or "markers") for trace in traces)
    is_map = any(isinstance(trace, go.Heatmap) for trace in traces)
    x_space = 0.0 if is_map else 0.12 if lies else 0.05 if has_marks else 0.0
    y_space = 0.0 if is_map or lies else 0.06
    x, y = with_range(x, layout.xaxis, x_ends, x_space), with_range(y, layout.yaxis, y_ends, y_space)
    return (
        x,
        y,
        bar_places(bars, layout, *((y, x) if lies else (x, y))),
    )  # bars on a logarithmic axis begin at its low end


def _values(traces: Sequence[object], name: str) -> list[object]:
    return [value for trace in traces for value in (() if trace[name] is None else trace[name]) if value is not None]  # type: ignore[index]


def _ends(traces: Sequence[object], name: str, axis: Axis) -> list[float]:
    """Values that lines, markers and cells reach on an axis, in its units."""
    ends: list[float] = []
    for trace in traces:
        if isinstance(trace, go.Scatter):
            ends += map(axis.units, _values([trace], name))
        elif isinstance(trace, go.Heatmap):
            count = len(trace.z[0]) if name == "x" else len(trace.z)
            ends += [end for edges in cell_edges(trace[name], axis, count) for end in edges]
    return ends


def _frame(x: Axis, y: Axis, traces: Sequence[object], layout: go.Layout, height: float, top: float) -> Frame:
    """The plot area between the labels, the legend and the edges."""
    has_scale = any(isinstance(trace, go.Heatmap) and trace.showscale is not False for trace in traces)
    y_ticks = ticks(y, layout.yaxis, max(2, int(height / (20 if y.categories else 45))))
    left = room_left(layout, y_ticks)
    right = WIDTH - (90 if has_scale else 34)
    x_ticks = ticks(x, layout.xaxis, max(2, int((right - left) / (30 if x.categories else 75))))
    bottom = height - room_below(layout, x_ticks, right - left) - 6
    frame = Frame(x, y, left, right, top + (14 if has_scale else 0), bottom)
    return _with_equal_units(frame) if layout.yaxis.scaleanchor == "x" else frame


def _with_equal_units(frame: Frame) -> Frame:
    """The frame with one range widened: a unit has equal pixels on both axes."""
    x, y = frame.x, frame.y
    per_x, per_y = frame.width / abs(x.high - x.low), frame.height / abs(y.high - y.low)
    if per_x > per_y:
        return Frame(_widened(x, per_x / per_y), y, frame.left, frame.right, frame.top, frame.bottom)
    return Frame(x, _widened(y, per_y / per_x), frame.left, frame.right, frame.top, frame.bottom)


def _widened(axis: Axis, factor: float) -> Axis:
    middle, half = (axis.low + axis.high) / 2, (axis.high - axis.low) / 2 * factor
    return Axis(middle - half, middle + half, axis.logarithmic, axis.categories)
