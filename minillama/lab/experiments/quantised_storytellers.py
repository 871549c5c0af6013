"""The storyteller in other types, and the logits of a text's scored tokens: what the labs on quality measure on."""

import atexit
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int32

import minillama as ml
from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import data_file
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.file_quantiser import quantise_file
from minillama.measure.quality.text_windows import chunked


@once
def temporary_folder() -> Path:
    """A folder for files of this process, removed at its end."""
    made = tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True)
    atexit.register(made.cleanup)
    return Path(made.name)


@once
def quantised(name: str) -> Path:
    """The storyteller as `name` (`Q4_0`, `Q4_K_M`, ...), made from its F16 file once a process, in part of a second."""
    return quantise_file(
        data_file("storyteller-f16.gguf"), temporary_folder() / f"storyteller-{name.lower()}.gguf", Mix.named(name)
    ).path


@once
def load_quantised(name: str) -> LLM:
    """The storyteller as `name`, loaded once a process."""
    return ml.load(quantised(name), progress=False)


def heldout_text() -> str:
    """The stories that no model was trained on, as one text."""
    return data_file("heldout.txt").read_text(encoding="utf-8")


def scored_logits(
    llm: LLM, ids: Sequence[int], ctx_size: int = 512
) -> Iterator[tuple[Float32[np.ndarray, "T V"], Int32[np.ndarray, "T"]]]:
    """Of each window the half that llama-perplexity scores: the logits behind each token, and the tokens.

    The first token is only read; the logits behind the last have nothing to predict.
    """
    windows = chunked(llm, ids, ctx_size)
    for number in range(windows.count):
        logits = llm.logits(windows.ids(number, 1)[0].tolist())
        yield logits[windows.first :], windows.text[number, windows.first :]


@dataclass(frozen=True)
class Distance:
    """How far a model's distributions are from those of another: mean KL divergence in nats, and how often both find
    the same token likeliest."""

    kld: float
    same_top: float


def distance(base: Float[np.ndarray, "N V"], logits: Float[np.ndarray, "N V"]) -> Distance:
    """Of two models on the same tokens; `minillama perplexity --kl-divergence` for texts of any length."""
    ours, theirs = log_softmax(logits), log_softmax(base)
    kld = np.sum(np.exp(theirs) * (theirs - ours), axis=-1)
    return Distance(float(kld.mean()), float(np.mean(ours.argmax(-1) == theirs.argmax(-1))))


def log_softmax(logits: Float[np.ndarray, "N V"]) -> Float[np.ndarray, "N V"]:
    """Natural logarithms of the probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
