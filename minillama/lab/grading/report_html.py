"""One self-contained HTML file from a learner's records: a target, its trade-offs, and every lab's numbers.

Nothing in it asks the network: plotly's program stands in the file once, and a policy in its head forbids the rest.
Whatever comes from the records is escaped.
"""

import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from minillama.lab.grading import lab_record
from minillama.lab.grading.decisions import Decisions, limits_met, read_decisions
from minillama.lab.grading.lab_results import TITLES, LabResults, Quantity, Results, read_results
from minillama.lab.grading.rubric import rubric
from minillama.lab.plots.roofline_plots import roofline
from minillama.lab.widgets.figure import GREY, PALETTE, SYMBOLS, Figure, apply_layout, format_number, text_table

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = """
body { font: 16px/1.5 Inter, Helvetica, Arial, sans-serif; color: #222 }
body { max-width: 960px; margin: 2em auto; padding: 0 1em }
h1, h2 { line-height: 1.2 } h2 { border-bottom: 2px solid #0072B2; margin-top: 2em } h3 { margin-top: 1.6em }
table { border-collapse: collapse; margin: .6em 0 } th, td { text-align: left; padding: .25em .9em .25em 0 }
th { border-bottom: 1px solid #8C8C8C } td { border-bottom: 1px solid #E6E6E6; vertical-align: top }
pre { overflow-x: auto; background: #F6F6F6; padding: .8em; font-size: 13px }
.gap { color: #8A3B00; border-left: 4px solid #D55E00; padding-left: .7em } .text { white-space: pre-wrap }
summary { cursor: pointer; color: #0072B2 }
"""
DRAW = """
for (const data of document.querySelectorAll('script[type="application/json"]')) {
  const figure = JSON.parse(data.textContent), place = data.previousElementSibling;
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
}
"""


def save_figure(lab: str, name: str, figure: Figure) -> Figure:
    """Keep a picture and its text twin in a lab's records, for the report, and return it."""
    lab_record.write(lab, "pictures", name, {"figure": json.loads(figure.plotly.to_json()), "text": figure.text})
    return figure


