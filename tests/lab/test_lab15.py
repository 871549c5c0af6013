"""Lab 15: the law, the sampler and the guesser against references, and checks that name mistakes."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_checks import solutions

import minillama as ml
from minillama.engine.generation.prompt_lookup import PromptLookup
from minillama.engine.llm import LLM
from minillama.gguf import open_gguf
from minillama.gguf.reader import dequantize
from minillama.lab import measuring
from minillama.lab.checks import lab15
from minillama.lab.checks.speculation.lab15_lookup import right_lookup
from minillama.lab.checks.speculation.lab15_verify import right_verify
from minillama.lab.experiments.quantised_storytellers import quantised
from minillama.lab.grading.check import Item
from minillama.lab.speculation import speculation_law as law
from minillama.lab.speculation.batch_gains import BatchGain, batch_gains
from minillama.lab.speculation.gain_table import batch_table, dots, gains_table
from minillama.lab.speculation.guessed_text import follow
from minillama.lab.speculation.heavy_storyteller import heavy_storyteller
from minillama.lab.speculation.logged_passes import LoggedRun, MeasuredGain, Pass, logged_run, measured_gains
from minillama.lab.speculation.pass_costs import RowCosts, pass_costs
from minillama.lab.speculation.rejection_sampling import (
    FAULTY_SAMPLERS,
    chi_square,
    chi_square_of,
    draw_tokens,
    output_distribution,
    overlap,
)
from minillama.lab.speculation.speculation_verdict import as_predicted, cost_sentence, gain_or_loss
from minillama.lab.speculation.speedup_figures import Dot, batch_curve, speedup_curves
from minillama.lab.widgets.figure import PLOTLY_MIME

LINE = "Once upon a time, there was a"
COSTS = RowCosts({1: [1.0, 2.0, 1.0], 2: [1.5, 2.4, 1.1], 4: [2.0, 4.0, 2.0], 8: [3.0, 6.0, 3.0]}, [0.1, 0.4, 0.1])
chances = st.floats(0, 1)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def pair() -> LLM:
    """A storyteller with a little ballast, and a draft model."""
    return ml.load(heavy_storyteller(2), model_draft=quantised("Q4_0"), ctx_size=128, progress=False)


# The law


@given(chances, st.integers(0, 12))
def test_tokens_of_a_pass_by_enumeration(acceptance: float, guesses: int) -> None:
    """The first wrong guess ends the pass: sum of (length) times (its chance)."""
    ends = [acceptance**right * (1 - acceptance) for right in range(guesses)] + [acceptance**guesses]
    mean = sum(chance * (right + 1) for right, chance in enumerate(ends))
    assert law.expected_tokens(acceptance, guesses) == pytest.approx(mean)


@given(chances, st.integers(1, 40), st.floats(0, 3), st.floats(0.1, 20), st.floats(0, 3))
def test_the_best_guess_is_no_worse_than_any(
    acceptance: float, batch: int, draft: float, step: float, row: float
) -> None:
    def seconds(rows: int) -> float:
        return step + row * rows

    best = law.best_guesses(acceptance, batch, draft, seconds)
    assert best == 0 or batch * (best + 1) <= law.MOST_ROWS
    gains = [law.batch_speedup(acceptance, k, batch, draft, seconds) for k in range(max(1, law.MOST_ROWS // batch))]
    assert gains[best] == max(gains) >= gains[0] == pytest.approx(1.0) and best == gains.index(max(gains))


def test_one_text_is_a_batch_of_one() -> None:
    gain = law.batch_speedup(0.8, 3, 1, 0.1, COSTS.cost)
    assert gain == pytest.approx(law.speedup(0.8, 3, 0.1, 2.0)) == pytest.approx((1 + 0.8 + 0.64 + 0.512) / 2.3)


# The sampler


@st.composite
def pairs_of_distributions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 6))
    weights = st.lists(st.integers(0, 5), min_size=size, max_size=size).filter(any)
    p, q = (np.array(draw(weights), np.float64) for _ in range(2))
    return p / p.sum(), q / q.sum()


@given(pairs_of_distributions())
def test_rejection_keeps_the_distribution(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    for verify in (right_verify, solutions_of_the_lab()["verify"]):
        out, kept = output_distribution(verify, p, q)
        np.testing.assert_allclose(out, p, atol=1e-12)
        assert kept == pytest.approx(np.minimum(p, q).sum())


def test_draws_have_the_distribution_of_the_enumeration() -> None:
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.2, 0.2, 0.4])
    for name, verify in {"right": right_verify, **FAULTY_SAMPLERS}.items():
        out, _ = output_distribution(verify, p, q)
        counts = draw_tokens(verify, p, q, 20_000, seed=3)
        assert counts.sum() == 20_000 and chi_square(counts, out).p_value > 0.01
        assert (chi_square(counts, p).p_value > 0.01) is (name == "right")


def test_chi_square_of_known_counts() -> None:
    found = chi_square(np.array([44, 56]), np.array([0.5, 0.5]))
    assert (found.statistic, found.freedom) == (pytest.approx(1.44), 1)
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(1.44 / 2)))  # one degree of freedom
    assert "no difference found" in str(found)
    assert "another distribution" in str(chi_square(np.array([1, 99]), np.array([0.0, 1.0])))
    uniform = np.full(2, 0.5)
    assert chi_square_of(lambda p, q, guess: 1 / 0, uniform, uniform, 9, 1).startswith("ZeroDivisionError")


def test_overlap_of_two_models() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    draft = np.log(np.array([[0.3, 0.5, 0.2], [0.1, 0.2, 0.7]]))
    found = overlap(logits, draft)
    assert (found.rejection, found.likeliest, found.greedy) == pytest.approx((0.85, 0.55, 0.5))
    same = overlap(logits, logits)
    assert (same.rejection, same.greedy) == pytest.approx((1, 1))


# The guesser


@given(st.lists(st.integers(0, 3), max_size=24), st.integers(1, 4), st.integers(0, 9))
def test_lookup_guesses_as_the_engine_does(tokens: list[int], n: int, k: int) -> None:
    engine = PromptLookup(n, k)
    engine.extend(tokens)
    expected = engine.draft(k)
    assert right_lookup(tokens, n, k) == expected
    assert solutions_of_the_lab()["lookup"](tokens, n, k) == expected


@given(st.lists(st.integers(0, 3), min_size=2, max_size=24), st.integers(1, 5))
def test_a_guesser_that_knows_the_text(tokens: list[int], k: int) -> None:
    acceptance, per_pass = follow(lambda known, n, k: tokens[len(known) : len(known) + k], tokens, 3, k)
    passes = math.ceil((len(tokens) - 1) / (k + 1))
    assert per_pass == pytest.approx((len(tokens) - 1) / passes) and acceptance == (len(tokens) > 2)
    assert follow(lambda known, n, k: [9] * k, tokens, 3, k) == (0.0, 1.0)


# What the notebook measures with


def test_costs_are_ratios_of_the_same_round() -> None:
    assert COSTS.ratio(2) == 1.2 and COSTS.ratio(8) == 3.0 and COSTS.draft == 0.1
    assert [COSTS.cost(rows) for rows in (1, 3, 4, 5, 8)] == [1.0, 2.0, 2.0, 3.0, 3.0]  # padded to powers of two
    assert COSTS.cost(9) == COSTS.cost(16) == 5.0 and RowCosts({1: [1.0]}).draft == 0.0


def test_verdicts_look_at_the_noise() -> None:
    assert gain_or_loss([1.3, 1.32, 1.31]) == "a gain" and gain_or_loss([0.8, 0.81, 0.79]) == "a loss"
    assert gain_or_loss([1.1, 1.6, 1.01]) == gain_or_loss([0.9, 1.2]) == gain_or_loss([2.0]) == "cannot tell"
    rounds = [1.5, 1.52, 1.48]
    assert [as_predicted(said, rounds) for said in (1.0, 1.5, 3.0)] == ["too low", "fits", "too high"]
    assert as_predicted(1.5, [1.0, 2.0, 3.0]) == "cannot tell"
    assert "cannot tell" in cost_sentence(8, [1.0, 2.0, 4.0]) and "25% of 8" in cost_sentence(8, [2.0, 2.01, 1.99])


def test_counts_of_a_run() -> None:
    passes = (Pass(3, 4), Pass(3, 1), Pass(3, 3), Pass(0, 1))
    run = LoggedRun(None, passes)  # type: ignore[arg-type]
    assert (run.tested, run.accepted, run.acceptance) == (3 + 1 + 3, 5, 5 / 7)
    assert run.tokens_per_pass == 9 / 4 and run.mean_guess == 3
    assert run.counted_speedup(COSTS, 0.5) == pytest.approx(9 / (3 * 2.0 + 1 + 9 * 0.5))
    gains = {"draft": MeasuredGain(run, (1.2, 1.21, 1.22)), "lookup": MeasuredGain(run, (0.9, 1.3, 1.1))}
    _, _, draft, lookup = gains_table(gains, {"draft": 3}, COSTS).splitlines()
    assert draft.split()[1] == "71%" and "a gain" in draft
    assert " - " in lookup and "cannot tell" in lookup
    assert dots(gains)["lookup"] == Dot(3.0, 1.1, 0.9, 1.3)
    table = batch_table({1: BatchGain((1.5, 1.5, 1.51), 8, 4), 8: BatchGain((0.5, 1.5), 0, 0)}, {1: 1.5})
    assert "50%" in table and "fits" in table and "cannot tell" in table.splitlines()[-1]


def test_figures_have_their_text() -> None:
    figure = speedup_curves((0.5, 1.0), 0.1, COSTS.cost, {"draft": Dot(3, 1.4, 1.2, 1.5)}, "the law")
    assert PLOTLY_MIME in figure._repr_mimebundle_() and "1.20 to 1.50" in str(figure) and "break-even" in str(figure)
    assert "a guess of 3: ×1.28; best: 1, ×1.38" in str(batch_curve(0.8, 3, 1, 0.1, COSTS.cost, "a batch"))


def test_ballast_is_silent(builtin_model: Path) -> None:
    light, heavy = open_gguf(builtin_model), open_gguf(heavy_storyteller(2))
    assert heavy.metadata["llama.feed_forward_length"] == 2 * light.require("llama.feed_forward_length", int)
    for name, tensor in light.tensors.items():
        wide = dequantize(heavy.tensors[name])
        weights = dequantize(tensor)
        if ".ffn_down." in name:
            assert np.array_equal(wide, np.hstack([weights, np.zeros_like(weights)]))
        else:
            assert np.array_equal(wide, np.tile(weights, (2, 1)) if ".ffn_" in name and weights.ndim == 2 else weights)


@pytest.mark.slow
def test_ballast_changes_no_logit(pair: LLM, builtin_model: Path) -> None:
    light = ml.load(builtin_model, progress=False)
    ids = light.tokenizer.encode(LINE)
    np.testing.assert_allclose(pair.logits(ids), light.logits(ids), atol=1e-4)


@pytest.mark.slow
def test_texts_with_guesses_are_measured(pair: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "load_warning", lambda *_: None)
    plain = logged_run(pair, LINE, n=12, temp=0.0, draft_max=0)
    assert plain.passes == (Pass(0, 1),) * len(plain.passes) and plain.acceptance == 0.0
    gains = measured_gains(
        pair, LINE, {"draft": {"draft_max": 3}, "lookup": {"lookup": True}}, rounds=1, n=12, temp=0.0
    )
    for name, gain in gains.items():
        assert gain.run.completion.tokens == plain.completion.tokens and gain.ratio > 0, name
        assert 11 <= sum(each.written for each in gain.run.passes) <= 12
    assert gains["draft"].run.acceptance > 0.5 and 1 <= gains["draft"].run.mean_guess <= 3
    costs = pass_costs(pair, (1, 2, 4), rounds=2)
    assert costs.rows == [1, 2, 4] and costs.draft > 0 and all(len(times) == 2 for times in costs.rounds.values())


@pytest.mark.slow
def test_batches_are_measured(pair: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "load_warning", lambda *_: None)
    with pair.batch_engine(slots=2, draft_max=3) as engine:
        gains = batch_gains(engine, (1, 2), 3, n=9, rounds=1)
    assert list(gains) == [1, 2]
    for gain in gains.values():
        assert gain.ratio > 0 and 0 < gain.accepted <= gain.drafted


# The checks


_solved: dict[str, Callable] = {}


def solutions_of_the_lab() -> dict[str, Callable]:
    if not _solved:
        _solved.update(solutions("15"))
    return _solved


def test_right_answers_pass() -> None:
    for item in lab15.ITEMS:
        result = item(solutions_of_the_lab()[item.name])
        assert result.passed, result.message
    assert str(lab15.score()).startswith("lab 15: 5 of 5 solved")


def test_other_right_answers_pass() -> None:
    """Not the wording of the solution counts, but what comes out."""

    def verify(p: np.ndarray, q: np.ndarray, guess: int) -> tuple[np.ndarray, list[float]]:
        if p[guess] >= q[guess]:
            return np.float64(1), p.tolist()
        left = np.where(p > q, p - q, 0.0)
        return p[guess] / q[guess], (left / left.sum()).tolist()

    assert lab15.verify(verify).passed
    assert lab15.expected_tokens(lambda a, k: k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)).passed


def unfinished(*_: object) -> object:
    raise NotImplementedError


WRONG: list[tuple[Item, Callable, str]] = [
    *((item, unfinished, "empty stub") for item in lab15.ITEMS),
    *((item, lambda *_: None, "returned None") for item in lab15.ITEMS),
    (lab15.lookup, lambda t, n, k: [0] * k, "wrong value"),
    (lab15.lookup, lambda t, n, k: t[:k], "what *followed*"),
    (lab15.expected_tokens, lambda a, k: (1 - a ** (k + 1)) / (1 - a), "ZeroDivisionError"),
    (lab15.expected_tokens, lambda a, k: a * k + 1, "all guesses before it"),
    (lab15.speedup, lambda a, k, d, c: law.expected_tokens(a, k) / c, "not free"),
    (lab15.best_k, lambda a, b, d, s: 3, "wrong value|begin with|not most|all texts"),
    (lab15.verify, lambda p, q, g: p[g] / q[g], "two values"),
    (lab15.verify, lambda p, q, g: (p[g] / q[g], p), "between 0 and 1"),
    (lab15.verify, lambda p, q, g: (min(1, p[g] / q[g]), np.maximum(p - q, 0)), "add up to"),
    (lab15.verify, lambda p, q, g: (min(1, p[g] / q[g]), p), "not from p"),
    (lab15.verify, lambda p, q, g: (0.5 * min(1, p[g] / q[g]), p), "probability"),
    (lab15.verify, lambda p, q, g: (0.0, p), "nothing is won"),
    (lab15.verify, lambda p, q, g: (float("nan"), p), "nan"),
    (lab15.verify, lambda p, q, g: (1.0, p[:2]), "distribution of 6 tokens"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message
