"""The storyteller in other quantisation types, and logits of a text's scored tokens."""

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
from minillama.lab.lab_models import LabModel
from minillama.measure.quality.text_windows import chunked


@once
def temporary_folder() -> Path:
    """A temporary folder of this process."""
    made = tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True)
    atexit.register(made.cleanup)
    return Path(made.name)


@once
def quantised(name: str) -> Path:
    """File of the storyteller as `name` (`Q4_0`, `Q4_K_M`, ...).

    It is made from the F16 file once per process, in a fraction of a second."""
    return storyteller_file(name).path(temporary_folder())


def storyteller_file(name: str) -> LabModel:
    """The file of the storyteller as `name`."""
    mix = Mix.named(name)
    return LabModel(
        f"storyteller-{name.lower()}.gguf", lambda path: quantise_file(data_file("storyteller-f16.gguf"), path, mix)
    )


@once
def load_quantised(name: str) -> LLM:
    """The storyteller as `name`, loaded once per process."""
    return ml.load(quantised(name), progress=False)


def heldout_text() -> str:
    """The held-out stories as one text; no model was trained on them."""
    return data_file("heldout.txt").read_text(encoding="utf-8")


def scored_logits(
    llm: LLM, ids: Sequence[int], ctx_size: int = 512
) -> Iterator[tuple[Float32[np.ndarray, "T V"], Int32[np.ndarray, "T"]]]:
    """Logits and tokens of the half of each window that llama-perplexity scores.

    The half's first token is not predicted, and the logits after its last token predict nothing.
    """
    windows = chunked(llm, ids, ctx_size)
    for number in range(windows.count):
        logits = llm.logits(windows.ids(number, 1)[0].tolist())
        yield logits[windows.first :], windows.text[number, windows.first :]


@dataclass(frozen=True)
class Distance:
    """Mean KL divergence in nats, and share of equal top tokens."""

    kld: float
    same_top: float


def distance(base: Float[np.ndarray, "N V"], logits: Float[np.ndarray, "N V"]) -> Distance:
    """Compare the logits of two models on the same tokens.

    `minillama perplexity --kl-divergence` does this for texts of any length."""
    ours, theirs = log_softmax(logits), log_softmax(base)
    kld = np.sum(np.exp(theirs) * (theirs - ours), axis=-1)
    return Distance(float(kld.mean()), float(np.mean(ours.argmax(-1) == theirs.argmax(-1))))


def log_softmax(logits: Float[np.ndarray, "N V"]) -> Float[np.ndarray, "N V"]:
    """Natural log-probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
