"""Lab 07: Pareto front, importance, sizes, and checks that name mistakes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from minillama.convert import plan_folder, write_plan
from minillama.engine.loading.model_files import data_file
from minillama.gguf import open_gguf
from minillama.lab.checks import lab07
from minillama.lab.experiments.counted_passes import decode_speed_ratio
from minillama.lab.experiments.hugging_face_folder import storyteller_folder
from minillama.lab.experiments.quantisation_tradeoff import importance_matrix, quantised_by_importance
from minillama.lab.experiments.quantised_storytellers import heldout_text, load_quantised, quantised
from minillama.lab.experiments.shown_command import show_command
from minillama.lab.grading.check import Item
from minillama.lab.plots import measurement_plots
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.model import read_config
from minillama.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# What the notebook measures with


def test_pareto_front() -> None:
    points = {"small": (1.0, 9.0), "middle": (2.0, 3.0), "bad": (3.0, 4.0), "large": (4.0, 0.0), "larger": (5.0, 0.0)}
    assert measurement_plots.pareto_front(points) == ["small", "middle", "large"]
    assert measurement_plots.pareto_front(points, more=True) == ["larger"]
    figure = measurement_plots.pareto(points, "trade", "MB", "loss")
    assert PLOTLY_MIME in figure.mime_bundle()
    assert [line.split()[-1] for line in figure.text.splitlines()[3:]] == [
        "front",
        "front",
        "dominated",
        "front",
        "dominated",
    ]
    assert "nothing measured yet" in measurement_plots.pareto({}, "trade", "MB", "loss").text


def test_importance_changes_weights_and_not_the_size() -> None:
    llm = load_quantised("F16")
    importance = importance_matrix(llm, heldout_text()[:4000])
    assert importance.entries["blk.0.ffn_down.weight"].shape == (512,)
    assert np.all(importance.entries["blk.0.ffn_down.weight"] >= 0)
    plain, weighed = quantised("Q4_0"), Path(quantised_by_importance("Q4_0", importance))
    assert plain.read_bytes() != weighed.read_bytes()
    assert abs(plain.stat().st_size - weighed.stat().st_size) < 4096  # metadata says where the importances come from


def test_the_folder_converts_back_to_the_storyteller() -> None:
    folder, own = storyteller_folder(), open_gguf(data_file("storyteller-f16.gguf"))
    path = write_plan(plan_folder(folder, "f16"), Path("again.gguf"))
    again = open_gguf(path)
    assert list(again.tensors) != [] and again.tensors.keys() == own.tensors.keys()
    for name, tensor in own.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].data, tensor.data, err_msg=name)
        assert again.tensors[name].type is tensor.type
    ids = load_tokenizer(again.metadata).encode(heldout_text())
    assert ids == load_tokenizer(own.metadata).encode(heldout_text())
    assert ids == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(heldout_text()).ids
    assert read_config(again.metadata, 2048) == read_config(own.metadata, 2048)


def test_a_command_is_shown_with_its_messages(capsys: pytest.CaptureFixture[str]) -> None:
    show_command(Path(), "convert", "nowhere")
    shown = capsys.readouterr().out
    assert shown == (
        "$ minillama convert nowhere\nminillama: error: nowhere is no folder; name the folder of a Hugging Face model\n"
    )


def test_speeds_by_turns() -> None:
    assert 0 < decode_speed_ratio("Q4_0", "Q8_0", turns=1) < 50


def test_llama_2_has_the_bytes_that_llama_cpp_lists() -> None:
    """4,080,263,168 bytes of weights: what the mix gives for the shape, block by block."""
    weights = lab07.weights_by_type("llama-2-7b", "Q4_K_M")
    assert sum(weights.values()) == 6_738_415_616
    assert lab07._gigabytes(weights, lab07.BITS) == pytest.approx(4.080263168)


def test_formats_are_the_files() -> None:
    for kind, numbers in lab07.FORMATS.items():
        assert lab07._bits(*numbers) == lab07.BITS[kind.name]


# Lab 07

Pair = tuple[np.ndarray, np.ndarray]


def by_row(x: np.ndarray) -> Pair:
    """Reference implementation: number by number."""
    scales = [max(abs(float(value)) for value in row) / 127 for row in x]
    codes = [[round(float(value) / d) if d else 0 for value in row] for row, d in zip(x, scales, strict=True)]
    return np.array(codes, np.int8), np.array(scales)


def variant(
    *, top: float = 127, rounding: Callable = np.rint, largest: Callable = lambda x: np.abs(x).max(1)
) -> Callable:
    def rows(x: np.ndarray) -> Pair:
        d = largest(x) / top
        return rounding(x / np.where(d > 0, d, 1)[:, None]), d

    return rows


def by_block(x: np.ndarray, size: int, bits: int) -> np.ndarray:
    out, top = np.array(x, np.float64), 2 ** (bits - 1) - 1
    for row in out:
        for start in range(0, len(row), size):
            part = row[start : start + size]
            d = np.abs(part).max() / top
            row[start : start + size] = np.rint(part / d) * d if d else 0
    return out


def total(weights: Mapping[str, int], bits: Mapping[str, float]) -> float:
    return sum(weights[kind] * bits[kind] for kind in weights) / 8 / 1e9


def least_squares(x: np.ndarray, codes: np.ndarray, importance: np.ndarray) -> float:
    root = np.sqrt(importance)
    return float(np.linalg.lstsq((root * codes)[:, None], root * x, rcond=None)[0][0])


RIGHT: dict[Item, Callable] = {
    lab07.int8_rows: by_row,
    lab07.round_trip: by_block,
    lab07.bits_per_weight: lambda c, b, s, bb, ss: (bb * c + bb // b * s + ss) / bb,
    lab07.gigabytes: total,
    lab07.best_scale: least_squares,
}


def test_right_answers_pass() -> None:
    assert set(RIGHT) == set(lab07.ITEMS)
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert str(lab07.score()).startswith("lab 07: 5 of 5 solved")
    assert lab07.int8_rows(lambda x: (by_row(x)[0], by_row(x)[1][:, None])).passed, "scales as a column are fine"


WRONG: list[tuple[Item, Callable, str]] = [
    (lab07.int8_rows, lambda x: by_row(x)[0], "two things"),
    (lab07.int8_rows, lambda x: (by_row(x)[0], np.abs(x).max() / 127), "whole matrix"),
    (lab07.int8_rows, lambda x: (by_row(x)[0], np.abs(x).max(0) / 127), "one scale a column"),
    (lab07.int8_rows, variant(top=128), "127"),
    (lab07.int8_rows, variant(top=1), "*step*"),
    (lab07.int8_rows, variant(largest=lambda x: x.max(1)), "*magnitude*"),
    (lab07.int8_rows, variant(top=255, largest=lambda x: x.max(1) - x.min(1)), "symmetric"),
    (lab07.int8_rows, lambda x: (by_row(x)[0], 1 / np.maximum(by_row(x)[1], 1e-30)), "1/d"),
    (lab07.int8_rows, variant(rounding=np.trunc), "towards zero"),
    (lab07.int8_rows, variant(rounding=np.floor), "floor"),
    (lab07.int8_rows, variant(rounding=lambda q: q), "whole numbers"),
    (lab07.int8_rows, lambda x: (np.rint(x / (np.abs(x).max(1) / 127)[:, None]), np.abs(x).max(1) / 127), "0 / 0"),
    (lab07.int8_rows, variant(rounding=np.ceil), "more than d / 2"),
    (lab07.round_trip, lambda x, size, bits: by_block(x, x.shape[1], bits), "whatever `size`"),
    (lab07.round_trip, lambda x, size, bits: by_block(x.reshape(1, -1), x.size, bits).reshape(x.shape), "one for all"),
    (lab07.round_trip, lambda x, size, bits: by_block(x.T.copy(), size, bits).T, "neighbours"),
    (lab07.round_trip, lambda x, size, bits: lab07._round_trip(x, size, bits, less=0), "7 for 4 bits"),
    (lab07.round_trip, lambda x, size, bits: by_block(x, size, 8), "always 8"),
    (lab07.round_trip, lambda x, size, bits: by_block(x, size, bits) / lab07._scale(x, size, bits), "the codes"),
    (lab07.bits_per_weight, lambda c, b, s, bb, ss: c, "scales take bits"),
    (lab07.bits_per_weight, lambda c, b, s, bb, ss: c + s / b, "super-block's own"),
    (lab07.bits_per_weight, lambda c, b, s, bb, ss: c + (s + ss) / bb, "shared by `block`"),
    (lab07.bits_per_weight, lambda c, b, s, bb, ss: (c * bb + s * bb / b + ss) / 8 / bb, "not bytes"),
    (lab07.gigabytes, lambda w, b: total(w, b) * 1e9 / 2**30, "GiB"),
    (lab07.gigabytes, lambda w, b: 8 * total(w, b), "eight bits"),
    (lab07.gigabytes, lambda w, b: total(w, b) * 1e9, "bytes, not GB"),
    (lab07.gigabytes, lambda w, b: total({max(w, key=w.get): sum(w.values())}, b), "most frequent"),
    (lab07.best_scale, lambda x, q, w: (x * q).sum() / (q * q).sum(), "importance is missing"),
    (lab07.best_scale, lambda x, q, w: least_squares(x, q, w**2), "once"),
    (lab07.best_scale, lambda x, q, w: (w * x * q).sum() / (q * q).sum(), "denominator too"),
    (lab07.best_scale, lambda x, q, w: np.abs(x).max() / 7, "no sum"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert said in result.message, result.message
