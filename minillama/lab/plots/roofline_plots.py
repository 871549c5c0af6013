"""The learner's measured roofline, with products and models below it."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import plotly.graph_objects as go

import minillama as ml
from minillama import env
from minillama.gguf import TensorType
from minillama.gguf.types import row_bytes
from minillama.lab import lab_record
from minillama.lab.lab_models import LabModel
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.widgets.figure import GREY, PALETTE, RED, SYMBOLS, Figure, apply_layout, format_number, text_table
from minillama.measure.limits.roofline import Roofline, matmul_flops, measure_roofline, model_work
from minillama.measure.limits.work_per_token import Work
from minillama.measure.speed.llama_bench import measure_trial
from minillama.measure.trial import Trial
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import write_random_model

KIND = TensorType.Q8_0  # quantisation type of the labs' models
SIDE = 8192  # of the sweep's matrix: 71 MB in Q8_0, larger than most CPU caches
SHAPES = {  # megabytes: layers, embedding, heads, heads of keys and values, feed forward
    1: (2, 256, 4, 2, 512),
    100: (6, 1280, 20, 4, 3328),
    1000: (20, 2048, 32, 8, 6144),
}


@dataclass(frozen=True)
class Dot:
    """A program on the roofline: operations per byte read, and operations/s."""

    intensity: float
    flops: float


@dataclass(frozen=True)
class StreamLoop:
    """One timed loop over long arrays, as in McCalpin's STREAM."""

    name: str
    formula: str
    elements: int
    itemsize: int
    arrays_read: int
    arrays_written: int
    seconds: float


@measuring("STREAM's loops of lab 01")
def measure_stream(elements: int = 16 << 20, repetitions: int = 5) -> tuple[StreamLoop, ...]:
    """Time STREAM's loops and a sum with numpy on one core; best of several.

    The sum writes nothing."""
    a, b, c = (np.full(elements, value) for value in (1.0, 2.0, 0.0))

    def triad() -> None:
        np.multiply(b, 3.0, out=c)
        np.add(a, c, out=c)

    loops: tuple[tuple[str, str, int, int, Callable[[], object]], ...] = (
        ("sum", "s += a[i]", 1, 0, partial(np.sum, a.view(np.int64))),
        ("copy", "c[i] = a[i]", 1, 1, partial(np.copyto, c, a)),
        ("scale", "c[i] = 3 * a[i]", 1, 1, partial(np.multiply, a, 3.0, out=c)),
        ("add", "c[i] = a[i] + b[i]", 2, 1, partial(np.add, a, b, out=c)),
        ("triad in two loops", "c[i] = 3 * b[i]; c[i] = a[i] + c[i]", 3, 2, triad),
    )
    return tuple(
        StreamLoop(name, formula, elements, a.itemsize, read, written, _best(call, repetitions))
        for name, formula, read, written, call in loops
    )


def _best(call: Callable[[], object], repetitions: int) -> float:
    """Least seconds of several calls: other load can only slow a call down."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


@measuring("the roofline of lab 01")
def measure_own_roofline(kind: TensorType | None = KIND) -> Roofline:
    """Measure this machine's roofline in two seconds and record it for lab 01."""
    roof = measure_roofline(kind=kind, quick=True)
    lab_record.write("01", "roofline", "own", roof.as_dict() | {"written": lab_record.now()})
    return roof


def recorded_roofline() -> Roofline | None:
    """The recorded roofline; None if lab 01 has not measured it here."""
    entry = lab_record.section("01", "roofline").get("own")
    speeds = [lab_record.number(entry, name) for name in ("bandwidth", "flops", "threads")]
    if not isinstance(entry, dict) or not all(value is not None and value > 0 for value in speeds):
        return None
    words = {name: entry.get(name) for name in ("arithmetic", "device")}
    return (
        Roofline(*speeds[:2], threads=int(speeds[2]), **words)
        if all(isinstance(w, str) for w in words.values())
        else None
    )


def record_dot(lab: str, name: str, dot: Dot) -> Dot:
    """Record a dot for later figures and return it."""
    lab_record.write(lab, "dots", name, asdict(dot) | {"written": lab_record.now()})
    return dot


