"""Panels run in a background thread that can be stopped; failures are one line."""

import html
import threading
from collections.abc import Iterator
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import pytest
from gguf import quants

from minillama.errors import OptionError
from minillama.gguf import TensorType
from minillama.lab import Dropdown, Figure, IntSlider, Panel, Prediction, Slider, TextBox, lab_record
from minillama.lab.experiments import quantised_blocks
from minillama.lab.plots import lab_plots
from minillama.lab.plots.measurement_plots import heat_map, pareto
from minillama.lab.widgets import panel as panel_module
from minillama.lab.widgets.background_job import JobRunner, State
from minillama.lab.widgets.controls import Settings, knob
from minillama.lab.widgets.figure import PLOTLY_MIME, apply_layout, format_number, text_bars, text_table, token_label

WAIT = 20.0  # seconds; only a hang is this long


def figure(text: str) -> Figure:
    return Figure(go.Figure(), text)


def draw(settings: Settings) -> Figure:
    return figure(f"temperature {settings['temp']}, {settings['way']}")


CONTROLS = (
    Slider("temp", "temperature", 0.0, 2.0, 0.05, 0.8),
    IntSlider("top_k", "top-k", 0, 100, 40),
    Dropdown("way", "order", ("first", "second"), "first"),
    TextBox("prompt", "prompt", "你好"),
)


def test_panel_redraws_when_a_control_changes() -> None:
    panel = Panel(CONTROLS, draw).show()
    assert panel.figure is not None and panel.figure.text == "temperature 0.8, first"
    assert panel.settings == {"temp": 0.8, "top_k": 40, "way": "first", "prompt": "你好"}
    panel.set("temp", 1.5)
    panel.set("way", "second")
    assert panel.join(WAIT)
    assert panel.figure.text == "temperature 1.5, second"
    assert panel.state is State.IDLE


def test_panel_writes_and_stops() -> None:
    begun, closed = threading.Event(), threading.Event()

    def endless(settings: Settings) -> Iterator[str]:
        try:
            while True:
                begun.set()
                yield "la<b>"
        finally:
            closed.set()

    panel = Panel(CONTROLS, draw, endless).show()
    panel.start()
    assert begun.wait(WAIT)
    panel.stop()
    assert panel.join(WAIT)
    assert closed.is_set(), "stopping must close the generator, so that what it holds is given back"
    assert panel.state is State.STOPPED
    assert "la&lt;b&gt;" in panel._output.value, "text must not become markup"


def test_changing_a_control_while_writing_starts_again_with_the_new_settings() -> None:
    begun = {0.8: threading.Event(), 1.2: threading.Event()}

    def endless(settings: Settings) -> Iterator[str]:
        while True:
            begun[float(settings["temp"])].set()
            yield f"{settings['temp']} "

    panel = Panel(CONTROLS, draw, endless).show()
    panel.start()
    assert begun[0.8].wait(WAIT)
    panel.set("temp", 1.2)
    assert begun[1.2].wait(WAIT)
    panel.stop()
    assert panel.join(WAIT)
    assert set(panel.text.split()) <= {"1.2"}


def test_panel_that_ends_by_itself_rests() -> None:
    panel = Panel(CONTROLS, draw, lambda settings: iter(["once ", "upon"])).show()
    panel.start()
    assert panel.join(WAIT)
    assert (panel.text, panel.state) == ("once upon", State.IDLE)
    panel.set("top_k", 7)
    assert panel.join(WAIT)
    assert panel.text == "once upon", "a control changed later redraws and does not write again"


def test_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(settings: Settings) -> Iterator[str]:
        yield "fine "
        raise ValueError("the pen broke\nand the ink ran out")

    panel = Panel(CONTROLS, draw, broken).show()
    panel.start()
    assert panel.join(WAIT)
    assert panel.state is State.FAILED
    assert panel.message.startswith("ValueError: the pen broke (line")
    assert "\n" not in panel.message
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_runner_runs_the_newest_job_last() -> None:
    order: list[str] = []
    gate = threading.Event()
    runner = JobRunner(lambda state, message: None)

    def first(stop: threading.Event, report: object) -> None:
        gate.wait(WAIT)
        order.append("first stopped" if stop.is_set() else "first")

    runner.start(first)
    for name in ("second", "third", "last"):
        runner.start(lambda stop, report, name=name: order.append(name))
    gate.set()
    assert runner.join(WAIT)
    assert order in (["first stopped", "last"], ["last"]), "jobs overtaken before they began are not run"


