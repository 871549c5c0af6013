"""Figures of lab 15: the speed-up by length of the guess, with the measured dots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from minillama.lab.language import translate
from minillama.lab.speculation.speculation_law import batch_speedup, speedup
from minillama.lab.widgets.figure import DASHES, GREY, PALETTE, SYMBOLS, Figure, apply_layout, format_number, text_table

LENGTHS = range(16)  # tokens of a guess


@dataclass(frozen=True)
class Dot:
    """A measured speed-up: tokens of a guess, the ratio, and the lowest and highest round."""

    guesses: float
    ratio: float
    low: float
    high: float


def span(low: float, high: float) -> str:
    """The lowest and the highest round in words."""
    return translate("{low:.2f} to {high:.2f}", low=low, high=high)


def speedup_curves(
    acceptances: Sequence[float], draft: float, cost: Callable[[int], float], dots: Mapping[str, Dot], title: str
) -> Figure:
    """The law for some acceptances over the length of a guess, with measured dots.

    A line marks break-even.
    """
    curves = {
        translate("{share:.0%} accepted", share=acceptance): [
            speedup(acceptance, k, draft, cost(k + 1)) for k in LENGTHS
        ]
        for acceptance in acceptances
    }
    figure = _law(curves, title)
    for index, (name, dot) in enumerate(dots.items()):
        error = {"type": "data", "array": [dot.high - dot.ratio], "arrayminus": [dot.ratio - dot.low]}
        figure.add_scatter(
            x=[dot.guesses], y=[dot.ratio], error_y=error, name=name, mode="markers",
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 12, "color": PALETTE[index % len(PALETTE)],
                    "line": {"color": "black", "width": 1}},
        )  # fmt: skip
    measured = [(name, f"{dot.guesses:.1f}", f"{dot.ratio:.2f}", span(dot.low, dot.high)) for name, dot in dots.items()]
    head = (translate("measured"), translate("guesses"), translate("speed-up"), translate("rounds"))
    return Figure(figure, _law_text(curves, title) + "\n" + text_table(head, measured))


def batch_curve(
    acceptance: float, guesses: int, batch: int, draft: float, cost: Callable[[int], float], title: str
) -> Figure:
    """The law for a batch over the length of a guess, the chosen one marked."""
    curve = [batch_speedup(acceptance, k, batch, draft, cost) for k in LENGTHS]
    name = translate("{share:.0%} accepted, batch of {batch}", share=acceptance, batch=batch)
    figure = _law({name: curve}, title)
    chosen = translate("a guess of {count}", count=guesses)
    figure.add_scatter(x=[guesses], y=[curve[guesses]], name=chosen, mode="markers",
                       marker={"symbol": "diamond", "size": 13, "color": PALETTE[1]})  # fmt: skip
    best = max(LENGTHS, key=lambda k: curve[k])
    verdict = translate(
        "a guess of {count}: ×{gain:.2f}; best: {best}, ×{most:.2f}",
        count=guesses, gain=curve[guesses], best=best, most=curve[best],
    )  # fmt: skip
    return Figure(figure, f"{_law_text({name: curve}, title)}\n{verdict}")


def _law(curves: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    figure = go.Figure()
    for index, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=list(LENGTHS), y=list(values), name=name, mode="lines",
            line={"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index % len(DASHES)]},
        )  # fmt: skip
    apply_layout(figure, title, translate("tokens of a guess"), translate("times faster"), height=440)
    figure.update_layout(showlegend=True)
    figure.update_yaxes(rangemode="tozero")
    figure.add_hline(y=1.0, line={"color": GREY, "dash": "dot"}, annotation_text=translate("break-even"))
    return figure


def _law_text(curves: Mapping[str, Sequence[float]], title: str) -> str:
    rows = [(str(k), *(format_number(values[k]) for values in curves.values())) for k in (0, 1, 2, 3, 5, 7, 11, 15)]
    axis = translate("times faster; 1 is break-even")
    return f"{title}\n{axis}\n" + text_table((translate("guesses"), *curves), rows)
