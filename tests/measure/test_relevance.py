"""BERTScore's matching against a reference implementation; hidden states against trace and logits."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_tiny

from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.errors import OptionError, ResourceError
from minillama.measure.texts import bert_score_package
from minillama.measure.texts.hidden_states import Continuation, continuation_logprobs, default_layer, hidden_states
from minillama.measure.texts.relevance import (
    Score,
    bert_score,
    hidden_scorer,
    idf,
    mean_score,
    random_pairs,
    rescale,
)

LONGEST = 40


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A model with windows, scaled embeddings and capped logits."""
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "gemma2")
    return load(path, ctx_size=256, ubatch_size=128, cache_type_k="f32", cache_type_v="f32")


def slow_states(llm: LLM, ids: Sequence[int], layer: int) -> np.ndarray:
    """A trace of one text, padded to a common length to compile only once."""
    return llm.trace([*ids, *[0] * (LONGEST - len(ids))])[f"l_out-{layer - 1}"][: len(ids)]


def some_ids(lengths: Sequence[int]) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(3, 300, size=length).tolist() for length in lengths]


def slow_score(a: np.ndarray, b: np.ndarray, wa: Sequence[float], wb: Sequence[float]) -> tuple[float, float, float]:
    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    precision = sum(w * max(cosine(x, y) for y in b) for x, w in zip(a, wa, strict=True)) / sum(wa)
    recall = sum(w * max(cosine(x, y) for x in a) for y, w in zip(b, wb, strict=True)) / sum(wb)
    return precision, recall, 2 * precision * recall / (precision + recall)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_matching_against_a_slow_twin(rows: int, others: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.uniform(0.1, 1, (rows, 5)), random.uniform(0.1, 1, (others, 5))
    wa, wb = random.uniform(0.1, 2, rows), random.uniform(0.1, 2, others)
    found = bert_score(a, b, wa, wb)
    assert (found.precision, found.recall, found.f1) == pytest.approx(slow_score(a, b, wa, wb))
    back = bert_score(b, a, wb, wa)
    assert (back.precision, back.recall, back.f1) == pytest.approx((found.recall, found.precision, found.f1))
    order = random.permutation(rows)
    shuffled = bert_score(3 * a[order], b, wa[order], wb)  # neither places nor lengths of vectors count
    assert vars(shuffled) == pytest.approx(vars(found))
    assert vars(bert_score(a, a, wa, wa)) == pytest.approx({"precision": 1, "recall": 1, "f1": 1})


def test_matching_by_hand() -> None:
    a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]])
    assert bert_score(a, b) == Score(0.5, 1.0, 2 / 3)
    assert bert_score(a, b, np.array([3.0, 1.0]), np.array([1.0])).precision == 0.75
    assert bert_score(a, b, np.array([0.0, 0.0]), np.array([0.0])) == bert_score(a, b)  # no weight: all alike
    assert bert_score(a[:1], -b) == Score(-1.0, -1.0, 0.0)
    assert bert_score(a[:1], np.zeros((1, 2))) == Score(0.0, 0.0, 0.0)
    for one, other in ((a[:0], b), (a, b[:0]), (a[:0], b[:0])):
        assert bert_score(one, other) == Score(0.0, 0.0, 0.0)


def test_idf() -> None:
    weights = idf(["aab", "ac", ""])
    assert weights("abcz").tolist() == pytest.approx([math.log(4 / 3), math.log(4 / 2), math.log(4 / 2), math.log(4)])
    assert idf(["a"])("a").tolist() == [0] and weights("").tolist() == []
    assert idf([])("a").tolist() == [0]  # nothing is known of any token, so all count the same


def test_rescaling() -> None:
    base = Score(0.5, 0.8, 0.6)
    assert vars(rescale(base, base)) == {"precision": 0, "recall": 0, "f1": 0}
    assert vars(rescale(Score(1.0, 1.0, 1.0), base)) == pytest.approx({"precision": 1, "recall": 1, "f1": 1})
    assert rescale(Score(0.75, 0.7, 0.6), base).recall == pytest.approx(-0.5)
    assert math.isnan(rescale(Score(1.0, 1.0, 1.0), Score(1.0, 0.0, 0.0)).precision)
    assert mean_score([Score(0.0, 1.0, 0.0), Score(1.0, 2.0, math.nan)]) == Score(0.5, 1.5, 0.0)
    assert math.isnan(mean_score([]).f1)


