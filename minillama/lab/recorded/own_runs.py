"""The learner's own runs of lab 10: benchmarks, roof and log likelihoods."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache as once
from pathlib import Path

import numpy as np

from minillama import env
from minillama.array_types import Float
from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import data_file
from minillama.env import MINILLAMA
from minillama.gguf import TensorType
from minillama.lab.experiments.quantised_storytellers import load_quantised, log_softmax, temporary_folder
from minillama.lab.experiments.shown_command import show_command
from minillama.lab.lab_models import LabModel
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.own_model import model_file
from minillama.lab.plots.roofline_plots import SHAPES
from minillama.lab.recorded.recorded_runs import LARGE, STORYTELLER, Row
from minillama.lab.widgets.running_line import collect, running
from minillama.measure.host.child_process import run_for_json
from minillama.measure.limits.roofline import Roofline, measure_roofline
from minillama.measure.quality.text_windows import chunked
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import write_random_model

OWN_TESTS = ("-p", "512", "-n", "64", "-t", "1")  # as the recorded ones
NEEDED = 5e8  # free bytes of memory and of disk, for the larger model


@once
def own_files(model: str | Path | None = None) -> dict[str, Path]:
    """The built-in model, and one of 100 MB if there is room.

    model: a notebook's MODEL, which is a third file unless it is None."""
    files = {STORYTELLER: data_file(STORYTELLER)}
    if model is not None:
        own = model_file(model)
        files[own.name] = own
    memory, large = env.describe().memory_available or NEEDED, large_file()
    disk = NEEDED if large.shared() else shutil.disk_usage(temporary_folder()).free
    if min(disk, memory) >= NEEDED:
        files[LARGE] = large.path(temporary_folder())
    return files


def large_file() -> LabModel:
    """The file of the model of 100 MB."""
    return LabModel(LARGE, lambda path: write_random(path, "Q8_0"))


def write_random(path: Path, mix: str) -> Path:
    """Write lab 01's random model of 100 MB, with a longer context."""
    layers, embedding, heads, kv_heads, feed_forward = SHAPES[100]
    shape = replace(
        shape_named("tiny"), name="random-100", layers=layers, embedding=embedding, heads=heads, kv_heads=kv_heads,
        head_size=64, feed_forward=feed_forward, context=4096,
    )  # fmt: skip
    return write_random_model(path, shape, mix)


def own_rows(files: Mapping[str, Path], repetitions: int = 3) -> list[Row]:
    """Rows of `minillama bench` on these files, in a process each."""
    rows: list[Row] = []
    with running("minillama bench", steps=len(files)) as step:
        for path in files.values():
            words = (*MINILLAMA, "bench", "-m", str(path), *OWN_TESTS, "-r", str(repetitions), "-o", "json")
            rows += [{**row, "model_filename": path.name} for row in run_for_json(words)]
            step()
    return rows


@measuring("the roof of lab 10")
def own_roof() -> Roofline:
    """This machine's roof with one thread: memory, and products of weights in Q8_0."""
    return measure_roofline(1, kind=TensorType.Q8_0, quick=True)


def run_against(bench: str | None, files: Mapping[str, Path], words: Sequence[str]) -> None:
    """Run `minillama bench --against` on the largest of the files; without a binary print one line."""
    if bench is None:
        print(translate("no llama-bench here: the recorded runs above take its place"))
        return
    path = max(files.values(), key=lambda each: each.stat().st_size)
    show_command(path.parent, "bench", "-m", path.name, *words, "--against", str(Path(bench).absolute()))


def own_log_likelihoods(
    names: Sequence[str], ids: Sequence[int], ctx_size: int, floor: float = np.inf
) -> dict[str, np.ndarray]:
    """`text_log_likelihoods` of the storyteller in several types, by type."""
    found = (text_log_likelihoods(load_quantised(name), ids, ctx_size, floor) for name in names)
    return dict(zip(names, collect(found, translate("log likelihoods"), len(names)), strict=True))


def text_log_likelihoods(llm: LLM, ids: Sequence[int], ctx_size: int, floor: float = np.inf) -> Float[np.ndarray, "T"]:
    """ln p of each token, given the tokens before it in its window of `ctx_size`.

    BOS replaces the first token of each window, if the model has it. nan: the first token of each window, and the
    tokens after the last whole one. floor: the smallest value, in nats below the likeliest token.
    """
    windows = chunked(llm, ids, ctx_size)
    found = np.full(len(ids), np.nan)
    for number in range(windows.count):
        begin, values = number * ctx_size, log_softmax(llm.logits(windows.ids(number, 1)[0].tolist()))[:-1]
        wanted = values[np.arange(ctx_size - 1), windows.text[number, 1:]]
        found[begin + 1 : begin + ctx_size] = np.maximum(wanted, values.max(axis=-1) - floor)
    return found


def scored_places(tokens: int, ctx_size: int) -> np.ndarray:
    """Places in the text of the tokens that llama-perplexity scores."""
    places = np.arange(tokens // ctx_size * ctx_size).reshape(-1, ctx_size)
    return places[:, ctx_size // 2 + 1 :].reshape(-1)
