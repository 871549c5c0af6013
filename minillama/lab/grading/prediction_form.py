"""The form of a prediction: an empty field, buttons, and a place for the answer."""

import html
from collections.abc import Callable

import ipywidgets as widgets

from minillama.errors import OptionError
from minillama.lab.language import translate


class PredictionForm:
    """A question with a field and a button to record, and maybe one to skip.

    keep: records the number, or None for a skip; returns the words of the answer, or its HTML.
    """

    def __init__(
        self, question: str, state: str, keep: Callable[[float | None], str], *, has_skip: bool = False
    ) -> None:
        self._keep, self._is_figure = keep, has_skip
        layout = widgets.Layout(width="220px")
        self.field = widgets.Text(placeholder=translate("a number"), description=translate("I predict"), layout=layout)
        self.record = widgets.Button(
            description=translate("Record"), button_style="primary", tooltip=translate("record this prediction")
        )
        self.skip = widgets.Button(
            description=translate("Skip"), tooltip=translate("show the measurement without a prediction")
        )
        self.note, self.answer = widgets.Label(state), widgets.HTML()
        self.record.on_click(lambda _: self.answered(self.field.value))
        self.skip.on_click(lambda _: self._show(None))
        buttons = [self.record, self.skip] if has_skip else [self.record]
        line = widgets.HBox([self.field, self.note, *buttons])
        asked = widgets.HTML(f"<b>{translate('Predict:')}</b> {html.escape(question)}")
        self.box = widgets.VBox([asked, line, self.answer])

    def answered(self, text: str) -> None:
        """Record what the field holds, or say what is wrong with it."""
        try:
            value = float(text.strip().replace(",", "."))
        except ValueError:
            wrong = translate("{text!r} is not a number", text=text.strip())
            self.note.value = wrong if text.strip() else translate("write a number first")
            return
        try:
            self._show(value)
        except OptionError as error:
            self.note.value = str(error)

    def _show(self, value: float | None) -> None:
        told = self._keep(value)
        if self._is_figure:
            self.answer.value = told
            self.note.value = translate("recorded") if value is not None else translate("skipped")
            self.record.disabled = self.skip.disabled = True
        else:
            self.note.value = told
