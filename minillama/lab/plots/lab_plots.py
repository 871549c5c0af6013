"""Figures of several labs: one function each, numbers in, a `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from minillama.lab.language import translate
from minillama.lab.widgets.figure import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    SYMBOLS,
    Figure,
    apply_layout,
    format_number,
    text_bars,
    text_table,
    token_label,
)
from minillama.measure.host.other_load import NOTABLE_SHARE

LABEL_POSITIONS = ("top center", "middle right", "bottom left")  # one per group, so that labels do not overlap


def bars(
    labels: Sequence[str], values: Sequence[float], title: str, axis: str, *, logarithmic: bool = False, note: str = ""
) -> Figure:
    """Horizontal bars in the order given, first at the top."""
    figure = go.Figure(
        go.Bar(
            x=[float(value) for value in values],
            y=list(labels),
            orientation="h",
            marker={"color": BLUE},
            text=[format_number(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x}<extra></extra>",
        )
    )
    apply_layout(figure, title, axis, height=130 + 34 * len(labels))
    figure.update_yaxes(autorange="reversed")
    if logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        figure.update_xaxes(type="log", range=[np.log10(min(positive)) - 0.5, np.log10(max(positive)) + 0.6], dtick=1)
    text = f"{title}\n{axis}\n{text_bars(labels, values)}"
    return Figure(figure, f"{text}\n{note}" if note else text)


def prediction_bars(
    title: str, unit: str, said: float | None, measured: float | None, model: float | None, load: float | None = None
) -> Figure:
    """Three bars: your prediction, the measurement, and a simple model.

    measured: None if it is not shown before there is a prediction. load: share of the cores that others used meanwhile.
    """
    looks = [
        (translate("you predicted"), said, ORANGE, "/"),
        (translate("measured"), measured, BLUE, ""),
    ]
    looks += [] if model is None else [(translate("model says"), model, GREEN, ".")]
    known = [(label, value) for label, value, _, _ in looks if value is not None]
    figure = go.Figure()
    for label, value, colour, shape in looks:
        figure.add_bar(
            x=[0.0 if value is None else value],
            y=[label],
            orientation="h",
            marker={"color": colour, "pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": "white"}},
            text=["?" if value is None else format_number(value)],
            textposition="outside",
            cliponaxis=False,
        )
    error = _error_of(said, measured)
    if load is not None and load >= NOTABLE_SHARE and measured is not None:
        error += translate(" · other programs used {load:.0%} of the cores: measure again", load=load)
    apply_layout(figure, title, f"{unit} · {error}", height=130 + 44 * len(figure.data))
    figure.update_layout(showlegend=False)
    figure.update_yaxes(autorange="reversed")
    low, high = min([0.0, *(value for _, value in known)]), max([0.0, *(value for _, value in known)])
    if not known:
        figure.update_xaxes(range=[0, 1], showticklabels=False)
    elif low < 0:  # room for the number at the left of its bar
        figure.update_xaxes(range=[low - 0.2 * (high - low), high + 0.1 * (high - low)])
    text = f"{title}\n" + text_bars([label for label, _ in known], [value for _, value in known], unit=unit)
    return Figure(figure, f"{text}\n{error}" if known else f"{title}\n{error}")


def _error_of(said: float | None, measured: float | None) -> str:
    """The error of a prediction in words."""
    if measured is None:
        return translate("no prediction yet: record one above, or skip it, and the measurement appears")
    if said is None:
        return translate("no prediction")
    if said > 0 and measured > 0:
        factor = format_number(max(said / measured, measured / said))
        return translate("off by a factor of {factor}", factor=factor)
    return translate("off by {difference}", difference=format_number(said - measured))


def treemap(sizes: Mapping[str, int], types: Mapping[str, str], title: str) -> Figure:
    """Treemap of tensors by size, grouped by block and coloured by type."""
    kinds = sorted(set(types.values()))
    colours = dict(zip(kinds, PALETTE * (1 + len(kinds) // len(PALETTE)), strict=False))
    groups: dict[str, int] = {}
    for name, size in sizes.items():
        groups[_group(name)] = groups.get(_group(name), 0) + size
    ids, labels, parents, values, fills = ["model"], [translate("model")], [""], [sum(sizes.values())], ["#FFFFFF"]
    for group, size in groups.items():
        ids.append(group), labels.append(group), parents.append("model"), values.append(size), fills.append("#F2F2F2")
    for name, size in sizes.items():
        ids.append(f"{_group(name)}/{name}"), labels.append(f"{name.removeprefix(_group(name) + '.')} · {types[name]}")
        parents.append(_group(name)), values.append(size), fills.append(colours[types[name]])
    figure = go.Figure(
        go.Treemap(
            ids=ids,
            labels=labels,
            parents=parents,
            values=values,
            branchvalues="total",
            marker={"colors": fills, "line": {"color": "white", "width": 1}},
            hovertemplate=translate("%{label}<br>%{value:,} bytes, %{percentRoot:.1%} of the model<extra></extra>"),
            tiling={"pad": 2},
        )
    )
    apply_layout(figure, title, height=460)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 56, "b": 10})
    total = sum(sizes.values())
    by_type = {kind: sum(size for name, size in sizes.items() if types[name] == kind) for kind in kinds}
    text = [title, translate("{total:,} bytes in {count} tensors; by type:", total=total, count=len(sizes))]
    text += [text_bars(list(by_type), [size / 1e6 for size in by_type.values()], unit="MB"), translate("by part:")]
    text += [text_bars(list(groups), [size / 1e6 for size in groups.values()], unit="MB")]
    return Figure(figure, "\n".join(text))


def _group(name: str) -> str:
    """Group of a tensor name: `blk.3` of `blk.3.ffn_up.weight`, else the first part."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "blk" else parts[0]