def build_report(results_folder: Path, out: Path) -> Path:
    """Write the report on the records in a folder to `out`, in one step, and return its path.

    A lab without records becomes a gap that the report names. Raises ResourceError where there is no such folder,
    FormatError for a file of records that is not what the labs write; nothing is written then.
    """
    results = read_results(results_folder)
    page = "\n".join(_page(results, read_decisions(results)))
    beside = out.with_name(f".{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return out


def calibration(results: Results) -> Figure:
    """What was said against what was measured, all labs together; on the diagonal a prediction was right."""
    figure, rows, ends = go.Figure(), [], [1.0]
    for index, (lab, found) in enumerate(results.items()):
        pairs = {n: (s, m) for n, (s, m) in found.measured_predictions().items() if s.value > 0 and m.value > 0}
        if not pairs:
            continue
        said, came = ([pair[side].value for pair in pairs.values()] for side in (0, 1))
        ends += said + came
        figure.add_scatter(
            x=came, y=said, mode="markers", name=f"lab {lab}", hovertext=list(pairs),
            marker={"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 11},
        )  # fmt: skip
        rows += [
            (lab, name, format_number(s.value), format_number(m.value), m.unit, error_factor(s, m))
            for name, (s, m) in pairs.items()
        ]
    low, high = min(ends) / 2, max(ends) * 2
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", showlegend=False, hoverinfo="skip",
        line={"color": GREY, "dash": "dash"},
    )  # fmt: skip
    title = "What I said, and what I measured"
    apply_layout(figure, title, "measured", "said", height=440)
    figure.update_layout(showlegend=True)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(type="log", range=[math.log10(low), math.log10(high)], dtick=1, exponentformat="none")
    head = ("lab", "prediction", "said", "measured", "unit", "off by")
    return Figure(figure, f"{title}\n" + (text_table(head, rows) if rows else "no prediction was measured yet"))


def error_factor(said: Quantity, came: Quantity) -> str:
    """How far off a prediction was, as a factor of 1 or more; a dash where one of both is not positive."""
    if said.value <= 0 or came.value <= 0:
        return "-"
    return f"{format_number(max(said.value / came.value, came.value / said.value))} times"


def _page(results: Results, decisions: Decisions) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width"><title>Deploying a language model: report</title>'
    yield f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
    yield "<h1>Deploying a language model: report</h1>"
    yield "<noscript><p>Figures need JavaScript. Below each of them the same is there as text.</p></noscript>"
    yield from _machines(results)
    yield from _target(results, decisions)
    yield from _trade_offs(results, decisions)
    yield from _words(results)
    yield from _looking_back(results, decisions)
    yield from _roof(results)
    yield "<h2>The labs</h2>"
    for lab in sorted({*TITLES, *results}):
        yield from _lab(lab, results.get(lab))
    yield "<h2>Rubric</h2>"
    yield _table(("criterion", "what a good report has", "points", "on record"), rubric(results, decisions))
    yield f"<script>{DRAW}</script></body></html>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _gap(text: str) -> str:
    return f'<p class="gap">{escape(text)}</p>'


def _figure(figure: Figure) -> Iterator[str]:
    """A place, the figure's numbers behind it, and the text twin. `<` would end the script early, so it is spelt."""
    data = figure.plotly.to_json().replace("<", "\\u003c")
    title = figure.text.partition("\n")[0]
    height = min(int(figure.plotly.layout.height or 360), 2000)
    yield f'<div style="height:{height}px" role="img" aria-label="{escape(title)}"></div>'
    yield f'<script type="application/json">{data}</script>'
    yield f"<details><summary>The same as text</summary><pre>{escape(figure.text)}</pre></details>"


def _machines(results: Results) -> Iterator[str]:
    yield "<h2>The machine</h2>"
    facts: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for lab, found in results.items():
        machine = found.machine
        cores = machine.get("affinity")
        memory = machine.get("memory_total")
        usable = str(len(cores)) if isinstance(cores, list | tuple) else "?"
        size = f"{memory / 2**30:.1f} GiB" if isinstance(memory, int | float) else "?"
        row = (
            ("processor", str(machine.get("cpu", "?"))),
            ("cores", f"{machine.get('physical_cores', '?')} physical, {usable} to be used"),
            ("memory", size),
            ("system", f"{machine.get('system', '?')} {machine.get('architecture', '')}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
        )
        facts.setdefault(row, []).append(lab)
    if not facts:
        yield _gap("No results at all: no lab was done in this folder.")
    if len(facts) > 1:
        yield _gap("The labs ran on several machines, or with several versions: their numbers are not comparable.")
    for row, labs in facts.items():
        yield _table(("", f"labs {', '.join(labs)}"), row)


def _target(results: Results, decisions: Decisions) -> Iterator[str]:
    yield "<h2>The target</h2>"
    target = decisions.target
    if target is None:
        yield _gap("No target was chosen.")
        return
    yield f"<p><b>{escape(target.name)}</b></p>"
    rows = []
    for limit, (value, word) in limits_met(target, results).items():
        side = f"at least {limit.at_least:g}" if limit.at_least is not None else f"at most {limit.at_most:g}"
        rows.append((f"lab {limit.lab}: {limit.measurement}", side, _quantity_text(value), word))
    yield _table(("limit on", "wanted", "measured", "verdict"), rows)


def _quantity_text(value: Quantity | None) -> str:
    return f"{format_number(value.value)} {value.unit}" if value else "not measured"


def _trade_offs(results: Results, decisions: Decisions) -> Iterator[str]:
    yield "<h2>Trade-offs</h2>"
    if not decisions.trade_offs:
        yield _gap("No trade-off was measured.")
    for each in decisions.trade_offs:
        yield f"<h3>{escape(each.choice)}</h3>"
        rows = []
        for side, ratio in (("gain", each.gain), ("cost", each.cost)):
            values = results[ratio.lab].measurements if ratio.lab in results else {}
            times = ratio.times(results)
            told = "not measured" if times is None else f"{format_number(times)} times"
            what = f"{ratio.before} → {ratio.after}"
            rows.append(
                (side, what, _quantity_text(values.get(ratio.before)), _quantity_text(values.get(ratio.after)), told)
            )
        yield _table(("", "measurements", "without", "with", "ratio"), rows)
        yield f'<p class="text">{escape(each.because)}</p>'


def _words(results: Results) -> Iterator[str]:
    yield "<h2>In my own words</h2>"
    texts = {name: text for found in results.values() for name, text in found.texts.items()}
    if not any(text.strip() for _, text in texts.values()):
        yield _gap("Nothing was written.")
    for name, (question, text) in texts.items():
        yield f"<h3>{escape(question or name)}</h3>"
        yield f'<p class="text">{escape(text)}</p>' if text.strip() else _gap("no answer")


def _looking_back(results: Results, decisions: Decisions) -> Iterator[str]:
    yield "<h2>Predictions, looked back at</h2>"
    yield from _figure(calibration(results))
    back = decisions.look_back
    if back is None:
        yield _gap("No prediction was looked back at.")
        return
    pair = results[back.lab].measured_predictions().get(back.prediction) if back.lab in results else None
    told = (
        f"said {_quantity_text(pair[0])}, measured {_quantity_text(pair[1])}, off by {error_factor(*pair)}"
        if pair
        else "not measured"
    )
    yield f"<p><b>Lab {escape(back.lab)}: {escape(back.prediction)}</b>: {escape(told)}.</p>"
    yield f'<p class="text">{escape(back.because)}</p>'


def _roof(results: Results) -> Iterator[str]:
    yield "<h2>Under the roofline</h2>"
    roof = results["01"].roof if "01" in results else None
    if roof is None:
        yield _gap("The roofline was not measured: lab 01.")
        return
    dots = {name: dot for found in results.values() for name, dot in found.dots.items()}
    yield from _figure(roofline(roof, dots, "My machine's roofline"))


def _lab(lab: str, found: LabResults | None) -> Iterator[str]:
    yield f"<h3>Lab {lab}: {escape(TITLES.get(lab, 'another lab'))}</h3>"
    if found is None:
        yield _gap(f"Not done: there is no lab{lab}.json among the results.")
        return
    solved = sum(found.checks.values())
    yield f"<p>{solved} of {len(found.checks)} tried exercises solved; last written {escape(found.written)}.</p>"
    if found.predictions:
        rows = [
            (name, _quantity_text(said), _quantity_text(found.measurements.get(name)))
            for name, said in found.predictions.items()
        ]
        yield _table(("prediction", "said", "measured"), rows)
    others = {name: value for name, value in found.measurements.items() if name not in found.predictions}
    if others:
        yield _table(("measurement", ""), [(name, _quantity_text(value)) for name, value in others.items()])
    for figure in found.figures.values():
        yield from _figure(figure)