def test_random_pairs() -> None:
    pairs = random_pairs(2000, 4)
    assert pairs == random_pairs(2000, 4) != random_pairs(2000, 4, seed=1)
    assert set(pairs) == {(i, j) for i in range(4) for j in range(4) if i != j}
    assert all(100 < pairs.count(pair) < 240 for pair in set(pairs))  # of 167 expected
    assert random_pairs(5, 1) == random_pairs(5, 0) == []


def test_hidden_states_are_those_of_a_trace(llm: LLM) -> None:
    lengths = [5, 1, LONGEST, 0, 33, 8]
    texts = some_ids(lengths)
    for layer in (1, 2):
        found = hidden_states(llm, texts, layer)
        assert [len(states) for states in found] == lengths
        for ids, states in zip(texts, found, strict=True):
            np.testing.assert_allclose(states, slow_states(llm, ids, layer), rtol=2e-4, atol=2e-4)


def test_middle_layer(llm: LLM) -> None:
    assert np.array_equal(hidden_states(llm, [[7, 8]])[0], hidden_states(llm, [[7, 8]], default_layer(2))[0])
    assert [default_layer(layers) for layers in (1, 2, 3, 12, 24, 32)] == [1, 1, 2, 8, 16, 21]
    assert hidden_states(llm, []) == []


def test_likelihoods_are_those_of_the_logits(llm: LLM) -> None:
    texts = some_ids([6, 30, 2, 31])
    answers = [Continuation(tuple(ids), start) for ids, start in zip(texts, (3, 20, 2, 1), strict=True)]
    for answer, logprobs in zip(answers, continuation_logprobs(llm, answers), strict=True):
        logits = llm.logits(answer.ids).astype(np.float64)
        every = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        slow = [every[place - 1, answer.ids[place]] for place in range(answer.start, len(answer.ids))]
        np.testing.assert_allclose(logprobs, slow, rtol=1e-3, atol=1e-3)


def test_scorer_on_a_model(llm: LLM) -> None:
    texts = ["the rat", "on the tree 你好", "ten"]
    scorer = hidden_scorer(llm, texts)
    same = scorer(texts, texts)
    assert all(score.f1 == pytest.approx(1, abs=1e-5) for score in same)
    ids = [llm.tokenizer.encode(text, add_special=False) for text in texts[:2]]
    vectors = [slow_states(llm, [1, *found], 1)[1:] for found in ids]  # 1 is BOS
    weights = [scorer.weights(found) for found in ids]
    slow = slow_score(vectors[0], vectors[1], weights[0], weights[1])
    (score,) = scorer(texts[:1], texts[1:2])
    assert (score.precision, score.recall, score.f1) == pytest.approx(slow, abs=1e-4)
    assert scorer([""], texts[:1]) == [Score(0.0, 0.0, 0.0)]
    assert "layer 1 of 2 of tiny.gguf" in scorer.name


def test_errors(llm: LLM) -> None:
    for layer in (0, 3):
        with pytest.raises(OptionError, match=f"layer is {layer}; tiny.gguf has layers 1 to 2"):
            hidden_states(llm, [[5]], layer)
    with pytest.raises(OptionError, match="a text of 300 tokens does not fit in a context of 256"):
        continuation_logprobs(llm, [Continuation((5,) * 300, 1)])


class FakeBERTScorer:
    """The interface of bert_score.BERTScorer: the share of letters that two texts have in common."""

    def __init__(self, model_type: str, idf: bool, idf_sents: list[str]) -> None:
        if model_type == "absent":
            raise OSError("absent is not a folder\nand so on")
        assert idf and idf_sents == ["some", "texts"]

    def score(self, candidates: list[str], references: list[str]) -> tuple[list[float], list[float], list[float]]:
        shared = [len(set(a) & set(b)) for a, b in zip(candidates, references, strict=True)]
        return [n / 8 for n in shared], [n / 2 for n in shared], [n / 4 for n in shared]


def test_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType(bert_score_package.PACKAGE)
    package.BERTScorer = FakeBERTScorer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, bert_score_package.PACKAGE, package)
    scorer = bert_score_package.package_scorer("roberta-large", ["some", "texts"])
    assert scorer(["ab", "x"], ["ba", "y"]) == [Score(0.25, 1.0, 0.5), Score(0.0, 0.0, 0.0)]
    assert scorer.name == "bert-score with roberta-large"
    with pytest.raises(ResourceError, match="encoder absent: absent is not a folder; choose"):
        bert_score_package.package_scorer("absent", ["some", "texts"])


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, bert_score_package.PACKAGE, None)  # what makes Python say that it is not there
    with pytest.raises(ResourceError, match=r"pip install 'minillama\[quality\]'"):
        bert_score_package.package_scorer("roberta-large", ["some", "texts"])
