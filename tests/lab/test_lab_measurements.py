"""Labs 05 and 08: counted passes, figures, and checks that name mistakes."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minillama as ml
from minillama.engine.llm import LLM
from minillama.env import CPU_KERNELS
from minillama.gguf.kv_cache_types import CacheTypes, read_cache_types
from minillama.lab import Figure, IntSlider, Panel, Prediction, lab_record, measuring
from minillama.lab.checks import lab05, lab08
from minillama.lab.checks.items.lab05_layer_bytes import flat_bytes
from minillama.lab.experiments import ab_measurement
from minillama.lab.experiments.ab_measurement import KERNELS, Change
from minillama.lab.experiments.cache_models import CACHE_MODELS, allocated_bytes
from minillama.lab.experiments.counted_passes import (
    CountedModel,
    big_model,
    decode_speeds,
    one_more_token,
    pass_seconds,
)
from minillama.lab.grading.check import Item
from minillama.lab.plots import measurement_plots
from minillama.lab.plots.roofline_plots import product_dot
from minillama.lab.widgets.background_job import State
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer

WAIT = 20.0  # seconds; only a hang is this long
Tokens = Sequence[int]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def llm(builtin_model: Path) -> LLM:
    return ml.load(builtin_model, progress=False)


# What the notebooks measure with


def test_passes_agree_with_the_engine_and_are_counted(llm: LLM) -> None:
    ids = llm.tokenizer.encode("Once upon a time, there was")
    model = CountedModel(llm, 64)
    written = greedy(model, ids, 4)
    assert tuple(written) == llm.generate(ids, n=4, temp=0.0).tokens
    assert (model.calls, model.tokens) == (4, len(ids) + 3)
    assert model.programs == {(len(ids), 64), (1, 64)}


def test_times_are_times(llm: LLM) -> None:
    assert 0 < pass_seconds(llm, 1, repetitions=1) < 60
    assert all(0 < one_more_token(llm, 64, cached=cached, repetitions=1) < 60 for cached in (True, False))
    assert [depth for depth, speed in decode_speeds(llm, (0, 16), CacheTypes()) if speed > 0] == [0, 16]


def test_big_model_is_bigger_than_a_processors_cache_and_written_once() -> None:
    assert big_model().stat().st_size > 64e6
    assert big_model() is big_model()


def test_slope_of_a_power_law() -> None:
    assert measurement_plots.slope({x: 3.0 * x**1.5 for x in (1.0, 10.0, 100.0)}) == pytest.approx(1.5)


def test_curves_have_a_text_alternative_and_a_small_bundle() -> None:
    figures = (
        measurement_plots.timeline([" a", " b", " c"], [50.0, 1.0, 2.0], "Tokens"),
        measurement_plots.power_laws({"linear": {64: 1.0, 128: 2.0, 256: 4.0}}, "Growth", "tokens", "ms"),
        measurement_plots.sweep(
            {"f16": {0: 100.0, 64: 80.0}}, {"f16": {0: 100.0, 64: 90.0, 96: 70.0}}, "Speed", "depth", "tok/s"
        ),
        measurement_plots.sweep({}, {}, "Speed", "depth", "tok/s"),
    )  # fmt: skip
    for shown in figures:
        bundle = shown.mime_bundle()
        assert set(bundle) == {PLOTLY_MIME, "text/html", "text/plain"} and bundle["text/plain"] == shown.text
        assert len(str(bundle)) < 30_000
        assert shown.text.splitlines()[0] == shown.plotly.layout.title.text
    assert "first token     50 ms" in figures[0].text and "median later   1.5 ms" in figures[0].text
    assert "linear  slope   1.00" in figures[1].text
    assert "f16     64     80     90" in figures[2].text
    assert figures[3].text.endswith("nothing measured yet")


def test_a_figure_shows_no_slope_that_the_learner_has_not_found() -> None:
    points = {"linear": {64: 1.0, 128: 2.0}, "flat": {64: 1.0, 128: 1.0}}
    shown = measurement_plots.power_laws(points, "Growth", "tokens", "ms", slopes={"flat": 0.25})
    names = [trace.name for trace in shown.plotly.data if trace.name]
    assert names == ["linear", "flat: slope 0.25"] and "linear  slope" not in shown.text


def test_panel_shows_the_figures_that_its_work_yields() -> None:
    def draw(settings: object) -> Figure:
        return measurement_plots.sweep({}, {}, "Speed", "depth", "tok/s")

    def measure(settings: object) -> object:
        for depth in (0, 64):
            yield f"depth {depth} "
            yield measurement_plots.sweep({"f16": {depth: 1.0}}, {}, f"Speed at {depth}", "depth", "tok/s")

    panel = Panel((IntSlider("deepest", "-d", 0, 100, 64),), draw, measure).show()
    panel.start()
    assert panel.join(WAIT)
    assert panel.state is State.IDLE and panel.text == "depth 0 depth 64 "
    assert panel.figure is not None and panel.figure.text.startswith("Speed at 64")


# Lab 05


def greedy(model: Callable, prompt: Tokens, n: int) -> list[int]:
    logits, cache = model(list(prompt), model.empty())
    out = [int(np.argmax(logits))]
    while len(out) < n:
        logits, cache = model(out[-1:], cache)
        out.append(int(np.argmax(logits)))
    return out


def naive(model: Callable, prompt: Tokens, n: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n):
        logits, _ = model(tokens, model.empty())
        tokens.append(int(np.argmax(logits)))
    return tokens[len(prompt) :]


def loop(
    feed: Callable[[list[int]], list[int]], *, fresh: bool = False, whole: bool = False, extra: int = 0
) -> Callable:
    """A decode loop that runs `feed(all tokens)` where it should run the newest."""

    def generate(model: Callable, prompt: Tokens, n: int) -> list[int]:
        tokens = list(prompt)
        logits, cache = model(tokens, model.empty())
        for _ in range(n + extra):
            tokens.append(int(np.argmax(logits)))
            if fed := feed(tokens):
                logits, cache = model(fed, model.empty() if fresh else cache)
        return tokens if whole else tokens[len(prompt) :]

    return generate


def one_by_one(model: Callable, prompt: Tokens, n: int) -> list[int]:
    cache = model.empty()
    for token in prompt[:-1]:
        _, cache = model([token], cache)
    logits, cache = model(prompt[-1:], cache)
    out = [int(np.argmax(logits))]
    while len(out) < n:
        logits, cache = model(out[-1:], cache)
        out.append(int(np.argmax(logits)))
    return out


def old_cache(model: Callable, prompt: Tokens, n: int) -> list[int]:
    _, _ = model(list(prompt), cache := model.empty())
    model([1], cache)
    return []


def attention(mask: Callable = lambda place, length: place <= length, *, fill: float = -np.inf, shift: int = 0,
              scaled: bool = True, store: bool = True) -> Callable:  # fmt: skip
    """One token's attention, right or wrong in one place."""

    def step(keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array):
        full = keys.at[length + shift].set(key), values.at[length + shift].set(value)
        scores = full[0] @ query / (jnp.float32(len(query) ** 0.5) if scaled else jnp.float32(1))
        scores = jnp.where(mask(jnp.arange(len(keys)), length), scores, jnp.float32(fill))
        return jax.nn.softmax(scores) @ full[1], *(full if store else (keys, values))

    return step