def attention_map(pieces: Sequence[str], weights: np.ndarray, title: str) -> Figure:
    """Heat map of attention weights [T, S]: a row per query, a column per key."""
    names = [f"{place} {token_label(piece)}" for place, piece in enumerate(pieces)]
    figure = go.Figure(
        go.Heatmap(
            z=np.round(weights.astype(float), 4).tolist(),
            x=names,
            y=names,
            zmin=0.0,
            zmax=1.0,
            colorscale="Cividis",
            colorbar={"title": {"text": translate("weight")}},
            hovertemplate=translate("%{y} attends to %{x}: %{z:.1%}<extra></extra>"),
        )
    )
    across, up = translate("key: the attended token"), translate("query: the attending token")
    apply_layout(figure, title, across, up, height=180 + 26 * len(names))
    figure.update_yaxes(autorange="reversed")
    rows = []
    for place, row in enumerate(weights):
        best = np.argsort(-row)[:3]
        rows.append((names[place], ", ".join(f"{names[key]} {row[key]:.0%}" for key in best if row[key] > 0.005)))
    return Figure(figure, f"{title}\n" + text_table((translate("query"), translate("attends most to")), rows))


def lines(
    series: Mapping[str, Sequence[float]],
    places: Sequence[str],
    title: str,
    x: str,
    y: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """One line per series over the same named places.

    Series differ in colour, dash and symbol."""
    figure = go.Figure()
    for index, (name, values) in enumerate(series.items()):
        figure.add_scatter(
            x=list(places),
            y=[float(value) for value in values],
            name=name,
            mode="lines+markers",
            line={"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index % len(DASHES)]},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
        )
    apply_layout(figure, title, x, y, height=400)
    figure.update_layout(showlegend=True)
    if logarithmic:
        figure.update_yaxes(type="log", exponentformat="power")
    rows = [
        (place, *(format_number(values[index]) for values in series.values())) for index, place in enumerate(places)
    ]
    return Figure(
        figure, translate("{title}\n{x} against {y}\n", title=title, x=x, y=y) + text_table((x, *series), rows)
    )


def scatter(
    points: Mapping[str, tuple[float, float]], title: str, x: str, y: str, *, joined: Sequence[Sequence[str]] = ()
) -> Figure:
    """Named points, with grey lines through the names of each `joined` sequence."""
    figure = go.Figure()
    for index, names in enumerate(joined):
        figure.add_scatter(
            x=[points[name][0] for name in names],
            y=[points[name][1] for name in names],
            mode="lines",
            line={"color": GREY, "dash": DASHES[index % len(DASHES)], "width": 1.5},
            showlegend=False,
            hoverinfo="skip",
        )
    groups = {name: group for group, names in enumerate(joined, start=1) for name in names}
    for name, (across, up) in points.items():
        group = groups.get(name, 0)
        figure.add_scatter(
            x=[across],
            y=[up],
            name=name,
            mode="markers+text",
            text=[name],
            textposition=LABEL_POSITIONS[group % len(LABEL_POSITIONS)],
            showlegend=False,
            cliponaxis=False,
            marker={"color": PALETTE[group % len(PALETTE)], "symbol": SYMBOLS[group % len(SYMBOLS)], "size": 13},
        )
    apply_layout(figure, title, x, y, height=480)
    rows = [(name, format_number(across), format_number(up)) for name, (across, up) in points.items()]
    return Figure(figure, f"{title}\n" + text_table((translate("point"), x, y), rows))


def probabilities(
    pieces: Sequence[str], before: Sequence[float], after: Sequence[float], removed_by: Sequence[str], title: str
) -> Figure:
    """Next-token probabilities before and after the sampler chain.

    Each removed token is labelled with the stage that removed it."""
    names = [f"{rank + 1} {token_label(piece)}" for rank, piece in enumerate(pieces)]
    figure = go.Figure()
    grey = {"color": "#E2E2E2", "pattern": {"shape": "/", "fillmode": "overlay", "fgcolor": "#A0A0A0"}}
    figure.add_bar(y=names, x=list(before), orientation="h", name=translate("model (temperature 1)"), marker=grey)
    figure.add_bar(y=names, x=list(after), orientation="h", name=translate("after the chain"), marker={"color": BLUE})
    for name, chance, stage in zip(names, before, removed_by, strict=True):
        if stage:
            figure.add_annotation(
                x=chance,
                y=name,
                text=f"✘ {stage}",
                showarrow=False,
                xanchor="left",
                xshift=6,
                font={"color": "#B34700"},
            )
    apply_layout(figure, title, translate("probability"), height=170 + 26 * len(names))
    figure.update_layout(barmode="group", bargap=0.2, bargroupgap=0.0)
    figure.update_xaxes(tickformat=".0%", range=[0, min(1.0, 1.18 * max([*before, *after, 0.05]))])
    figure.update_yaxes(autorange="reversed", tickfont={"family": "monospace"})
    rows = [
        (
            name,
            f"{chance:.1%}",
            f"{left:.1%}" if left else "-",
            translate("removed by {stage}", stage=stage) if stage else "█" * round(24 * left),
        )
        for name, chance, left, stage in zip(names, before, after, removed_by, strict=True)
    ]
    return Figure(
        figure, f"{title}\n" + text_table((translate("token"), translate("model"), translate("after"), ""), rows)
    )
