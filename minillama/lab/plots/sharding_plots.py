"""Figures of lab 09: shards of a layer, sent bytes, and scaling over hosts."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jax.sharding import PartitionSpec

from minillama.lab.distributed.cluster_simulator import Scaling
from minillama.lab.language import message, translate
from minillama.lab.plots.measurement_plots import Points
from minillama.lab.widgets.figure import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    PALETTE,
    SYMBOLS,
    Figure,
    apply_layout,
    format_number,
    text_bars,
    text_table,
)
from minillama.measure.limits.collective_traffic import Collective

ACROSS = 4  # matrices in a row of the grid
APART = 1.35  # distance of neighbouring matrices; the widest matrix is 1
GAP = 0.45  # between rows of matrices: room for their names
THIN = 0.07  # parts too thin for a number
EVERYWHERE = "#BDBDBD"  # replicated on all devices
SPLIT = {0: message("by rows"), 1: message("by columns")}
HELD = {0: message("{part} of {whole} rows"), 1: message("{part} of {whole} columns")}
Shape = tuple[int, ...]


def split_axis(spec: PartitionSpec, rank: int = 2) -> int | None:
    """The axis of an array that is split over devices; None if replicated.

    Raises ValueError for more than one axis, or an axis that the array does not have.
    """
    split = [axis for axis, names in enumerate(spec) if names not in (None, ())]
    if len(split) > 1 or any(axis >= rank for axis in split):
        raise ValueError(f"{spec} does not split one of {rank} axes")
    return split[0] if split else None


def shard_ranges(shape: Shape, spec: PartitionSpec, devices: int) -> list[tuple[tuple[int, int], ...]]:
    """Index ranges per axis that each device holds of an array."""
    axis = split_axis(spec, len(shape))
    parts = []
    for device in range(devices):
        whole = [(0, size) for size in shape]
        if axis is not None:
            each = shape[axis] // devices
            whole[axis] = (device * each, (device + 1) * each)
        parts.append(tuple(whole))
    return parts


def device_grid(shapes: Mapping[str, Shape], specs: Mapping[str, PartitionSpec], devices: int, title: str) -> Figure:
    """Matrices of a layer to scale, each part in the colour of its device."""
    figure = go.Figure()
    largest = max(max(shape) for shape in shapes.values())
    fills: dict[int | None, list[tuple[float, float, float, float]]] = {}
    names, rows, top = list(shapes), [], 0.0
    for start in range(0, len(names), ACROSS):
        line = names[start : start + ACROSS]
        for place, name in enumerate(line):
            shape, left = shapes[name], place * APART
            axis, parts = split_axis(specs[name], len(shape)), shard_ranges(shape, specs[name], devices)
            for device, part in enumerate(parts) if axis is not None else [(None, parts[0])]:
                (y0, y1), (x0, x1) = part if len(part) == 2 else (*part, (0, largest // 16))
                box = (left + x0 / largest, top - y0 / largest, left + x1 / largest, top - y1 / largest)
                fills.setdefault(device, []).append(box)
                if device is not None and min(x1 - x0, y1 - y0) > THIN * largest:
                    figure.add_annotation(
                        x=(box[0] + box[2]) / 2, y=(box[1] + box[3]) / 2, text=str(device), showarrow=False,
                        font={"color": "white", "size": 13},
                    )  # fmt: skip
            size = " × ".join(map(str, shape))
            figure.add_annotation(
                x=left, y=top, text=f"{name}<br>{size}", showarrow=False, xanchor="left", yanchor="bottom",
                align="left", font={"size": 12},
            )  # fmt: skip
            rows.append((name, size, *_split_words(shape, axis, devices)))
        top -= max(shapes[name][0] for name in line) / largest + GAP
    for device, boxes in sorted(fills.items(), key=lambda item: -1 if item[0] is None else item[0]):
        colour = EVERYWHERE if device is None else PALETTE[device % len(PALETTE)]
        figure.add_scatter(
            x=[x for x0, _, x1, _ in boxes for x in (x0, x1, x1, x0, x0, None)],
            y=[y for _, y0, _, y1 in boxes for y in (y0, y0, y1, y1, y0, None)],
            mode="lines", fill="toself", fillcolor=colour, line={"color": "white", "width": 1.5}, hoverinfo="name",
            name=translate("every device") if device is None else translate("device {number}", number=device),
        )  # fmt: skip
    apply_layout(figure, title, height=round(130 - 170 * top))
    figure.update_xaxes(visible=False, range=[-0.1, ACROSS * APART])
    figure.update_yaxes(visible=False, range=[top + GAP / 2, GAP], scaleanchor="x")
    figure.update_layout(showlegend=True, legend={"y": -0.02, "yanchor": "top", "x": 0, "xanchor": "left"})
    held = translate("each of {devices} devices holds", devices=devices)
    table = text_table((translate("matrix"), translate("rows × columns"), translate("split"), held), rows)
    return Figure(figure, f"{title}\n{table}")


def _split_words(shape: Shape, axis: int | None, devices: int) -> tuple[str, str]:
    if axis is None:
        return translate("not split"), translate("all of it")
    return translate(SPLIT[axis]), translate(HELD[axis], part=shape[axis] // devices, whole=shape[axis])


def ledger_bars(entries: Sequence[Collective], title: str) -> Figure:
    """Bytes sent by each device, one bar per kind and size of collective."""
    labels = [
        translate("{times} {kind} of {parts}", times=_times(entry), kind=entry.kind, parts=_parts(entry))
        for entry in entries
    ]
    sent = [entry.sent * (entry.count or 1) for entry in entries]
    figure, axis = go.Figure(), translate("bytes that each device sends")
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    for kind in kinds:
        chosen = [place for place, entry in enumerate(entries) if entry.kind is kind]
        figure.add_bar(
            x=[sent[place] for place in chosen], y=[labels[place] for place in chosen], orientation="h", name=kind,
            marker={"color": PALETTE[kinds.index(kind)]}, text=[format_number(sent[place]) for place in chosen],
            textposition="outside", cliponaxis=False,
        )  # fmt: skip
    apply_layout(figure, title, axis, height=150 + 36 * len(entries))
    figure.update_layout(showlegend=len(kinds) > 1, barmode="overlay")
    figure.update_yaxes(autorange="reversed")
    if not entries:
        return Figure(figure, f"{title}\n{translate('no collectives: nothing is sent')}")
    total = translate("{count} bytes in all", count=format_number(sum(sent)))
    if any(entry.count is None for entry in entries):
        total += translate(", and more for loops of unknown length")
    return Figure(figure, f"{title}\n{axis}\n{text_bars(labels, sent)}\n{total}")


def _times(entry: Collective) -> str:
    return "? ×" if entry.count is None else f"{entry.count} ×"


def _parts(entry: Collective) -> str:
    shown = ", ".join(map(str, entry.parts[:2]))
    return f"{shown}, ..." if len(entry.parts) > 2 else shown


def scaling(measured: Points, law: Scaling, title: str, unit: str = "") -> Figure:
    """Measured speed-ups by number of processes, the fitted law, and Amdahl's law."""
    unit = unit or translate("processes")
    counts = list(range(1, max(8, 2 * int(max(measured))) + 1))
    curves = (
        (translate("the law fitted"), [law.speed_up(count) for count in counts], BLUE, "solid"),
        (translate("if collectives took no time (Amdahl)"), [law.amdahl(count) for count in counts], GREEN, "dash"),
        (translate("if all work were parallel"), [float(count) for count in counts], GREY, "dot"),
    )
    figure = go.Figure()
    for name, values, colour, dash in curves:
        figure.add_scatter(x=counts, y=values, mode="lines", name=name, line={"color": colour, "dash": dash})
    figure.add_scatter(
        x=list(measured), y=list(measured.values()), mode="markers", name=translate("measured"),
        marker={"color": "#222222", "size": 12, "symbol": "diamond"},
    )  # fmt: skip
    apply_layout(figure, title, unit, translate("times faster than one"), height=440)
    figure.update_layout(showlegend=True, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    figure.update_yaxes(rangemode="tozero", range=[0, 1.2 * max(law.amdahl(counts[-1]), *measured.values())])
    shown = sorted({*(int(count) for count in measured), 2, 4, 8})
    rows = [
        (str(count), format_number(measured[count]) if count in measured else "", format_number(law.speed_up(count)),
         format_number(law.amdahl(count)))
        for count in shown
    ]  # fmt: skip
    told = translate(
        "serial {serial} ms, parallel {parallel} ms, {collectives} collectives a token at {round} µs a round",
        serial=format_number(1e3 * law.serial), parallel=format_number(1e3 * law.parallel),
        collectives=law.collectives, round=format_number(1e6 * law.round),
    )  # fmt: skip
    head = (unit, translate("measured"), translate("law"), "Amdahl")
    return Figure(figure, f"{title}\n{told}\n" + text_table(head, rows))


def host_curves(series: Mapping[str, Points], title: str, y: str = "", needed: int = 1) -> Figure:
    """Tokens/s by number of hosts on log-log axes; the best of each curve is marked.

    needed: hosts whose memory holds the weights; the area left of it is shaded.
    """
    figure, y = go.Figure(), y or translate("tokens a second")
    rows = []
    for index, (name, points) in enumerate(series.items()):
        colour, symbol = PALETTE[index % len(PALETTE)], SYMBOLS[index % len(SYMBOLS)]
        best = max(points, key=lambda count: points[count])
        figure.add_scatter(
            x=list(points), y=list(points.values()), mode="lines", name=name,
            line={"color": colour, "dash": DASHES[index % len(DASHES)]},
        )  # fmt: skip
        figure.add_scatter(
            x=[best], y=[points[best]], mode="markers", showlegend=False, hoverinfo="skip",
            marker={"color": colour, "symbol": symbol, "size": 12},
        )  # fmt: skip
        rows.append(
            (
                name,
                *(format_number(points[count]) for count in _shown(points)),
                translate("{speed} with {hosts}", speed=format_number(points[best]), hosts=best),
            )
        )
    apply_layout(figure, title, translate("hosts"), y, height=460)
    counts = sorted({count for points in series.values() for count in points})
    marks = [2**k for k in range(int(math.log2(max(counts))) + 1)]
    figure.update_xaxes(type="log", tickvals=marks, ticktext=[str(mark) for mark in marks])
    figure.update_yaxes(type="log", exponentformat="none", dtick="D2")
    figure.update_layout(showlegend=True, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    if needed > 1:
        figure.add_vrect(x0=1, x1=needed, fillcolor=GREY, opacity=0.12, line_width=0)
        figure.add_annotation(
            x=math.log10(needed) / 2,
            y=0.02,
            yref="paper",
            showarrow=False,
            text=translate("too little memory"),
            font={"size": 11},
        )
    shown = _shown(next(iter(series.values())))
    head = f"{title}\n{translate('{y} by hosts', y=y)}"
    head += translate("; it takes {needed} to hold the weights", needed=needed) if needed > 1 else ""
    return Figure(figure, f"{head}\n" + text_table(("", *map(str, shown), translate("best")), rows))


def _shown(points: Points) -> list[int]:
    """Powers of two, to keep the table short."""
    return [int(count) for count in points if int(count) & (int(count) - 1) == 0]