def test_prediction_is_kept_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guess = Prediction("97", "second call", "How much faster is the second call?", "times")
    assert guess.recorded() is None
    assert "no prediction yet" in guess.compare(40.0).text
    guess.ask()
    guess.record(4.0)
    assert Prediction("97", "second call", "", "times").recorded() == 4.0
    shown = guess.compare(40.0, model=38.0)
    assert "off by a factor of 10" in shown.text
    assert [bar.x[0] for bar in shown.plotly.data] == [4.0, 40.0, 38.0]


def test_the_first_prediction_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later ones are changes of mind; after the measurement was shown, none counts."""
    monkeypatch.chdir(tmp_path)
    guess, late = (Prediction("97", name, "How many?", "times") for name in ("guess", "late"))
    guess.record(4.0)
    guess.record(5.0)
    guess.compare(40.0)
    guess.record(40.0)
    assert guess.recorded() == 4.0 and [each["said"] for each in guess.changes()] == [5.0, 40.0]
    late.skip()
    assert "no prediction" in late.compare(3.0).text and "3" in late.compare(3.0).text
    late.record(3.0)
    assert late.recorded() is None and [each["said"] for each in late.changes()] == [3.0]
    with pytest.raises(OptionError, match="a prediction is a number, not nan"):
        late.record(float("nan"))


def test_a_comparison_without_a_prediction_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forms: list[widgets.Widget] = []
    monkeypatch.setattr("minillama.lab.grading.prediction.display_form", lambda box, text: forms.append(box))
    for name, answer in (("said", "12,5"), ("skipped", None)):
        guess = Prediction("97", name, "How many?", "times")
        assert "123" not in str(guess.compare(123.0).mime_bundle()), "the measurement is not given away"
        _, line, answered = forms.pop().children
        field, note, record, skip = line.children
        assert field.value == ""
        record.click()
        assert note.value == "write a number first" and not answered.value
        field.value = "many"
        record.click()
        assert note.value == "'many' is not a number" and not answered.value
        if answer is None:
            skip.click()
        else:
            field.value = answer
            record.click()
        assert "123" in answered.value and record.disabled and skip.disabled
        assert "123" in guess.compare(123.0).text and not forms, "it asks once"
        assert guess.recorded() == (12.5 if answer else None)
    assert lab_record.number(lab_record.section("97", "measurements")["said"], "value") == 123.0


def test_figures_have_a_text_alternative_and_a_small_bundle() -> None:
    names = ["␣the", "␣a", "⏎"]
    figures = (
        lab_plots.bars(["first", "second"], [1200.0, 3.0], "Calls", "ms", logarithmic=True),
        lab_plots.treemap({"blk.0.a.weight": 10, "norm": 2}, {"blk.0.a.weight": "Q8_0", "norm": "F32"}, "Model"),
        lab_plots.attention_map(names, np.tril(np.full((3, 3), 0.5)), "Head 0"),
        lab_plots.lines({"ours": [1e-7, 1e-6], "yours": [1e-2, 1.0]}, ["0", "1"], "Errors", "x", "y", logarithmic=True),
        lab_plots.scatter({"cold": (1.0, 0.2), "hot": (3.0, 0.9)}, "Trade", "x", "y", joined=(("cold", "hot"),)),
        lab_plots.probabilities([" the", " a"], [0.6, 0.4], [1.0, 0.0], ["", "top-k"], "Next"),
    )  # fmt: skip
    for shown in figures:
        bundle = shown.mime_bundle()
        assert bundle["text/plain"] == shown.text == str(shown)
        assert set(bundle) == {PLOTLY_MIME, "text/html", "text/plain"}
        assert "<img " in bundle["text/html"] and html.escape(shown.text) in bundle["text/html"]
        assert len(str(bundle)) < 30_000
        assert shown.text.splitlines()[0] == shown.plotly.layout.title.text
    assert "1,200" in figures[0].text
    assert "removed by top-k" in figures[-1].text


def test_words_for_numbers_and_tokens() -> None:
    assert [format_number(value) for value in (0, 0.5, 12.345, 1234.5, 1.5e7, 2e-5)] == [
        "0",
        "0.5",
        "12.3",
        "1,234",
        "1.50e+07",
        "2.00e-05",
    ]
    assert [token_label(piece) for piece in (" the", "\n", "", "你好")] == ["␣the", "⏎", "∅", "你好"]
    assert text_bars(["a", "bb"], [1.0, 2.0], width=4) == "a   1  ██\nbb  2  ████"
    assert text_table(("x", "yy"), [("1", "2")]).splitlines() == ["x  yy", "-  --", "1  2"]


def test_hexdump_and_explorer() -> None:
    assert quantised_blocks.hexdump(b"GGUF\x03" + bytes(12), 16).splitlines()[0].endswith("GGUF············")
    assert quantised_blocks.hexdump(bytes(17)).splitlines()[1].startswith("00000010  00 ")
    values = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    for kind in quantised_blocks.SHOWN_TYPES:
        shown = quantised_blocks.block_figure(values, kind, 96)
        assert shown.text.startswith(f"{kind.name}: ")
        assert sum(field.size for field in quantised_blocks.FIELDS[kind]) == quantised_blocks.BLOCKS[kind][1]
    last = quantised_blocks.block_figure(values, TensorType.Q4_K, 1023)
    assert list(last.plotly.data[0].x)[-1] == 1023


def test_q4_k_encoder_agrees_with_the_librarys_decoder() -> None:
    """The error is that of 4 bits: half a step, plus the scales' rounding."""
    values = np.random.default_rng(1).standard_normal(256 * 40).astype(np.float32)
    values[256:512] = 0.0
    values[512:768] = np.abs(values[512:768])
    encoded = quantised_blocks.encode_q4_k(values)
    assert encoded.size == 40 * 144
    decoded = quants.dequantize(encoded, TensorType.Q4_K).reshape(-1, 32)
    parts = values.reshape(-1, 32)
    step = (parts.max(1) - np.minimum(parts.min(1), 0)) / 15
    assert np.all(np.abs(decoded - parts).max(1) <= 0.8 * step + 1e-6)
    assert quantised_blocks.relative_error(values, TensorType.Q4_K) < quantised_blocks.relative_error(
        values, TensorType.Q4_0
    )


