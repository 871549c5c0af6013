"""Panels: controls that redraw a figure and stream text from a background thread.

A panel is made of two plain functions, `draw(settings) -> Figure` and `write(settings) -> texts and figures`. They do
the same without widgets: in a script, in Colab or in a test.
"""

import html
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import ipywidgets as widgets

from minillama.lab.language import translate
from minillama.lab.widgets.background_job import JobRunner, ReportState, State
from minillama.lab.widgets.controls import MOST_WIDTH, Control, ControlValue, Settings, arranged, in_words
from minillama.lab.widgets.figure import Figure
from minillama.lab.widgets.live_figure import LiveFigure
from minillama.lab.widgets.running_line import running
from minillama.lab.widgets.widget_output import RUN_IT, display_form, display_widget

Draw = Callable[[Settings], Figure]
Pieces = Iterable[str | Figure]
Write = Callable[[Settings], Pieces]
COMPILE_SECONDS = 5  # that the programs of a first figure may take

COLOURS = {
    State.IDLE: "#8C8C8C",
    State.COMPILING: "#B37700",
    State.RUNNING: "#0072B2",
    State.STOPPED: "#8C8C8C",
    State.FAILED: "#D55E00",
}


class Panel:
    """Controls, a figure that follows them, and a streamed text.

    With `write` there are a Start and a Stop button. A text that `write` yields is appended; a figure replaces the one
    on the screen. `compiles(settings)` is True if drawing compiles a program first; the panel then shows "compiling".
    """

    def __init__(
        self,
        controls: Sequence[Control],
        draw: Draw,
        write: Write | None = None,
        compiles: Callable[[Settings], bool] | None = None,
    ) -> None:
        self.draw = draw
        self.write = write
        self.compiles = compiles
        self.text = ""
        self.message = ""
        self._writing = False
        self._controls = {control: control.widget() for control in controls}
        self._state = widgets.HTML()
        self._output = widgets.HTML()
        self._start = widgets.Button(
            description=translate("Start"),
            icon="play",
            button_style="primary",
            tooltip=translate("run with these settings"),
        )
        self._stop = widgets.Button(
            description=translate("Stop"), icon="stop", tooltip=translate("stop the running job"), disabled=True
        )
        self._runner = JobRunner(self._report)
        self._live_figure: LiveFigure | None = None
        self._report(State.IDLE, "")
        if write is not None:
            self._output.value = text_box_html(translate("Press Start, and the text appears here."))
        for widget in self._controls.values():
            widget.observe(self._on_change, names="value")
        self._start.on_click(lambda _: self.start())
        self._stop.on_click(lambda _: self.stop())

    @property
    def settings(self) -> dict[str, ControlValue]:
        """Present values of the controls, by name."""
        return {control.name: widget.value for control, widget in self._controls.items()}

    @property
    def state(self) -> State:
        """Present state of the panel."""
        return self._runner.state

    @property
    def figure(self) -> Figure | None:
        """The figure on the screen."""
        return self._live_figure.figure if self._live_figure else None

    def show(self) -> "Panel":
        """Show the controls, the first figure and the text.

        The first figure is drawn in the cell itself, so that a failure appears there."""
        settings = self.settings
        if self.compiles is not None and self.compiles(settings):
            with running(translate(State.COMPILING.value), seconds=COMPILE_SECONDS):
                first = self.draw(settings)
        else:
            first = self.draw(settings)
        buttons = [self._start, self._stop, self._state] if self.write else [self._state]
        whole = [*arranged(self._controls), widgets.HBox(buttons)]
        box = widgets.VBox(whole, layout=widgets.Layout(overflow="visible"))  # the help of a control lies over the page
        display_form(box, translate("[sliders and buttons: {run_it}]", run_it=translate(RUN_IT)))
        self._live_figure = LiveFigure(first)
        if self.write is not None:
            display_widget(self._output, translate("[the text of Start: {run_it}]", run_it=translate(RUN_IT)))
        return self

    def set(self, name: str, value: ControlValue) -> None:
        """Set one control, with the same effect as in the browser."""
        next(widget for control, widget in self._controls.items() if control.name == name).value = value

    def start(self) -> None:
        """Stop the running job; redraw and write with the present settings."""
        self._writing = self.write is not None
        self._redraw()

    def stop(self) -> None:
        """Stop the running job, as the button does."""
        self._writing = False
        self._runner.stop()

    def join(self, seconds: float = 60.0) -> bool:
        """Wait for the job's end; False after `seconds` without it."""
        return self._runner.join(seconds)

    def _on_change(self, _: object) -> None:
        self._redraw()

    def _redraw(self) -> None:
        settings, writing = self.settings, self._writing
        self._stop.disabled = False

        def job(stop: threading.Event, report: ReportState) -> None:
            if self.compiles is not None and self.compiles(settings):
                report(State.COMPILING, "")
            if self._live_figure:
                self._live_figure.update(self.draw(settings))
            if writing and not stop.is_set():
                self._stream(settings, stop, report)

        self._runner.start(job)

    def _stream(self, settings: Settings, stop: threading.Event, report: ReportState) -> None:
        self.text, head = "", in_words(self._controls, settings)
        report(State.COMPILING, "")
        pieces = as_generator(self.write(settings) if self.write else ())
        for piece in pieces:
            if stop.is_set():
                pieces.close()
                return
            if self.state is not State.RUNNING:
                report(State.RUNNING, "")
            if isinstance(piece, str):
                self.text += piece
                self._output.value = text_box_html(self.text, head)
            elif self._live_figure:
                self._live_figure.update(piece)
        self._writing = False

    def _report(self, state: State, message: str) -> None:
        self.message = message
        words = f"{translate(state.value)}: {message}" if message else translate(state.value)
        self._state.value = f'<span style="color:{COLOURS[state]}">●</span> {html.escape(words)}'
        self._stop.disabled = state not in (State.RUNNING, State.COMPILING)


def as_generator(pieces: Pieces) -> Iterator[str | Figure]:
    """The pieces as a generator whose `close` also closes their source."""
    yield from pieces


def text_box_html(text: str, settings: str = "") -> str:
    """HTML of a streamed text, escaped, in a box under the settings that wrote it.

    Words are not broken. JupyterLab's own style would break them anywhere.
    """
    head = f'<div style="font-size:12px;opacity:0.75">{html.escape(settings)}</div>' if settings else ""
    return (
        f'<div style="max-width:{MOST_WIDTH};border-left:4px solid #0072B2;padding:4px 14px;margin:6px 0">{head}'
        '<div style="white-space:pre-wrap;word-break:normal;overflow-wrap:break-word;font-family:Georgia,serif;'
        f'font-size:16px;line-height:1.5;height:170px;overflow:auto">{html.escape(text)}</div></div>'
    )
