"""Figures of measurements: timelines, power laws, sweeps, heat maps, waterfalls, bands, Pareto fronts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from minillama.lab.language import translate
from minillama.lab.widgets.figure import (
    BLUE,
    DASHES,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    SYMBOLS,
    Figure,
    apply_layout,
    format_number,
    text_bars,
    text_table,
)

Points = Mapping[int, float] | Mapping[float, float]  # x: y


def timeline(pieces: Sequence[str], milliseconds: Sequence[float], title: str) -> Figure:
    """One bar per token with its time; the first token has its own colour.

    The first token waits for the whole prompt."""
    first, later = milliseconds[0], milliseconds[1:]
    figure = go.Figure()
    places = list(range(1, len(milliseconds) + 1))
    looks = (
        (translate("first token"), places[:1], [first], ORANGE, "/"),
        (translate("later tokens"), places[1:], list(later), BLUE, ""),
    )
    for name, x, y, colour, shape in looks:
        marker = {"color": colour, "pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": "white"}}
        figure.add_bar(x=x, y=y, name=name, marker=marker, hovertext=[pieces[place - 1] for place in x])
    apply_layout(figure, title, translate("token"), translate("milliseconds"), height=340)
    figure.update_layout(showlegend=True, bargap=0.1)
    low = max(min(milliseconds), 1e-3)
    figure.update_yaxes(type="log", range=[np.log10(low) - 0.5, np.log10(max(milliseconds)) + 0.2], dtick=1)
    parts = {
        translate("first token"): first,
        translate("fastest later"): min(later),
        translate("median later"): float(np.median(later)),
        translate("slowest later"): max(later),
    }
    text = text_bars(list(parts), list(parts.values()), unit="ms")
    head = translate("{count} tokens, milliseconds each", count=len(milliseconds))
    return Figure(figure, f"{title}\n{head}\n{text}")


def slope(points: Points) -> float:
    """Exponent k of the fitted power law y = c x^k."""
    x, y = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(x, y, 1)[0])


def power_laws(
    series: Mapping[str, Points], title: str, x: str, y: str, slopes: Mapping[str, float] | None = None
) -> Figure:
    """Measurements on log-log axes, with a fitted line and its slope per series.

    slopes: in place of the fitted ones; a series without one has no line.
    """
    figure = go.Figure()
    rows = []
    for index, (name, points) in enumerate(series.items()):
        colour = PALETTE[index % len(PALETTE)]
        places = np.array(list(points), float)
        steepness = slope(points) if slopes is None else slopes.get(name)
        label = name if steepness is None else translate("{name}: slope {slope:.2f}", name=name, slope=steepness)
        figure.add_scatter(
            x=places.tolist(), y=list(points.values()), mode="markers", name=label,
            marker={"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 10},
        )  # fmt: skip
        rows += [(name, format_number(place), format_number(value)) for place, value in points.items()]
        if steepness is None:
            continue
        middle = np.exp(np.mean(np.log(list(points.values()))))
        fitted = middle * (places / np.exp(np.mean(np.log(places)))) ** steepness
        figure.add_scatter(
            x=places.tolist(), y=fitted.tolist(), mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": colour, "dash": DASHES[index % len(DASHES)]},
        )  # fmt: skip
        rows.append((name, translate("slope"), f"{steepness:.2f}"))
    apply_layout(figure, title, x, y, height=420)
    figure.update_layout(showlegend=True)
    marks = sorted({float(place) for points in series.values() for place in points})
    figure.update_xaxes(type="log", tickvals=marks, ticktext=[f"{mark:g}" for mark in marks])
    figure.update_yaxes(type="log", exponentformat="none", dtick=1)
    head = translate("{y} against {x}, both logarithmic", x=x, y=y)
    return Figure(figure, f"{title}\n{head}\n" + text_table((translate("series"), x, y), rows))


def sweep(series: Mapping[str, Points], model: Mapping[str, Points], title: str, x: str, y: str) -> Figure:
    """Measured points joined by lines, and a simple model's values as dashed lines."""
    figure = go.Figure()
    rows = []
    for index, (name, points) in enumerate(series.items()):
        colour, symbol = PALETTE[index % len(PALETTE)], SYMBOLS[index % len(SYMBOLS)]
        said = model.get(name, {})
        figure.add_scatter(
            x=list(points), y=list(points.values()), mode="lines+markers", name=name,
            line={"color": colour}, marker={"symbol": symbol, "size": 9},
        )  # fmt: skip
        if said:
            figure.add_scatter(
                x=list(said), y=list(said.values()), mode="lines", showlegend=False, hoverinfo="skip",
                line={"color": colour, "dash": "dash", "width": 1.5},
            )  # fmt: skip
        rows += [
            (name, format_number(at), format_number(value), format_number(said[at]) if at in said else "")
            for at, value in points.items()
        ]
    apply_layout(figure, title, x, y, height=440)
    # Below the plot the legend has room for any number of curves.
    figure.update_layout(showlegend=True, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    figure.update_yaxes(rangemode="tozero")
    header = (translate("series"), x, y, translate("model"))
    table = text_table(header, rows) if rows else translate("nothing measured yet")
    return Figure(figure, f"{title}\n{table}")


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Mapping[tuple[str, str], float], title: str, x: str, y: str
) -> Figure:
    """Heat map of a value per row and column.

    Cells without a measurement stay empty; the best value is marked."""
    best = max(values, key=lambda place: values[place], default=None)
    measure_grid = [[values.get((row, column)) for column in columns] for row in rows]
    labels = [[_cell(values.get(place := (row, column)), place == best) for column in columns] for row in rows]
    figure = go.Figure(
        go.Heatmap(
            z=measure_grid, x=list(columns), y=list(rows), text=labels, texttemplate="%{text}", colorscale="Cividis",
            hoverongaps=False, xgap=3, ygap=3, showscale=False, textfont={"size": 15},
            zmin=0, zmax=max(values.values(), default=1.0),
        )
    )  # fmt: skip
    apply_layout(figure, title, x, y, height=180 + 52 * len(rows))
    figure.update_xaxes(type="category", showgrid=False, range=[-0.5, len(columns) - 0.5])
    figure.update_yaxes(type="category", showgrid=False, range=[len(rows) - 0.5, -0.5])
    table = text_table((f"{y} \\ {x}", *columns), [(row, *line) for row, line in zip(rows, labels, strict=True)])
    return Figure(figure, f"{title}\n{table}")


