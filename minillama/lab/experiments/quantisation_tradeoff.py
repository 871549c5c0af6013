"""Size, quality and decode speed of each quantisation type.

Size and quality are the storyteller's, or those of a learner's model; speed is that of a model larger than the CPU's
caches."""

from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import numpy as np

from minillama.array_types import Float32
from minillama.engine.llm import LLM
from minillama.gguf.imatrix_file import ImportanceMatrix
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.file_quantiser import quantise_file
from minillama.gguf.quantise.quantise_plan import QuantiseOptions
from minillama.lab.experiments.counted_passes import decode_speed_ratio
from minillama.lab.experiments.quantised_storytellers import (
    distance,
    heldout_ids,
    load_quantised,
    quantised,
    scored_logits,
    temporary_folder,
)
from minillama.measure.quality.imatrix import split_chunks, sums_of_squares
from minillama.measure.quality.perplexity import running_perplexity

CTX = 256  # tokens of a window


@dataclass(frozen=True)
class TypeTradeOff:
    """One quantisation type: size, bits per weight, quality and speed.

    size: bytes; ppl, kld, same_top: on the held-out text, against F16; speed: as a multiple of F16's."""

    name: str
    size: int
    bits: float
    ppl: float
    kld: float
    same_top: float
    speed: float  # of 69 million random weights


def measure_type(name: str, model: str | Path | None = None) -> TypeTradeOff:
    """Measure a type: quantise a model, evaluate it, time the large shape.

    model: a notebook's MODEL; None is the storyteller.
    """
    llm = load_quantised(name, model)
    weights = sum(tensor.size for tensor in llm.file.tensors.values())
    apart = distance(base_logits(model), logits_of(llm, model))
    *_, estimate = running_perplexity(llm, scored_ids(model), ctx_size=CTX)
    size, speed = quantised(name, model).stat().st_size, decode_speed_ratio(name)
    return TypeTradeOff(name, size, 8 * llm.file.nbytes / weights, estimate.ppl, apart.kld, apart.same_top, speed)


@once
def scored_ids(model: str | Path | None = None) -> list[int]:
    """Tokens of the held-out text that all types of a model read."""
    return heldout_ids(load_quantised("F16", model), passes=16)


@once
def base_logits(model: str | Path | None = None) -> Float32[np.ndarray, "N V"]:
    """Logits of a model as F16, on the scored tokens."""
    return logits_of(load_quantised("F16", model), model)


def logits_of(llm: LLM, model: str | Path | None = None) -> Float32[np.ndarray, "N V"]:
    """Logits that predict the scored tokens of the held-out text."""
    return np.concatenate([logits[:-1] for logits, _ in scored_logits(llm, scored_ids(model), CTX)])


def importance_matrix(llm: LLM, text: str) -> ImportanceMatrix:
    """Importance matrix of a text: mean squared input of each matrix column."""
    chunks = split_chunks(llm, llm.tokenizer.encode(text), CTX)
    sums = sums_of_squares(llm, chunks)
    return ImportanceMatrix(
        {name: (values / chunks.size).astype(np.float32) for name, values in sums.items()}, "made here"
    )


def quantised_by_importance(name: str, importance: ImportanceMatrix, model: str | Path | None = None) -> str:
    """Quantise a model with an importance matrix; return the file's path."""
    target = temporary_folder() / f"{'storyteller' if model is None else 'own'}-{name.lower()}-imatrix.gguf"
    options = QuantiseOptions(importance=importance)
    return str(quantise_file(quantised("F16", model), target, Mix.named(name), options).path)
