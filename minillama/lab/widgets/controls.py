"""Controls of a panel: sliders, choices and lines of text, each with its help."""

import html
from collections.abc import Mapping
from dataclasses import dataclass

import ipywidgets as widgets

ControlValue = float | int | str
Settings = Mapping[str, ControlValue]

STYLE = {"description_width": "38%"}
FULL = widgets.Layout(width="98%")
MOST_WIDTH = "900px"
# The help of a control is a line below it while it has the focus. It lies over the page: if it moved the buttons, a
# click on one would miss it. Two columns fit from 640 pixels on.
SHEET = """<style>
.minillama-knob { position: relative; }
.minillama-knob .minillama-help { display: none !important; }
.minillama-knob:focus-within .minillama-help {
  display: block !important; position: absolute; top: 100%; left: 12px; z-index: 20; pointer-events: none;
  height: auto; padding: 0 8px; font-size: 12px; background: var(--jp-layout-color1, white);
  border: 1px solid var(--jp-border-color1, #BDBDBD);
}
</style>"""
COLUMNS = "repeat(auto-fit, minmax(min(300px, 100%), 1fr))"


@dataclass(frozen=True)
class Slider:
    """A slider for a float. It acts on release, not while it moves."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    help: str = ""

    def widget(self) -> widgets.Widget:
        return widgets.FloatSlider(
            min=self.low, max=self.high, step=self.step, continuous_update=False, readout_format=".2f", **_common(self)
        )


@dataclass(frozen=True)
class IntSlider:
    """A slider for an integer. It acts on release."""

    name: str
    label: str
    low: int
    high: int
    value: int
    help: str = ""

    def widget(self) -> widgets.Widget:
        return widgets.IntSlider(min=self.low, max=self.high, continuous_update=False, **_common(self))


@dataclass(frozen=True)
class Dropdown:
    """A choice among a few texts."""

    name: str
    label: str
    options: tuple[str, ...]
    value: str
    help: str = ""

    def widget(self) -> widgets.Widget:
        return widgets.Dropdown(options=self.options, **_common(self))


@dataclass(frozen=True)
class TextBox:
    """A line of text. It acts on Enter."""

    name: str
    label: str
    value: str
    help: str = ""

    def widget(self) -> widgets.Widget:
        half = {"style": {"description_width": "19%"}}  # as wide as in the columns below
        return widgets.Text(continuous_update=False, **_common(self) | half)


Control = Slider | IntSlider | Dropdown | TextBox


def _common(control: Control) -> dict[str, object]:
    """Arguments of the widgets of all controls."""
    return {
        "value": control.value, "description": control.label, "tooltip": control.help, "layout": FULL, "style": STYLE,
    }  # fmt: skip


def knob(control: Control, widget: widgets.Widget, **layout: str) -> widgets.VBox:
    """A control's widget with its help, which is visible while the control has the focus."""
    line = widgets.HTML(html.escape(control.help)).add_class("minillama-help")
    shown = [widget, line] if control.help else [widget]
    return widgets.VBox(shown, layout=widgets.Layout(overflow="visible", **layout)).add_class("minillama-knob")


def arranged(controls: Mapping[Control, widgets.Widget]) -> list[widgets.Widget]:
    """Lines of text over the whole width, and the other controls in columns below."""
    wide = {"max_width": MOST_WIDTH, "width": "98%"}
    lines = [knob(control, widget, **wide) for control, widget in controls.items() if isinstance(control, TextBox)]
    short = [knob(control, widget) for control, widget in controls.items() if not isinstance(control, TextBox)]
    layout = widgets.Layout(grid_template_columns=COLUMNS, grid_gap="2px 12px", overflow="visible", **wide)
    return [widgets.HTML(SHEET, layout=widgets.Layout(display="none")), *lines, widgets.GridBox(short, layout=layout)]


def in_words(controls: Mapping[Control, widgets.Widget], settings: Settings) -> str:
    """Settings as one line: `--temp 0.8 · --top-k 40`."""
    values = {control.label: settings[control.name] for control in controls if not isinstance(control, TextBox)}
    return " · ".join(
        f"{name} {value if isinstance(value, str) else format(value, 'g')}" for name, value in values.items()
    )
