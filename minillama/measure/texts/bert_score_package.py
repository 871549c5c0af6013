"""BERTScore with a pretrained encoder, through the package `bert-score` (extra `quality`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from minillama.errors import ResourceError, first_line
from minillama.measure.texts.relevance import Score, Scorer

PACKAGE = "bert_score"


@dataclass(frozen=True, eq=False)
class PackageScorer(Scorer):
    """Scores of an encoder such as `roberta-large`, with idf weights. Made by `package_scorer`."""

    model_type: str
    scorer: Any = field(repr=False)  # a bert_score.BERTScorer

    @property
    def name(self) -> str:
        return f"bert-score with {self.model_type}"

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[Score]:
        columns = self.scorer.score(list(candidates), list(references))
        return [Score(*map(float, triple)) for triple in zip(*columns, strict=True)]


def package_scorer(model_type: str, documents: Sequence[str]) -> PackageScorer:
    """A scorer with an encoder of `transformers`, given by name or folder.

    documents: texts that give the idf weights. Raises ResourceError if the package or the encoder is missing.
    """
    try:
        package = import_module(PACKAGE)
    except ImportError as error:
        raise ResourceError(
            f"scores of {model_type} need the package bert-score ({error}): pip install 'minillama[quality]'"
        ) from error
    try:
        scorer = package.BERTScorer(model_type=model_type, idf=True, idf_sents=list(documents))
    except (OSError, KeyError, ValueError) as error:  # unknown encoder, no network, or no default layer for it
        raise ResourceError(
            f"encoder {model_type}: {first_line(error)}; choose one that bert-score supports, such as roberta-large"
        ) from error
    return PackageScorer(model_type, scorer)
