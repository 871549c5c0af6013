"""Figures of labs 13 and 14: slots over time, latency by load, prompts and blocks."""

import math
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go

from minillama.lab.language import message, translate
from minillama.lab.plots.roofline_plots import share_text
from minillama.lab.serving.batch_simulator import SimulatedRun
from minillama.lab.widgets.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    SYMBOLS,
    Figure,
    apply_layout,
    format_number,
    text_table,
)

LOOKS = {
    "prompt": (BLUE, message("prompt"), ""),
    "decode": (GREEN, message("decode"), ""),
    "wasted": ("#BDBDBD", message("wasted row"), "/"),
}
TEXT_COLUMNS = 64
LETTERS = {"prompt": "P", "decode": "d", "wasted": "-"}


def gantt(run: SimulatedRun, title: str, *, seconds: float | None = None) -> Figure:
    """The work of each slot over time; `seconds` is the end of the axis."""
    figure = go.Figure()
    for kind, (colour, name, shape) in LOOKS.items():
        chosen = [span for span in run.spans if span.kind == kind]
        if not chosen:
            continue
        marker = {"color": colour, "line": {"color": "white", "width": 0.5}}
        if shape:
            marker["pattern"] = {"shape": shape, "fillmode": "overlay", "fgcolor": "white"}
        figure.add_bar(
            y=[_slot(span.slot) for span in chosen], x=[span.end - span.begin for span in chosen],
            base=[span.begin for span in chosen], orientation="h", name=translate(name), marker=marker,
            hovertext=[translate("request {number}", number=span.request) for span in chosen],
        )  # fmt: skip
    apply_layout(figure, title, translate("seconds"), height=170 + 34 * run.slots)
    figure.update_layout(showlegend=True, barmode="overlay", bargap=0.2)
    names = [_slot(slot) for slot in range(run.slots)]
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names)
    figure.update_xaxes(range=[0, seconds or run.seconds])
    facts = translate(
        "{seconds:.2f} s, {speed:.0f} tokens/s, {share:.0%} of the slots' time used",
        seconds=run.seconds, speed=run.tokens_per_second, share=run.utilisation,
    )  # fmt: skip
    return Figure(figure, f"{title}\n{facts}\n{_gantt_text(run, seconds or run.seconds)}")


def _slot(number: int) -> str:
    return translate("slot {number}", number=number)


def _gantt_text(run: SimulatedRun, seconds: float) -> str:
    """A line of letters for each slot: P prompt, d decode, - wasted."""
    lines = []
    for slot in range(run.slots):
        letters = [" "] * TEXT_COLUMNS
        for span in run.spans:
            if span.slot == slot:
                first = int(TEXT_COLUMNS * span.begin / seconds)
                last = max(first + 1, round(TEXT_COLUMNS * span.end / seconds))
                letters[first:last] = LETTERS[span.kind] * (min(last, TEXT_COLUMNS) - first)
        lines.append(f"{_slot(slot)} |{''.join(letters).rstrip()}")
    return "\n".join([*lines, translate("P prompt, d decode, - wasted row")])


def rows_curves(
    measured: Mapping[int, float], roof: Mapping[float, float], said: Mapping[int, float], title: str
) -> Figure:
    """Tokens a second by texts in a step, with predictions and the roofline's bound.

    roof: the bound at the measured numbers of texts, and at others, such as its bend.
    """
    figure = go.Figure()
    places = sorted(roof)
    figure.add_scatter(x=places, y=[roof[at] for at in places], mode="lines", name=translate("roofline"),
                       line={"color": GREY, "dash": "dash"})  # fmt: skip
    figure.add_scatter(x=list(measured), y=list(measured.values()), mode="lines+markers", name=translate("measured"),
                       line={"color": BLUE}, marker={"symbol": "circle", "size": 9})  # fmt: skip
    if said:
        figure.add_scatter(x=list(said), y=list(said.values()), mode="markers", name=translate("you predicted"),
                           marker={"color": ORANGE, "symbol": "diamond", "size": 13})  # fmt: skip
    apply_layout(figure, title, translate("texts in a step"), translate("tokens a second"), height=420)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(type="log", tickvals=list(measured), ticktext=[str(rows) for rows in measured])
    figure.update_yaxes(**_logarithmic([*measured.values(), *roof.values(), *said.values()]))
    rows = [(str(count), format_number(speed), format_number(roof[count]), share_text(speed / roof[count]))
            for count, speed in measured.items()]  # fmt: skip
    head = (translate("texts"), translate("measured"), translate("roofline"), translate("share"))
    return Figure(figure, f"{title}\n" + text_table(head, rows))


def two_sided(
    x: Sequence[float], left: Mapping[str, Sequence[float]], title: str, x_title: str, y_title: str,
    *, marked: float | None = None, logarithmic: str = "",
) -> Figure:  # fmt: skip
    """Several curves over one axis, with a vertical line at `marked`.

    Names are shown in the learner's language. logarithmic: the logarithmic axes, such as "xy"; on a linear y axis there
    is the 0.
    """
    figure, left = go.Figure(), {translate(name): values for name, values in left.items()}
    for index, (name, values) in enumerate(left.items()):
        figure.add_scatter(
            x=list(x), y=list(values), mode="lines+markers", name=name, line={"color": PALETTE[index]},
            marker={"symbol": SYMBOLS[index], "size": 8},
        )  # fmt: skip
    apply_layout(figure, title, x_title, y_title, height=400)
    figure.update_layout(showlegend=True)
    if "x" in logarithmic:
        figure.update_xaxes(type="log", tickvals=list(x), ticktext=[format_number(value) for value in x])
    if "y" in logarithmic:
        figure.update_yaxes(**_logarithmic([value for values in left.values() for value in values]))
    else:
        figure.update_yaxes(rangemode="tozero")
    if marked is not None:
        figure.add_vline(x=marked, line={"color": GREY, "dash": "dot"})
    rows = [
        (format_number(at), *(format_number(values[index]) for values in left.values())) for index, at in enumerate(x)
    ]
    return Figure(figure, f"{title}\n{y_title}\n" + text_table((x_title, *left), rows))


def _logarithmic(values: Iterable[float]) -> dict[str, object]:
    """A logarithmic axis with ticks at 1, 2, 5, 10, ... around all `values`."""
    known = [value for value in values if value > 0] or [1.0]
    decades = range(math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + 2)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    low = max(tick for tick in ticks if tick <= min(known))
    high = min(tick for tick in ticks if tick >= max(known))
    high = high if high > low else 10 * low
    ends = [math.log10(low) - 0.03, math.log10(high) + 0.03]  # markers on an edge stay whole
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [format_number(tick) for tick in ticks]}
