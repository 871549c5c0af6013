"""Traces of a static figure as SVG: bars, lines with markers, heat maps."""

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go

from minillama.lab.svg.axis import Axis, as_number
from minillama.lab.svg.bar_places import Bar, is_horizontal
from minillama.lab.svg.frame import Frame
from minillama.lab.svg.markers import marker
from minillama.lab.svg.svg_elements import DASHES, INK, element, path, plain, words

CLIP = "url(#plot)"
ColourStops = list[tuple[float, tuple[int, ...]]]
NOWHERE = (float("nan"), float("nan"))
PATTERNS = {"/": "M-2 2L2 -2M0 8L8 0M6 10L10 6", ".": "M3 4a1 1 0 1 0 2 0a1 1 0 1 0 -2 0"}


def bars_markup(trace: go.Bar, bars: Sequence[Bar], frame: Frame, colour: str) -> list[str]:
    """The bars of a trace, with their patterns and outside texts."""
    made = []
    lies = is_horizontal(trace)
    pattern, colours, texts = trace.marker.pattern.shape, trace.marker.color, trace.text
    for index, bar in enumerate(bars):
        if bar.value != bar.value or bar.base != bar.base:
            continue
        along, up = (frame.down, frame.across) if lies else (frame.across, frame.down)
        (a, b), (foot, tip) = sorted((along(bar.side), along(bar.other_side))), (up(bar.base), up(bar.value))
        low, high = sorted((foot, tip))
        box = (low, a, high - low, b - a) if lies else (a, low, b - a, high - low)
        place = dict(zip(("x", "y", "width", "height"), box, strict=True))
        made.append(element("rect", {**place, "fill": _at(colours, index) or colour, "clip-path": CLIP}))
        if isinstance(pattern, str) and pattern in PATTERNS:
            made.append(element("rect", {**place, "fill": f"url(#{pattern_id(pattern)})", "clip-path": CLIP}))
        if text := _at(texts, index):
            made.append(_bar_text(plain(text), tip, foot, (a + b) / 2, lies))
    return made


def _bar_text(text: str, tip: float, foot: float, middle: float, lies: bool) -> str:
    if lies:
        right = tip >= foot
        return words(tip + (5 if right else -5), middle, text, anchor="start" if right else "end", middle=True)
    return words(middle, tip - 5 if tip <= foot else tip + 15, text, anchor="middle")


def pattern_id(shape: str) -> str:
    """Id of a fill pattern."""
    return {"/": "stripes", ".": "dots"}[shape]


def pattern_definitions(traces: Sequence[go.Bar]) -> list[str]:
    """Definitions of the fill patterns that the traces use."""
    used = {trace.marker.pattern.shape: trace.marker.pattern.fgcolor or "white" for trace in traces}
    made = []
    for shape, colour in used.items():
        if shape in PATTERNS:
            look = {"stroke": colour, "fill": colour if shape == "." else "none", "stroke-width": 1.2}
            inner = element("path", {"d": PATTERNS[shape], **look})
            size = {"width": 8.0, "height": 8.0, "patternUnits": "userSpaceOnUse"}
            made.append(element("pattern", {"id": pattern_id(shape), **size}, inner))
    return made


def scatter_markup(trace: go.Scatter, frame: Frame, colour: str) -> list[str]:
    """A line, its markers and their texts; an area for `fill="toself"`."""
    mode = trace.mode or "lines+markers"
    points = [frame.point(x, y) for x, y in zip(_list(trace.x), _list(trace.y), strict=False)]
    made = []
    if trace.fill == "toself":
        look = {"fill": trace.fillcolor or colour, "fill-opacity": None if trace.fillcolor else "0.5"}
        made.append(element("path", {"d": path(points, closed=True), **look, "clip-path": CLIP}))
    if "lines" in mode and points:
        made.append(_line(trace, points, colour))
    if "markers" in mode:
        made += markers_markup(trace, [at if frame.holds(*at) else NOWHERE for at in points], colour)
    if "text" in mode:
        made += _marker_texts(trace, [at if frame.holds(*at) else NOWHERE for at in points])
    opacity = trace.opacity
    return [element("g", {"opacity": f"{opacity:g}"}, "".join(made))] if opacity is not None and opacity < 1 else made


def _line(trace: go.Scatter, points: Sequence[tuple[float, float]], colour: str) -> str:
    look = {
        "fill": "none", "stroke": trace.line.color or colour, "clip-path": CLIP,
        "stroke-width": 2.0 if trace.line.width is None else float(trace.line.width),
        "stroke-dasharray": DASHES.get(trace.line.dash or ""),
    }  # fmt: skip
    return element("path", {"d": path(points), **look})


