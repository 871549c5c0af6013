"""Predictions: record a guess before a measurement and compare the two."""

import math
from dataclasses import dataclass

from minillama.errors import OptionError
from minillama.lab import lab_record
from minillama.lab.grading.prediction_form import PredictionForm
from minillama.lab.language import translate
from minillama.lab.measuring import other_load_now
from minillama.lab.plots.lab_plots import prediction_bars
from minillama.lab.widgets.figure import Figure
from minillama.lab.widgets.widget_output import RUN_IT, display_form


@dataclass(frozen=True)
class Prediction:
    """A numeric prediction that is recorded before the measurement.

    The first one counts. What is recorded later, or after the measurement was shown, is kept as a change of mind.
    """

    lab: str
    name: str
    question: str
    unit: str

    def ask(self) -> None:
        """Show the question with a field and a button. Outside of a notebook use `record`."""
        said = self.recorded()
        form = PredictionForm(self.question, self._state(), lambda value: self._kept(value))
        kept = "" if said is None else translate("; recorded: {said:g}", said=said)
        text = translate(
            "Predict: {question} (in {unit}{kept}) [a field and a button: {run_it}]",
            question=self.question, unit=translate(self.unit), kept=kept, run_it=translate(RUN_IT),
        )  # fmt: skip
        display_form(form.box, text)

    def record(self, value: float) -> None:
        """Record a prediction, as the button does.

        Raises OptionError if it is not a finite number.
        """
        said = float(value)
        if not math.isfinite(said):
            raise OptionError(translate("a prediction is a number, not {value}", value=value))
        entry = {"said": said, "unit": self.unit, "written": lab_record.now()}
        if self.recorded() is None and not self._is_seen():
            lab_record.write(self.lab, "predictions", self.name, entry)
            self._see()
        elif said != self.recorded():
            lab_record.write(self.lab, "changes", self.name, [*self.changes(), entry])

    def skip(self) -> None:
        """Show the measurement without a prediction; the report counts it as skipped."""
        if self.recorded() is None and not self._is_seen():
            lab_record.write(self.lab, "skipped", self.name, {"written": lab_record.now()})
            self._see()

    def recorded(self) -> float | None:
        """The prediction that counts; None if there is none."""
        return lab_record.number(lab_record.section(self.lab, "predictions").get(self.name), "said")

    def changes(self) -> list[object]:
        """Later records, the oldest first."""
        found = lab_record.section(self.lab, "changes").get(self.name)
        return found if isinstance(found, list) else []

    def compare(self, measured: float, model: float | None = None) -> Figure:
        """Record the measurement; draw prediction, measurement and a simple model.

        Without a prediction it asks for one, and draws only that; `skip` shows the measurement nevertheless.
        """
        is_asked = self.recorded() is None and not self._is_skipped()
        entry = lab_record.measured(measured, self.unit)
        lab_record.write(self.lab, "measurements", self.name, entry | ({"unseen": True} if is_asked else {}))
        load = other_load_now()
        title, unit = translate(self.name), translate(self.unit)  # on the screen only: the record keeps its names
        if not is_asked:
            return prediction_bars(title, unit, self.recorded(), measured, model, load)

        def shown(value: float | None) -> str:
            self.skip() if value is None else self.record(value)
            return prediction_bars(title, unit, self.recorded(), measured, model, load).static_html()

        question = translate("{question} (Before you see it.)", question=self.question)
        form = PredictionForm(question, unit, shown, has_skip=True)
        missing = translate("no prediction yet [a field and two buttons: {run_it}]", run_it=translate(RUN_IT))
        display_form(form.box, missing)
        return prediction_bars(title, unit, None, None, None)

    def _kept(self, value: float | None) -> str:
        if value is not None:
            self.record(value)
        return self._state()

    def _state(self) -> str:
        """The unit, what counts, and the last change of mind."""
        said, changes, unit = self.recorded(), self.changes(), translate(self.unit)
        if said is None:
            return translate("{unit} (shown already; this would not count)", unit=unit) if self._is_seen() else unit
        last = lab_record.number(changes[-1], "said") if changes else None
        if last is None:
            return translate("{unit} (recorded: {said:g})", unit=unit, said=said)
        return translate(
            "{unit} (recorded: {said:g}; changed to {last:g}, the first one counts)", unit=unit, said=said, last=last
        )

    def _measured(self) -> dict[str, object] | None:
        entry = lab_record.section(self.lab, "measurements").get(self.name)
        return entry if isinstance(entry, dict) else None

    def _is_seen(self) -> bool:
        """Whether the measurement has been shown."""
        entry = self._measured()
        return entry is not None and not entry.get("unseen")

    def _is_skipped(self) -> bool:
        return self.name in lab_record.section(self.lab, "skipped") or self._is_seen()

    def _see(self) -> None:
        """The measurement, if there is one, counts as shown from now on."""
        entry = self._measured()
        if entry is not None:
            seen = {key: value for key, value in entry.items() if key != "unseen"}
            lab_record.write(self.lab, "measurements", self.name, seen)
