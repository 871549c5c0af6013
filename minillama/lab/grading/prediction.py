"""Predictions: record a guess before a measurement and compare the two."""

from dataclasses import dataclass

import ipywidgets as widgets

from minillama.lab import lab_record
from minillama.lab.plots.lab_plots import prediction_bars
from minillama.lab.widgets.figure import Figure
from minillama.lab.widgets.widget_output import RUN_IT, display_widget


@dataclass(frozen=True)
class Prediction:
    """A numeric prediction that is recorded before the measurement."""

    lab: str
    name: str
    question: str
    unit: str

    def ask(self) -> None:
        """Show the question with a field and a button. Outside of a notebook use `record`."""
        field = widgets.FloatText(
            value=self.recorded() or 0.0, description="I predict", layout=widgets.Layout(width="220px")
        )
        button = widgets.Button(description="Record", button_style="primary", tooltip="record this prediction")
        said = self.recorded()
        note = widgets.Label(self.unit if said is None else f"{self.unit} (recorded: {said:g})")

        def keep(_: widgets.Button) -> None:
            self.record(field.value)
            note.value = f"{self.unit} (recorded: {field.value:g})"

        button.on_click(keep)
        box = widgets.VBox([widgets.HTML(f"<b>Predict:</b> {self.question}"), widgets.HBox([field, note, button])])
        kept = "" if said is None else f"; recorded: {said:g}"
        display_widget(box, f"Predict: {self.question} (in {self.unit}{kept}) [a field and a button: {RUN_IT}]")

    def record(self, value: float) -> None:
        """Record a prediction, as the button does."""
        lab_record.write(
            self.lab, "predictions", self.name, {"said": float(value), "unit": self.unit, "written": lab_record.now()}
        )

    def recorded(self) -> float | None:
        """The recorded prediction; None if there is none."""
        return lab_record.number(lab_record.section(self.lab, "predictions").get(self.name), "said")

    def compare(self, measured: float, model: float | None = None) -> Figure:
        """Record the measurement; draw prediction, measurement and a simple model."""
        lab_record.measurement(self.lab, self.name, measured, self.unit)
        return prediction_bars(self.name, self.unit, self.recorded(), measured, model)