def markers_markup(trace: go.Scatter, points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """The markers of a trace, centred at these pixels."""
    look = trace.marker
    symbols, sizes, fills = look.symbol or "circle", look.size or 6, look.color or trace.line.color or colour
    edge, width = look.line.color, float(look.line.width or 0)
    return [
        marker(str(_at(symbols, index)), x, y, float(_at(sizes, index) or 6), str(_at(fills, index)), edge, width)
        for index, (x, y) in enumerate(points)
        if x == x and y == y
    ]


def _marker_texts(trace: go.Scatter, points: Sequence[tuple[float, float]]) -> list[str]:
    position = trace.textposition if isinstance(trace.textposition, str) else "middle center"
    vertical, _, horizontal = position.partition(" ")
    texts, away = trace.text, float(_at(trace.marker.size, 0) or 6) / 2 + 3
    anchor, shift = {"left": ("end", -away), "right": ("start", away)}.get(horizontal, ("middle", 0.0))
    drop = {"top": -away, "bottom": away + 9}.get(vertical, 0.0)
    return [
        words(x + shift, y + drop, plain(text), anchor=anchor, middle=vertical == "middle")
        for index, (x, y) in enumerate(points)
        if x == x and y == y and (text := _at(texts, index))
    ]


def heatmap_markup(trace: go.Heatmap, frame: Frame) -> list[str]:
    """The cells of a heat map; a cell without a value stays empty."""
    low, high = value_range(trace)
    gap_x, gap_y = float(trace.xgap or 0), float(trace.ygap or 0)
    xs, ys = cell_edges(trace.x, frame.x, len(trace.z[0])), cell_edges(trace.y, frame.y, len(trace.z))
    colours, texts = colour_stops(trace), trace.text if trace.texttemplate == "%{text}" else None
    size = float(trace.textfont.size or 12)
    made = []
    for row, values in enumerate(trace.z):
        for column, value in enumerate(values):
            number = as_number(value)
            if number != number:
                continue
            left, right = sorted(map(frame.across, xs[column]))
            top, bottom = sorted(map(frame.down, ys[row]))
            fill = colour_at(colours, (number - low) / (high - low))
            box = (left + gap_x / 2, top + gap_y / 2, right - left - gap_x, bottom - top - gap_y)
            made.append(element("rect", {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "fill": fill}))
            if texts is not None:
                middle, text = ((left + right) / 2, (top + bottom) / 2), plain(texts[row][column])
                ink = "white" if _is_dark(fill) else INK
                made.append(words(*middle, text, anchor="middle", size=size, middle=True, colour=ink))
    return made


def value_range(trace: go.Heatmap) -> tuple[float, float]:
    """Values of the first and the last colour."""
    numbers = [number for row in trace.z for number in map(as_number, row) if number == number] or [0.0]
    low = min(numbers) if trace.zmin is None else float(trace.zmin)
    high = max(numbers) if trace.zmax is None else float(trace.zmax)
    return low, high if high > low else low + 1


def cell_edges(names: Sequence[object] | None, axis: Axis, count: int) -> list[tuple[float, float]]:
    """Edges of each row or column of a heat map, in axis units."""
    places = [axis.units(name) for name in names] if names is not None else [float(n) for n in range(count)]
    half = min((b - a for a, b in pairwise(places)), default=1.0) / 2
    return [(place - half, place + half) for place in places]


def colour_stops(trace: go.Heatmap) -> ColourStops:
    """The colour scale: pairs of a place (0 to 1) and a colour."""
    return [(float(at), _rgb(colour)) for at, colour in trace.colorscale or ((0, "#00224E"), (1, "#FEE838"))]


def colour_at(stops: ColourStops, part: float) -> str:
    """Colour of a scale at 0 to 1, between the two neighbours."""
    part = min(max(part, 0.0), 1.0)
    for (low, first), (high, second) in pairwise(stops):
        if part <= high:
            share = (part - low) / (high - low) if high > low else 0.0
            mixed = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
            return "#" + "".join(f"{channel:02X}" for channel in mixed)
    return "#" + "".join(f"{channel:02X}" for channel in stops[-1][1])


def _rgb(colour: str) -> tuple[int, ...]:
    if colour.startswith("#"):
        return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return tuple(int(float(part)) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])


def _is_dark(colour: str) -> bool:
    red, green, blue = _rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _list(values: Sequence[object] | None) -> Sequence[object]:
    return () if values is None else values


def _at(value: object, index: int) -> object:
    """An entry of a list, or the value that all share."""
    if isinstance(value, str) or value is None or not hasattr(value, "__len__"):
        return value
    return value[index] if index < len(value) else None  # type: ignore[index, arg-type]
