"""Lab 06: measurements equal to the engine's, and checks that name mistakes."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, stdev

import numpy as np
import pytest

import minillama as ml
from minillama.engine.llm import LLM
from minillama.gguf.reader import open_gguf
from minillama.lab.checks import lab06
from minillama.lab.experiments.quantised_storytellers import (
    distance,
    heldout_text,
    log_softmax,
    quantised,
    scored_logits,
)
from minillama.lab.grading.check import Item
from minillama.lab.plots import measurement_plots
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.measure.quality.perplexity import perplexity


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def llm(builtin_model: Path) -> LLM:
    return ml.load(builtin_model, progress=False)


# What the notebooks measure with


def test_quantised_files_are_what_their_name_says_and_made_once() -> None:
    path = quantised("Q4_0")
    assert open_gguf(path).tensors["blk.0.ffn_up.weight"].type.name == "Q4_0"
    assert quantised("Q4_0") is path


def test_scored_logits_give_the_engines_perplexity(llm: LLM) -> None:
    text = heldout_text()[:2000]
    found = [surprise(*window) for window in scored_logits(llm, llm.tokenizer.encode(text), 64)]
    values = np.concatenate(found)
    engine = perplexity(llm, text, ctx_size=64)
    assert len(values) == engine.count
    assert np.exp(values.mean()) == pytest.approx(engine.ppl, rel=1e-3)
    assert lab06._with_error(values)[1] == pytest.approx(engine.error, rel=1e-3)


def test_distance_of_distributions() -> None:
    base = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]]))
    assert distance(base, base).kld == pytest.approx(0) and distance(base, base).same_top == 1
    apart = distance(base, other)
    assert apart.kld == pytest.approx((0.5 * np.log(2) + 0.25 * np.log(0.5)) / 2)
    assert apart.same_top == 0.5
    assert np.allclose(np.exp(log_softmax(np.array([[1000.0, 1000.0]]))), 0.5)


def test_bands_carry_a_text_twin() -> None:
    figure = measurement_plots.bands(
        {"F16": [(127, 210.0, 30.0), (254, 190.0, 20.0)], "later": []}, "PPL", "tokens", "perplexity"
    )
    assert "190 ± 20" in figure.text and PLOTLY_MIME in figure.mime_bundle()
    edge = figure.plotly.data[0]
    assert list(edge.y) == [240.0, 210.0, 170.0, 180.0]
    assert "nothing measured yet" in measurement_plots.bands({}, "PPL", "tokens", "perplexity").text


# Lab 06


def surprise(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Reference implementation: token by token, with logaddexp."""
    rows = np.asarray(logits, np.float64)
    return np.array([np.logaddexp.reduce(row) - row[token] for row, token in zip(rows, ids[1:], strict=False)])


def with_error(values: np.ndarray) -> tuple[float, float]:
    ppl = float(np.exp(sum(values) / len(values)))
    return ppl, ppl * stdev(values.tolist()) / len(values) ** 0.5


