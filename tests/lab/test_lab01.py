"""Lab 01: positions and records of dots, and checks that name mistakes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minillama.gguf import TensorType
from minillama.lab import lab_record
from minillama.lab.checks import lab01
from minillama.lab.grading import lab_results
from minillama.lab.grading.check import Item
from minillama.lab.plots import roofline_plots
from minillama.lab.plots.roofline_plots import Dot
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.measure.limits.roofline import Roofline, model_work
from minillama.measure.trial import Trial

ROOF = Roofline(bandwidth=10e9, flops=200e9, arithmetic="Q8_0", threads=2, device="cpu")  # ridge: 20


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_stream_counts_arrays_as_its_formulas_do() -> None:
    for loop in roofline_plots.measure_stream(1000, repetitions=1):
        right_hand = [part.split("=")[1] for part in loop.formula.split(";")]
        assert loop.arrays_read == sum(side.count("[i]") for side in right_hand)
        assert loop.arrays_written == loop.formula.count("c[i] =") and loop.itemsize == 8
        assert 0 < loop.seconds < 1


def test_dots_of_products_and_models(tmp_path: Path) -> None:
    dot = roofline_plots.product_dot(4, side=256, repetitions=1)
    assert dot.intensity == pytest.approx(2 * 4 * 256 * 256 / (256 * 256 * 34 / 32 + 2 * 4 * 256 * 4))
    assert dot.flops > 0
    assert [rows for rows, _ in roofline_plots.sweep_rows((1, 2), kind=None, side=64)] == [1, 2]
    assert (roofline_plots.bits_per_weight(TensorType.Q4_0), roofline_plots.bits_per_weight(TensorType.F16)) == (
        4.5,
        16.0,
    )
    work = model_work(None, Trial(0, 4))
    assert roofline_plots.model_dot(None, Trial(0, 4), 100.0) == Dot(work.intensity, 100 * work.operations)


def test_model_is_of_its_size_and_gone_afterwards() -> None:
    with roofline_plots.random_model(1) as path:
        assert path is not None and 0.5e6 < path.stat().st_size < 4e6
        assert roofline_plots.trial_speed(path, Trial(0, 2), repetitions=1) > 0
    assert not path.exists()


def test_model_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "minillama.lab.plots.roofline_plots.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})()
    )
    with roofline_plots.random_model(1) as path:
        assert path is None


def test_roofline_and_dots_come_back_from_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    assert roofline_plots.recorded_roofline() is None and roofline_plots.recorded_dots() == {}
    monkeypatch.setattr(roofline_plots, "measure_roofline", lambda kind, quick: ROOF)
    assert roofline_plots.measure_own_roofline() == roofline_plots.recorded_roofline() == ROOF
    roofline_plots.record_dot("01", "decode", Dot(2.0, 15e9))
    roofline_plots.record_dot("17", "prompt", Dot(200.0, 1e11))
    lab_record.write("05", "dots", "broken", {"intensity": "many", "flops": math.nan})
    lab_record.write("01", "roofline", "own", {"bandwidth": 1.0})
    assert roofline_plots.recorded_dots() == {"decode": Dot(2.0, 15e9), "prompt": Dot(200.0, 1e11)}
    assert roofline_plots.recorded_roofline() is None


def test_figure_holds_roofs_dots_and_shares() -> None:
    shown = roofline_plots.roofline(
        ROOF, {"decode": Dot(2.0, 15e9)}, "Mine", curves={"rows": [Dot(2.0, 1e10), Dot(100.0, 1e11)]},
        predicted={"model": Dot(4.0, 4e10)},
    )  # fmt: skip
    line = shown.plotly.data[0]
    assert line.x[1] == ROOF.ridge == 20 and line.y[1] == line.y[2] == 200
    assert line.y[0] == pytest.approx(10 * line.x[0])
    assert "decode" in shown.text and "75%" in shown.text and "model (predicted)" in shown.text
    assert len(json.dumps(shown.mime_bundle()[PLOTLY_MIME])) < 20_000
    assert roofline_plots.roofline(ROOF, {}, "Mine").text.endswith("no dots yet")


RIGHT: dict[Item, Callable] = {
    lab01.bandwidth: lambda n, size, read, written, s: sum([n * size / s] * (read + written)),
    lab01.intensity: lambda m, k, n, b: 16 * m * k * n / (b * k * n + 32 * m * (k + n)),
    lab01.attainable: lambda i, b, f: f if i > f / b else b * i,
    lab01.bound: lambda w, b, c, m, f: 1 / max((w * b / 8 + c) / m, 2 * w / f),
    lab01.ridge_rows: lambda b, m, f: next(t for t in range(1, 10**6) if 2 * t / (b / 8) >= f / m * (1 - 1e-12)),
}


def test_lab01_accepts_right_answers() -> None:
    assert set(RIGHT) == set(lab01.ITEMS)
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert str(lab01.score()).startswith("lab 01: 5 of 5 solved")


def test_lab01_bound_is_the_packages() -> None:
    """The formula of the exercise and `Roofline` agree on the built-in model."""
    work = model_work(None, Trial(0, 1))
    got = RIGHT[lab01.bound](work.operations / 2, 0.0, work.bytes, ROOF.bandwidth, ROOF.flops)
    assert got == pytest.approx(ROOF.tokens_per_second(work)) == pytest.approx(ROOF.predict_decode())


WRONG: list[tuple[Item, Callable, str]] = [
    (lab01.bandwidth, lambda n, size, read, written, s: n * size * read / s, "written arrays count"),
    (lab01.bandwidth, lambda n, size, read, written, s: n * size / s, "counts separately"),
    (lab01.bandwidth, lambda n, size, read, written, s: n * (read + written) / s, "itemsize"),
    (lab01.bandwidth, lambda n, size, read, written, s: n * size * (read + written) / s / 1e9, "1e9"),
    (lab01.bandwidth, lambda n, size, read, written, s: n * size * (read + written), "divide by the seconds"),
    (lab01.intensity, lambda m, k, n, b: m * k * n / (k * n * b / 8 + 4 * m * (k + n)), "two operations"),
    (lab01.intensity, lambda m, k, n, b: 2 * m * k * n / (k * n * b + 4 * m * (k + n)), "8 of them"),
    (lab01.intensity, lambda m, k, n, b: 2 * m * k * n / (k * n * b / 8), "activations count too"),
    (lab01.intensity, lambda m, k, n, b: 2 * m * k * n / (k * n * b / 8 + 4 * m * k), "result is written"),
    (lab01.intensity, lambda m, k, n, b: 2 * m * k * n / (m * k * n * b / 8 + 4 * m * (k + n)), "read once|result"),
    (lab01.intensity, lambda m, k, n, b: (k * n * b / 8 + 4 * m * (k + n)) / (2 * m * k * n), "not bytes per"),
    (lab01.attainable, lambda i, b, f: b * i, "arithmetic is a roof"),
    (lab01.attainable, lambda i, b, f: f, "memory is a roof"),
    (lab01.attainable, lambda i, b, f: max(f, b * i), "min, not max"),
    (lab01.attainable, lambda i, b, f: min(f, b / i), "multiply"),
    (lab01.bound, lambda w, b, c, m, f: min(m / (w * b + c), f / 2 / w), "make a byte"),
    (lab01.bound, lambda w, b, c, m, f: min(m / (w * b / 8), f / 2 / w), "cache is read"),
    (lab01.bound, lambda w, b, c, m, f: m / (w * b / 8 + c), "arithmetic is a roof"),
    (lab01.bound, lambda w, b, c, m, f: min(m / (w * b / 8 + c), f / w), "two operations"),
    (lab01.bound, lambda w, b, c, m, f: max((w * b / 8 + c) / m, 2 * w / f), "not seconds a token"),
    (lab01.ridge_rows, lambda b, m, f: math.ceil(f / m * b / 8), "two operations"),
    (lab01.ridge_rows, lambda b, m, f: int(f / m * b / 16), "round up"),
    (lab01.ridge_rows, lambda b, m, f: f / m * b / 16, "round up"),
    (lab01.ridge_rows, lambda b, m, f: f / m, "the ridge itself"),
    (lab01.ridge_rows, lambda b, m, f: np.ceil(m / f * b / 16), "not the other way"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


def test_a_share_above_the_roof_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_record.roof_share("01", "calm", 0.8) == 0.8 and not capsys.readouterr().out
    assert lab_record.roof_share("01", "loud", 1.09) == 1.09 and "109% of the roof" in capsys.readouterr().out
    found = lab_record.section("01", "measurements")
    assert "above_roof" not in found["calm"] and found["loud"]["above_roof"] is True
    values = lab_results.read_results(Path("results"))["01"].measurements
    assert not values["calm"].is_above_roof and values["loud"].is_above_roof
    over, under = Dot(1.0, 11e9), Dot(1.0, 9e9)
    assert "110%, above it" in roofline_plots.roofline(ROOF, {"over": over}, "title").text
    assert "90%" in (text := roofline_plots.roofline(ROOF, {"under": under}, "title").text) and "above" not in text
