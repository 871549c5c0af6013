"""Legend, annotations, shapes and colour bar of a static figure."""

from collections.abc import Sequence

import plotly.graph_objects as go

from minillama.lab.svg.axis import Axis
from minillama.lab.svg.frame import Frame
from minillama.lab.svg.svg_elements import DASHES, INK, element, plain, text_width, words
from minillama.lab.svg.traces import PATTERNS, colour_at, colour_stops, markers_markup, pattern_id, value_range

LEGEND_ROW, SWATCH = 20.0, 30.0
Entry = tuple[go.Bar | go.Scatter, str]  # a trace and its colour


def legend_rows(entries: Sequence[Entry], width: float) -> list[list[Entry]]:
    """Entries in lines that fit into a width."""
    rows: list[list[Entry]] = []
    used = width + 1
    for entry in entries:
        needed = _entry_width(entry)
        if used + needed > width:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += needed
    return rows


def _entry_width(entry: Entry) -> float:
    return SWATCH + 6 + text_width(plain(entry[0].name or ""), 12) + 16


def legend_markup(rows: Sequence[Sequence[Entry]], right: float, top: float) -> list[str]:
    """The legend, aligned at the right."""
    made = []
    for number, row in enumerate(rows):
        x, y = right - sum(map(_entry_width, row)), top + LEGEND_ROW * (number + 0.5)
        for entry in row:
            made += _swatch(*entry, x, y)
            made.append(words(x + SWATCH + 6, y, plain(entry[0].name or ""), middle=True))
            x += _entry_width(entry)
    return made


def _swatch(trace: go.Bar | go.Scatter, colour: str, x: float, y: float) -> list[str]:
    box = {"x": x + 8, "y": y - 6, "width": 14.0, "height": 12.0}
    if isinstance(trace, go.Bar):
        fill = trace.marker.color if isinstance(trace.marker.color, str) else colour
        made = [element("rect", {**box, "fill": fill})]
        if (shape := trace.marker.pattern.shape) in PATTERNS:
            made.append(element("rect", {**box, "fill": f"url(#{pattern_id(shape)})"}))
        return made
    if trace.fill == "toself":
        return [element("rect", {**box, "fill": trace.fillcolor or colour})]
    mode, made = trace.mode or "lines+markers", []
    if "lines" in mode:
        line = {"x1": x, "y1": y, "x2": x + SWATCH, "y2": y, "stroke": trace.line.color or colour}
        look = {"stroke-width": 2.0, "stroke-dasharray": DASHES.get(trace.line.dash or "")}
        made.append(element("line", {**line, **look}))
    if "markers" in mode:
        made += markers_markup(trace, [(x + SWATCH / 2, y)], colour)
    return made


def shapes_markup(layout: go.Layout, frame: Frame) -> list[str]:
    """Lines and rectangles of the layout."""
    made = []
    for shape in layout.shapes:
        x0, x1 = (_place(value, shape.xref, frame, sideways=True) for value in (shape.x0, shape.x1))
        y0, y1 = (_place(value, shape.yref, frame, sideways=False) for value in (shape.y0, shape.y1))
        look = {
            "stroke": shape.line.color or INK,
            "stroke-width": float(2 if shape.line.width is None else shape.line.width),
            "stroke-dasharray": DASHES.get(shape.line.dash or ""),
            "opacity": None if shape.opacity is None else f"{shape.opacity:g}",
        }  # fmt: skip
        if shape.type == "line":
            made.append(element("line", {"x1": x0, "y1": y0, "x2": x1, "y2": y1, **look}))
        elif shape.type == "rect":
            box = {"x": min(x0, x1), "y": min(y0, y1), "width": abs(x1 - x0), "height": abs(y1 - y0)}
            made.append(element("rect", {**box, "fill": shape.fillcolor or "none", **look}))
    return made


def annotations_markup(layout: go.Layout, frame: Frame) -> list[str]:
    """Texts of the layout, each with an arrow if it has one."""
    made = []
    for note in layout.annotations:
        # Plotly's annotations give the logarithm on a logarithmic axis; its shapes give the value.
        x = _place(note.x, note.xref, frame, sideways=True, is_logarithm=True)
        y = _place(note.y, note.yref, frame, sideways=False, is_logarithm=True)
        if x != x or y != y:
            continue
        if note.showarrow is not False:
            tail = (x + float(-10 if note.ax is None else note.ax), y + float(-30 if note.ay is None else note.ay))
            made.append(element("line", {"x1": tail[0], "y1": tail[1], "x2": x, "y2": y, "stroke": INK}))
            x, y = tail
        x, y = x + float(note.xshift or 0), y - float(note.yshift or 0)
        anchor = {"left": "start", "right": "end"}.get(note.xanchor or "", "middle")
        size = float(note.font.size or 12)
        text, colour = plain(note.text), note.font.color or INK
        half = 0.65 * size * len(text.split("\n"))
        y += {"bottom": -half, "top": half}.get(note.yanchor or "", 0.0)
        made.append(words(x, y, text, anchor=anchor, size=size, colour=colour, middle=True))
    return made


def _place(value: object, reference: str | None, frame: Frame, *, sideways: bool, is_logarithm: bool = False) -> float:
    """Pixel of a value that refers to an axis or to the plot area (`paper`, `x domain`)."""
    if reference and (reference == "paper" or reference.endswith("domain")):
        part = float(value)  # type: ignore[arg-type]
        return frame.left + part * frame.width if sideways else frame.bottom - part * frame.height
    axis: Axis = frame.x if sideways else frame.y
    is_units = (is_logarithm and axis.logarithmic) or (axis.categories and not isinstance(value, str))
    units = float(value) if is_units else axis.units(value)  # type: ignore[arg-type]
    return frame.across(units) if sideways else frame.down(units)


def colour_bar_markup(trace: go.Heatmap, frame: Frame) -> list[str]:
    """The colours of a heat map with their values, right of the plot area."""
    low, high = value_range(trace)
    x, steps, colours = frame.right + 16, 24, colour_stops(trace)
    made = [
        element(
            "rect",
            {"x": x, "y": frame.bottom - frame.height * (n + 1) / steps, "width": 14.0,
             "height": frame.height / steps + 0.5, "fill": colour_at(colours, (n + 0.5) / steps)},
        )
        for n in range(steps)
    ]  # fmt: skip
    made += [
        words(x + 19, frame.bottom - frame.height * part, f"{low + (high - low) * part:.3g}", middle=True)
        for part in (0.0, 0.5, 1.0)
    ]
    title = plain(trace.colorbar.title.text or "")
    return [*made, words(x, frame.top - 8, title)]
