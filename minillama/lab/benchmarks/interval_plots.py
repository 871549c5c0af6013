"""Plots of ratios with their intervals, on a logarithmic axis around 1."""

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from minillama.lab.benchmarks.ratio_interval import Interval
from minillama.lab.language import message, translate
from minillama.lab.widgets.figure import BLUE, GREY, ORANGE, RED, Figure, apply_layout, format_number, text_table

SIDES = {-1: message("too little"), 0: message("cannot tell"), 1: message("too much")}
LOOKS = {-1: (ORANGE, "square"), 0: (GREY, "circle"), 1: (RED, "diamond")}


def side_words(side: int) -> str:
    """The verdict on an interval with this side."""
    return translate(SIDES[side])


def ratio_intervals(
    rows: Mapping[str, Interval], title: str, axis: str, *, said: Mapping[str, float] | None = None,
    ends: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """A ratio with its interval in each row; the line at 1 is the truth.

    said: predictions by row. ends: a fixed range of the axis; None for one that shows all rows.
    """
    predicted = {translate(name): value for name, value in (said or {}).items() if name in rows and value > 0}
    rows = {translate(name): each for name, each in rows.items()}
    figure = go.Figure()
    low, high = ends or _ends(rows, predicted)
    for name, each in rows.items():  # first, because images have the rows in the order of their appearance
        figure.add_scatter(
            x=[max(each.low, low), min(each.high, high)], y=[name, name], mode="lines", showlegend=False,
            line={"color": LOOKS[each.side][0], "width": 3}, hoverinfo="skip",
        )  # fmt: skip
    for side, (colour, symbol) in LOOKS.items():
        chosen = {name: each for name, each in rows.items() if each.side == side}
        if chosen:
            figure.add_scatter(
                x=[each.middle for each in chosen.values()], y=list(chosen), mode="markers", name=side_words(side),
                marker={"color": colour, "symbol": symbol, "size": 11},
            )  # fmt: skip
    if predicted:
        figure.add_scatter(
            x=list(predicted.values()), y=list(predicted), mode="markers", name=translate("you predicted"),
            marker={"color": BLUE, "symbol": "x", "size": 10},
        )  # fmt: skip
    apply_layout(figure, title, axis, height=150 + 34 * len(rows))
    figure.update_layout(showlegend=True)
    figure.update_yaxes(categoryorder="array", categoryarray=list(rows), range=[len(rows) - 0.5, -0.5])
    ticks = _ticks(low, high)
    figure.update_xaxes(type="log", range=[math.log10(low), math.log10(high)], tickvals=ticks,
                        ticktext=[format_number(tick) for tick in ticks])  # fmt: skip
    figure.add_vline(x=1, line={"color": GREY, "dash": "dash"})
    return Figure(figure, f"{title}\n{translate('{axis}; 1 is the truth', axis=axis)}\n{_table(rows, predicted)}")


def _ends(rows: Mapping[str, Interval], said: Mapping[str, float]) -> tuple[float, float]:
    values = [value for each in rows.values() for value in (each.low, each.middle, each.high)]
    known = [1.0, *said.values(), *(value for value in values if 0 < value < math.inf)]
    return min(known) / 1.6, max(known) * 1.6


def _ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2, 5, 10, ...; in a long range at powers of ten."""
    digits = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for decade in decades for digit in digits if low <= (tick := digit * 10.0**decade) <= high]


def _table(rows: Mapping[str, Interval], said: Mapping[str, float]) -> str:
    lines = [
        (name, f"×{format_number(each.middle)}",
         translate("{low} to {high}", low=format_number(each.low), high=_number(each.high)), side_words(each.side))
        for name, each in rows.items()
    ]  # fmt: skip
    header: tuple[str, ...] = ("", translate("ratio"), translate("interval"), translate("verdict"))
    if not said:
        return text_table(header, lines)
    told = (format_number(said[name]) if name in said else "" for name in rows)
    return text_table(
        (*header, translate("you predicted")), [(*line, each) for line, each in zip(lines, told, strict=True)]
    )


def _number(value: float) -> str:
    return translate("infinity") if math.isinf(value) else format_number(value)