def test_the_text_is_below_the_figure_and_says_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    for name in ("display_form", "display_widget"):
        monkeypatch.setattr(panel_module, name, lambda widget, text: shown.append(type(widget).__name__))
    monkeypatch.setattr(panel_module, "LiveFigure", lambda first: shown.append("figure"))
    panel = Panel(CONTROLS, draw, lambda settings: ["once"]).show()
    assert shown == ["VBox", "figure", "HTML"]
    panel.start()
    assert panel.join(WAIT)
    assert "temperature 0.8 · top-k 40 · order first</div>" in panel._output.value
    assert panel._output.value.index("top-k 40") < panel._output.value.index("once")


def test_help_is_in_the_page_below_its_control() -> None:
    control = Slider("temp", "temperature", 0.0, 2.0, 0.05, 0.8, "low is <careful>")
    box = knob(control, control.widget())
    assert box._dom_classes == ("minillama-knob",) and box.children[1]._dom_classes == ("minillama-help",)
    assert box.children[1].value == "low is &lt;careful&gt;"
    assert len(knob(CONTROLS[0], CONTROLS[0].widget()).children) == 1


def test_state_is_legible_on_any_background() -> None:
    """The words have the page's own colour; only the dot has another one."""
    panel = Panel(CONTROLS, draw).show()
    assert panel._state.value.endswith("●</span> " + State.IDLE.value)


def test_a_figure_without_data_has_no_axes() -> None:
    empty = Figure(apply_layout(go.Figure(), "title", "x", "y"), "text").plotly.layout
    assert empty.xaxis.visible is False and "nothing measured" in empty.annotations[0].text
    full = Figure(apply_layout(go.Figure(go.Scatter(x=[1], y=[2])), "title", "x", "y"), "text").plotly.layout
    assert full.xaxis.visible is None and not full.annotations


def test_empty_traces_have_no_axes() -> None:
    """A map and a Pareto front before the first measurement, and the same with one value."""
    for empty, full in (
        (
            heat_map(("1", "2"), ("a",), {}, "t", "x", "y"),
            heat_map(("1", "2"), ("a",), {("1", "a"): 3.0}, "t", "x", "y"),
        ),
        (pareto({}, "t", "x", "y"), pareto({"Q4_0": (1.0, 2.0)}, "t", "x", "y")),
    ):
        assert empty.plotly.layout.xaxis.visible is False and empty.plotly.layout.showlegend is False
        assert full.plotly.layout.xaxis.visible is None and not full.plotly.layout.annotations
        assert "<img " in empty.static_html() and "<img " in full.static_html()