def _cell(value: float | None, is_best: bool) -> str:
    return "" if value is None else f"{format_number(value)} ★" if is_best else format_number(value)


@dataclass(frozen=True)
class SpeedUpStep:
    """One change with its predicted and its measured speed-up factor."""

    name: str
    predicted: float
    measured: float


def waterfall(start: float, waterfall_steps: Sequence[SpeedUpStep], title: str, unit: str) -> Figure:
    """Speeds from start to end, change by change; diamonds mark the predictions."""
    speeds = [start]
    for step in waterfall_steps:
        speeds.append(speeds[-1] * step.measured)
    # Factors are below the bars, where no diamond covers them.
    places = [f"{step.name}<br>×{step.measured:.2f}" for step in waterfall_steps]
    names = [translate("start"), *places, translate("end")]
    bottoms = [0.0, *(min(pair) for pair in pairwise(speeds)), 0.0]
    heights = [start, *(abs(after - before) for before, after in pairwise(speeds)), speeds[-1]]
    colours = [GREY, *(BLUE if step.measured >= 1 else RED for step in waterfall_steps), GREY]
    labels = [format_number(start), *("" for _ in waterfall_steps), format_number(speeds[-1])]
    figure = go.Figure(
        go.Bar(
            x=names, y=heights, base=bottoms, marker={"color": colours}, text=labels, textposition="outside",
            showlegend=False, cliponaxis=False,
        )
    )  # fmt: skip
    said = [before * step.predicted for before, step in zip(speeds, waterfall_steps, strict=False)]
    figure.add_scatter(
        x=places, y=said, mode="markers", name=translate("you predicted"),
        marker={"symbol": "diamond", "size": 12, "color": ORANGE, "line": {"color": "white", "width": 1}},
    )  # fmt: skip
    apply_layout(figure, title, "", unit, height=420)
    figure.update_layout(showlegend=True)
    figure.update_yaxes(range=[0, 1.15 * max([*speeds, *said])])
    rows = [(translate("start"), "", "", format_number(start))]
    rows += [
        (step.name, f"×{step.predicted:.2f}", f"×{step.measured:.2f}", format_number(speed))
        for step, speed in zip(waterfall_steps, speeds[1:], strict=True)
    ]
    header = (translate("change"), translate("you predicted"), translate("measured"), unit)
    return Figure(figure, f"{title}\n" + text_table(header, rows))