def sliced(keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array):
    return jax.nn.softmax(keys[:length] @ query) @ values[:length], keys, values


def assigned(keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array):
    keys[length] = key
    return key, keys, values


def grown(keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array):
    return value, jnp.concatenate([keys, key[None]]), jnp.concatenate([values, value[None]])


def through_numpy(
    keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array
):
    return np.array(keys) @ np.array(query), keys, values


def least_squares(x: np.ndarray, y: np.ndarray) -> float:
    """Reference implementation of polyfit."""
    a, b = np.log(x), np.log(y)
    return ((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum()


SIZES = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34)}


def row(length: int, kind: str) -> int:
    block, size = SIZES[kind]
    return length // block * size


def counted_bytes(layer: Layer, positions: int, type_k: str, type_v: str) -> int:
    if isinstance(layer, DeltaNet):
        matrices = layer.value_heads * layer.size * layer.size
        inputs = (2 * layer.key_heads + layer.value_heads) * layer.size
        return 4 * matrices + 4 * inputs * (layer.taps - 1)
    if isinstance(layer, LatentAttention):
        return positions * row(layer.kv_lora_rank + layer.rope_length, type_k)
    if layer.sliding_window:
        positions = min(positions, -(-(layer.sliding_window + 64 + 512) // 128) * 128)
    return positions * layer.head_count_kv * (row(layer.key_length, type_k) + row(layer.value_length, type_v))


def on(kind: type[Layer], wrong: Callable[..., int]) -> Callable[..., int]:
    """A mistake with one kind of layer."""
    return lambda layer, *rest: wrong(layer, *rest) if isinstance(layer, kind) else counted_bytes(layer, *rest)


RIGHT: dict[Item, Callable] = {
    lab05.generate: greedy,
    lab05.slope: least_squares,
    lab05.step: attention(),
    lab05.intensity: lambda w, b, c, t: t * (w + w) / (c + b),
    lab05.layer_bytes: counted_bytes,
}


def test_lab05_accepts_right_answers() -> None:
    assert set(RIGHT) == set(lab05.ITEMS)
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert str(lab05.score()).startswith("lab 05: 5 of 5 solved")


def by_update_slice(
    keys: jax.Array, values: jax.Array, length: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array
):
    keys = jax.lax.dynamic_update_slice(keys, key[None], (length, jnp.int32(0)))
    values = jax.lax.dynamic_update_slice(values, value[None], (length, jnp.int32(0)))
    scores = keys @ query / jnp.float32(len(query) ** 0.5)
    scores = jnp.where(jnp.arange(len(keys)) <= length, scores, jnp.float32(-jnp.inf))
    return jax.nn.softmax(scores) @ values, keys, values


def test_lab05_accepts_dynamic_update_slice() -> None:
    assert lab05.step(by_update_slice).passed, lab05.step(by_update_slice).message


def test_lab05_wants_what_the_engine_allocates() -> None:
    for config in CACHE_MODELS.values():
        for kind in SIZES:
            counted = sum(counted_bytes(layer, 256, kind, kind) for layer in config.layers)
            assert counted == allocated_bytes(config, 256, read_cache_types(kind, kind))


WRONG: list[tuple[Item, Callable, str]] = [
    (lab05.generate, naive, "the right tokens, but"),
    (lab05.generate, loop(lambda tokens: tokens[-1:]), "one token too many"),
    (lab05.generate, loop(lambda tokens: tokens[-1:], whole=True), "without the prompt"),
    (lab05.generate, loop(lambda tokens: tokens[-1:], extra=1), "were asked for"),
    (lab05.generate, loop(lambda tokens: tokens[-2:-1]), "*before* the newest"),
    (lab05.generate, loop(lambda tokens: tokens[-2:]), "must not be run twice"),
    (lab05.generate, loop(lambda tokens: []), "always the same token"),
    (lab05.generate, loop(lambda tokens: tokens[-1:], fresh=True), "starts from an empty cache"),
    (lab05.generate, one_by_one, "in one pass"),
    (lab05.generate, old_cache, "Array has been deleted"),
    (lab05.generate, lambda model, prompt, n: list(range(n)), "never called"),
    (lab05.generate, lambda model, prompt, n: model(prompt, None), "second argument"),
    (lab05.step, sliced, "no shape"),
    (lab05.step, assigned, "do not change"),
    (lab05.step, grown, "compiled anew"),
    (lab05.step, through_numpy, "use jnp"),
    (lab05.step, attention(lambda place, length: place >= 0), "positions after `length`"),
    (lab05.step, attention(lambda place, length: place <= length + 1), "one position too many is attended"),
    (lab05.step, attention(lambda place, length: (place < length) | (place == 0)), "must see itself"),
    (lab05.step, attention(fill=0.0), "exp(0)"),
    (lab05.step, attention(scaled=False), "square root"),
    (lab05.step, attention(store=False), "*returns* it"),
    (lab05.step, attention(shift=1), "too far"),
    (lab05.step, lambda keys, values, length, query, key, value: (value, keys), "three things"),
    (lab05.slope, lambda x, y: np.polyfit(x, y, 1)[0], "logarithm of both"),
    (lab05.slope, lambda x, y: np.polyfit(np.log(y), np.log(x), 1)[0], "exchanged"),
    (lab05.slope, lambda x, y: np.polyfit(np.log(x), np.log(y), 1), "take the first"),
    (lab05.slope, lambda x, y: np.log(y[-1] / y[0]) / np.log(x[-1] / x[0]), "all points"),
    (lab05.intensity, lambda w, b, c, t: w * t / (b + c), "two operations"),
    (lab05.intensity, lambda w, b, c, t: 2 * w * t / (t * b + c), "once"),
    (lab05.intensity, lambda w, b, c, t: 2 * w / (b + c), "every token of the pass"),
    (lab05.intensity, lambda w, b, c, t: 2 * w * t / b, "cache is read too"),
    (lab05.intensity, lambda w, b, c, t: (b + c) / (2 * w * t), "not bytes per operation"),
    (
        lab05.layer_bytes,
        on(Attention, lambda c, *rest: counted_bytes(c, *rest) * c.head_count // c.head_count_kv),
        "grouped-query",
    ),
    (
        lab05.layer_bytes,
        on(Attention, lambda c, n, k, v: n * c.head_count_kv * row(c.key_length, k)),
        "keys *and* values",
    ),
    (lab05.layer_bytes, on(Attention, flat_bytes), "scale of 2 bytes"),
    (lab05.layer_bytes, on(Attention, lambda c, *rest: 8 * counted_bytes(c, *rest)), "bits"),
    (lab05.layer_bytes, on(Attention, lambda c, n, k, v: counted_bytes(c, 1, k, v)), "multiply by `positions`"),
    (lab05.layer_bytes, on(Attention, lambda c, *r: counted_bytes(replace(c, sliding_window=0), *r)), "forgets"),
    (
        lab05.layer_bytes,
        on(LatentAttention, lambda c, n, k, v: 2 * counted_bytes(c, n, k, k)),
        "count it once",
    ),
    (lab05.layer_bytes, on(LatentAttention, lambda c, n, k, v: n * row(c.kv_lora_rank, k)), "rotated part"),
    (lab05.layer_bytes, on(DeltaNet, lambda c, n, k, v: 4 * c.value_heads * c.size**2), "last inputs"),
    (lab05.layer_bytes, on(DeltaNet, lambda c, n, k, v: n * counted_bytes(c, n, k, v)), "does not grow"),
    (lab05.layer_bytes, lambda c, n, k, v: n * c.head_count_kv * c.key_length, "numbers, not bytes|for attention"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


def test_stubs_are_named() -> None:
    def generate(model: Callable, prompt: Tokens, n: int) -> list[int]:
        raise NotImplementedError

    def step(*arguments: jax.Array) -> object:
        raise NotImplementedError

    for item, answer in ((lab05.generate, generate), (lab05.step, step)):
        assert item(answer).message.startswith("still the empty stub")


# Lab 08


def by_medians(before: Callable, after: Callable, rounds: int) -> float:
    ratios = []
    for _ in range(rounds):
        slow, fast = before(), after()
        ratios.append(fast / slow)
    return float(np.median(ratios))


def alternated(end: Callable[[list[float], list[float]], float]) -> Callable:
    """Interleaved A/B with a given last step."""

    def gain(before: Callable, after: Callable, rounds: int) -> float:
        pairs = [(before(), after()) for _ in range(rounds)]
        return end([a for a, _ in pairs], [b for _, b in pairs])

    return gain


def in_blocks(before: Callable, after: Callable, rounds: int) -> float:
    slow = [before() for _ in range(rounds)]
    return float(np.median([after() for _ in range(rounds)]) / np.median(slow))


def ratios_of(slow: list[float], fast: list[float]) -> np.ndarray:
    return np.array(fast) / np.array(slow)


PLAN = [Change(KERNELS, "auto", 4.0), Change("-ub", "128", 2.0), Change("-ctk", "f16", 1.1)]
START = {KERNELS: "off", "-ub": "16", "-ctk": "f32"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """An instant measure function, with the list of its settings."""
    asked: list[dict[str, str]] = []

    def measure(flags: dict[str, str]) -> float:
        asked.append(dict(flags))
        return 10.0 * (3.0 if flags[KERNELS] == "auto" else 1.0) * (1.5 if flags["-ub"] == "128" else 1.0)

    monkeypatch.setattr(lab08.plan, "start", START)
    monkeypatch.setattr(lab08.plan, "measure", measure)
    return asked


def test_lab08_accepts_right_answers(measured: list[dict[str, str]]) -> None:
    right = {
        lab08.amdahl: lambda share, factor: 1 / ((1 - share) + share / factor),
        lab08.gain: by_medians,
        lab08.lookup_gain: lambda a, d, c: (1 + a * d) / c,
        lab08.changes: lambda: PLAN,
    }
    assert set(right) == set(lab08.ITEMS)
    for item, answer in right.items():
        assert item(answer).passed, item(answer).message
    assert str(lab08.score()).startswith("lab 08: 4 of 4 solved")


def test_changes_are_measured_interleaved_on_top_of_each_other(measured: list[dict[str, str]]) -> None:
    assert lab08.changes(lambda: PLAN).passed
    assert [flags[KERNELS] for flags in measured[:4]] == ["off", "auto", "off", "auto"]
    assert [flags["-ub"] for flags in measured[4:8]] == ["16", "128", "16", "128"]
    assert all(flags[KERNELS] == "auto" for flags in measured[4:])
    assert [gain.ratio for _, gain in lab08.plan.tried] == pytest.approx([3.0, 1.5, 1.0])
    shown = measurement_plots.waterfall(
        10.0, ab_measurement.waterfall_steps(lab08.plan.tried), "Gains", "tokens a second"
    )
    assert "kernels auto  ×4.00          ×3.00     30" in shown.text


def test_the_first_prediction_counts_and_precedes_its_measurement(measured: list[dict[str, str]]) -> None:
    def measure(flags: dict[str, str]) -> float:
        assert lab_record.section("08", "predictions"), "measured before anything was predicted"
        measured.append(flags)
        return 1.0

    lab08.plan.measure = measure
    assert lab08.changes(lambda: PLAN).passed
    count = len(measured)
    wiser = [Change(change.flag, change.value, 1.01) for change in PLAN]
    assert lab08.changes(lambda: wiser).passed
    assert len(measured) == count, "what was measured once is kept"
    assert [change.predicted for change, _ in lab08.plan.tried] == [4.0, 2.0, 1.1]


def test_lab08_takes_the_kernels_of_any_processor() -> None:
    for kernels in CPU_KERNELS:
        plan = [*PLAN[1:], Change(KERNELS, kernels, 2.0)]
        lab08._check_plan(plan, START | {KERNELS: "none"})


WRONG_08: list[tuple[Item, Callable, str]] = [
    (lab08.amdahl, lambda s, f: 1 - s + s / f, "one over it"),
    (lab08.amdahl, lambda s, f: 1 / (s + (1 - s) / f), "exchanged"),
    (lab08.amdahl, lambda s, f: 1 - s + s * f, "times do"),
    (lab08.amdahl, lambda s, f: f / s if s else 1.0, "the rest takes its time"),
    (lab08.amdahl, lambda s, f: f / (f * (1 - s) + s), "never more"),
    (lab08.gain, in_blocks, "run A B A B"),
    (lab08.gain, alternated(lambda slow, fast: sum(fast) / sum(slow)), "*median*"),
    (lab08.gain, alternated(lambda slow, fast: float(ratios_of(slow, fast).mean())), "*median*"),
    (lab08.gain, alternated(lambda slow, fast: float(np.median(ratios_of(fast, slow)))), "inverted"),
    (lab08.gain, alternated(lambda slow, fast: float(np.median(ratios_of(slow, fast))) - 1), "give a factor"),
    (lab08.gain, alternated(lambda slow, fast: sum(fast) - sum(slow)), "*median*|difference"),
    (lab08.gain, lambda before, after, rounds: after() / before(), "5 rounds"),
    (lab08.gain, lambda before, after, rounds: 1.25, "neither"),
    (lab08.lookup_gain, lambda a, d, c: a * d / c, "of the model's own"),
    (lab08.lookup_gain, lambda a, d, c: (1 + d) / c, "*accepted*"),
    (lab08.lookup_gain, lambda a, d, c: 1 + a * d, "divide by cost"),
    (lab08.lookup_gain, lambda a, d, c: c / (1 + a * d), "inverted"),
    (lab08.changes, lambda: [("-ub", "128", 2.0)], "list of Change"),
    (lab08.changes, lambda: PLAN[:2], "3 are wanted"),
    (lab08.changes, lambda: [*PLAN[:2], Change("-ub", "256", 1.1)], "3 different flags"),
    (lab08.changes, lambda: [*PLAN[:2], Change("-x", "256", 1.1)], "is none of"),
    (lab08.changes, lambda: [*PLAN[:2], Change("-ctk", "f32", 1.1)], "nothing changes"),
    (lab08.changes, lambda: [*PLAN[:2], Change("-ctk", "f16", 0.0)], "predict a factor"),
    (lab08.changes, lambda: [*PLAN[1:], Change(KERNELS, "mmx", 2.0)], "not 'mmx'"),
    (lab08.changes, lambda: [Change(change.flag, change.value, 1.0) for change in PLAN], "nothing happens"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG_08)
def test_lab08_names_the_mistake(item: Item, answer: Callable, said: str, measured: list[dict[str, str]]) -> None:
    result = item(answer)
    assert not result.passed and not measured
    assert any(part in result.message for part in said.split("|")), result.message


def test_a_setting_runs_in_a_process_of_its_own(builtin_model: Path) -> None:
    words, environment = ab_measurement.command(builtin_model, {"-ub": "16", KERNELS: "off"}, ("-p", "16", "-n", "0"))
    assert environment == {KERNELS: "off"} and words[-4:] == ("-ub", "16", "-o", "json")
    test = ("-p", "16", "-n", "0", "-r", "1", "--no-warmup")
    found = dict(ab_measurement.measure_grid(builtin_model, {}, ("-ub", ("16",)), ("-ctk", ("f16",)), test))
    assert list(found) == [("16", "f16")] and min(found.values()) > 0
    with pytest.raises(ml.ResourceError, match=r"minillama failed with status 2: .*MINILLAMA_CPU_KERNELS"):
        ab_measurement.tokens_per_second(builtin_model, {KERNELS: "mmx"}, test)


def test_a_gain_smaller_than_its_spread_says_nothing() -> None:
    gain = ab_measurement.Gain((10.0, 10.0, 10.0), (10.0, 12.0, 11.0))
    assert gain.ratios == pytest.approx([1.0, 1.2, 1.1])
    assert (gain.ratio, gain.spread) == pytest.approx((1.1, 1.2))


def test_heat_map_marks_the_best_and_leaves_gaps() -> None:
    values = {("16", "avx2"): 100.0, ("16", "auto"): 300.0}
    shown = measurement_plots.heat_map(("16", "64"), ("avx2", "auto"), values, "Speed", "kernels", "-ub")
    assert shown.text.splitlines()[3:] == ["16             100   300 ★", "64"]
    assert measurement_plots.heat_map(("16",), ("auto",), {}, "Speed", "kernels", "-ub").text.startswith("Speed")


def test_labs_measure_alone_and_record_the_other_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process holds the lock first; its load is recorded with the number and shown in the figure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILLAMA_LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(measuring.OtherLoad, "share", lambda self: 0.4)
    held = "from minillama.measure.host.measurement_lock import machine_lock as lock\nwith lock('a neighbour'):\n"
    program = f"{held}    print('held', flush=True)\n    import time\n    time.sleep(1.0)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout.readline() == "held\n"
        started = datetime.now(UTC)
        assert product_dot(1, side=256).flops > 0
        assert neighbour.wait(30) == 0
    assert "waiting for another measurement on this machine: a neighbour, process" in capsys.readouterr().out
    lab_record.measurement("98", "speed", 3.0, "s")
    guess = Prediction("98", "guess", "How many?", "s")
    guess.record(2.0)
    assert "other programs used 40% of the cores: measure again" in guess.compare(3.0).text
    entries = lab_record.section("98", "measurements")
    assert [entries[name]["other_load"] for name in ("speed", "guess")] == [0.4, 0.4]
    begun, ended = (datetime.fromisoformat(entries["speed"][end]) for end in ("begun", "ended"))
    assert started < begun < ended < datetime.now(UTC) and begun - started > timedelta(seconds=0.5), "it waited first"


def test_a_number_of_a_running_measurement_lasts_until_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLAMA_LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(measuring, "_last", None)
    assert set(lab_record.measured(1.0, "s")) == {"value", "unit", "written"}, "nothing was measured yet"
    with measuring.measuring("outer"):
        with measuring.measuring("inner"):
            inner = lab_record.measured(1.0, "s")
        outer = lab_record.measured(1.0, "s")
    after = lab_record.measured(1.0, "s")
    assert inner["begun"] == outer["begun"] == after["begun"], "a part of the outer one"
    assert inner["ended"] < outer["ended"] < after["ended"]