def recorded_dots(labs: Sequence[str] = tuple(f"{lab:02}" for lab in range(18))) -> dict[str, Dot]:
    """All dots that the labs have recorded so far."""
    dots = {}
    for lab in labs:
        for name, entry in lab_record.section(lab, "dots").items():
            values = [lab_record.number(entry, key) for key in ("intensity", "flops")]
            if all(value is not None and value > 0 for value in values):
                dots[name] = Dot(*values)  # type: ignore[arg-type]
    return dots


@measuring("a product of lab 01")
def product_dot(rows: int, *, kind: TensorType | None = KIND, side: int = SIDE, repetitions: int = 3) -> Dot:
    """Measure a product of `rows` activation rows with a square matrix.

    kind: type of the matrix; None is float32, multiplied by XLA."""
    stored = 32 if kind is None else float(bits_per_weight(kind))
    moved = side * side * stored / 8 + 2 * rows * side * 4
    flops = matmul_flops(kind, rows=rows, side=side, repeats=repetitions)
    return Dot(2 * rows * side * side / moved, flops)


def bits_per_weight(kind: TensorType) -> float:
    """Bits per weight of a type, block scales included."""
    return row_bytes(256, kind) * 8 / 256


@contextmanager
def random_model(megabytes: int) -> Iterator[Path | None]:
    """A temporary Llama file of random weights; None without enough memory or disk.

    megabytes: the approximate size, a key of SHAPES.
    """
    file, memory = random_file(megabytes), env.describe().memory_available or megabytes * 10**7
    if (shared := file.shared()) is not None:
        yield shared if memory > 2.5e6 * megabytes else None
        return
    with tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True) as folder:
        free = min(shutil.disk_usage(folder).free, memory)
        yield file.path(Path(folder)) if free > 2.5e6 * megabytes else None


def random_file(megabytes: int) -> LabModel:
    """The file of `random_model`."""
    layers, embedding, heads, kv_heads, feed_forward = SHAPES[megabytes]
    shape = replace(
        shape_named("tiny"), name=f"random-{megabytes}", layers=layers, embedding=embedding, heads=heads,
        kv_heads=kv_heads, head_size=64, feed_forward=feed_forward, context=1024,
    )  # fmt: skip
    return LabModel(f"random-{megabytes}mb-q8_0.gguf", lambda path: write_random_model(path, shape, "Q8_0"))


@measuring("a model of lab 01")
def trial_speed(model: Path | None, trial: Trial, repetitions: int = 3) -> float:
    """Tokens/s of a test, without compile time; the median of several runs.

    model: None is the built-in model."""
    llm = ml.load(*(() if model is None else (model,)), ctx_size=512, progress=False)
    samples, _ = measure_trial(llm, trial, repetitions, n_batch=llm.batches.batch_size)
    return (trial.n_prompt + trial.n_gen) * 1e9 / median(samples)


def model_dot(model: Path | None, trial: Trial, tokens_per_second: float) -> Dot:
    """Dot of a measured test on a model; the work follows from formulas."""
    return dot_of(model_work(model, trial), tokens_per_second)


def dot_of(work: Work, tokens_per_second: float) -> Dot:
    """The dot of a speed at some work a token."""
    return Dot(work.intensity, work.operations * tokens_per_second)


def sweep_rows(rows: Sequence[int], *, kind: TensorType | None = KIND, side: int = SIDE) -> Iterator[tuple[int, Dot]]:
    """Measure products with increasing rows, from decode to prefill: (rows, dot)."""
    for count in rows:
        yield count, product_dot(count, kind=kind, side=side)


