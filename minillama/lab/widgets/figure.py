"""Figures with static and text alternatives, and the style that all of them share.

Viewers that run plotly show the interactive figure; code hosts, exported pages and editors without it show an image of
it; terminals and screen readers get the text."""

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from minillama.lab.language import translate
from minillama.lab.svg.static_figure import figure_svg
from minillama.lab.svg.svg_elements import text_width
from minillama.measure.tables import display_width, padded

PLOTLY_MIME = "application/vnd.plotly.v1+json"

# Okabe and Ito's palette, distinguishable with any kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#8C8C8C"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
TOP_MARGIN, LEGEND_LINE, LEGEND_SIZE, LEGEND_SWATCH = 56, 19, 12, 38  # pixels
NARROW = 460  # pixels of a plot area in a window of 1000 pixels
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")


@dataclass(frozen=True)
class Figure:
    """A plotly figure and its text alternative."""

    plotly: go.Figure
    text: str

    def __post_init__(self) -> None:
        make_room_for_legend(self.plotly)
        hide_empty_axes(self.plotly)

    def mime_bundle(self) -> dict[str, object]:
        """The mime bundle for a front end: about 10 KB (a FigureWidget sends 5 MB)."""
        interactive = json.loads(self.plotly.to_json())
        return {PLOTLY_MIME: interactive, "text/html": self.static_html(), "text/plain": self.text}

    def static_html(self) -> str:
        """The figure as an image with its text, in HTML without scripts or links."""
        svg = figure_svg(self.plotly)
        text = html.escape(self.text)
        if svg is None:
            return f"<pre>{text}</pre>"
        title = html.escape(self.text.partition("\n")[0])
        image = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
        return (
            f'<figure style="margin:0"><img alt="{title}" style="max-width:100%" src="{image}">'
            f"<details><summary>{translate('Text alternative')}</summary><pre>{text}</pre></details></figure>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        return self.mime_bundle()

    def __str__(self) -> str:
        return self.text


def apply_layout(figure: go.Figure, title: str, x: str = "", y: str = "", *, height: int = 360) -> go.Figure:
    """Apply the labs' common style to a figure and return it."""
    grid = {"gridcolor": "#E6E6E6", "zerolinecolor": "#BDBDBD", "automargin": True}
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "x": 0.02,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 8},
            "font": {"size": 16},
        },
        font={"family": "Inter, Helvetica, Arial, Noto Sans CJK SC, sans-serif", "size": 13, "color": "#222222"},
        height=height,
        margin={"l": 70, "r": 30, "t": TOP_MARGIN, "b": 56},
        paper_bgcolor="white",
        plot_bgcolor="white",
        colorway=list(PALETTE),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        bargap=0.25,
    )
    for update, text in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        update(title={"text": text, "standoff": 12, "font": {"size": 13}}, **grid)
    return figure


def make_room_for_legend(figure: go.Figure) -> None:
    """Raise the top margin if the legend above the plot needs several lines.

    Plotly breaks the lines in a narrow window, and would write them over the title.
    """
    layout = figure.layout
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    is_shown = layout.showlegend if layout.showlegend is not None else len(figure.data) > 1
    if not names or not is_shown or layout.legend.yanchor != "bottom" or not layout.height:
        return
    widest = max(text_width(name, LEGEND_SIZE) for name in names) + LEGEND_SWATCH
    lines = math.ceil(len(names) / max(1, int(NARROW // widest)))
    missing = TOP_MARGIN + LEGEND_LINE * (lines - 1) - layout.margin.t
    if missing > 0:
        figure.update_layout(height=layout.height + missing, margin={"t": layout.margin.t + missing})


def hide_empty_axes(figure: go.Figure) -> None:
    """Hide the axes of a figure that shows nothing yet: plotly would invent their numbers."""
    layout = figure.layout
    if any(map(_has_values, figure.data)) or layout.shapes or layout.annotations:
        return
    figure.update_layout(showlegend=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    centre = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    figure.add_annotation(
        text=translate("nothing measured yet"), showarrow=False, font={"size": 14, "color": GREY}, **centre
    )


def _has_values(trace: BaseTraceType) -> bool:
    """True unless all heights of a trace are missing; a trace without heights has values."""
    heights = next((trace[name] for name in ("z", "y") if name in trace), None)
    return heights is None or any(value is not None for value in np.ravel(np.asarray(heights, object)))


def token_label(piece: str) -> str:
    """A token's text for an axis: blanks and line ends visible, never empty."""
    shown = piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return shown or "∅"


def format_number(value: float | int) -> str:
    """A number as text with about three digits."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def text_bars(labels: Sequence[str], values: Sequence[float], *, width: int = 32, unit: str = "") -> str:
    """Text alternative of a bar chart: one line of characters per label."""
    top = max((abs(value) for value in values), default=0.0) or 1.0
    margin = max((display_width(label) for label in labels), default=0)
    numbers = [format_number(value) + (f" {unit}" if unit else "") for value in values]
    column = max((display_width(text) for text in numbers), default=0)
    lines = []
    for label, value, text in zip(labels, values, numbers, strict=True):
        bar = "█" * round(width * abs(value) / top)
        lines.append(f"{padded(label, margin)}  {padded(text, column, right=True)}  {bar}".rstrip())
    return "\n".join(lines)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text table with aligned columns."""
    widths = [max(display_width(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