Band = Sequence[tuple[float | int, float, float]]  # x, y, standard error of y


def bands(series: Mapping[str, Band], title: str, x: str, y: str) -> Figure:
    """Running estimates: a line per series with a band of one standard error."""
    figure = go.Figure()
    rows = []
    for index, (name, points) in enumerate(series.items()):
        colour, dash = PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)]
        places, values = [at for at, _, _ in points], [value for _, value, _ in points]
        edge = [value + error for _, value, error in points] + [value - error for _, value, error in points][::-1]
        figure.add_scatter(
            x=places + places[::-1], y=edge, fill="toself", fillcolor=colour, opacity=0.15, mode="none",
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=places, y=values, mode="lines+markers", name=name, line={"color": colour, "dash": dash},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
            customdata=[error for _, _, error in points], hovertemplate="%{y:.4g} ± %{customdata:.2g}",
        )  # fmt: skip
        shown = sorted({0, len(points) // 4, len(points) // 2, len(points) - 1}) if points else []
        rows += [(name, format_number(points[at][0]), f"{points[at][1]:.4g} ± {points[at][2]:.2g}") for at in shown]
    apply_layout(figure, title, x, y, height=440)
    figure.update_layout(showlegend=True, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    table = text_table((translate("series"), x, y), rows) if rows else translate("nothing measured yet")
    return Figure(figure, f"{title}\n{table}")


def pareto_front(points: Mapping[str, tuple[float, float]], *, more: bool = False) -> list[str]:
    """Names of the Pareto front, from left to right.

    Less is better for both numbers; with `more`, a larger x is better."""

    def dominated(x: float, y: float) -> bool:
        return any(
            (other >= x if more else other <= x) and up <= y and (other, up) != (x, y) for other, up in points.values()
        )

    return sorted((name for name, point in points.items() if not dominated(*point)), key=lambda name: points[name])


def pareto(points: Mapping[str, tuple[float, float]], title: str, x: str, y: str, *, more: bool = False) -> Figure:
    """Named points with the Pareto front joined.

    Less is better for both numbers; with `more`, a larger x is better."""
    best = pareto_front(points, more=more)
    others = [name for name in points if name not in best]
    figure = go.Figure()
    front, dominated = translate("Pareto front"), translate("dominated")
    looks = ((front, best, BLUE, "circle", "lines+markers+text", "top right"),
             (dominated, others, ORANGE, "x", "markers+text", "bottom center"))  # fmt: skip
    for name, names, colour, symbol, mode, place in looks:
        figure.add_scatter(
            x=[points[each][0] for each in names], y=[points[each][1] for each in names], text=list(names), name=name,
            mode=mode, textposition=place, cliponaxis=False, line={"color": colour, "dash": "dot"},
            marker={"color": colour, "symbol": symbol, "size": 11},
        )  # fmt: skip
    apply_layout(figure, title, x, y, height=460)
    figure.update_layout(showlegend=True, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    figure.update_xaxes(type="log", exponentformat="none", dtick="D1")
    rows = [
        (name, format_number(across), format_number(up), translate("on the front") if name in best else dominated)
        for name, (across, up) in points.items()
    ]
    table = text_table((translate("point"), x, y, ""), rows) if rows else translate("nothing measured yet")
    return Figure(figure, f"{title}\n{table}")