def percentiles(answers: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    later = sorted(value for answer in answers for value in answer[1:])
    place = 0.99 * (len(later) - 1)
    low = later[int(place)]
    high = later[min(int(place) + 1, len(later) - 1)]
    return median(answer[0] for answer in answers), median(later), low + (place - int(place)) * (high - low)


def counted(texts: Sequence[Sequence[str]], n: int) -> float:
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        seen.update(zip(*(text[start:] for start in range(n)), strict=False))
    return len(seen) / seen.total()


def by_pairs(a: np.ndarray, b: np.ndarray) -> int:
    apart = (b - a).tolist()
    z = sum(apart) / len(apart) / (stdev(apart) / len(apart) ** 0.5)
    return -1 if z > 2 else 1 if z < -2 else 0


RIGHT: dict[Item, Callable] = {
    lab06.nll: surprise,
    lab06.perplexity: with_error,
    lab06.latencies: percentiles,
    lab06.distinct: counted,
    lab06.verdict: by_pairs,
}


def test_right_answers_pass() -> None:
    assert set(RIGHT) == set(lab06.ITEMS)
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert str(lab06.score()).startswith("lab 06: 5 of 5 solved")


def all_words(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[word for text in texts for word in text]]


WRONG: list[tuple[Item, Callable, str]] = [
    (lab06.nll, lambda x, ids: -log_softmax(x)[np.arange(len(ids)), ids], "token that follows"),
    (lab06.nll, lambda x, ids: -log_softmax(x)[np.arange(len(ids) - 1), ids[:-1]], "token that follows"),
    (lab06.nll, lambda x, ids: -surprise(x, ids), "sign"),
    (lab06.nll, lambda x, ids: np.exp(-surprise(x, ids)), "probabilities"),
    (lab06.nll, lambda x, ids: surprise(x, ids) / np.log(2), "bits"),
    (lab06.nll, lambda x, ids: surprise(x, ids).mean(), "one number a token"),
    (lab06.nll, lambda x, ids: -x[np.arange(len(ids) - 1), ids[1:]], "ln Σ exp"),
    (
        lab06.nll,
        lambda x, ids: -np.log((np.exp(x).T / np.exp(x).sum(-1)).T[np.arange(len(ids) - 1), ids[1:]]),
        "largest of each row",
    ),
    (lab06.nll, lambda x, ids: surprise(x, ids)[:-1], "shape"),
    (lab06.perplexity, lambda v: (np.exp(v).mean(), with_error(v)[1]), "mean of exp"),
    (lab06.perplexity, lambda v: (v.mean(), v.std(ddof=1) / len(v) ** 0.5), "in nats"),
    (lab06.perplexity, lambda v: (with_error(v)[0], v.std(ddof=1) / len(v) ** 0.5), "times the perplexity"),
    (lab06.perplexity, lambda v: (with_error(v)[0], with_error(v)[0] * v.std(ddof=1)), "smaller by √n"),
    (lab06.perplexity, lambda v: (with_error(v)[0], with_error(v)[0] * v.std() / len(v) ** 0.5), "ddof=1"),
    (lab06.perplexity, lambda v: (with_error(v)[0], np.exp(v.std(ddof=1) / len(v) ** 0.5)), "error of exp"),
    (lab06.perplexity, lambda v: with_error(v)[::-1], "comes first"),
    (lab06.perplexity, lambda v: with_error(v)[0], "shape"),
    (
        lab06.latencies,
        lambda a: (percentiles(a)[0], *np.percentile(np.concatenate(a), [50, 99])),
        "among the later",
    ),
    (
        lab06.latencies,
        lambda a: (
            np.mean([x[0] for x in a]),
            np.mean(np.concatenate([x[1:] for x in a])),
            percentiles(a)[2],
        ),
        "median",
    ),
    (lab06.latencies, lambda a: (*percentiles(a)[:2], max(max(x[1:]) for x in a)), "slowest of all"),
    (lab06.latencies, lambda a: np.array(percentiles(a)) * 1e3, "seconds out"),
    (lab06.latencies, lambda a: np.mean([percentiles([x]) for x in a], axis=0), "wrong value|no percentile"),
    (lab06.distinct, lambda texts, n: counted(all_words(texts), n), "into the next"),
    (lab06.distinct, lambda texts, n: np.mean([counted([t], n) for t in texts if len(t) >= n]), "copies"),
    (
        lab06.distinct,
        lambda texts, n: (
            len({r for t in texts for r in zip(*(t[i:] for i in range(n)), strict=False)}) / len(all_words(texts)[0])
        ),
        "number of runs",
    ),
    (lab06.distinct, lambda texts, n: counted(texts, 1), "single words"),
    (lab06.distinct, lambda texts, n: 1 - counted(texts, n), "one minus"),
    (lab06.distinct, lambda texts, n: 100 * counted(texts, n), "percent"),
    (lab06.verdict, lambda a, b: -by_pairs(a, b), "smaller nll"),
    (
        lab06.verdict,
        lambda a, b: (
            0
            if abs(np.mean(b) - np.mean(a)) < 2 * np.hypot(np.std(a), np.std(b)) / len(a) ** 0.5
            else int(np.sign(np.mean(a) - np.mean(b)))
        ),
        "the *same* tokens",
    ),
    (lab06.verdict, lambda a, b: int(np.sign(np.mean(a) - np.mean(b))), "some difference"),
    (lab06.verdict, lambda a, b: 0, "always the same|same* tokens|spread of single"),
    (lab06.verdict, lambda a, b: by_pairs(a, b) or 1, "yours is"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message
