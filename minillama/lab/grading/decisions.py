"""What a report defends: a target in numbers, trade-offs in measured ratios, a prediction looked back at, and words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import ipywidgets as widgets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from minillama.errors import FormatError
from minillama.lab.grading import lab_record
from minillama.lab.grading.lab_results import Quantity, Results, measured

LAB = "12"
TARGETS = {
    "chat on a laptop": "one person waits: a first token soon, then faster than one reads",
    "batch": "nobody waits: as many tokens an hour as the machine gives",
    "small memory": "it has to fit: weights, cache and all, beside everything else that runs",
}


@dataclass(frozen=True)
class Limit:
    """What a measurement on record has to come to: at least, or at most, that much."""

    lab: str
    measurement: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Target:
    """What the deployment is for, and the limits that say when it is good enough."""

    name: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Ratio:
    """Two measurements of one lab: without the change, and with it."""

    lab: str
    before: str
    after: str

    def times(self, results: Results) -> float | None:
        """After over before; None where one of them is not on record."""
        before, after = (measured(results, self.lab, name) for name in (self.before, self.after))
        return after.value / before.value if before and after and before.value else None


@dataclass(frozen=True)
class TradeOff:
    """A choice, what it gains, what it costs, and why it is right, or wrong, for the target."""

    choice: str
    gain: Ratio
    cost: Ratio
    because: str


@dataclass(frozen=True)
class LookBack:
    """A prediction of any lab, and what the difference taught."""

    lab: str
    prediction: str
    because: str


@dataclass(frozen=True)
class Decisions:
    """All that a report defends; what was not decided yet is None or empty."""

    target: Target | None = None
    trade_offs: tuple[TradeOff, ...] = ()
    look_back: LookBack | None = None


def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """`met`, `missed` or `not measured`; a limit that is just reached is met."""
    if value is None:
        return "not measured"
    missed = (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
    return "missed" if missed else "met"


def limits_met(target: Target, results: Results) -> dict[Limit, tuple[Quantity | None, str]]:
    """Each limit of a target with its measurement and the verdict."""
    found = {limit: measured(results, limit.lab, limit.measurement) for limit in target.limits}
    return {
        limit: (value, verdict(value.value if value else None, limit.at_least, limit.at_most))
        for limit, value in found.items()
    }


def decide(name: str, decision: object) -> None:
    """Keep a Target, a LookBack or a tuple of TradeOffs for the report; anything else is not kept."""
    if isinstance(decision, Target | LookBack):
        lab_record.write(LAB, "decisions", name, asdict(decision))
    elif isinstance(decision, tuple | list) and all(isinstance(each, TradeOff) for each in decision):
        lab_record.write(LAB, "decisions", name, [asdict(each) for each in decision])


def read_decisions(results: Results) -> Decisions:
    """What the records of lab 12 hold; raises FormatError where they hold something else."""
    kept = results[LAB].decisions if LAB in results else {}
    try:
        return Decisions(
            _target(kept["target"]) if "target" in kept else None,
            tuple(_trade_off(entry) for entry in kept.get("trade-offs", ())),  # type: ignore[attr-defined]
            _look_back(kept["look back"]) if "look back" in kept else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FormatError(
            f"results/lab{LAB}.json: decisions are not what the lab writes; run the notebook's cells of `decide` again"
        ) from None


def _target(entry: Mapping[str, object]) -> Target:
    limits = []
    for limit in entry["limits"]:  # type: ignore[attr-defined]
        ends = [None if limit[key] is None else float(limit[key]) for key in ("at_least", "at_most")]
        if ends == [None, None]:
            raise ValueError("a limit without a side")
        limits.append(Limit(str(limit["lab"]), str(limit["measurement"]), *ends))
    return Target(str(entry["name"]), tuple(limits))


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
    """A question that is answered in words, which go into the report."""

    name: str
    question: str

    def ask(self) -> None:
        """Show the question with a field and a button; outside of a notebook use `record`."""
        layout = widgets.Layout(width="870px", max_width="98%", height="110px")
        field = widgets.Textarea(value=self.recorded(), placeholder="a few sentences", layout=layout)
        button = widgets.Button(description="Keep", button_style="primary", tooltip="keep this text for the report")
        note = widgets.Label("kept" if self.recorded() else "")

        def keep(_: widgets.Button) -> None:
            self.record(field.value)
            note.value = f"kept, {len(field.value.split())} words"

        button.on_click(keep)
        if InteractiveShell.initialized():
            display(widgets.VBox([widgets.HTML(f"<b>{self.question}</b>"), field, widgets.HBox([button, note])]))

    def record(self, text: str) -> None:
        """Keep a text: the plain twin of the field and the button."""
        lab_record.write(
            LAB, "texts", self.name, {"question": self.question, "text": text, "written": lab_record.now()}
        )

    def recorded(self) -> str:
        """The text on record, empty when there is none."""
        entry = lab_record.section(LAB, "texts").get(self.name)
        text = entry.get("text") if isinstance(entry, dict) else None
        return text if isinstance(text, str) else ""
