"""A model in other quantisation types, and logits of a text's scored tokens.

The model is the storyteller, or a learner's own."""

import atexit
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import numpy as np

import minillama as ml
from minillama.array_types import Float, Float32, Int32
from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import data_file
from minillama.gguf import open_gguf
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.file_quantiser import quantise_file
from minillama.gguf.quantise.quantise_plan import QuantiseOptions
from minillama.lab.lab_models import LabModel
from minillama.lab.own_model import model_file, scaled
from minillama.measure.quality.text_windows import chunked

FILE_TYPE = "general.file_type"
AGAIN = QuantiseOptions(allow_requantize=True)
ROWS = 64  # of logits that are compared at a time: 150,000 tokens of float64 each


@once
def temporary_folder() -> Path:
    """A temporary folder of this process."""
    made = tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True)
    atexit.register(made.cleanup)
    return Path(made.name)


@once
def quantised(name: str, model: str | Path | None = None) -> Path:
    """File of a model as `name` (`Q4_0`, `Q4_K_M`, ...).

    model: a notebook's MODEL; None is the storyteller. The file is made once per process: from the storyteller's F16
    file in a fraction of a second, from another in some seconds for each GB. A model of that type stays as it is. One
    whose weights are rounded already is rounded again, so its F16 has the values of the file.
    """
    if model is None:
        return storyteller_file(name).path(temporary_folder())
    source = model_file(model)
    if open_gguf(source).metadata.get(FILE_TYPE) == Mix.named(name).file_type:
        return source
    target = temporary_folder() / f"own-{name.lower()}.gguf"
    return quantise_file(source, target, Mix.named(name), AGAIN).path


def storyteller_file(name: str) -> LabModel:
    """The file of the storyteller as `name`."""
    mix = Mix.named(name)
    return LabModel(
        f"storyteller-{name.lower()}.gguf", lambda path: quantise_file(data_file("storyteller-f16.gguf"), path, mix)
    )


@once
def load_quantised(name: str, model: str | Path | None = None) -> LLM:
    """A model as `name`, loaded once per process; None is the storyteller."""
    return ml.load(quantised(name, model), progress=False)


def heldout_text() -> str:
    """The held-out stories as one text; no model was trained on them."""
    return data_file("heldout.txt").read_text(encoding="utf-8")


def heldout_ids(llm: LLM, passes: int, *, least: int = 512) -> list[int]:
    """Tokens of the held-out text, fewer for a large model.

    passes: how often the model reads them in a minute. least: the fewest tokens.
    Use the same tokens for all types of a model.
    """
    ids = llm.tokenizer.encode(heldout_text())
    return ids[: scaled(len(ids), llm, passes, rows=8, least=least)]


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
    kld = np.concatenate(
        [_divergences(base[at : at + ROWS], logits[at : at + ROWS]) for at in range(0, len(base), ROWS)]
    )
    return Distance(float(kld.mean()), float(np.mean(logits.argmax(-1) == base.argmax(-1))))


def _divergences(base: Float[np.ndarray, "N V"], logits: Float[np.ndarray, "N V"]) -> Float[np.ndarray, "N"]:
    ours, theirs = log_softmax(logits), log_softmax(base)
    return np.asarray(np.sum(np.exp(theirs) * (theirs - ours), axis=-1))


def log_softmax(logits: Float[np.ndarray, "N V"]) -> Float[np.ndarray, "N V"]:
    """Natural log-probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
