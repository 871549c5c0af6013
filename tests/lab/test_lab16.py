"""Lab 16: bytes and times of kinds of layers, formulas against the engine, and checks that name mistakes."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_checks import solutions

from minillama.errors import OptionError
from minillama.lab import measuring
from minillama.lab.checks import lab16
from minillama.lab.checks.layer_items.lab16_bytes import right_mask
from minillama.lab.checks.layer_items.lab16_delta import rule
from minillama.lab.checks.layer_items.lab16_heads import right_absorb, right_rotated
from minillama.lab.experiments.quantised_storytellers import distance
from minillama.lab.grading.check import Item
from minillama.lab.layer_costs.delta_texts import chunked, delta_text
from minillama.lab.layer_costs.engine_window import seen_by_engine
from minillama.lab.layer_costs.loud_channels import Rounding, keys_of, louder, rounded, storyteller_logits
from minillama.lab.layer_costs.state_figures import channel_figure, crossings, panel_figure, state_figure
from minillama.lab.layer_costs.step_times import (
    Model,
    StepTimes,
    equal_models,
    filled_cache,
    growth_sentence,
    rates_sentence,
    state_rate,
    step_times,
)
from minillama.lab.layer_costs.wide_layers import WIDE_LAYERS, allocated, bytes_read, crossing, one_layer
from minillama.lab.layer_costs.written_out_latents import latent_step
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.model.states.hadamard import hadamard_product
from minillama.model.states.window import WindowKeyValues

PANEL = {"layers": 32, "heads": 32, "shared": 4, "window": 1024, "latent": 512, "context": 32}
IDS = (1, 410, 332, 266, 291)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def solved() -> dict[str, Callable]:
    return solutions("16")


# ---- bytes ----


@pytest.mark.parametrize("name", WIDE_LAYERS)
def test_a_step_reads_what_is_allocated(name: str) -> None:
    """All of it, but for the room that a window has for the next pass."""
    layer = WIDE_LAYERS[name]
    for length in (1, 500, 1024):
        assert bytes_read(layer, length) == allocated(layer, length)
    long = bytes_read(layer, 4096), allocated(layer, 4096)
    assert long[0] < long[1] if name == "window" else long[0] == long[1]


def test_what_the_kinds_read() -> None:
    at = {name: bytes_read(layer, 32768) for name, layer in WIDE_LAYERS.items()}
    assert at["MHA"] == 16 * at["GQA"] and at["GQA"] == 32 * at["window"]
    assert at["MHA"] / at["latent"] == pytest.approx(2 * 128 * 128 / 576)
    assert at["recurrence"] == bytes_read(WIDE_LAYERS["recurrence"], 1)


@pytest.mark.parametrize("one", WIDE_LAYERS)
@pytest.mark.parametrize("other", WIDE_LAYERS)
def test_crossings(one: str, other: str) -> None:
    growing, fixed = WIDE_LAYERS[one], WIDE_LAYERS[other]
    found = crossing(growing, fixed)
    if found is None:
        assert bytes_read(growing, 1 << 20) <= bytes_read(fixed, 1 << 20)
        return
    assert bytes_read(growing, found) > bytes_read(fixed, found)
    assert found == 1 or bytes_read(growing, found - 1) <= bytes_read(fixed, found - 1)


def test_figures_say_what_they_show() -> None:
    figure = state_figure(WIDE_LAYERS, "title", marked=4096)
    assert PLOTLY_MIME in figure._repr_mimebundle_() and "8,192" in figure.text
    table = crossings(WIDE_LAYERS)
    assert "3,641" in table and "never" in table and "always" in table
    text = panel_figure(PANEL).text
    assert "recurrence 68.5 MiB" in text and "latent 1,152 MiB (1,949)" in text
    narrow = panel_figure(PANEL | {"heads": 8, "shared": 16, "window": 128}).text
    assert "window 2 MiB (never)" in narrow
    assert "channel" in channel_figure({"keys": np.arange(8.0).reshape(2, 1, 4)}, "title").text


# ---- windows, the delta rule, latents, rotation ----


@pytest.mark.parametrize(("start", "tokens", "window"), [(0, 5, 0), (0, 5, 1), (7, 3, 4), (2, 4, 100)])
def test_the_mask_is_the_engines(start: int, tokens: int, window: int) -> None:
    np.testing.assert_array_equal(right_mask(start, tokens, window), seen_by_engine(start, tokens, window))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.sampled_from([1, 130]))  # each length compiles
def test_the_chunked_form_is_the_rule(seed: int, tokens: int) -> None:
    text = delta_text(seed, tokens, size=8)
    begun = np.random.default_rng(seed).standard_normal((8, 8))
    for ours, engine in zip(rule(*text.part(0), begun), chunked(text, begun), strict=True):
        np.testing.assert_allclose(engine, ours, atol=2e-5 * max(1.0, np.abs(ours).max()))


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 20))
def test_any_split_gives_the_same(seed: int, cut: int) -> None:
    text, empty = delta_text(seed, 20, size=4), np.zeros((4, 4))
    found, memory = rule(*text.part(0), empty)
    first, between = rule(*text.part(0, cut), empty)
    second, after = rule(*text.part(cut), between)
    np.testing.assert_allclose(after, memory, atol=1e-12)
    np.testing.assert_allclose(np.concatenate([first, second]), found, atol=1e-12)


def test_delta_texts_have_unit_keys_and_shares() -> None:
    text = delta_text(3, 50, size=6, values=9)
    np.testing.assert_allclose(np.linalg.norm(text.k, axis=-1), 1)
    assert text.v.shape == (50, 9) and text.beta.min() > 0 and text.g.max() < 1


@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(*[st.integers(1, 6)] * 5))
def test_absorbed_is_written_out(seed: int, sizes: tuple[int, ...]) -> None:
    step = latent_step(seed, *sizes)
    np.testing.assert_allclose(step.absorbed(right_absorb), step.written_out(), rtol=1e-9, atol=1e-12)


def test_absorption_saves_products() -> None:
    step = latent_step(1, tokens=500)
    written, absorbed = step.products()
    assert written > 20 * absorbed and step.numbers_written_out() == 16 * step.rows.size


@pytest.mark.parametrize("size", [64, 256])
def test_the_rotation_is_the_engines(size: int) -> None:
    x = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32)
    np.testing.assert_allclose(right_rotated(x), hadamard_product(jnp.asarray(x), size), atol=1e-5)
    np.testing.assert_allclose(right_rotated(right_rotated(x)), x, atol=1e-5)


# ---- loud channels ----


def test_loud_channels_change_no_logit() -> None:
    plain, loud = storyteller_logits(IDS), storyteller_logits(IDS, None, 8.0)
    np.testing.assert_allclose(loud, plain, atol=1e-3)
    ratio = np.abs(keys_of(IDS, 0, 8.0)) / np.abs(keys_of(IDS, 0))
    assert sorted(np.unique(np.round(ratio[np.isfinite(ratio)], 3))) == [1.0, 8.0]


def test_rotation_helps_loud_keys() -> None:
    base = storyteller_logits(IDS)
    lost = {
        rotate is not None: distance(base, storyteller_logits(IDS, Rounding("q4_0", rotate), 8.0)).kld
        for rotate in (None, right_rotated)
    }
    assert lost[True] < lost[False] / 2


def test_rounding() -> None:
    x = np.random.default_rng(3).standard_normal((4, 32)).astype(np.float32)
    errors = [np.abs(rounded(x, kind) - x).max() for kind in ("q8_0", "q4_0")]
    assert 0 < errors[0] < 0.02 < errors[1] < 0.5
    loud = louder(x, 16.0)
    spread = Rounding("q4_0", right_rotated).stored(loud)
    assert np.abs(spread - loud).mean() < np.abs(rounded(loud, "q4_0") - loud).mean()
    with pytest.raises(OptionError, match="type of keys is 'q3_0'"):
        rounded(x, "q3_0")


# ---- times ----


def recorded(**kinds: tuple[list[float], list[float]]) -> StepTimes:
    return StepTimes({kind: {1024: short, 8192: long} for kind, (short, long) in kinds.items()})


def test_sentences_look_at_the_noise() -> None:
    steady, noisy = [1.0 + 0.001 * i for i in range(8)], [0.5, 2, 0.4, 2.5, 0.6, 2, 0.5, 1.9]
    times = recorded(a=(steady, [3.0] * 8), flat=(steady, steady[::-1]), noisy=(steady, noisy))
    assert growth_sentence(times, "a").endswith("grows")
    assert growth_sentence(times, "flat").endswith("flat")
    assert growth_sentence(times, "noisy").endswith("cannot tell")
    assert times.speeds("a")[1] == pytest.approx(1 / 3) and times.contexts == [1024, 8192]


def test_rates_of_state() -> None:
    models = {name: Model(None, one_layer(layer)) for name, layer in WIDE_LAYERS.items()}  # the weights are not read
    steady = [1.0 + 0.001 * i for i in range(8)]
    times = recorded(MHA=(steady, [9.0] * 8), latent=(steady, [5.0] * 8), recurrence=(steady, steady[::-1]))
    added = 7168 * 2 * 128 * 256
    assert state_rate(times, "MHA", models["MHA"]) == pytest.approx(added / (9.0 - 1.0035), rel=1e-6)
    assert state_rate(times, "recurrence", models["recurrence"]) is None
    assert "longer: memory is not its limit" in rates_sentence(times, models, "latent", "MHA")
    assert "less time" in rates_sentence(times, models, "MHA", "latent")
    assert "cannot tell" in rates_sentence(times, models, "recurrence", "MHA")


@pytest.mark.slow
def test_steps_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "load_warning", lambda *_: None)
    models = equal_models()
    for name, model in models.items():
        assert {type(layer) for layer in model.config.layers} == {type(model.config.layers[0])}, name
        assert model.config.embedding_length == 1024
    reads = [models[name].state_bytes(8192) for name in ("MHA", "GQA", "latent", "window", "recurrence")]
    assert all(one > two for one, two in pairwise(reads))
    times = step_times(models, (128, 2048), rounds=1)
    assert set(times.rounds) == set(models) and times.contexts == [128, 2048]
    assert all(len(found) == 1 and found[0] > 0 for of in times.rounds.values() for found in of.values())


@pytest.mark.slow
def test_a_filled_window_holds_its_last_positions() -> None:
    config = equal_models()["window"].config
    cache = filled_cache(config, 5000, 8256)
    layer = cache.layers[0]
    assert isinstance(layer, WindowKeyValues) and int(cache.length[0]) == 5000
    assert int(layer.first[0, 0]) <= 5000 - 1023 and 5000 - int(layer.first[0, 0]) < layer.keys.capacity
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(layer)) < 6 << 20


# ---- checks ----


def test_right_answers_pass(solved: dict[str, Callable]) -> None:
    for item in lab16.ITEMS:
        result = item(solved[item.name])
        assert result.passed, result.message
    assert str(lab16.score()).startswith("lab 16: 5 of 5 solved")


def by_matrix(x: np.ndarray) -> np.ndarray:
    size = x.shape[-1]
    signs = [[(-1) ** (i & j).bit_count() for j in range(size)] for i in range(size)]
    return x @ np.array(signs) / np.sqrt(size)


def test_other_right_answers_pass() -> None:
    assert lab16.rotated(by_matrix).passed
    mine = solutions("16")
    assert lab16.window_mask(lambda s, t, w: np.asarray(mine["window_mask"](s, t, w)).astype(int).tolist()).passed
    assert lab16.delta_rule(lambda *inputs: list(mine["delta_rule"](*inputs))).passed


def unfinished(*_: object) -> object:
    raise NotImplementedError


WRONG: list[tuple[Item, Callable, str]] = [
    *((item, unfinished, "empty stub") for item in lab16.ITEMS),
    *((item, lambda *_: None, "returned None") for item in lab16.ITEMS),
    (lab16.read_bytes, lambda layer, length: 7, "wrong value"),
    (lab16.read_bytes, lambda layer, length: 3 * bytes_read(layer, length), "wrong value"),
    (lab16.window_mask, lambda s, t, w: np.tri(t, s + t, s), "one of|window|wrong value"),
    (lab16.delta_rule, lambda *inputs: rule(*inputs)[0], "two arrays"),
    (lab16.delta_rule, lambda *inputs: rule(*inputs)[::-1], "has the shape"),
    (lab16.delta_rule, lambda *inputs: tuple(np.full_like(each, np.nan) for each in rule(*inputs)), "nan"),
    (lab16.delta_rule, lambda *inputs: (rule(*inputs)[0], rule(*inputs)[1] + 1), "wrong numbers .*: the memory"),
    (lab16.absorb, lambda q, w_k: np.zeros(3), "shape"),
    (lab16.absorb, lambda q, w_k: q, "shape"),
    (lab16.rotated, np.zeros_like, "wrong value"),
    (lab16.rotated, lambda x: by_matrix(x)[..., :-1], "shape"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert re.search(said, result.message), result.message


def test_in_place_updates_are_seen() -> None:
    """A rule that fades the given array itself is right in its numbers, and hurts the caller."""

    def in_place(q: np.ndarray, k: np.ndarray, v: np.ndarray, g: np.ndarray, beta: np.ndarray, memory: np.ndarray):
        result = rule(q, k, v, g, beta, memory)
        memory *= 0.5
        return result

    assert "changed its input" in lab16.delta_rule(in_place).message
