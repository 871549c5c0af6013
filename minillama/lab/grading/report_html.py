"""The report as one self-contained HTML file, made from a learner's records.

The file loads nothing from the network: plotly's program is in it once, and a content security policy forbids the rest.
The template `report.html.jinja` escapes all text that comes from the records.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from minillama.atomic_file import atomic_write, make_folder
from minillama.lab import lab_record
from minillama.lab.grading.decisions import Decisions, TradeOff, limits_met, read_decisions
from minillama.lab.grading.html_template import html_template
from minillama.lab.grading.lab_results import TITLES, LabResults, Quantity, Results, read_results
from minillama.lab.grading.rubric import rubric
from minillama.lab.language import message, translate
from minillama.lab.plots.roofline_plots import roofline
from minillama.lab.widgets.figure import GREY, PALETTE, SYMBOLS, Figure, apply_layout, format_number, text_table
from minillama.text_language import wanted_language

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
HEAD = (message("lab"), message("prediction"), message("predicted"), message("measured"), message("unit"),
        message("off by"))  # fmt: skip
Rows = list[tuple[str, ...]]


def save_figure(lab: str, name: str, figure: Figure) -> Figure:
    """Record a figure and its text for the report, and return the figure."""
    lab_record.write(lab, "pictures", name, {"figure": json.loads(figure.plotly.to_json()), "text": figure.text})
    return figure


def build_report(results_folder: Path, out: Path) -> Path:
    """Write the report on a folder's records to `out` atomically, and return `out`.

    The report names each lab without records, and each file or entry that is damaged. Raises ResourceError for a
    missing folder, and if `out` cannot be written.
    """
    results = read_results(results_folder)
    template = html_template(Path(__file__).with_name("report.html.jinja"), t=translate)
    page = template.render(_page(results, read_decisions(results)))
    make_folder(out.parent)
    with atomic_write(out) as file:
        file.write(page.encode("utf-8", "replace"))  # half of a surrogate pair has no bytes
    return out


@dataclass(frozen=True)
class _Plot:
    """A figure for the template.

    data: JSON in which `<` is escaped, because `</script>` would end the script element."""

    title: str
    height: int
    data: Markup
    text: str


@dataclass(frozen=True)
class _Lab:
    """One lab for the template; `found` is None for a lab without records."""

    number: str
    title: str
    found: LabResults | None
    problems: Sequence[str]
    predictions: Rows
    measurements: Rows
    figures: Sequence[_Plot]


def _page(results: Results, decisions: Decisions) -> dict[str, object]:
    """All values of the template."""
    texts = [(question or name, text) for found in results.values() for name, (question, text) in found.texts.items()]
    return {
        "language": wanted_language(os.environ).replace("_", "-"),
        "policy": Markup(POLICY),
        "plotly": Markup(get_plotlyjs()),
        "machines": _machines(results),
        "target": decisions.target,
        "problems": decisions.problems,
        "limits": _limits(results, decisions),
        "trade_offs": [(each.choice, _ratios(results, each), each.because) for each in decisions.trade_offs],
        "texts": texts,
        "any_text": any(text.strip() for _, text in texts),
        "calibration": _plot(calibration(results)),
        "review": decisions.look_back,
        "reviewed": _reviewed(results, decisions),
        "roofline": _roofline(results),
        "labs": [_lab(lab, results.get(lab)) for lab in sorted({*TITLES, *results})],
        "rubric": rubric(results, decisions),
    }


def _plot(figure: Figure) -> _Plot:
    data = Markup(figure.plotly.to_json().replace("<", "\\u003c"))
    height = min(int(figure.plotly.layout.height or 360), 2000)
    return _Plot(figure.text.partition("\n")[0], height, data, figure.text)


def _machines(results: Results) -> list[tuple[str, Rows]]:
    """Each different machine: the labs that ran on it, and its facts."""
    machines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for lab, found in results.items():
        machine = found.machine
        if not machine:
            continue
        cores = machine.get("affinity")
        memory = lab_record.number(machine, "memory_total")
        usable = str(len(cores)) if isinstance(cores, list | tuple) else "?"
        size = "?" if memory is None else f"{memory / 2**30:.1f} GiB"
        physical = machine.get("physical_cores", "?")
        facts = (
            (translate("processor"), str(machine.get("cpu", "?"))),
            (
                translate("cores"),
                translate("{physical} physical, {usable} to be used", physical=physical, usable=usable),
            ),
            (translate("memory"), size),
            (translate("system"), f"{machine.get('system', '?')} {machine.get('architecture', '')}"),
            (translate("versions"), ", ".join(f"{name} {version}" for name, version in found.versions.items())),
        )
        machines.setdefault(facts, []).append(lab)
    return [(", ".join(labs), list(facts)) for facts, labs in machines.items()]


def _limits(results: Results, decisions: Decisions) -> Rows:
    rows: Rows = []
    for limit, (value, word) in limits_met(decisions.target, results).items() if decisions.target else ():
        side = (
            translate("at least {limit:g}", limit=limit.at_least)
            if limit.at_least is not None
            else translate("at most {limit:g}", limit=limit.at_most)
        )
        name = translate("lab {lab}: {name}", lab=limit.lab, name=limit.measurement)
        rows.append((name, side, limit.because, _quantity_text(value), translate(word)))
    return rows


def _quantity_text(value: Quantity | None) -> str:
    if not value:
        return translate("not measured")
    text = f"{format_number(value.value)} {translate(value.unit)}"
    return translate("{text} (above its roof: measure again)", text=text) if value.is_above_roof else text


def _ratios(results: Results, trade_off: TradeOff) -> Rows:
    rows: Rows = []
    for side, ratio in ((message("gain"), trade_off.gain), (message("cost"), trade_off.cost)):
        values = results[ratio.lab].measurements if ratio.lab in results else {}
        before, after = (_quantity_text(values.get(name)) for name in (ratio.before, ratio.after))
        times = ratio.times(results)
        factor = translate("not measured") if times is None else _factor(times)
        rows.append((translate(side), f"{ratio.before} → {ratio.after}", before, after, factor))
    return rows


def _reviewed(results: Results, decisions: Decisions) -> str:
    """The reviewed prediction, its measurement and the error, as text."""
    review = decisions.look_back
    if review is None or review.lab not in results:
        return translate("not measured")
    pair = results[review.lab].measured_predictions().get(review.prediction)
    if pair is None:
        return translate("not measured")
    said, measured = (_quantity_text(value) for value in pair)
    return translate(
        "predicted {said}, measured {measured}, off by {factor}",
        said=said, measured=measured, factor=error_factor(*pair),
    )  # fmt: skip


def _roofline(results: Results) -> _Plot | None:
    roof = results["01"].roof if "01" in results else None
    if roof is None:
        return None
    dots = {name: dot for found in results.values() for name, dot in found.dots.items()}
    return _plot(roofline(roof, dots, translate("My machine's roofline")))


def _lab(number: str, found: LabResults | None) -> _Lab:
    title = translate(TITLES.get(number, message("another lab")))
    if found is None:
        return _Lab(number, title, None, (), [], [], [])
    predictions: Rows = [
        (translate(name), _quantity_text(said), _quantity_text(found.measurements.get(name)))
        for name, said in found.predictions.items()
    ]
    others: Rows = [
        (name, _quantity_text(value)) for name, value in found.measurements.items() if name not in found.predictions
    ]
    return _Lab(
        number, title, found, found.problems, predictions, others, [_plot(figure) for figure in found.figures.values()]
    )


def calibration(results: Results) -> Figure:
    """Predicted against measured values of all labs; right predictions are on the diagonal.

    Values of zero or less are on the edge, and so are the measurements whose prediction was skipped.
    """
    pairs = [
        (lab, name, *pair) for lab, found in results.items() for name, pair in found.measured_predictions().items()
    ]
    skipped = [(lab, name, found.measurements[name]) for lab, found in results.items() for name in sorted(found.skipped)
               if name in found.measurements and name not in found.predictions]  # fmt: skip
    numbers = [each.value for _, _, *pair in [*pairs, *skipped] for each in pair if each.value > 0]
    low, high = max(min([1.0, *numbers]) / 2, 1e-300), min(max([1.0, *numbers]) * 2, 1e300)
    figure = go.Figure()
    for index, lab in enumerate(results):
        own = [(name, said, came) for of, name, said, came in pairs if of == lab]
        if own:
            looks = {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 11}
            figure.add_scatter(
                x=[max(came.value, low) for _, _, came in own], y=[max(said.value, low) for _, said, _ in own],
                mode="markers", name=translate("lab {lab}", lab=lab), hovertext=[translate(name) for name, _, _ in own],
                marker=looks,
            )  # fmt: skip
    if skipped:
        figure.add_scatter(
            x=[max(came.value, low) for _, _, came in skipped], y=[low] * len(skipped), mode="markers",
            name=translate("skipped"), hovertext=[translate(name) for _, name, _ in skipped],
            marker={"color": GREY, "symbol": "x", "size": 11},
        )  # fmt: skip
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", showlegend=False, hoverinfo="skip",
        line={"color": GREY, "dash": "dash"},
    )  # fmt: skip
    title = translate("Predicted and measured values")
    apply_layout(figure, title, translate("measured"), translate("predicted"), height=440)
    figure.update_layout(showlegend=True)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(type="log", range=[math.log10(low), math.log10(high)], dtick=1, exponentformat="none")
    head = [translate(word) for word in HEAD]
    rows = [(lab, translate(name), format_number(said.value), format_number(came.value), translate(came.unit),
             error_factor(said, came)) for lab, name, said, came in pairs]  # fmt: skip
    rows += [(lab, translate(name), translate("skipped"), format_number(came.value), translate(came.unit), "-")
             for lab, name, came in skipped]  # fmt: skip
    table = text_table(head, rows) if rows else translate("no prediction was measured yet")
    return Figure(figure, f"{title}\n{table}")


def error_factor(said: Quantity, came: Quantity) -> str:
    """Error of a prediction as a factor of at least 1; `-` without positive values."""
    if said.value <= 0 or came.value <= 0:
        return "-"
    return _factor(max(said.value / came.value, came.value / said.value))


def _factor(times: float) -> str:
    return translate("{factor} times", factor=format_number(times))