def roofline(
    roof: Roofline,
    dots: Mapping[str, Dot],
    title: str,
    *,
    curves: Mapping[str, Sequence[Dot]] | None = None,
    predicted: Mapping[str, Dot] | None = None,
) -> Figure:
    """The roofline on log-log axes with dots, curves of joined dots and predicted dots."""
    figure, curves, predicted = go.Figure(), curves or {}, predicted or {}
    everything = [*dots.values(), *predicted.values(), *(dot for curve in curves.values() for dot in curve)]
    left = min(0.25, *(dot.intensity / 2 for dot in everything)) if everything else 0.25
    right = max(8 * roof.ridge, *(dot.intensity * 2 for dot in everything)) if everything else 8 * roof.ridge
    places = [left, roof.ridge, right]
    figure.add_scatter(
        x=places, y=[roof.attainable(place) / 1e9 for place in places], mode="lines", name="roof", showlegend=False,
        line={"color": "#222222", "width": 2.5}, hoverinfo="skip",
    )  # fmt: skip
    for index, (name, curve) in enumerate(curves.items()):
        looks = {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 7}
        figure.add_scatter(
            x=[dot.intensity for dot in curve], y=[dot.flops / 1e9 for dot in curve], mode="lines+markers", name=name,
            marker=looks, line={"color": looks["color"], "width": 1.5},
        )  # fmt: skip
    for index, (name, dot) in enumerate(dots.items(), start=len(curves)):
        looks = {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 12}
        figure.add_scatter(x=[dot.intensity], y=[dot.flops / 1e9], mode="markers", name=name, marker=looks)
    for name, dot in predicted.items():
        looks = {"color": RED, "symbol": "circle-open", "size": 16, "line": {"width": 3}}
        figure.add_scatter(x=[dot.intensity], y=[dot.flops / 1e9], mode="markers", name=name, marker=looks)
    across, up = translate("operations for each byte read"), translate("billions of operations a second")
    apply_layout(figure, title, across, up, height=500)
    figure.add_vline(x=roof.ridge, line={"color": GREY, "dash": "dot", "width": 1.5})
    ridge = translate("ridge: {ridge}", ridge=format_number(roof.ridge))
    figure.add_annotation(
        x=math.log10(roof.ridge), y=math.log10(roof.flops / 1e9), text=ridge, showarrow=False, yshift=14,
        xanchor="right",
    )  # fmt: skip
    low = min([roof.attainable(left), *(dot.flops for dot in everything)]) / 2e9
    high = max([roof.flops, *(dot.flops for dot in everything)]) * 2 / 1e9
    figure.update_layout(showlegend=True, legend={"y": -0.17, "yanchor": "top", "x": 0, "xanchor": "left"})
    figure.update_xaxes(type="log", range=[math.log10(left), math.log10(right)], dtick=1, exponentformat="none")
    figure.update_yaxes(type="log", range=[math.log10(low), math.log10(high)], dtick=1, exponentformat="none")
    rows = [_row(roof, name, dot) for name, dot in dots.items()]
    rows += [_row(roof, name, dot) for name, curve in curves.items() for dot in curve]
    rows += [_row(roof, f"{name} (predicted)", dot) for name, dot in predicted.items()]
    return Figure(figure, f"{title}\n{_head(roof)}\n{_table(rows)}")


def _head(roof: Roofline) -> str:
    """Both roofs in words."""
    return translate(
        "roofs: {bandwidth} GB/s read, {flops} billion operations/s ({arithmetic}), {threads} threads; "
        "they meet at {ridge} operations a byte",
        bandwidth=format_number(roof.bandwidth / 1e9), flops=format_number(roof.flops / 1e9),
        arithmetic=roof.arithmetic, threads=roof.threads, ridge=format_number(roof.ridge),
    )  # fmt: skip


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    """The dots in words."""
    if not rows:
        return translate("no dots yet")
    head = (translate("dot"), translate("operations/byte"), translate("billions/s"), translate("of its roof"))
    return text_table(head, rows)


def share_text(share: float) -> str:
    """A share of a roof in percent; one above 100 % is marked."""
    return translate("{share:.0%}, above it", share=share) if share > 1 else f"{share:.0%}"


def _row(roof: Roofline, name: str, dot: Dot) -> tuple[str, str, str, str]:
    share = dot.flops / roof.attainable(dot.intensity)
    return name, format_number(dot.intensity), format_number(dot.flops / 1e9), share_text(share)
