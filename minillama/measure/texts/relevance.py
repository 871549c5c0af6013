"""Similarity of texts to references: BERTScore's greedy matching (Zhang et al. 2020, arXiv:1904.09675).

Each token of a text is matched with the token of the other text whose vector has the largest cosine similarity. The
vectors are hidden states of a language model. Scores are comparable only within one model, layer and baseline.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from minillama.array_types import Float
from minillama.engine.llm import LLM
from minillama.measure.texts.diversity import mean_defined
from minillama.measure.texts.hidden_states import default_layer, hidden_states


@dataclass(frozen=True)
class Score:
    """Precision (share of the candidate in the reference), recall (the reverse), and F1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Idf:
    """Inverse document frequencies of tokens; calling it gives the weights of a sequence."""

    documents: int
    counts: Mapping[Hashable, int] = field(repr=False)  # documents with a token

    def __call__(self, tokens: Iterable[Hashable]) -> Float[np.ndarray, "T"]:
        """log((M + 1) / (m + 1)) of a token in m of M documents, with BERTScore's plus-one smoothing."""
        return np.array([math.log((self.documents + 1) / (self.counts.get(token, 0) + 1)) for token in tokens])


class Scorer(ABC):
    """Scores texts by their similarity to references, pair by pair."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the method, shown under tables."""

    @abstractmethod
    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[Score]:
        """The score of each candidate with the reference at the same index."""


def idf(documents: Iterable[Iterable[Hashable]]) -> Idf:
    """Count the documents that contain each token."""
    held = [set(document) for document in documents]
    return Idf(len(held), Counter(token for tokens in held for token in tokens))


def bert_score(
    candidate: Float[np.ndarray, "T D"],
    reference: Float[np.ndarray, "S D"],
    candidate_weights: Float[np.ndarray, "T"] | None = None,
    reference_weights: Float[np.ndarray, "S"] | None = None,
) -> Score:
    """BERTScore of token vectors.

    Precision is the weighted mean over the candidate's tokens of the largest cosine with a token of the reference;
    recall swaps the two. Without weights, or if all weights of a text are 0 (its tokens are in every document), all
    tokens count the same. An empty text scores 0, as in the authors' package.
    """
    if not len(candidate) or not len(reference):
        return Score(0.0, 0.0, 0.0)
    cosines = _unit(candidate) @ _unit(reference).T
    precision = _weighted_mean(cosines.max(axis=1), candidate_weights)
    recall = _weighted_mean(cosines.max(axis=0), reference_weights)
    total = precision + recall
    return Score(precision, recall, 2 * precision * recall / total if total > 0 else 0.0)


def rescale(score: Score, baseline: Score) -> Score:
    """(score - baseline) / (1 - baseline), per field (section 3 of the paper).

    Unrelated texts score 0 on average, equal texts 1; values below 0 are possible. A baseline of 1 gives nan.
    """
    pairs = zip(astuple(score), astuple(baseline), strict=True)
    return Score(*((value - base) / (1 - base) if base < 1 else math.nan for value, base in pairs))


def random_pairs(count: int, texts: int, seed: int = 0) -> list[tuple[int, int]]:
    """`count` uniformly random pairs of different indices below `texts`; empty for fewer than two texts."""
    if texts < 2:
        return []
    random = np.random.default_rng(seed)
    first, offset = random.integers(texts, size=count), random.integers(1, texts, size=count)
    return list(zip(first.tolist(), ((first + offset) % texts).tolist(), strict=True))


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean per field; nan without scores."""
    columns = zip(*map(astuple, scores), strict=True) if scores else [()] * 3
    return Score(*map(mean_defined, columns))


@dataclass(frozen=True, eq=False)
class HiddenScorer(Scorer):
    """BERTScore on the hidden states of any loaded model. Made by `hidden_scorer`.

    BOS precedes each text if the model has one, but is not matched: in a causal model the first position collects
    attention, and its state says little about a token.
    """

    llm: LLM = field(repr=False)
    layer: int  # states after this many layers
    weights: Idf = field(repr=False)

    @property
    def name(self) -> str:
        return f"hidden states after layer {self.layer} of {self.llm.config.block_count} of {self.llm.path.name}"

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[Score]:
        """Scores of pairs; each different text is computed once."""
        texts = list(dict.fromkeys([*candidates, *references]))
        tokens = {text: _tokens(self.llm, text) for text in texts}
        prefix = [] if self.llm.tokenizer.bos is None else [self.llm.tokenizer.bos]
        states = hidden_states(self.llm, [prefix + tokens[text] for text in texts], self.layer)
        vectors = {text: found[len(prefix) :] for text, found in zip(texts, states, strict=True)}
        weights = {text: self.weights(tokens[text]) for text in texts}
        return [
            bert_score(vectors[one], vectors[other], weights[one], weights[other])
            for one, other in zip(candidates, references, strict=True)
        ]


def hidden_scorer(llm: LLM, documents: Sequence[str], layer: int | None = None) -> HiddenScorer:
    """A scorer on a model's hidden states, with idf weights from documents.

    layer: 1 to the number of layers; None for `default_layer`.
    """
    layer = default_layer(llm.config.block_count) if layer is None else layer
    return HiddenScorer(llm, layer, idf(_tokens(llm, document) for document in documents))


def _tokens(llm: LLM, text: str) -> list[int]:
    return llm.tokenizer.encode(text, add_special=False, parse_special=False)


def _unit(vectors: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "T D"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _weighted_mean(values: Float[np.ndarray, "T"], weights: Float[np.ndarray, "T"] | None) -> float:
    if weights is None or not weights.any():
        return float(values.mean())
    return float(values @ weights / weights.sum())
