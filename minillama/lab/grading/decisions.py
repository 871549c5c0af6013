"""Decisions of the report: target, trade-offs, a reviewed prediction, and texts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import ipywidgets as widgets

from minillama.lab import lab_record
from minillama.lab.grading.lab_results import Quantity, Results, measured, results_so_far
from minillama.lab.language import message, translate
from minillama.lab.widgets.widget_output import RUN_IT, display_form
from minillama.measure.tables import padded

LAB = "12"
EASY = 10.0  # margin from which a limit is no longer in question
TARGETS = {
    message("chat on a laptop"): message("one user waits: a first token soon, then faster than reading speed"),
    message("batch"): message("no user waits: as many tokens an hour as possible"),
    message("small memory"): message("it must fit: weights and cache, next to all other programs"),
}
OWN_RUN = {  # names and units of the measurements of lab 12
    "decoding, cache f16": "tokens/s",
    "decoding, cache q8_0": "tokens/s",
    "cache, f16": "MB",
    "cache, q8_0": "MB",
    "one at a time, all together": "tokens/s",
    "one at a time, a token": "ms",
    "sixteen at a time, all together": "tokens/s",
    "sixteen at a time, a token": "ms",
    "first token after 128 tokens": "ms",
    "memory": "MB",
}


@dataclass(frozen=True)
class Limit:
    """A lower or an upper limit for a recorded measurement, with its reason."""

    lab: str
    measurement: str
    at_least: float | None = None
    at_most: float | None = None
    because: str = field(default="", compare=False)

    def margin(self, value: float) -> float:
        """Factor between a positive value and the limit: below 1 if it is missed.

        0 without a limit."""
        low, high = lab_record.finite(self.at_least), lab_record.finite(self.at_most)
        return value / low if low else (high or 0.0) / value


@dataclass(frozen=True)
class Target:
    """Purpose of a deployment, and the limits that it has to keep."""

    name: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Ratio:
    """Two measurements of one lab: before and after a change."""

    lab: str
    before: str
    after: str

    def times(self, results: Results) -> float | None:
        """after / before; None if one of them is not recorded."""
        before, after = (measured(results, self.lab, name) for name in (self.before, self.after))
        return after.value / before.value if before and after and before.value else None


@dataclass(frozen=True)
class TradeOff:
    """A choice with its gain, its cost, and a reason for or against it."""

    choice: str
    gain: Ratio
    cost: Ratio
    because: str


@dataclass(frozen=True)
class LookBack:
    """A prediction of any lab, and the lesson of its error."""

    lab: str
    prediction: str
    because: str


@dataclass(frozen=True)
class Decisions:
    """All decisions of a report; None or empty if not made yet."""

    target: Target | None = None
    trade_offs: tuple[TradeOff, ...] = ()
    look_back: LookBack | None = None
    problems: tuple[str, ...] = ()  # a line for each decision that was left out


def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """`met`, `missed` or `not measured`; a value equal to the limit is `met`."""
    if value is None:
        return message("not measured")
    missed = (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
    return message("missed") if missed else message("met")


def limits_met(target: Target, results: Results) -> dict[Limit, tuple[Quantity | None, str]]:
    """Each limit of a target with its measurement and the verdict."""
    found = {limit: measured(results, limit.lab, limit.measurement) for limit in target.limits}
    return {
        limit: (value, verdict(value.value if value else None, limit.at_least, limit.at_most))
        for limit, value in found.items()
    }


def word_count(text: str) -> int:
    """Number of words; two Chinese characters count as one."""
    chinese = re.findall("[\u4e00-\u9fff]", text)
    others = re.sub("[\u3000-\u9fff\uff00-\uffef]", " ", text)  # characters and punctuation
    return len(others.split()) + len(chinese) // 2


def trade_offs_text(offered: object, results: Results) -> str:
    """A line for each trade-off with its factors; a factor without both measurements is `not measured`."""
    if not isinstance(offered, tuple | list):
        return translate("trade-offs: {offered}", offered=offered)
    return "\n".join(
        translate("{choice}: gain {gain}, cost {cost}",
                  choice=each.choice, gain=_factor(each.gain, results), cost=_factor(each.cost, results))
        if isinstance(each, TradeOff)
        else translate("{offered!r} is not a TradeOff", offered=each)
        for each in offered
    )  # fmt: skip


def _factor(ratio: object, results: Results) -> str:
    times = ratio.times(results) if isinstance(ratio, Ratio) else None
    return translate("not measured") if times is None else translate("{times:.2f} times", times=times)


def example_targets() -> str:
    """The examples of targets, a line each."""
    return "\n".join(f"{padded(translate(name), 16)} {translate(purpose)}" for name, purpose in TARGETS.items())


def is_too_easy(target: Target, results: Results) -> bool:
    """True if measurements on record meet all limits of a new target `EASY` times over.

    The recorded target is not new: it may be older than the measurements.
    """
    if not isinstance(target.limits, tuple | list) or not all(isinstance(limit, Limit) for limit in target.limits):
        return False
    found = [(limit, measured(results, limit.lab, limit.measurement)) for limit in target.limits]
    is_easy = all(value is not None and value.value > 0 and limit.margin(value.value) >= EASY for limit, value in found)
    kept = read_decisions(results).target
    return is_easy and (kept is None or kept.limits != tuple(target.limits))


def decide(name: str, decision: object) -> None:
    """Record a Target, a LookBack or a tuple of TradeOffs; ignore anything else.

    A target that is too easy is ignored, too.
    """
    if isinstance(decision, Target) and is_too_easy(decision, results_so_far()):
        return
    if isinstance(decision, Target | LookBack):
        lab_record.write(LAB, "decisions", name, asdict(decision))
    elif isinstance(decision, tuple | list) and all(isinstance(each, TradeOff) for each in decision):
        lab_record.write(LAB, "decisions", name, [asdict(each) for each in decision])


def read_decisions(results: Results) -> Decisions:
    """Read the decisions of lab 12; `problems` names malformed ones, which are left out."""
    kept = results[LAB].decisions if LAB in results else {}
    readers = {"target": _target, "trade-offs": _trade_offs, "look back": _look_back}
    found: dict[str, object] = {}
    problems = []
    for name in kept.keys() & readers.keys():
        try:
            found[name] = readers[name](kept[name])  # type: ignore[operator]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            problems.append(
                translate(
                    "results/lab{lab}.json: decisions: {name!r} is not what the lab writes; it is left out: run the "
                    "notebook's `decide` cells again",
                    lab=LAB, name=name,
                )
            )  # fmt: skip
    return Decisions(found.get("target"), found.get("trade-offs", ()), found.get("look back"), tuple(problems))  # type: ignore[arg-type]


def _target(entry: Mapping[str, object]) -> Target:
    limits = []
    for limit in entry["limits"]:  # type: ignore[attr-defined]
        ends = [None if limit[key] is None else float(limit[key]) for key in ("at_least", "at_most")]
        if ends == [None, None]:
            raise ValueError("a limit without a side")
        limits.append(Limit(str(limit["lab"]), str(limit["measurement"]), *ends, str(limit.get("because", ""))))
    return Target(str(entry["name"]), tuple(limits))


def _trade_offs(entries: Sequence[Mapping[str, object]]) -> tuple[TradeOff, ...]:
    return tuple(map(_trade_off, entries))


def _trade_off(entry: Mapping[str, object]) -> TradeOff:
    gain, cost = (
        Ratio(*(str(entry[side][key]) for key in ("lab", "before", "after")))  # type: ignore[index]
        for side in ("gain", "cost")
    )
    return TradeOff(str(entry["choice"]), gain, cost, str(entry["because"]))


def _look_back(entry: Mapping[str, object]) -> LookBack:
    return LookBack(str(entry["lab"]), str(entry["prediction"]), str(entry["because"]))


@dataclass(frozen=True)
class Essay:
    """A question with a text answer for the report."""

    name: str
    question: str

    def ask(self) -> None:
        """Show the question with a text field. Outside of a notebook use `record`."""
        layout = widgets.Layout(width="870px", max_width="98%", height="110px")
        field = widgets.Textarea(value=self.recorded(), placeholder=translate("a few sentences"), layout=layout)
        button = widgets.Button(
            description=translate("Save"), button_style="primary", tooltip=translate("save this text for the report")
        )
        note = widgets.Label(translate("saved") if self.recorded() else "")

        def keep(_: widgets.Button) -> None:
            self.record(field.value)
            note.value = translate("saved, {count} words", count=word_count(field.value))

        button.on_click(keep)
        box = widgets.VBox([widgets.HTML(f"<b>{self.question}</b>"), field, widgets.HBox([button, note])])
        missing = translate("[a field and a button: {run_it}]", run_it=translate(RUN_IT))
        display_form(box, f"{self.question}\n{self.recorded() or missing}")

    def record(self, text: str) -> None:
        """Record the text, as the button does."""
        lab_record.write(
            LAB, "texts", self.name, {"question": self.question, "text": text, "written": lab_record.now()}
        )

    def recorded(self) -> str:
        """The recorded text; empty if there is none."""
        entry = lab_record.section(LAB, "texts").get(self.name)
        text = entry.get("text") if isinstance(entry, dict) else None
        return text if isinstance(text, str) else ""
